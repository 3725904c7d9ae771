"""Every way to hand archiver a secret, and commands that make new ones: none of them is told to anybody else."""

import os
import subprocess
from pathlib import Path

import pytest

from archiver.crypto.identities import read_identity_file
from tests.cli.terminal import ARCHIVER, terminal
from tests.operations.scene import Scene, archiver, command_line
from tests.security.house import vault_identity
from tests.security.planting import Planted, Said, check, key_secret, plant, stored
from tests.security.processes import watched
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE

PROMPT = "Passphrase: "


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    monkeypatch.chdir(tmp_path)
    return plant(tmp_path / "planted")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """For commands that fail before they change anything."""
    return plant(tmp_path_factory.mktemp("planted"))


def of(scene: Scene, *arguments: str) -> list[str]:
    return [*arguments, "--config", str(scene.config)]


@pytest.mark.parametrize("answer", ["right", "wrong", "none"])
def test_a_passphrase_that_is_typed(planted: Planted, answer: str) -> None:
    """It is not shown on the terminal, and in no list of processes."""
    typed = {"right": planted.passphrase, "wrong": planted.passphrase[::-1], "none": ""}[answer]
    with terminal() as person:
        person.start(ARCHIVER, *of(planted.scene, "verify", "--level", "data", "--passphrase", "--verbose"))
        assert person.process is not None
        with watched(person.process) as watch:
            watch.wait_for("--passphrase")
            person.answer(PROMPT, typed)
            done = person.finish()
        assert done.code == {"right": 0, "wrong": 4, "none": 2}[answer], done.errors
        for text in (person.seen, watch.seen, done.raw, done.errors):
            assert planted.detector.find(text, "key", "content") == set()
            assert not typed or typed not in str(text)


def test_a_passphrase_without_a_terminal(planted: Planted) -> None:
    """It is not taken from standard input, where a script might have put something else."""
    command = command_line(*of(planted.scene, "verify", "--level", "data", "--passphrase", "--verbose"))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, input=f"{planted.passphrase}\n".encode(), env=environment, capture_output=True, start_new_session=True
    )
    assert done.returncode == 2
    assert planted.detector.find(done.stdout + done.stderr) == set()


@pytest.mark.parametrize("change", ["", "cut", "lower"])
def test_an_identity_on_standard_input(planted: Planted, change: str) -> None:
    text = planted.scene.card.read_text().rstrip()
    given = {"": text, "cut": text[:-1], "lower": text.replace("AGE-SECRET", "age-secret")}[change]
    process = subprocess.Popen(
        command_line("verify", "--level", "data", "--identity", "-", "--verbose"),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with watched(process) as watch:
        watch.wait_for("--identity")
        output, errors = process.communicate(given.encode(), timeout=PATIENCE)
    assert process.returncode == (2 if change else 0), errors
    assert planted.detector.find(output + errors, "key", "content") == set()
    assert planted.detector.find(watch.seen) == set()


def test_an_identity_in_a_file_that_the_environment_names(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", str(planted.hybrid))
    check(planted, planted.run(monkeypatch, *of(planted.scene, "verify", "--level", "data", "--verbose")), 0)
    # The secret itself in place of the file's name, as some tools want it.
    secret = planted.hybrid.read_text().split()[-1]
    for value in (secret, f" {secret}", secret.lower(), f"{secret[:40]} {secret[40:]}"):
        monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", value)
        for mode in ("--verbose", "--json"):
            check(planted, planted.run(monkeypatch, *of(planted.scene, "verify", "--level", "data", mode)), 2)


WRONG_PLACES = [
    ("{secret}",),
    ("keys", "{secret}"),
    ("restore", "{secret}", "--identity", "{card}", "--to", "out"),
    ("restore", "--to", "{secret}", "--identity", "{card}"),
    ("restore", "--at", "{secret}", "--identity", "{card}", "--to", "out"),
    ("restore", "--only", "{secret}", "--identity", "{card}", "--to", "out"),
    ("restore", "--identity", " {secret}", "--to", "out"),
    ("list", "--identity", "{split}"),
    ("list", "--source", "{secret}", "--identity", "{card}"),
    ("list", "--from", "{secret}"),
    ("list", "--verify-key", "{secret}", "--from", "file:///x"),
    ("list", "--config={secret}"),
    ("keys", "check", "{secret}", "--identity", "{card}"),
    ("keys", "add", "{secret}", "--recipient", "age1", "--identity", "{card}"),
    ("keys", "add", "bob", "--recipient", "{secret}", "--identity", "{card}"),
    ("keys", "add", "bob", "--kms-key", "{secret}", "--identity", "{card}"),
    ("keys", "remove", "{secret}", "--identity", "{card}"),
    ("keys", "generate", "--output", "{secret}"),
    ("init", "--to", "file:///x", "--source", "x", "--operator", "{secret}"),
    ("backup", "--label", "{secret}", "--config", "{config}"),
]


@pytest.mark.parametrize("mode", ["--verbose", "--json"])
@pytest.mark.parametrize("arguments", WRONG_PLACES, ids=" ".join)
def test_a_secret_key_in_the_wrong_place(
    unchanged: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], mode: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = unchanged.scene
    for file in (scene.card, unchanged.hybrid, scene.root / "archiver-signing.key"):
        secret = file.read_text().split()[-1]
        places = {"secret": secret, "split": f"{secret[:40]} {secret[40:]}", "card": scene.card, "config": scene.config}
        said = unchanged.run(monkeypatch, *(argument.format_map(places) for argument in arguments), mode)
        check(unchanged, said, 2)
        assert secret[40:] not in said.everything


@pytest.mark.parametrize(
    "arguments",
    [
        ("restore", "latest", "--passphrase", "{passphrase}", "--to", "out", "--identity", "{card}"),
        ("restore", "--passphrase={passphrase}", "--to", "out", "--identity", "{card}"),
        ("verify", "--passphrase", "{passphrase}", "--identity", "{card}"),
        ("keys", "add", "{passphrase}", "--new-passphrase", "{passphrase}", "--identity", "{card}"),
    ],
    ids=" ".join,
)
def test_a_passphrase_in_the_wrong_place(
    unchanged: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Also where it is taken for the name of a backup, and the right one is typed then."""
    monkeypatch.chdir(tmp_path)
    places = {"passphrase": unchanged.passphrase, "card": unchanged.scene.card}
    with terminal() as person:
        person.start(ARCHIVER, *(argument.format_map(places) for argument in arguments))
        if arguments[0] == "verify":
            person.answer(PROMPT, unchanged.passphrase)
        done = person.finish()
        assert done.code in (2, 5), done.errors
        assert unchanged.detector.find(done.raw + done.errors.encode() + person.seen, "key", "content") == set()


def test_commands_that_change_keys(planted: Planted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also of the secrets that they make nothing is said, and nothing is stored in clear."""
    scene, bob = planted.scene, tmp_path / "bob.txt"
    assert archiver("keys", "generate", "--output", str(bob)).code == 0
    (identity,) = read_identity_file(bob)
    planted.secrets.append(key_secret("bob's identity", identity))
    card = ("--identity", str(scene.card))
    hybrid = ("--identity", str(planted.hybrid))
    said: list[Said] = []
    for arguments in (
        ("add", "bob", "--recipient", str(identity.recipient), *card, "--verbose"),
        ("add", "bob", "--recipient", str(identity.recipient), *card),
        ("rotate", *card, "--verbose"),
        ("check", *card, "--verbose"),
        ("check", *hybrid, "--json"),
        ("card", "--output", str(tmp_path / "card.txt"), *card, "--verbose"),
        ("remove", "hybrid", *card, "--json", "--verbose"),
        ("remove", "test", *hybrid),
        ("show", *card, "--verbose"),
    ):
        said.append(planted.run(monkeypatch, *of(scene, "keys", *arguments)))
    planted.secrets.append(key_secret("the new vault's identity", vault_identity(scene)))
    for one in said:
        check(planted, one, 0, 2, 3, 4, 6)
    first, again, rotated, checked, *_ = [one.done.code for one in said]
    # Two operators are not in the configuration, so the new vault is not sealed to them.
    assert (first, again, rotated, checked) == (0, 6, 3, 0)
    for key, data in stored(scene):
        assert planted.detector.find_stored(key, data) == set(), key
    assert planted.detector.find(scene.config.read_bytes()) == set()
