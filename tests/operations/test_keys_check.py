"""archiver keys check: whether a key opens all that is needed, found out before the day it is."""

import shutil
from datetime import UTC, datetime, timedelta

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


def test_without_a_configuration_the_newest_backup_says_which_vault_is_in_use(scene: Scene) -> None:
    old = scene.backup()
    assert keys(scene, "rotate").code == 0
    new = scene.backup()
    done = archiver("keys", "check", *scene.identity, "--json")
    assert done.code == 0, done.errors
    assert [(item["current"], item["newest"]) for item in done.document] == [(True, new), (False, old)]


def test_without_a_configuration_and_without_a_backup_nothing_is_known(scene: Scene) -> None:
    done = archiver("keys", "check", *scene.identity)
    assert (done.code, "no configuration names its vault" in done.errors) == (5, True), done.errors


def test_it_changes_nothing(scene: Scene) -> None:
    scene.backup()
    store = open_destination(scene)
    before = list(store.list())
    assert keys(scene, "check", *scene.identity).code == 0
    assert list(store.list()) == before
    store.close()
