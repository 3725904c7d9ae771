"""archiver keys add: the new operator reads everything, and nothing else changes; or nothing changes at all."""

import threading

import pytest

from archiver.operations.access import AccessOptions
from archiver.operations.keys_access import open_site
from archiver.operations.keys_add import add_operator
from archiver.progress import Silent
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
    assert done.code == 0
    assert f"left alone: vault {vault} has a file of bob already" in done.output
    assert f"{vault}/bob.age" not in files(scene)


def test_only_the_configuration_was_missing(scene: Scene) -> None:
    """As after a run that was killed between the files and the configuration."""
    bob = make_operator(scene, "bob")
    before = scene.config.read_text()
    assert add(scene, bob).code == 0
    scene.config.write_text(before)
    done = add(scene, bob, "--json")
    assert done.code == 0, done.errors
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
    assert again.code == 0, again.errors
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
    assert "operator bob has an X25519 key, so the post-quantum vault is only as strong as X25519" in done.errors
    done = add(scene, make_operator(scene, "carol", post_quantum=True))
    assert (done.code, done.errors) == (0, "")


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
        f"{scene.config} names bob as an operator",
        "Next: let bob run archiver keys check, to prove that this key opens all of it.",
    ]
