"""Where archiver could leave a planted secret: the destination, its own files, temporary files, process listings."""

import os
import stat
from pathlib import Path

import pytest

from archiver.crypto.identities import read_identity_file
from archiver.crypto.minisign import SigningKey
from tests.operations.scene import SOURCE, archiver, finish, spawn
from tests.security.detector import Detector
from tests.security.planting import Planted, key_secret, no_umask, plant, stored
from tests.security.processes import watched

COMMANDS = (
    ("doctor", "--config", "{config}"),
    ("backup", "--config", "{config}"),
    ("list", "--identity", "{card}"),
    ("verify", "--level", "restore", "--identity", "{card}"),
    ("restore", "--to", "{out}", "--identity", "{card}"),
)
AUDITED = """
import sys
def note(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        with open({path!r}, "a") as file:
            file.write(repr(arguments[:2]) + "\\n")
sys.addaudithook(note)
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Made while no umask protects what archiver creates. Temporary files have a place of their own."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with no_umask():
        return plant(tmp_path / "planted")


def filled(planted: Planted, arguments: tuple[str, ...], out: Path) -> list[str]:
    scene = planted.scene
    return [text.format(config=scene.config, card=scene.card, out=out) for text in arguments]


def files(*roots: Path) -> list[Path]:
    return [path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]


def test_nothing_private_lies_in_the_destination(planted: Planted) -> None:
    keys = []
    for key, data in stored(planted.scene):
        keys.append(key)
        assert planted.detector.find_stored(key, data) == set(), key
    for end in (
        ".json",
        ".minisig",
        ".started",
        ".objects.jsonl.zst",
        ".placement.jsonl.zst",
        ".contents.jsonl.zst.age",
    ):
        assert any(key.endswith(end) for key in keys), end
    assert {key.split(".")[1] for key in keys if "/data/" in key} >= {"mdb", "tar", "file"}


def test_a_secret_is_in_its_own_file_only_and_nobody_else_may_read_that(planted: Planted, tmp_path: Path) -> None:
    """After every kind of command, without a umask. Labels are in none of them either, and names of media files only in
    what the host remembers of these."""
    scene = planted.scene
    with no_umask():
        for arguments in COMMANDS:
            done = archiver(*filled(planted, arguments, tmp_path / "restored"))
            assert done.code in (0, 3), done.errors
    own = files(scene.root, planted.home, tmp_path / "work", tmp_path / "temporary")
    own = [path for path in own if not path.is_relative_to(scene.data)]
    assert {path.name for path in own} >= {"archiver.toml", "card.txt", "archiver-signing.key", "hybrid.txt"}
    assert any(path.is_relative_to(scene.state) for path in own)
    found = {path.name: planted.detector.find_stored(path.name, path.read_bytes()) for path in own}
    assert {name: secrets for name, secrets in found.items() if secrets} == {
        "card.txt": {"operator's identity"},
        "archiver-signing.key": {"signing key"},
        "hybrid.txt": {"post-quantum identity"},
        "data.mdb": {"file", "directory"},
    }
    for path in own:
        if found[path.name]:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert list((tmp_path / "temporary").iterdir()) == []


def test_new_secrets_are_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask, and from the moment that the file exists."""
    monkeypatch.chdir(tmp_path)
    seen: list[int] = []
    genuine = os.fdopen

    def watched_open(descriptor: int, *arguments: object, **named: object) -> object:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return genuine(descriptor, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr("archiver.crypto.identities.os.fdopen", watched_open)
    (tmp_path / "media").mkdir()
    card = tmp_path / f"recovery-card-{SOURCE}.txt"
    with no_umask():
        init = ("init", "--to", (tmp_path / "store").as_uri(), "--source", SOURCE, "--media", "media")
        for arguments in (init, ("keys", "generate", "--output", "operator.txt")):
            done = archiver(*arguments)
            assert done.code == 0, done.errors
            new = card if arguments is init else tmp_path / "operator.txt"
            detector = Detector([key_secret("identity", read_identity_file(new)[0])])
            assert detector.find(done.raw + done.errors.encode()) == set()
    signer = SigningKey.parse((tmp_path / "archiver-signing.key").read_text())
    assert "RW" in str(signer.verify_key)
    assert seen == [0o600] * 3
    for path in (card, tmp_path / "operator.txt", tmp_path / "archiver-signing.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_no_process_shows_a_secret(planted: Planted, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Neither its own arguments and name, as ``ps`` shows them to everybody, nor those of what it starts."""
    notes = tmp_path / "started"
    process = spawn(*filled(planted, arguments, tmp_path / "restored"), before=AUDITED.format(path=str(notes)))
    with watched(process) as watch:
        watch.wait_for(arguments[0])
        done = finish(process)
    assert done.code in (0, 3), done.errors
    if arguments[0] == "backup":
        assert "archiver.environment.helper" in notes.read_text(), "it started no helper, so nothing was seen"
    shown = watch.seen + (notes.read_text() if notes.exists() else "")
    assert planted.detector.find(shown) == set()
    assert planted.detector.find(done.raw + done.errors.encode(), "key", "content") == set()
