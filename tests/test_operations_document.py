"""docs/OPERATIONS.md does what it says: what runs every night, keeping a backup, what a month costs; deleting one
backup, finding what no complete backup needs, and changing who can restore."""

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from archiver.cli.keys import keys as commands_about_keys
from tests.environment.live import make_environment
from tests.operations.scene import Scene, archiver
from tests.vectors.destination import DESTINATION
from tests.waiting import PATIENCE

DOCUMENT = Path(__file__).parent.parent / "docs" / "OPERATIONS.md"
TEXT = DOCUMENT.read_text("utf-8")
DELETE, FIND_ORPHANS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
OPERATORS = TEXT.partition("\n## Operators\n")[2].partition("\n## ")[0]
NIGHTLY = re.findall(r"^[0-9* ]+  root  archiver (.*)$", TEXT, re.MULTILINE)
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
SEVERAL_HOSTS = TEXT.partition("\n## Several hosts for one source\n")[2].partition("\n## ")[0]
BACKUP = next(DESTINATION.glob("daily/backups/example/*")).name
OLD = time.time() - 3 * 86400


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A destination with one backup in the class ``daily`` and a copy of it, with the same objects, in ``monthly``."""
    store = tmp_path / "a store"
    shutil.copytree(DESTINATION, store)
    shutil.copytree(store / "daily", store / "monthly")
    for path in keys(store):
        os.utime(store / path, (OLD, OLD))
    return store


def keys(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def run(script: str, store: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STORE": str(store), "SOURCE": "example"} | variables
    return subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def orphans(store: Path) -> set[str]:
    """What the second block lists."""
    found = store.parent / "orphans"
    result = run(FIND_ORPHANS, store, ORPHANS=str(found))
    assert result.returncode == 0, result.stderr
    return {line.removeprefix("./") for line in found.read_text("utf-8").splitlines()}


def test_a_backup_is_deleted_whole(store: Path) -> None:
    shutil.rmtree(store / "monthly")

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    assert {key.split("/")[0] for key in keys(store)} == {"vault"}


def test_objects_that_another_backup_needs_stay(store: Path) -> None:
    before = keys(store)

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    gone = before - keys(store)
    assert gone
    assert all(BACKUP in key and key.startswith("daily/") for key in gone)


def test_what_a_copy_in_a_shorter_class_refers_to_stays(store: Path) -> None:
    """The original has expired, and a copy in ``weekly`` refers to the objects of that in ``monthly``."""
    placement = store / f"daily/data/example/{BACKUP}.placement.jsonl.zst"
    moved = zstd("-dc", placement.read_bytes()).replace(b"daily/", b"monthly/")
    shutil.rmtree(store / "daily")
    weekly = store / "weekly"
    shutil.copytree(store / "monthly" / "backups", weekly / "backups")
    for name in ("weekly", "monthly"):
        path = store / f"{name}/data/example/{BACKUP}.placement.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zstd("-c", moved))

    result = run(DELETE, store, BACKUP=BACKUP, CLASS="monthly")

    assert result.returncode == 0, result.stderr
    assert "deleted" in result.stdout
    assert {key for key in keys(store) if key.startswith("monthly/")} == set(
        re.findall(r'"key":"(.*?)"', moved.decode())
    )
    assert not (store / "monthly/backups/example" / BACKUP / "manifest.json").exists()


def test_further_copies_and_terms_are_deleted_too(store: Path) -> None:
    """An object may have a key with a part that tells its copies in one class apart."""
    shutil.rmtree(store / "daily")
    data = store / "monthly/data/example"
    placement = data / f"{BACKUP}.placement.jsonl.zst"
    lines = zstd("-dc", placement.read_bytes()).decode().replace("daily/", "monthly/")
    lines = re.sub(r"/([0-9a-f]{32})[.](\w+)[.]zst", r"/\1.0123abcd.\2.zst", lines)
    placement.write_bytes(zstd("-c", lines.encode()))
    for key in re.findall(r'"key":"(.*?)"', lines):
        (store / key.replace(".0123abcd", "")).rename(store / key)
    (store / "monthly/backups/example" / BACKUP / "terms.json").write_text("{}")

    result = run(DELETE, store, BACKUP=BACKUP, CLASS="monthly")

    assert result.returncode == 0, result.stderr
    assert {key.split("/")[0] for key in keys(store)} == {"vault"}


def zstd(option: str, data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", option], input=data, capture_output=True, check=True).stdout


def test_a_placement_cannot_delete_what_is_no_object_of_the_source(store: Path) -> None:
    shutil.rmtree(store / "monthly")
    vault = next(key for key in keys(store) if key.startswith("vault/"))
    lines = "".join(f'{{"id":"0","key":"{key}"}}\n' for key in (vault, f"daily/data/example/../../../{vault}"))
    placement = store / f"daily/data/example/{BACKUP}.placement.jsonl.zst"
    placement.write_bytes(subprocess.run(["zstd", "-c"], input=lines.encode(), capture_output=True, check=True).stdout)

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    assert vault in keys(store)


def test_deleting_what_is_not_there_fails(store: Path) -> None:
    before = keys(store)

    assert run(DELETE, store, BACKUP="20200101T000000Z-000000").returncode != 0
    assert keys(store) == before


def test_orphans_are_what_no_complete_backup_needs(store: Path) -> None:
    shutil.rmtree(store / "monthly")
    assert orphans(store) == set()
    data = store / "daily/data/example"
    left = {data / "20260101T000000Z-abcdef.started", data / f"{'0' * 32}.tar.zst.age", data / ".~0123.partial"}
    for path in left:
        path.touch()
    assert orphans(store) == set()
    for path in left:
        os.utime(path, (OLD, OLD))

    assert orphans(store) == {str(path.relative_to(store)) for path in left}


def test_a_store_without_a_complete_backup_is_not_taken_for_orphans(store: Path) -> None:
    for manifest in store.glob("*/backups/*/*/manifest.json"):
        manifest.unlink()

    assert run(FIND_ORPHANS, store, ORPHANS=str(store.parent / "orphans")).returncode != 0
    assert not (store.parent / "orphans").exists()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A source whose configuration lies in the working directory."""
    make_environment(tmp_path / "vector", 5)
    monkeypatch.chdir(tmp_path)
    scene = Scene(tmp_path, (tmp_path / "destination").as_uri())
    place = ("--to", scene.url, "--source", "prod", "--environment", f"vector={tmp_path}/vector")
    assert archiver("init", *place, "--card", "card.txt").code == 0
    scene.config.write_text('state_directory = "state"\n' + scene.config.read_text())
    return scene


@pytest.mark.usefixtures("scene")
def test_what_runs_every_night() -> None:
    """In a directory; ``doctor`` warns of the card that still lies on the host, and of the only operator."""
    assert [command.split()[0] for command in NIGHTLY] == ["backup", "expire", "lifecycle", "doctor"]
    for _ in range(2):
        for command in NIGHTLY:
            done = archiver(*command.split())
            assert done.code == (3 if command.startswith("doctor") else 0), (command, done.errors)
            assert not done.errors


def test_keeping_a_backup_after_an_incident(scene: Scene) -> None:
    backup = scene.backup()
    section = SECTIONS["Keep a backup after an incident"]
    commands = re.findall(r"^archiver (.*)$", section, re.MULTILINE)
    held = []
    for command in commands:
        done = archiver(*command.replace("BACKUP", backup).split())
        assert done.code == 0, (command, done.errors)
        held.append(any((scene.destination / "held").rglob("manifest.json")))
    assert held == [False, False, True, True, True, False]
    assert scene.backups() == [backup]


def test_what_a_month_costs(scene: Scene) -> None:
    scene.backup()
    copy, command = re.findall(r"^(?:cp|archiver) .*$", SECTIONS["What it costs"], re.MULTILINE)
    _, source, target = copy.split()
    shutil.copy(DOCUMENT.parent.parent / source, scene.root / target)

    done = archiver(*command.split()[1:])

    assert done.code == 0, done.errors
    assert "a full restore from daily" in done.output


def test_every_command_of_the_page_exists() -> None:
    """With the options that stand there, as far as ``--help`` can tell."""
    for line in re.findall(r"^(?:[0-9* ]+  root  )?archiver (.*)$", TEXT, re.MULTILINE):
        words = line.split()
        path = [word for word in words[:2] if re.fullmatch("[a-z]+", word)]
        shown = archiver(*path, "--help")
        if shown.code:
            shown = archiver(path[0], "--help")
        assert shown.code == 0, line
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in shown.output, (line, option)


def test_the_commands_about_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the section's, in order: Bob is added, the first operator removed, the vault rotated, a card made."""
    make_environment(tmp_path / "vector", 5)
    monkeypatch.chdir(tmp_path)
    scene = Scene(tmp_path, (tmp_path / "destination").as_uri())
    place = ("--to", scene.url, "--source", "prod", "--environment", f"vector={tmp_path}/vector")
    assert archiver("init", *place, "--card", "recovery-card.txt").code == 0
    scene.config.write_text('state_directory = "state"\n' + scene.config.read_text())
    old = scene.backup()
    commands = re.findall(r"^archiver (.*)$", OPERATORS, re.MULTILINE)
    assert len(commands) == 9
    recipient = ""
    for command in commands:
        done = archiver(*shlex.split(command.replace("RECIPIENT", recipient)))
        assert done.code == 0, (command, done.errors)
        if command.startswith("keys generate"):
            recipient = done.output.strip()
    new = scene.backup()
    for name in (old, new):
        done = archiver("verify", name, "--level", "data", "--identity", "new-card.txt")
        assert done.code == 0, done.errors
        assert archiver("verify", name, "--level", "data", "--identity", "recovery-card.txt").code == 4


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, Scene]:
    """Two hosts that back up one source, the second set up as the page says; and a card that knows both."""
    first, second = (Scene(tmp_path / name, (tmp_path / "destination").as_uri()) for name in ("a", "b"))
    for scene in (first, second):
        make_environment(scene.root / "vector", 5)
    monkeypatch.chdir(first.root)
    place = ("--to", first.url, "--source", "prod", "--environment", f"vector={first.root}/vector")
    assert archiver("init", *place, "--card", "card-a.txt").code == 0
    text = 'state_directory = "state"\n' + first.config.read_text()
    own = re.findall(r'"(RW\S+)"', text)[0]
    (command,) = re.findall(r"^archiver (.*)$", SEVERAL_HOSTS, re.MULTILINE)
    monkeypatch.chdir(second.root)
    done = archiver(*shlex.split(command))
    assert done.code == 0, done.errors
    text = text.replace(f'"{own}"', f'"{own}", "{done.output.strip()}"')
    first.config.write_text(text)
    text = text.replace("archiver-signing.key", command.split()[-1])
    second.config.write_text(text.replace(f"{first.root}/vector", f"{second.root}/vector"))
    monkeypatch.chdir(first.root)
    assert archiver("keys", "card", "--output", str(first.card), "--identity", "card-a.txt").code == 0
    return first, second


def test_hosts_with_keys_of_their_own_share_one_chain(hosts: tuple[Scene, Scene]) -> None:
    first, second = hosts
    made = [scene.backup() for scene in (first, second, second, first, second)]

    # Neither a warning nor a code other than 0, which ``backup`` and ``backups`` would not take.
    assert first.backups() == made[::-1]
    documents = archiver("list", *first.identity, "--json").document
    assert len({document["signer"] for document in documents}) == 2
    (first.root.parent / "destination/daily/backups/prod" / made[3] / "manifest.json").unlink()
    done = archiver("list", *first.identity)
    assert done.code == 4
    assert made[3] in done.errors
    assert archiver("list", "--identity", "card-a.txt").code == 4, "the page says that this card refuses the second's"


@pytest.mark.parametrize("goes_on", [0, 1])
def test_runs_that_overlapped_are_told_and_one_of_them_is_never_named(hosts: tuple[Scene, Scene], goes_on: int) -> None:
    first, second = hosts
    first.backup()
    second.backup()
    overlapping = [first.backup()]
    manifest = first.root.parent / "destination/daily/backups/prod" / overlapping[0] / "manifest.json"
    manifest.rename(first.root / "not committed yet")
    overlapping.append(second.backup())
    (first.root / "not committed yet").rename(manifest)

    scenes = (first, second) if goes_on == 0 else (second, first)
    for scene in scenes * 2:
        scene.backup()

    done = archiver("list", *first.identity)
    assert done.code == 3
    assert "expected a greater one" in done.errors
    for name, code in ((overlapping[1 - goes_on], 0), (overlapping[goes_on], 4)):
        (manifest.parent.with_name(name) / "manifest.json").unlink()
        assert archiver("list", *first.identity).code == code, name


def test_the_section_names_every_command_about_keys() -> None:
    for name in commands_about_keys.commands:
        assert re.search(rf"keys {name}\b|`{name}`", OPERATORS), name
