"""archiver keys check: whether a key opens all that is needed, found out before the day it is."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.stores.local import LocalStore
from tests.operations.operators import (
    OWNER,
    add,
    current_vault,
    keys,
    make_operator,
    open_destination,
    owner_key,
    plant_vault,
)
from tests.operations.scene import Scene, archiver


def test_every_vault_that_a_backup_needs_is_opened(scene: Scene) -> None:
    old = [scene.backup(), scene.backup()]
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    second = current_vault(scene)
    done = keys(scene, "check", *scene.identity, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    assert done.document == [
        {
            "vault": second,
            "current": True,
            "backups": 0,
            "newest": None,
            "opened_by": f"vault/prod/{second}/{OWNER}.age",
            "problem": None,
        },
        {
            "vault": first,
            "current": False,
            "backups": 2,
            "newest": old[1],
            "opened_by": f"vault/prod/{first}/{OWNER}.age",
            "problem": None,
        },
    ]


def test_one_that_is_not_opened(scene: Scene) -> None:
    scene.backup()
    first = current_vault(scene)
    bob = make_operator(scene, "bob")
    assert keys(scene, "rotate").code == 0
    assert add(scene, bob).code == 0
    assert keys(scene, "check", *bob.identity).code == 0
    (scene.destination / f"vault/prod/{first}/bob.age").unlink()
    done = keys(scene, "check", *bob.identity, "--json")
    assert done.code == 4
    assert [item["problem"] is None for item in done.document] == [True, False]
    assert f"none of the given identities opens vault {first} of 'prod'" in done.errors
    human = keys(scene, "check", *bob.identity)
    assert human.code == 4
    assert "NOT OPENED" in human.output
    assert "hint: " in human.errors


def test_somebody_elses_key(scene: Scene) -> None:
    scene.backup()
    done = keys(scene, "check", *make_operator(scene, "mallory").identity)
    assert done.code == 4
    done = keys(scene, "check")
    assert (done.code, "no identity to check" in done.errors) == (2, True), done.errors


def test_a_file_with_another_vaults_identity_does_not_count(scene: Scene) -> None:
    """It opens, and what is in it is good for nothing."""
    scene.backup()
    directory = scene.destination / "vault/prod"
    planted = plant_vault(scene, OWNER, owner_key(scene))
    shutil.copy(directory / planted / f"{OWNER}.age", directory / current_vault(scene) / f"{OWNER}.age")
    done = keys(scene, "check", *scene.identity)
    assert done.code == 4
    assert "holds the identity of another vault" in done.errors


def test_a_planted_vault_is_not_needed(scene: Scene) -> None:
    scene.backup()
    plant_vault(scene, "mallory", make_operator(scene, "mallory").recipient)
    plant_vault(scene, OWNER, owner_key(scene))
    done = keys(scene, "check", *scene.identity, "--json")
    assert (done.code, len(done.document)) == (0, 1), done.errors


def test_a_vault_whose_files_are_gone(scene: Scene) -> None:
    scene.backup()
    shutil.rmtree(scene.destination / "vault")
    done = keys(scene, "check", *scene.identity)
    assert done.code == 4
    assert f"holds no key file of vault {current_vault(scene)}" in done.errors


def test_a_backup_past_its_promise_needs_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    shutil.rmtree(scene.destination / f"vault/prod/{first}")
    assert keys(scene, "check", *scene.identity).code == 4
    later = datetime.now(UTC) + timedelta(days=40)
    monkeypatch.setattr(LocalStore, "clock", lambda _: later)
    done = keys(scene, "check", *scene.identity, "--json")
    assert done.code == 0, done.errors
    assert [item["vault"] for item in done.document] == [current_vault(scene)]


def test_a_backup_that_is_not_to_be_trusted_is_a_warning(scene: Scene) -> None:
    name = scene.backup()
    planted = "20261122T020000Z-abcdef"
    backups = scene.destination / "daily/backups/prod"
    shutil.copytree(backups / name, backups / planted)
    done = keys(scene, "check", *scene.identity, "--json")
    assert done.code == 3
    assert f"{planted} is not to be trusted, and not looked at" in done.errors
    assert [item["newest"] for item in done.document] == [name]


def date_card(card: Path, created: str) -> None:
    """Let it be of another time."""
    lines = card.read_text().splitlines(keepends=True)
    card.write_text("".join(f"# created: {created}\n" if "created:" in line else line for line in lines))


def test_without_a_configuration_the_newest_backup_says_which_vault_is_in_use(scene: Scene) -> None:
    old = scene.backup()
    assert keys(scene, "rotate").code == 0
    new = scene.backup()
    date_card(scene.card, "2026-11-01T00:00:00+00:00")
    done = archiver("keys", "check", *scene.identity, "--json")
    assert done.code == 0, done.errors
    assert [(item["current"], item["newest"]) for item in done.document] == [(True, new), (False, old)]


def test_without_a_configuration_a_newer_card_says_which_vault_is_in_use(scene: Scene) -> None:
    """Right after a rotation no backup names the new vault, and it is the one that matters from now on."""
    old = scene.backup()
    assert keys(scene, "rotate").code == 0
    card = scene.root / "new-card.txt"
    assert keys(scene, "card", "--output", str(card), *scene.identity).code == 0
    date_card(card, "2999-01-01T00:00:00+00:00")
    done = archiver("keys", "check", "--identity", str(card), "--json")
    assert (done.code, done.errors) == (0, "")
    assert [(item["vault"], item["current"], item["newest"]) for item in done.document] == [
        (current_vault(scene), True, None),
        (done.document[1]["vault"], False, old),
    ]
    (scene.destination / f"vault/prod/{current_vault(scene)}/{OWNER}.age").unlink()
    done = archiver("keys", "check", "--identity", str(card), "--json")
    assert done.code == 4
    assert [item["problem"] is None for item in done.document] == [False, True]


def without_card(scene: Scene) -> tuple[str, ...]:
    """What leads to the backups, and says nothing of a vault."""
    lines = scene.card.read_text().splitlines()
    key = scene.root / "key.txt"
    key.write_text(lines[-1])
    (verify_key,) = (line.split()[-1] for line in lines if line.startswith("# verify-key: "))
    return "--from", scene.url, "--source", "prod", "--verify-key", verify_key, "--identity", str(key)


def test_without_a_configuration_and_a_card_the_vault_of_new_backups_is_not_known(scene: Scene) -> None:
    name = scene.backup()
    done = archiver("keys", "check", *without_card(scene), "--json")
    assert (done.code, [item["newest"] for item in done.document]) == (3, [name]), done.errors
    assert "no configuration and no card says which vault new backups go to" in done.errors


def test_without_a_backup_the_card_says_which_vault_is_in_use(scene: Scene) -> None:
    done = archiver("keys", "check", *scene.identity, "--json")
    assert [(item["vault"], item["current"]) for item in done.document] == [(current_vault(scene), True)]
    assert (done.code, done.errors) == (0, "")
    done = archiver("keys", "check", *without_card(scene))
    assert (done.code, "no configuration and no card names its vault" in done.errors) == (5, True), done.errors


@pytest.mark.parametrize("broken", ["[source", 'url = "s3://a"', None], ids=["malformed", "bad bucket", "not text"])
def test_a_broken_configuration_that_nobody_named_is_left_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    """The card is enough, and it may be the configuration of something else."""
    scene.backup()
    monkeypatch.chdir(scene.root)
    text = scene.config.read_text()
    if broken is None:
        scene.config.write_bytes(b"\xff\n")
    elif broken.startswith("url"):
        assert f'url = "{scene.url}"' in text
        scene.config.write_text(text.replace(f'url = "{scene.url}"', broken))
    else:
        scene.config.write_text(broken)
    done = archiver("keys", "check", *scene.identity, "--json")
    assert (done.code, "a configuration was not looked at: " in done.errors) == (3, True), done.errors
    assert [item["problem"] for item in done.document] == [None]
    # One that is named, or that is to be changed, is needed.
    assert keys(scene, "check", *scene.identity).code == 2
    bob = make_operator(scene, "bob")
    before = list((scene.destination / "vault").rglob("*"))
    assert archiver("keys", "add", "bob", "--recipient", str(bob.recipient), *scene.identity).code == 2
    assert list((scene.destination / "vault").rglob("*")) == before


def test_it_changes_nothing(scene: Scene) -> None:
    scene.backup()
    store = open_destination(scene)
    before = list(store.list())
    assert keys(scene, "check", *scene.identity).code == 0
    assert list(store.list()) == before
    store.close()
