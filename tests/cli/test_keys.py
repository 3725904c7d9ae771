"""The commands about keys, one after the other as in life: in a directory and in S3, with operators of all kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.checking import check
from tests.cli.terminal import terminal, typed
from tests.environment.live import make_environment
from tests.operations.operators import (
    OWNER,
    add,
    can_open,
    can_read,
    current_vault,
    files,
    keys,
    make_operator,
    operators,
    state,
)
from tests.operations.scene import Done, Scene, archiver, configure
from tests.servers.kms import KmsService
from tests.servers.process import S3Server

PASSPHRASE = "correct horse battery staple"
ANOTHER = "staple battery horse correct"


@pytest.fixture(params=["directory", "localstack"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A small source whose destination is a directory, and then a bucket."""
    root = tmp_path / "scene"
    url = (root / "destination").as_uri()
    scene = Scene(root, str(request.getfixturevalue("localstack_url")) if request.param == "localstack" else url)
    make_environment(scene.data / "vector", 20)
    monkeypatch.chdir(tmp_path)
    configure(scene)
    return scene


@pytest.fixture
def kms(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


def restores(scene: Scene, identity: tuple[str, ...], backup: str, name: str) -> bool:
    """Whether a restore of ``backup`` with the configuration and this identity works."""
    out = scene.root / f"{name}-{backup}"
    done = archiver("restore", backup, *identity, "--to", str(out), "--config", str(scene.config))
    assert done.code in (0, 4), done.errors
    return done.code == 0


def test_the_whole_story(anywhere: Scene) -> None:
    scene, alice = anywhere, anywhere.identity
    old = scene.backup()
    bob = make_operator(scene, "bob", post_quantum=True)

    assert add(scene, bob).code == 0
    assert restores(scene, bob.identity, old, "bob")

    assert keys(scene, "rotate", *bob.identity).code == 0
    new = scene.backup()
    for name, identity in (("alice", alice), ("bob-too", bob.identity)):
        assert can_open(scene, identity)
        assert restores(scene, identity, old, name)
        assert restores(scene, identity, new, name)

    removed = keys(scene, "remove", OWNER, *bob.identity)
    assert removed.code == 0, removed.errors
    assert {name.split("/")[1] for name in files(scene)} == {"bob.age"}
    assert operators(scene).keys() == {"bob"}
    assert not can_open(scene, alice)
    assert not restores(scene, alice, old, "alice-again")
    assert can_open(scene, bob.identity)

    assert keys(scene, "rotate", "--post-quantum", *bob.identity).code == 0
    newest = scene.backup()
    for backup in (old, new, newest):
        assert restores(scene, bob.identity, backup, "bob-alone")
    card = scene.root / "card-of-bob.txt"
    assert keys(scene, "card", "--output", str(card), *bob.identity).code == 0
    assert archiver("verify", "--all", "--level", "data", "--identity", str(card)).code == 0
    shown = keys(scene, "show", "--json")
    assert (shown.code, len(shown.document["vaults"])) == (0, 3)


def test_an_operator_with_a_passphrase(scene: Scene) -> None:
    """Asked for on a terminal, shown nowhere."""
    scene.backup()
    config = ("--config", str(scene.config))
    first, again = ("New passphrase of the operator: ", PASSPHRASE), ("The same again: ", PASSPHRASE)
    added = typed(["keys", "add", "carol", "--new-passphrase", *scene.identity, *config], first, again)
    assert added.code == 0, added.errors
    assert operators(scene)["carol"] == "passphrase"
    opening = ("Passphrase: ", PASSPHRASE)
    assert typed(["keys", "check", "--passphrase", *config], ("Passphrase: ", ANOTHER)).code == 4
    rotated = typed(
        ["keys", "rotate", "--passphrase", *config],
        opening,
        ("Passphrase of carol for the new vault: ", PASSPHRASE),
        again,
    )
    assert rotated.code == 0, rotated.errors
    scene.backup()
    assert typed(["verify", "--level", "data", "--passphrase", *config], opening).code == 0
    assert typed(["keys", "check", "--passphrase", *config], opening).code == 0
    removed = typed(["keys", "remove", OWNER, "--passphrase", *config], opening)
    assert removed.code == 0, removed.errors
    assert {name.split("/")[1] for name in files(scene)} == {"carol.age"}


def test_two_answers_that_differ_change_nothing(scene: Scene) -> None:
    before = state(scene)
    with terminal() as person:
        person.start(
            "from archiver.cli.main import main; main()",
            "keys", "add", "carol", "--new-passphrase", *scene.identity, "--config", str(scene.config),
        )  # fmt: skip
        person.answer("New passphrase of the operator: ", PASSPHRASE)
        person.answer("The same again: ", ANOTHER)
        check(person.finish(), 2, "the two passphrases differ")
    assert state(scene) == before


def test_an_operator_of_kms(scene: Scene, kms: KmsService) -> None:
    old = scene.backup()
    arn = kms.key()
    added = keys(scene, "add", "cloud", "--kms-key", arn, *scene.identity)
    assert added.code == 0, added.errors
    assert operators(scene)["cloud"] == arn
    shown = keys(scene, "show")
    assert (shown.code, arn in shown.output) == (0, True)
    assert can_open(scene, ("--kms",))
    assert keys(scene, "rotate", "--kms").code == 0
    new = scene.backup()
    for backup in (old, new):
        assert can_read(scene, ("--kms",), backup)
    removed = keys(scene, "remove", OWNER, "--kms")
    assert removed.code == 0, removed.errors
    assert {name.split("/")[1] for name in files(scene)} == {"cloud.kms"}
    card = scene.root / "card-of-the-cloud.txt"
    assert keys(scene, "card", "--output", str(card), "--kms").code == 0
    assert archiver("verify", "--level", "data", "--identity", str(card), "--kms").code == 0


def every_error(scene: Scene) -> Iterator[tuple[Done, int, str]]:
    """What each command says when it cannot work."""
    bob = str(make_operator(scene, "bob").recipient)
    mallory = make_operator(scene, "mallory").identity
    yield keys(scene, "add", "bob", *scene.identity), 2, "expected a key of the new operator"
    yield keys(scene, "add", "bob", "--recipient", bob, *mallory), 4, "none of the given identities opens vault"
    yield keys(scene, "add", "bob", "--recipient", bob), 2, "needs an operator's identity"
    yield keys(scene, "remove", "bob", *scene.identity), 5, "has no operator 'bob'"
    yield keys(scene, "remove", OWNER, *scene.identity), 2, "is the last operator"
    yield keys(scene, "remove", OWNER), 2, "needs an identity of another operator"
    yield keys(scene, "check"), 2, "no identity to check"
    yield keys(scene, "rotate", *mallory), 4, "none of the given identities is that of an operator"
    yield archiver("keys", "rotate", *scene.identity), 2, "no configuration at"
    yield keys(scene, "card", "--output", str(scene.card)), 6, "exists already"
    yield keys(scene, "show", "--source", "other"), 2, "has no source 'other'"


def test_errors_are_one_line_and_a_hint(scene: Scene) -> None:
    vault = current_vault(scene)
    for done, code, text in every_error(scene):
        check(done, code, text)
    assert current_vault(scene) == vault
    assert operators(scene).keys() == {OWNER}


def test_a_failed_check_is_a_table_and_its_reasons(scene: Scene) -> None:
    done = keys(scene, "check", *make_operator(scene, "mallory").identity)
    assert done.code == 4
    header, row = done.output.splitlines()
    assert header.split() == ["VAULT", "IN", "USE", "BACKUPS", "NEWEST", "OPENED", "BY"]
    assert row.split() == [current_vault(scene), "yes", "0", "-", "NOT", "OPENED"]
    warning, hint = done.errors.splitlines()
    assert warning.startswith("warning: none of the given identities opens vault")
    assert hint.startswith("hint: ")


def test_a_hint_for_several_vaults_is_given_once(scene: Scene) -> None:
    scene.backup()
    assert keys(scene, "rotate").code == 0
    done = keys(scene, "check", *make_operator(scene, "mallory").identity)
    assert done.code == 4
    first, second, hint = done.errors.splitlines()
    assert first.startswith("warning: ")
    assert second.startswith("warning: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize("name", ["-", "./-"])
def test_no_secret_is_written_to_a_file_called_dash(scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whoever gives it means standard output; and --identity - would read another file than this."""
    monkeypatch.chdir(scene.root)
    before = set(scene.root.iterdir())
    for arguments in (["generate"], ["generate", "--signing"], ["card", *scene.identity], ["card", "--dry-run"]):
        check(archiver("keys", *arguments, "--output", name), 2, "expected the name of a file to create for --output")
    assert set(scene.root.iterdir()) == before
