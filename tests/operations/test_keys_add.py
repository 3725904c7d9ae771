"""archiver keys add: the new operator reads everything, and nothing else changes; or nothing changes at all."""

import threading
from typing import Any

import pytest

from archiver.config import load_config
from archiver.operations.access import AccessOptions
from archiver.operations.keys_access import open_site
from archiver.operations.keys_add import add_operator
from archiver.progress import Silent
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
    use_cheap_passphrases,
)
from tests.operations.scene import SOURCE, Scene, archiver, tree


def rotate_before(monkeypatch: pytest.MonkeyPatch, scene: Scene, method: str, name: str) -> None:
    """Let another administrator rotate just before a file of that name is created or deleted in the old vault."""
    key = f"vault/{SOURCE}/{current_vault(scene)}/{name}"
    real = getattr(LocalStore, method)

    def meanwhile(store: LocalStore, given: str, *arguments: Any) -> Any:
        if given == key:
            monkeypatch.setattr(LocalStore, method, real)
            assert keys(scene, "rotate").code == 0
        return real(store, given, *arguments)

    monkeypatch.setattr(LocalStore, method, meanwhile)


@pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])
def test_a_new_operator_reads_old_backups(scene: Scene, post_quantum: bool) -> None:
    old = scene.backup()
    bob = make_operator(scene, "bob", post_quantum=post_quantum)
    assert not can_read(scene, bob.identity)
    before = tree(scene.destination)
    done = add(scene, bob, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    vault = current_vault(scene)
    key = f"vault/prod/{vault}/bob.age"
    assert done.document == {
        "dry_run": False,
        "operator": "bob",
        "key": str(bob.recipient),
        "created": [key],
        "left_alone": [],
        "unopened": [],
        "ignored": [],
        "config": str(scene.config),
    }
    assert operators(scene) == {OWNER: str(owner_key(scene)), "bob": str(bob.recipient)}
    after = tree(scene.destination)
    assert after.keys() - before.keys() == {key.encode()}
    directory = f"vault/prod/{vault}".encode()
    assert {name: entry for name, entry in after.items() if name not in (key.encode(), directory)} == {
        name: entry for name, entry in before.items() if name != directory
    }
    assert can_read(scene, bob.identity, old)
    assert can_open(scene, bob.identity)
    assert can_read(scene, scene.identity)


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    scene.backup()
    bob = make_operator(scene, "bob")
    before = state(scene)
    done = add(scene, bob, "--dry-run", "--json")
    assert done.code == 0
    assert done.document["dry_run"]
    assert done.document["created"] == [f"vault/prod/{current_vault(scene)}/bob.age"]
    assert state(scene) == before
    assert "would create" in add(scene, bob, "--dry-run").output


def test_somebody_who_opens_nothing_can_add_nobody(scene: Scene) -> None:
    scene.backup()
    bob, mallory = make_operator(scene, "bob"), make_operator(scene, "mallory")
    before = state(scene)
    for identity, code in ((mallory.identity, 4), ((), 2)):
        done = keys(scene, "add", "bob", "--recipient", str(bob.recipient), *identity)
        assert done.code == code, done.errors
        assert current_vault(scene) in done.errors
    assert state(scene) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a key of the new operator 'bob', got none"),
        (["--recipient", "age1nonsense"], "invalid --recipient"),
        (["--kms-key", "arn:aws:kms:nonsense"], "invalid --kms-key"),
        (["--recipient", "age1x", "--new-passphrase"], "at most one of"),
    ],
)
def test_bad_keys(scene: Scene, arguments: list[str], message: str) -> None:
    before = state(scene)
    done = keys(scene, "add", "bob", *arguments, *scene.identity)
    assert (done.code, message in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_a_bad_name(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    for name in ("Bob", "../bob", "b" * 64, "a/b", "b-"):
        done = keys(scene, "add", name, "--recipient", str(bob.recipient), *scene.identity)
        assert (done.code, "invalid operator name" in done.errors) == (2, True), done.errors


def test_who_is_an_operator_already(scene: Scene) -> None:
    bob, other = make_operator(scene, "bob"), make_operator(scene, "other")
    assert add(scene, bob).code == 0
    before = state(scene)
    again = add(scene, bob)
    assert (again.code, "has a file in every vault" in again.errors) == (6, True), again.errors
    another_key = keys(scene, "add", "bob", "--recipient", str(other.recipient), *scene.identity)
    assert (another_key.code, "with another key" in another_key.errors) == (6, True), another_key.errors
    assert state(scene) == before


def test_two_forms_of_one_name_are_one_operator(scene: Scene) -> None:
    vault = current_vault(scene)
    (scene.destination / f"vault/prod/{vault}/bob.kms").write_bytes(b"{}")
    done = add(scene, make_operator(scene, "bob"))
    assert done.code == 3
    assert f"left alone: vault {vault} has a file of 'bob' already" in done.output
    assert f"{vault}/bob.age" not in files(scene)


def test_a_file_that_is_left_alone_may_be_of_another_key(scene: Scene) -> None:
    """Bob's new key, where his old one is still in the vault: the file of that name opens for the old one only."""
    old, new = make_operator(scene, "bob"), make_operator(scene, "bob-2")
    config = scene.config.read_bytes()
    assert add(scene, old).code == 0
    scene.config.write_bytes(config)
    vault = current_vault(scene)
    before = state(scene)
    again = ["bob", "--recipient", str(new.recipient), *scene.identity]
    rehearsed = keys(scene, "add", *again, "--dry-run")
    assert (rehearsed.code, state(scene)) == (3, before)
    for done in (rehearsed, keys(scene, "add", *again)):
        assert done.code == 3
        assert (
            f"operator 'bob' has a file already in vault {vault}: it is left alone, and may be sealed to another key"
            in (done.errors)
        )
        assert "run archiver keys remove bob, then add again" in done.errors
    assert not can_open(scene, new.identity)
    assert keys(scene, "remove", "bob", *scene.identity).code == 0
    done = keys(scene, "add", *again)
    assert (done.code, done.errors) == (0, "")
    assert can_open(scene, new.identity)


def test_all_vaults_with_a_file_that_is_left_alone_are_named(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    config = scene.config.read_bytes()
    assert add(scene, bob).code == 0
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    scene.config.write_bytes(scene.config.read_bytes().replace(f'bob = "{bob.recipient}"\n'.encode(), b""))
    assert config != scene.config.read_bytes()
    done = add(scene, bob)
    assert done.code == 3
    assert f"has a file already in vaults {current_vault(scene)}, {first}: it is left alone" in done.errors


def test_only_the_configuration_was_missing(scene: Scene) -> None:
    """As after a run that was killed between the files and the configuration."""
    bob = make_operator(scene, "bob")
    before = scene.config.read_text()
    assert add(scene, bob).code == 0
    scene.config.write_text(before)
    done = add(scene, bob, "--json")
    assert done.code == 3, done.errors
    assert (done.document["created"], done.document["left_alone"]) == ([], [current_vault(scene)])
    assert operators(scene)["bob"] == str(bob.recipient)
    assert can_open(scene, bob.identity)


def test_every_vault_is_sealed_to_a_new_operator(scene: Scene) -> None:
    old = scene.backup()
    assert keys(scene, "rotate").code == 0
    new = scene.backup()
    bob = make_operator(scene, "bob")
    done = add(scene, bob, "--json")
    assert done.code == 0
    assert len(done.document["created"]) == 2
    assert done.document["created"][0].startswith(f"vault/prod/{current_vault(scene)}/")
    assert can_read(scene, bob.identity, old)
    assert can_read(scene, bob.identity, new)


def test_an_older_vault_that_does_not_open_is_a_warning(scene: Scene) -> None:
    """Bob came after the rotation, and only he is there to add Carol."""
    old = scene.backup()
    first = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    new = scene.backup()
    bob, carol = make_operator(scene, "bob"), make_operator(scene, "carol")
    assert add(scene, bob).code == 0
    (scene.destination / f"vault/prod/{first}/bob.age").unlink()
    done = keys(scene, "add", "carol", "--recipient", str(carol.recipient), *bob.identity, "--json")
    assert done.code == 3
    assert done.document["unopened"] == [first]
    assert f"opens vault {first}" in done.errors
    assert "the new operator will not read the backups in it" in done.errors
    assert can_read(scene, carol.identity, new)
    assert not can_read(scene, carol.identity, old)
    again = add(scene, carol, "--json")
    assert again.code == 3, again.errors
    assert again.document["unopened"] == []
    assert can_read(scene, carol.identity, old)


def test_the_current_vault_must_open(scene: Scene) -> None:
    first = current_vault(scene)
    bob, carol = make_operator(scene, "bob"), make_operator(scene, "carol")
    assert add(scene, bob).code == 0
    assert keys(scene, "rotate").code == 0
    (scene.destination / f"vault/prod/{current_vault(scene)}/bob.age").unlink()
    before = state(scene)
    done = keys(scene, "add", "carol", "--recipient", str(carol.recipient), *bob.identity)
    assert done.code == 4
    assert current_vault(scene) in done.errors
    assert state(scene) == before
    assert f"{first}/carol.age" not in files(scene)


def test_a_planted_vault_does_no_harm(scene: Scene) -> None:
    old = scene.backup()
    planted = plant_vault(scene, OWNER, owner_key(scene))
    thiefs = plant_vault(scene, "mallory", make_operator(scene, "mallory").recipient)
    bob = make_operator(scene, "bob")
    done = add(scene, bob, "--json")
    assert (done.code, done.errors) == (0, "")
    assert (done.document["unopened"], done.document["ignored"]) == ([], [thiefs])
    assert {key.split("/")[2] for key in done.document["created"]} == {current_vault(scene), planted}
    assert can_read(scene, bob.identity, old)
    assert can_open(scene, bob.identity)


def test_without_a_configuration_the_line_for_it_is_printed(scene: Scene) -> None:
    old = scene.backup()
    bob = make_operator(scene, "bob")
    before = scene.config.read_bytes()
    done = archiver("keys", "add", "bob", "--recipient", str(bob.recipient), *scene.identity)
    assert done.code == 0, done.errors
    assert "Add this line to [source.prod.operators] in archiver.toml on the backup host:" in done.output
    assert f'  bob = "{bob.recipient}"' in done.output
    assert scene.config.read_bytes() == before
    assert can_read(scene, bob.identity, old)


@pytest.mark.parametrize("with_backup", [False, True])
def test_without_a_configuration_somebody_who_opens_nothing_can_add_nobody(scene: Scene, with_backup: bool) -> None:
    if with_backup:
        scene.backup()
    bob, mallory = make_operator(scene, "bob"), make_operator(scene, "mallory")
    verify_key = next(line.split()[-1] for line in scene.card.read_text().splitlines() if "verify-key: " in line)
    before = state(scene)
    access = ("--from", scene.url, "--source", "prod", "--verify-key", verify_key, *mallory.identity)
    done = archiver("keys", "add", "bob", "--recipient", str(bob.recipient), *access)
    assert (done.code, "none of the given identities opens vault" in done.errors) == (4, True), done.errors
    assert state(scene) == before


def test_beside_its_configuration_the_card_keeps_it_up_to_date(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.root)
    bob = make_operator(scene, "bob")
    assert archiver("keys", "add", "bob", "--recipient", str(bob.recipient), *scene.identity).code == 0
    assert "bob" in operators(scene)
    before = scene.config.read_text()
    scene.config.write_text(before.replace("/destination", "/another"))
    done = archiver("keys", "add", "carol", "--recipient", str(bob.recipient), *scene.identity)
    assert done.code == 0
    assert "carol" not in scene.config.read_text()


def test_a_key_that_weakens_a_post_quantum_vault_is_warned_of(scene: Scene) -> None:
    assert keys(scene, "rotate", "--post-quantum").code == 3
    done = add(scene, make_operator(scene, "bob"))
    assert done.code == 3
    assert "operator 'bob' has an X25519 key, so the post-quantum vault is only as strong as X25519" in done.errors
    done = add(scene, make_operator(scene, "carol", post_quantum=True))
    assert (done.code, done.errors) == (0, "")


@pytest.mark.parametrize("older", [False, True])
def test_a_vaults_own_recipient_is_no_operators_key(scene: Scene, older: bool) -> None:
    """Its identity lies nowhere but in the vault: such an operator opens nothing, and counts as one."""
    scene.backup()
    recipient = load_config(scene.config).sources[SOURCE].vault
    if older:
        assert keys(scene, "rotate").code == 0
    before = state(scene)
    for more in ([], ["--dry-run"]):
        done = keys(scene, "add", "bob", "--recipient", recipient, *scene.identity, *more)
        assert done.code == 2
        assert "the recipient of 'bob' is a vault's own: it opens nothing" in done.errors
        assert "Give the age1… line of the operator's identity file." in done.errors
    assert state(scene) == before


def test_a_key_that_another_operator_has_is_warned_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    done = keys(scene, "add", "bob", "--recipient", str(owner_key(scene)), *scene.identity)
    assert done.code == 3
    assert f"operators 'bob' and {OWNER!r} have the same key: who loses it loses both" in done.errors
    use_cheap_passphrases(monkeypatch)
    monkeypatch.setattr("archiver.cli.operators.ask_new_passphrase", lambda _: "correct horse battery staple")
    for name in ("carol", "dave"):
        done = keys(scene, "add", name, "--new-passphrase", *scene.identity)
        assert (done.code, done.errors) == (0, "")


def test_a_rotation_meanwhile_is_noticed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new vault was sealed without Bob: the second run lets him in there too."""
    old = scene.backup()
    bob = make_operator(scene, "bob")
    rotate_before(monkeypatch, scene, "create", "bob.age")
    done = add(scene, bob)
    assert (done.code, "the vault of source 'prod' was changed" in done.errors) == (6, True), done.errors
    assert "bob" not in operators(scene)
    again = add(scene, bob)
    assert again.code == 3, again.errors
    new = scene.backup()
    assert can_open(scene, bob.identity)
    assert can_read(scene, bob.identity, old)
    assert can_read(scene, bob.identity, new)


def test_a_configuration_that_cannot_be_changed_is_noticed_before_anything_is_created(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = make_operator(scene, "bob")
    before = state(scene)
    forbid_changing_configurations(monkeypatch)
    done = add(scene, bob)
    assert (done.code, f"cannot change {scene.config}: permission denied" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_several_are_added_at_the_same_time(scene: Scene) -> None:
    everybody = [make_operator(scene, f"operator-{number}") for number in range(4)]
    barrier = threading.Barrier(len(everybody))
    failed: list[BaseException] = []

    def run(number: int) -> None:
        with open_site(AccessOptions(config=scene.config, identity=scene.card)) as site:
            barrier.wait()
            try:
                add_operator(site, everybody[number].name, everybody[number].recipient, Silent())
            except BaseException as error:  # noqa: BLE001 - it is raised in the test's own thread
                failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(everybody))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(operators(scene)) == {OWNER, *(operator.name for operator in everybody)}
    for operator in everybody:
        assert can_open(scene, operator.identity)


def test_what_a_person_reads(scene: Scene) -> None:
    done = add(scene, make_operator(scene, "bob"))
    assert done.output.splitlines() == [
        f"created vault/prod/{current_vault(scene)}/bob.age",
        f"{scene.config} names 'bob' as an operator",
        "Next: let 'bob' run archiver keys check, to prove that this key opens all of it.",
    ]
