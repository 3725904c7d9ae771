"""archiver keys rotate: new backups go to a new vault that every operator opens, old ones stay readable."""

import tomllib

import pytest

from archiver.cli import secrets as prompts
from archiver.config import load_config
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.crypto.recipients import vault_id
from archiver.operations.access import AccessOptions, resolve_access
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
from tests.operations.scene import SOURCE, Scene, Tree, archiver, tree

PASSPHRASE = "correct horse battery staple"


def answer(monkeypatch: pytest.MonkeyPatch, passphrase: str = PASSPHRASE) -> list[str]:
    """Whoever is asked for a passphrase types this one; the prompts that were shown."""
    use_cheap_passphrases(monkeypatch)
    shown: list[str] = []

    def ask(prompt: str) -> str:
        shown.append(prompt)
        return passphrase

    monkeypatch.setattr(prompts, "ask_new_passphrase", ask)
    monkeypatch.setattr("archiver.cli.operators.ask_new_passphrase", ask)
    return shown


def test_old_and_new_backups_are_read_by_everybody(scene: Scene) -> None:
    old = scene.backup()
    bob = make_operator(scene, "bob", post_quantum=True)
    assert add(scene, bob).code == 0
    first, config = current_vault(scene), scene.config.read_text()
    before = tree(scene.destination)
    done = keys(scene, "rotate", *scene.identity, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    second = current_vault(scene)
    recipient = tomllib.loads(scene.config.read_text())["source"]["prod"]["vault"]
    assert done.document == {
        "dry_run": False,
        "old_vault": first,
        "vault": second,
        "recipient": recipient,
        "operators": [OWNER, "bob"],
        "created": [f"vault/prod/{second}/{OWNER}.age", f"vault/prod/{second}/bob.age"],
        "opened_by": f"vault/prod/{second}/{OWNER}.age",
        "config": str(scene.config),
    }
    assert second == vault_id(recipient) != first
    changed = [
        (was, now)
        for was, now in zip(config.splitlines(), scene.config.read_text().splitlines(), strict=True)
        if was != now
    ]
    assert [now for _, now in changed] == [f'vault = "{recipient}"']
    after = tree(scene.destination)
    assert before.items() - {(b"vault/prod", before[b"vault/prod"])} <= after.items()
    new = scene.backup()
    for identity in (scene.identity, bob.identity):
        assert can_read(scene, identity, old)
        assert can_read(scene, identity, new)
        assert can_open(scene, identity)
    assert archiver("verify", "--all", "--level", "data", *scene.identity).code == 0


def test_a_dry_run_changes_nothing_and_asks_nobody(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = answer(monkeypatch)
    before = state(scene)
    done = keys(scene, "rotate", "--dry-run", "--json", *scene.identity)
    assert done.code == 0, done.errors
    assert (done.document["vault"], done.document["created"]) == (None, [])
    assert done.document["operators"] == [OWNER]
    assert state(scene) == before
    assert shown == []
    assert "would make a vault for test" in keys(scene, "rotate", "--dry-run").output


def test_an_operator_with_a_passphrase_is_asked_for_a_new_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    old = scene.backup()
    shown = answer(monkeypatch)
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    assert operators(scene)["carol"] == "passphrase"
    assert PASSPHRASE not in scene.config.read_text()
    del shown[:]
    before = state(scene)
    assert keys(scene, "rotate", "--dry-run").code == 0
    assert (shown, state(scene)) == ([], before)
    shown = answer(monkeypatch, "another passphrase of hers")
    assert keys(scene, "rotate").code == 0
    assert shown == ["Passphrase of carol for the new vault: "]
    new = scene.backup()
    for backup, passphrase in ((old, PASSPHRASE), (new, "another passphrase of hers")):
        monkeypatch.setattr(prompts, "ask_passphrase", lambda _, typed=passphrase: typed)
        assert can_read(scene, ("--passphrase",), backup)
    # Each vault has its own: no single one opens both.
    assert not can_open(scene, ("--passphrase",))


def test_a_post_quantum_vault_stays_one(scene: Scene) -> None:
    bob = make_operator(scene, "bob", post_quantum=True)
    assert add(scene, bob).code == 0
    for arguments in (["--post-quantum"], []):
        done = keys(scene, "rotate", *arguments)
        assert done.code == 3
        assert f"operator {OWNER!r} has an X25519 key, so the post-quantum vault is only as strong" in done.errors
        assert tomllib.loads(scene.config.read_text())["source"]["prod"]["vault"].startswith("age1pq1")
    new = scene.backup()
    assert can_read(scene, bob.identity, new)
    assert can_read(scene, scene.identity, new)


def configure_operator(scene: Scene, name: str, key: str) -> None:
    """Write one more operator into the configuration, without a file in any vault."""
    line = f'{OWNER} = "{owner_key(scene)}"\n'
    scene.config.write_text(scene.config.read_text().replace(line, f'{line}{name} = "{key}"\n'))


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("given", ["a stranger's", "passphrase", "kms"])
def test_an_identity_of_no_operator_stops_it_before_anything_is_created(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, given: str, dry_run: bool
) -> None:
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: PASSPHRASE)
    stranger = make_operator(scene, "mallory").identity
    arguments = {"a stranger's": stranger, "passphrase": ("--passphrase",), "kms": ("--kms",)}[given]
    before = state(scene)
    done = keys(scene, "rotate", *arguments, *(["--dry-run"] if dry_run else []))
    assert done.code == 4
    assert f"none of the given identities is that of an operator of the configuration ({OWNER})" in done.errors
    assert "The configuration still names the old vault" in done.errors
    assert state(scene) == before


def test_an_identity_that_does_not_open_the_new_vault_stops_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase may be wrong, and nobody knows before it was tried."""
    answer(monkeypatch)
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    old = scene.backup()
    before = state(scene)
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: "not the one that she chooses now")
    done = keys(scene, "rotate", "--passphrase")
    assert done.code == 4
    assert "the passphrase opens none of: carol.age" in done.errors
    assert "The configuration still names the old vault" in done.errors
    assert state(scene) == before
    scene.backup()
    assert can_open(scene, scene.identity)
    assert can_read(scene, scene.identity, old)
    assert keys(scene, "rotate", *scene.identity).code == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_who_was_removed_elsewhere_is_not_let_in_again(scene: Scene, dry_run: bool) -> None:
    """As an administrator does it, on a machine without the configuration."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    assert archiver("keys", "remove", "bob", *scene.identity).code == 0
    assert "bob" in operators(scene)
    vault = current_vault(scene)
    before = state(scene)
    for identity in ((), scene.identity):
        done = keys(scene, "rotate", *identity, *(["--dry-run"] if dry_run else []))
        assert done.code == 6
        assert (
            f"'bob' is in archiver.toml but has no file in vault {vault}, which is in use: was 'bob' removed elsewhere?"
        ) in done.errors
        assert "Take 'bob' out of [source.prod.operators], or let 'bob' in first with archiver keys add." in done.errors
        assert state(scene) == before
    assert keys(scene, "remove", "bob", *scene.identity).code == 0
    assert keys(scene, "rotate").code == 0
    assert f"{current_vault(scene)}/bob.age" not in files(scene)


@pytest.mark.parametrize("key", ["passphrase", "arn:aws:kms:eu-central-1:123456789012:key/1"])
def test_an_operator_without_a_file_is_not_let_in_by_another_ones_identity(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """That somebody has a passphrase or may use KMS does not say who."""
    shown = answer(monkeypatch)
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: PASSPHRASE)
    for name in ("carol", "dave"):
        configure_operator(scene, name, key)
    before = state(scene)
    done = keys(scene, "rotate", *scene.identity, "--passphrase", "--kms")
    assert done.code == 6
    # The configuration has them in the order in which they were written.
    assert "'dave' and 'carol' are in archiver.toml but have no file in vault" in done.errors
    assert "were 'dave' and 'carol' removed elsewhere?" in done.errors
    assert (state(scene), shown) == (before, [])


@pytest.mark.parametrize("post_quantum", [False, True])
def test_where_nobody_is_left_the_new_operators_own_key_is_enough(scene: Scene, post_quantum: bool) -> None:
    """Docs, SECURITY.md: the new recipient was written in place of the operators whose keys are lost."""
    alice = make_operator(scene, "alice", post_quantum=post_quantum)
    line = f'{OWNER} = "{owner_key(scene)}"'
    scene.config.write_text(scene.config.read_text().replace(line, f'alice = "{alice.recipient}"'))
    before = state(scene)
    for identity, code in (((), 6), (scene.identity, 6), (make_operator(scene, "mallory").identity, 6)):
        assert keys(scene, "rotate", *identity).code == code
        assert state(scene) == before
    done = keys(scene, "rotate", *alice.identity)
    assert done.code == 3, done.errors
    assert f"{OWNER!r} has a file in vault" in done.errors
    assert can_read(scene, alice.identity, backup_with_warnings(scene))


def backup_with_warnings(scene: Scene) -> str:
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code in (0, 3), done.errors
    return str(done.document["backup"])


def test_what_is_to_be_pasted_makes_another_hosts_configuration_the_same(scene: Scene) -> None:
    """There it still has the key that was stolen, under the name that has a new one."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    other = tomllib.loads(scene.config.read_text().replace(str(bob.recipient), "age1stolen"))
    done = keys(scene, "rotate")
    assert done.code == 0, done.errors
    pasted = "\n".join(
        line for line in done.output.splitlines() if line.startswith(("  vault", "  [", f"  {OWNER} ", "  bob"))
    )
    section = tomllib.loads(f"[source.prod]\n{pasted}\n")["source"]["prod"]
    own = tomllib.loads(scene.config.read_text())["source"]["prod"]
    assert other["source"]["prod"] != own
    assert other["source"]["prod"] | section == own


def test_a_configuration_without_operators(scene: Scene) -> None:
    text = scene.config.read_text()
    scene.config.write_text("\n".join(line for line in text.splitlines() if not line.startswith(f"{OWNER} = ")) + "\n")
    before = state(scene)
    done = keys(scene, "rotate")
    assert done.code == 2
    assert "does not say who the operators of source 'prod' are" in done.errors
    assert "[source.prod.operators]" in done.errors
    assert state(scene) == before


@pytest.mark.parametrize("key", ["age1nonsense", "age1pq1nonsense"])
def test_a_key_that_cannot_be_used_stops_it_before_anything_is_created(scene: Scene, key: str) -> None:
    scene.config.write_text(scene.config.read_text().replace(str(owner_key(scene)), key))
    before = state(scene)
    done = keys(scene, "rotate")
    assert (done.code, f"source.prod.operators.{OWNER}: " in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_a_configuration_that_cannot_be_changed_is_noticed_before_anything_is_created(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(scene)
    forbid_changing_configurations(monkeypatch)
    done = keys(scene, "rotate")
    assert (done.code, f"cannot change {scene.config}" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_kms_that_refuses_stops_it_before_anything_is_created(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:kms:eu-central-1:123456789012:key/1"
    configure_operator(scene, "aws", arn)
    (scene.destination / f"vault/prod/{current_vault(scene)}/aws.kms").write_bytes(b"of this operator")
    before = state(scene)
    done = keys(scene, "rotate")
    assert (done.code, f"kms key {arn}" in done.errors) == (7, True), done.errors
    assert state(scene) == before


def test_whoever_the_configuration_does_not_know_is_left_out_with_a_warning(scene: Scene) -> None:
    first = current_vault(scene)
    (scene.destination / f"vault/prod/{first}/mallory.age").write_bytes(b"planted")
    done = keys(scene, "rotate")
    assert done.code == 3
    assert f"'mallory' has a file in vault {first} and is no operator of the configuration" in done.errors
    assert {name for name in files(scene) if name.startswith(current_vault(scene))} == {
        f"{current_vault(scene)}/{OWNER}.age"
    }


def test_a_planted_vault_does_no_harm(scene: Scene) -> None:
    old = scene.backup()
    planted = plant_vault(scene, OWNER, owner_key(scene))
    done = keys(scene, "rotate", *scene.identity)
    assert (done.code, done.errors) == (0, "")
    assert current_vault(scene) != planted
    new = scene.backup()
    assert can_read(scene, scene.identity, old)
    assert can_read(scene, scene.identity, new)


def test_it_needs_the_configuration(scene: Scene) -> None:
    before = state(scene)
    done = archiver("keys", "rotate", *scene.identity)
    assert (done.code, "keys rotate needs one" in done.errors) == (2, True), done.errors
    done = keys(scene, "rotate", "--from", scene.url, "--source", "prod")
    assert (done.code, "takes no --from" in done.errors) == (2, True), done.errors
    assert state(scene) == before


def test_a_vault_that_somebody_else_changed_meanwhile_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rotations at once: the second finds another vault than it began with, and gives up."""
    answer(monkeypatch)
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    inside: list[str] = []

    def ask(_: str) -> str:
        if not inside:
            inside.append("")
            assert keys(scene, "rotate").code == 0
            inside.append(current_vault(scene))
        return PASSPHRASE

    monkeypatch.setattr(prompts, "ask_new_passphrase", ask)
    done = keys(scene, "rotate")
    assert (done.code, "was changed in the configuration meanwhile" in done.errors) == (6, True), done.errors
    assert current_vault(scene) == inside[1]
    scene.backup()
    assert can_read(scene, scene.identity)


@pytest.mark.parametrize("command", ["add", "remove", "remove elsewhere"])
def test_operators_that_somebody_else_changed_meanwhile_are_not_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """While Carol makes up a passphrase. Bob must open the new vault, or must not."""
    answer(monkeypatch)
    bob = make_operator(scene, "bob")
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    if command != "add":
        assert add(scene, bob).code == 0

    def change() -> int:
        if command == "add":
            return add(scene, bob).code
        if command == "remove":
            return keys(scene, "remove", "bob", *scene.identity).code
        return archiver("keys", "remove", "bob", *scene.identity).code

    changed: list[int] = []
    before: list[tuple[Tree, bytes]] = []

    def ask(_: str) -> str:
        if not changed:
            changed.append(change())
            before.append(state(scene))
        return PASSPHRASE

    monkeypatch.setattr(prompts, "ask_new_passphrase", ask)
    done = keys(scene, "rotate")
    assert (changed, done.code) == ([0], 6), done.errors
    assert before == [state(scene)]
    expected = (
        "was 'bob' removed elsewhere?"
        if command == "remove elsewhere"
        else "the operators of source 'prod' were changed"
    )
    assert expected in done.errors
    if command == "remove elsewhere":
        assert keys(scene, "remove", "bob", *scene.identity).code == 0
    assert keys(scene, "rotate").code == 0
    assert (f"{current_vault(scene)}/bob.age" in files(scene)) == (command == "add")
    assert can_open(scene, scene.identity)


def test_the_vaults_own_recipient_is_no_operators_key(scene: Scene) -> None:
    configure_operator(scene, "bob", load_config(scene.config).sources[SOURCE].vault)
    before = state(scene)
    for more in ([], ["--dry-run"]):
        done = keys(scene, "rotate", *more)
        assert done.code == 2
        assert "source.prod.operators.bob: the recipient is the vault's own: it opens nothing" in done.errors
    assert state(scene) == before


def test_operators_with_the_same_key_are_warned_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    for name in ("dave", "erin"):
        assert keys(scene, "add", name, "--new-passphrase", *scene.identity).code == 0
    done = keys(scene, "rotate")
    assert (done.code, done.errors) == (0, "")
    assert keys(scene, "add", "bob", "--recipient", str(owner_key(scene)), *scene.identity).code == 3
    for more in (["--dry-run"], []):
        done = keys(scene, "rotate", *more)
        assert done.code == 3
        assert done.errors.count("have the same key: who loses it loses both") == 1
        assert f"operators {OWNER!r} and 'bob' have the same key" in done.errors


def test_a_passphrase_is_never_shown(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)
    done = keys(scene, "add", "carol", "--new-passphrase", *scene.identity, "--verbose")
    done_too = keys(scene, "rotate", "--verbose")
    for result in (done, done_too):
        assert PASSPHRASE not in result.output + result.errors
    access = resolve_access(AccessOptions(config=scene.config, passphrase=PassphraseIdentity(PASSPHRASE)))
    assert PASSPHRASE not in repr(access)


def test_what_a_person_reads(scene: Scene) -> None:
    first = current_vault(scene)
    done = keys(scene, "rotate", *scene.identity)
    second = current_vault(scene)
    recipient = tomllib.loads(scene.config.read_text())["source"]["prod"]["vault"]
    assert done.output.splitlines() == [
        f"created vault/prod/{second}/{OWNER}.age",
        f"proven: the given identity opens it through vault/prod/{second}/{OWNER}.age",
        f"{scene.config} names vault {second} in place of {first}",
        "Next:",
        "- on other hosts that back up prod, put this into archiver.toml, in place of the vault line there:",
        f'  vault = "{recipient}"',
        "  and this in place of the whole table of operators, so that nobody stays whose key was replaced:",
        "  [source.prod.operators]",
        f'  {OWNER} = "{owner_key(scene)}"',
        "- archiver keys card --output FILE, for a card that knows the new vault",
        "- let every operator run archiver keys check",
    ]
