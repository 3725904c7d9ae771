"""archiver keys remove: who is removed opens nothing any more, and never is the last way into a backup taken."""

import shutil

import pytest

from archiver.errors import StorageError
from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from tests.operations.operators import (
    OWNER,
    add,
    can_open,
    can_read,
    current_vault,
    files,
    forbid_changing_configurations,
    keys,
    make_operator,
    operators,
    owner_key,
    plant_vault,
    state,
)
from tests.operations.scene import Scene, archiver, tree
from tests.operations.test_keys_add import rotate_before


def test_who_is_removed_opens_nothing_any_more(scene: Scene) -> None:
    old = scene.backup()
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = tree(scene.destination)
    vault = current_vault(scene)
    done = keys(scene, "remove", OWNER, *bob.identity, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    key, proof = f"vault/prod/{vault}/{OWNER}.age", f"vault/prod/{vault}/bob.age"
    assert done.document == {
        "dry_run": False,
        "operator": OWNER,
        "deleted": [{"file": key, "opened_by": proof}],
        "left": [],
        "config": str(scene.config),
    }
    assert operators(scene) == {"bob": str(bob.recipient)}
    after = tree(scene.destination)
    assert before.keys() - after.keys() == {key.encode()}
    assert not can_read(scene, scene.identity, old)
    assert not can_open(scene, scene.identity)
    assert can_read(scene, bob.identity, old)
    assert can_open(scene, bob.identity)
    scene.backup()
    assert can_read(scene, bob.identity)


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = state(scene)
    done = keys(scene, "remove", OWNER, *bob.identity, "--dry-run", "--json")
    assert done.code == 0
    assert [item["file"] for item in done.document["deleted"]] == [f"vault/prod/{current_vault(scene)}/{OWNER}.age"]
    assert state(scene) == before
    assert "would delete" in keys(scene, "remove", OWNER, *bob.identity, "--dry-run").output


def test_the_last_operator_stays(scene: Scene) -> None:
    before = state(scene)
    done = keys(scene, "remove", OWNER, *scene.identity)
    assert done.code == 2
    assert f"{OWNER!r} is the last operator of vault {current_vault(scene)} of 'prod'" in done.errors
    assert "archiver keys add" in done.errors
    assert state(scene) == before


def test_the_own_identity_proves_nothing(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = state(scene)
    mallory = make_operator(scene, "mallory").identity
    for identity, code, is_own in ((scene.identity, 4, True), ((), 2, False), (mallory, 4, False)):
        done = keys(scene, "remove", OWNER, *identity)
        assert done.code == code, done.errors
        assert (f"as {OWNER!r}, who is to be removed" in done.errors) == is_own, done.errors
    assert state(scene) == before


def test_another_operators_file_that_does_not_open_is_no_proof(scene: Scene) -> None:
    """The file of the one who stays was planted: by its name it is his, and it holds another vault's identity."""
    scene.backup()
    bob = make_operator(scene, "bob")
    planted = plant_vault(scene, "bob", bob.recipient)
    directory = scene.destination / "vault/prod"
    shutil.copy(directory / planted / "bob.age", directory / current_vault(scene) / "bob.age")
    before = state(scene)
    done = keys(scene, "remove", OWNER, *bob.identity)
    assert done.code == 4
    assert "holds the identity of another vault" in done.errors
    assert state(scene) == before


def test_one_vault_that_does_not_open_keeps_all_files(scene: Scene) -> None:
    scene.backup()
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    scene.backup()
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    (scene.destination / f"vault/prod/{first}/bob.age").unlink()
    before = state(scene)
    done = keys(scene, "remove", OWNER, *bob.identity)
    assert (done.code, f"last operator of vault {first}" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_files_in_all_vaults_and_of_both_forms_go(scene: Scene) -> None:
    scene.backup()
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    (scene.destination / f"vault/prod/{first}/{OWNER}.kms").write_bytes(b"{}")
    done = keys(scene, "remove", OWNER, *bob.identity, "--json")
    assert done.code == 0
    assert len(done.document["deleted"]) == 3
    assert files(scene) == {f"{first}/bob.age", f"{current_vault(scene)}/bob.age"}


def test_a_planted_vault_does_not_keep_an_operator(scene: Scene) -> None:
    old = scene.backup()
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    planted = plant_vault(scene, OWNER, owner_key(scene))
    done = keys(scene, "remove", OWNER, *bob.identity, "--json")
    assert done.code == 3
    assert done.document["left"] == [f"vault/prod/{planted}/{OWNER}.age"]
    assert f"the file of {OWNER!r} in vault {planted} stays" in done.errors
    assert files(scene) == {f"{planted}/{OWNER}.age", f"{current_vault(scene)}/bob.age"}
    assert not can_read(scene, scene.identity, old)
    assert can_read(scene, bob.identity, old)


def test_a_configuration_that_cannot_be_changed_is_noticed_before_anything_is_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = state(scene)
    forbid_changing_configurations(monkeypatch)
    done = keys(scene, "remove", OWNER, *bob.identity)
    assert (done.code, f"cannot change {scene.config}" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_of_two_who_remove_each_other_one_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob removes the owner, who has proven a moment ago that he can open everything and removes Bob now."""
    old = scene.backup()
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = state(scene)
    of_bob = scene.destination / f"vault/prod/{current_vault(scene)}/bob.age"
    real = LocalStore.delete

    def delete(store: LocalStore, key: str) -> None:
        of_bob.unlink()
        real(store, key)

    monkeypatch.setattr(LocalStore, "delete", delete)
    done = keys(scene, "remove", OWNER, *bob.identity)
    assert (done.code, "bob.age was deleted meanwhile" in done.errors) == (6, True), done.errors
    assert scene.config.read_bytes() == before[1]
    assert files(scene) == {f"{current_vault(scene)}/{OWNER}.age"}
    assert can_read(scene, scene.identity, old)


def test_who_stays_must_be_seen_to_stay(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store does not say any more whether the other file is there, nothing may be gone."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = files(scene), scene.config.read_bytes()
    path = scene.destination / f"vault/prod/{current_vault(scene)}/{OWNER}.age"
    real = LocalStore.stat
    lost: list[str] = []

    def stat(store: LocalStore, key: str) -> StoredObject:
        if path.exists():
            return real(store, key)
        lost.append(key)
        monkeypatch.undo()
        raise StorageError("the store is gone")

    monkeypatch.setattr(LocalStore, "stat", stat)
    done = keys(scene, "remove", OWNER, *bob.identity)
    assert lost == [f"vault/prod/{current_vault(scene)}/bob.age"]
    assert (done.code, "the store is gone" in done.errors) == (7, True), done.errors
    assert (files(scene), scene.config.read_bytes()) == before
    assert can_open(scene, scene.identity)
    assert keys(scene, "remove", OWNER, *bob.identity).code == 0


def test_a_rotation_meanwhile_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new vault was sealed to the one who is being removed: the second run takes that file away too."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    rotate_before(monkeypatch, scene, "delete", "bob.age")
    done = keys(scene, "remove", "bob", *scene.identity)
    assert (done.code, "the vault of source 'prod' was changed" in done.errors) == (6, True), done.errors
    assert f"{current_vault(scene)}/bob.age" in files(scene)
    done = keys(scene, "remove", "bob", *scene.identity)
    assert done.code == 0, done.errors
    assert not any("bob" in name for name in files(scene))
    assert operators(scene).keys() == {OWNER}


def test_a_key_that_another_operator_has_is_warned_of(scene: Scene) -> None:
    assert keys(scene, "add", "bob", "--recipient", str(owner_key(scene)), *scene.identity).code == 3
    done = keys(scene, "remove", "bob", *scene.identity)
    assert done.code == 3
    assert f"operator {OWNER!r} has the same key as 'bob': the key opens the vaults as before" in done.errors


@pytest.mark.parametrize("content", [b"nothing that opens", bytes(70_000)], ids=["small", "large"])
def test_a_planted_file_is_removed_like_an_operator(scene: Scene, content: bytes) -> None:
    vault = current_vault(scene)
    path = scene.destination / f"vault/prod/{vault}/mallory.age"
    path.write_bytes(content)
    done = keys(scene, "remove", "mallory", *scene.identity)
    assert done.code == 0, done.errors
    assert not path.exists()
    assert operators(scene).keys() == {OWNER}


def test_only_the_configuration_lists_the_operator(scene: Scene) -> None:
    """As after a run that was killed between the files and the configuration. No proof is needed: nothing is lost."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    (scene.destination / f"vault/prod/{current_vault(scene)}/bob.age").unlink()
    before = tree(scene.destination)
    done = keys(scene, "remove", "bob", "--json")
    assert done.code == 0, done.errors
    assert (done.document["deleted"], done.document["config"]) == ([], str(scene.config))
    assert operators(scene).keys() == {OWNER}
    assert tree(scene.destination) == before


def test_nobody_of_that_name(scene: Scene) -> None:
    done = keys(scene, "remove", "bob", *scene.identity)
    assert done.code == 5
    assert "source 'prod' has no operator 'bob'" in done.errors
    assert f"Name one of: {OWNER}." in done.errors


def test_without_a_configuration(scene: Scene) -> None:
    scene.backup()
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before = scene.config.read_bytes()
    card = scene.card.read_text()
    verify_key = next(line.split()[-1] for line in card.splitlines() if line.startswith("# verify-key"))
    access = ("--from", scene.url, "--source", "prod", "--verify-key", verify_key, *bob.identity)
    done = archiver("keys", "remove", OWNER, *access)
    assert done.code == 0, done.errors
    assert done.output.splitlines()[-3:] == [
        "Next, in this order:",
        f"- take {OWNER!r} out of [source.prod.operators] in archiver.toml on EVERY host that backs up prod",
        "- archiver keys rotate, so that new backups are out of reach; it is refused while that name is listed",
    ]
    assert scene.config.read_bytes() == before
    assert files(scene) == {f"{current_vault(scene)}/bob.age"}


@pytest.mark.parametrize("with_backup", [False, True])
def test_without_a_configuration_the_last_operator_stays_too(scene: Scene, with_backup: bool) -> None:
    """Also where no backup says yet which vault is in use."""
    if with_backup:
        scene.backup()
    before = state(scene)
    done = archiver("keys", "remove", OWNER, *scene.identity)
    assert (done.code, "is the last operator" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_what_a_person_reads(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    vault = current_vault(scene)
    assert keys(scene, "remove", "bob", *scene.identity).output.splitlines() == [
        f"deleted vault/prod/{vault}/bob.age (the vault opens through vault/prod/{vault}/{OWNER}.age)",
        f"{scene.config} names 'bob' no more",
        "'bob' can still read what was copied or opened before, and old versions of the files, where",
        "the bucket keeps versions.",
        "Next: archiver keys rotate, so that new backups are out of reach.",
    ]
