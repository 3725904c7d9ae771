"""archiver keys card: a card as init writes it, of what is so now."""

import os
import shutil
import stat

import pytest

from archiver.cli import secrets as prompts
from archiver.crypto.card import parse_card
from archiver.crypto.identities import parse_identities
from archiver.crypto.keys import SecretKey
from archiver.crypto.vault import Keyring, open_vault
from archiver.errors import NoIdentityError
from tests.operations.operators import (
    OWNER,
    add,
    current_vault,
    keys,
    make_operator,
    state,
    use_cheap_passphrases,
)
from tests.operations.scene import Scene, archiver, check_restored


def test_after_a_rotation_the_new_card_is_enough(scene: Scene) -> None:
    old = scene.backup()
    assert keys(scene, "rotate").code == 0
    new = scene.backup()
    path = scene.root / "new-card.txt"
    done = keys(scene, "card", "--output", str(path), *scene.identity, "--json")
    assert (done.code, done.errors) == (0, ""), done.errors
    assert done.document["has_identity"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before, after = parse_card(scene.card.read_text(), "old"), parse_card(path.read_text(), "new")
    assert (after.destination, after.source, after.verify_keys) == (
        before.destination, before.source, before.verify_keys,
    )  # fmt: skip
    assert before.vault_recipient != after.vault_recipient
    assert str(after.vault_recipient) in scene.config.read_text()
    identities = [parse_identities(card.read_text(), "card")[0].encode() for card in (scene.card, path)]
    assert identities[0] == identities[1]
    for backup in (old, new):
        out = scene.root / backup
        done = archiver("restore", backup, "--identity", str(path), "--to", str(out))
        assert done.code == 0, done.errors
        check_restored(scene, out)


def test_another_operators_card(scene: Scene) -> None:
    scene.backup()
    bob = make_operator(scene, "bob", post_quantum=True)
    assert add(scene, bob).code == 0
    path = scene.root / "card-of-bob.txt"
    assert keys(scene, "card", "--output", str(path), *bob.identity).code == 0
    assert archiver("verify", "--level", "data", "--identity", str(path)).code == 0
    assert bob.path.read_text().splitlines()[-1] in path.read_text()


def test_without_an_identity_it_holds_no_secret(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    use_cheap_passphrases(monkeypatch)
    monkeypatch.setattr("archiver.cli.operators.ask_new_passphrase", lambda _: "correct horse battery staple")
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    path = scene.root / "public-card.txt"
    done = keys(scene, "card", "--output", str(path))
    assert done.code == 0
    assert "It holds no secret" in done.output
    assert "Keep an older card that holds a secret key, too." in done.output
    text = path.read_text()
    assert not [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")]
    for option in ("append its AGE-SECRET-KEY", "--passphrase"):
        assert option in text
    assert "--kms" not in text
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: "correct horse battery staple")
    assert archiver("verify", "--level", "data", "--identity", str(path), "--passphrase").code == 0
    again = scene.root / "card-of-carol.txt"
    assert keys(scene, "card", "--output", str(again), "--passphrase").code == 0
    assert "append its AGE-SECRET-KEY" not in again.read_text()
    assert archiver("verify", "--level", "data", "--identity", str(again), "--passphrase").code == 0


def test_several_signing_keys_and_a_revocation(scene: Scene) -> None:
    made = archiver("keys", "generate", "--signing", "--output", str(scene.root / "new.key"), "--json")
    text = scene.config.read_text()
    old = parse_card(scene.card.read_text(), "card").verify_keys[0].key
    new = made.document["verify_key"]
    text = text.replace(f'trusted = ["{old}"]', f'trusted = ["{new}", "{old}"]')
    text = text.replace("[class", f'[signing.revoked]\n"{old}" = 2026-11-20T00:00:00Z\n\n[class', 1)
    scene.config.write_text(text)
    path = scene.root / "new-card.txt"
    assert keys(scene, "card", "--output", str(path)).code == 0
    found = parse_card(path.read_text(), "card").verify_keys
    assert [(str(key.key), key.revoked is None) for key in found] == [(new, True), (str(old), False)]


def test_an_identity_that_does_not_open_the_vault_gets_no_card(scene: Scene) -> None:
    path = scene.root / "card-of-mallory.txt"
    done = keys(scene, "card", "--output", str(path), *make_operator(scene, "mallory").identity)
    assert done.code == 4
    assert not path.exists()


def test_what_goes_on_the_card_must_open_the_vault_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only something else that was given beside it."""
    use_cheap_passphrases(monkeypatch)
    monkeypatch.setattr("archiver.cli.operators.ask_new_passphrase", lambda _: "correct horse battery staple")
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: "correct horse battery staple")
    path = scene.root / "card-of-mallory.txt"
    mallory = make_operator(scene, "mallory")
    done = keys(scene, "card", "--output", str(path), *mallory.identity, "--passphrase")
    assert (done.code, "none of the given identities opens vault" in done.errors) == (4, True), done.errors
    assert not path.exists()
    assert keys(scene, "card", "--output", str(path), *scene.identity, "--passphrase").code == 0
    assert archiver("keys", "check", "--identity", str(path)).code == 0


def test_the_card_names_what_opened_the_vault_of_several_ways(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:kms:eu-central-1:123456789012:key/1234"
    directory = scene.destination / f"vault/prod/{current_vault(scene)}"
    (directory / "cloud.kms").write_text("{}")
    opened = open_vault((directory / f"{OWNER}.age").read_bytes(), "age", secret_ring(scene), "prod", directory.name)

    def open_with_kms(_: bytes, form: str, *__: object) -> SecretKey:
        if form == "kms":
            return opened
        raise NoIdentityError("not for this")

    monkeypatch.setattr("archiver.operations.vaults.open_vault", open_with_kms)
    monkeypatch.setattr(prompts, "ask_passphrase", lambda _: "of somebody else")
    table = "[source.prod.operators]\n"
    scene.config.write_text(scene.config.read_text().replace(table, f'{table}cloud = "{arn}"\n'))
    path = scene.root / "public-card.txt"
    done = keys(scene, "card", "--output", str(path), "--passphrase", "--kms", "--json")
    assert (done.code, done.document["opened_by"]) == (0, f"vault/prod/{directory.name}/cloud.kms"), done.errors
    assert ("give --kms." in path.read_text(), "--passphrase" in path.read_text()) == (True, False)


def secret_ring(scene: Scene) -> Keyring:
    return Keyring(parse_identities(scene.card.read_text(), "card"))


def test_a_configuration_that_trusts_no_signing_key_makes_no_card(scene: Scene) -> None:
    lines = scene.config.read_text().splitlines(keepends=True)
    scene.config.write_text("".join("trusted = []\n" if line.startswith("trusted = ") else line for line in lines))
    path = scene.root / "new-card.txt"
    done = keys(scene, "card", "--output", str(path), *scene.identity, "--trust-unsigned")
    assert (done.code, "expected a signing key in signing.trusted, got none" in done.errors) == (2, True), done.errors
    assert not path.exists()


def test_a_vault_that_has_no_file_makes_no_card(scene: Scene) -> None:
    shutil.rmtree(scene.destination / "vault")
    done = keys(scene, "card", "--output", str(scene.root / "new-card.txt"), *scene.identity)
    assert (done.code, f"no key file of vault {current_vault(scene)}" in done.errors) == (5, True), done.errors


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["for good", "dry run"])
def test_a_path_that_cannot_be_created_is_refused(scene: Scene, dry: tuple[str, ...]) -> None:
    (scene.root / "dangling.txt").symlink_to("nowhere")
    sealed = scene.root / "sealed"
    sealed.mkdir(mode=0o500)
    cases = [(scene.card, 6), (scene.root / "dangling.txt", 6), (scene.root / "absent" / "card.txt", 1)]
    if os.geteuid() != 0:
        cases.append((sealed / "card.txt", 1))
    for path, code in cases:
        done = keys(scene, "card", "--output", str(path), *scene.identity, *dry)
        assert (done.code, str(path) in done.errors) == (code, True), done.errors


def test_several_identities_are_refused(scene: Scene) -> None:
    both = scene.root / "both.txt"
    both.write_text(make_operator(scene, "bob").path.read_text() + make_operator(scene, "carol").path.read_text())
    done = keys(scene, "card", "--output", str(scene.root / "card-2.txt"), "--identity", str(both))
    assert (done.code, "expected one identity for the card, got 2" in done.errors) == (2, True), done.errors


def test_nothing_is_replaced(scene: Scene) -> None:
    before = scene.card.read_text()
    done = keys(scene, "card", "--output", str(scene.card), *scene.identity)
    assert (done.code, "exists already" in done.errors) == (6, True), done.errors
    assert scene.card.read_text() == before


def test_a_dry_run_writes_nothing(scene: Scene) -> None:
    before = state(scene)
    path = scene.root / "new-card.txt"
    done = keys(scene, "card", "--output", str(path), *scene.identity, "--dry-run")
    assert (done.code, "would write" in done.output) == (0, True)
    assert not path.exists()
    assert state(scene) == before


def test_it_needs_the_configuration(scene: Scene) -> None:
    done = archiver("keys", "card", "--output", "card-2.txt", *scene.identity)
    assert (done.code, "keys card needs one" in done.errors) == (2, True), done.errors
