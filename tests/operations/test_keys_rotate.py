"""archiver keys rotate: new backups go to a new vault that every operator opens, old ones stay readable."""

import tomllib

import pytest

from archiver.cli import secrets as prompts
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
from tests.operations.scene import Scene, archiver, tree

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
        assert f"operator {OWNER} has an X25519 key, so the post-quantum vault is only as strong" in done.errors
        assert tomllib.loads(scene.config.read_text())["source"]["prod"]["vault"].startswith("age1pq1")
    new = scene.backup()
    assert can_read(scene, bob.identity, new)
    assert can_read(scene, scene.identity, new)


def test_an_identity_that_does_not_open_the_new_vault_stops_it(scene: Scene) -> None:
    old = scene.backup()
    config = scene.config.read_bytes()
    done = keys(scene, "rotate", *make_operator(scene, "mallory").identity)
    assert done.code == 4
    assert "The configuration still names the old vault" in done.errors
    assert scene.config.read_bytes() == config
    scene.backup()
    assert can_open(scene, scene.identity)
    assert can_read(scene, scene.identity, old)
    assert keys(scene, "rotate", *scene.identity).code == 0


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
    key = f'{OWNER} = "{owner_key(scene)}"'
    scene.config.write_text(scene.config.read_text().replace(key, f'{key}\naws = "{arn}"'))
    before = state(scene)
    done = keys(scene, "rotate")
    assert (done.code, f"kms key {arn}" in done.errors) == (7, True), done.errors
    assert state(scene) == before


def test_whoever_the_configuration_does_not_know_is_left_out_with_a_warning(scene: Scene) -> None:
    first = current_vault(scene)
    (scene.destination / f"vault/prod/{first}/mallory.age").write_bytes(b"planted")
    done = keys(scene, "rotate")
    assert done.code == 3
    assert f"mallory has a file in vault {first} and is no operator of the configuration" in done.errors
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
        "- on other hosts that back up prod, write this into [source.prod] of archiver.toml:",
        f'  vault = "{recipient}"',
        "- archiver keys card --output FILE, for a card that knows the new vault",
        "- let every operator run archiver keys check",
    ]
