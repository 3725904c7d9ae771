"""Guarantees of docs/SECURITY.md, by number: operators, vaults and the keys of both. Each test says which change of the
code it notices."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from archiver.catalog.names import parse_vault_key, vault_key
from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.kms import KmsKey
from archiver.crypto.passphrase import PassphraseIdentity, PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import OperatorKey, seal_vault, vault_form
from archiver.crypto.x25519 import X25519Recipient
from archiver.errors import NoIdentityError, StorageError
from archiver.operations.access import AccessOptions, resolve_access
from archiver.stores.local import LocalStore
from tests.operations.operators import add, can_read, current_vault, keys, make_operator
from tests.operations.scene import SOURCE, Scene, archiver
from tests.security.house import run, vault_identity
from tests.servers.kms import KmsService
from tests.servers.process import S3Server

PASSPHRASE = "five random words as advised"
LOW_COST = 10


def seal_to(scene: Scene, operator: str, key: OperatorKey) -> Path:
    """One more operator's file of the current vault."""
    vault = vault_identity(scene)
    path = scene.destination / vault_key(SOURCE, vault_id(str(vault.recipient)), operator, vault_form(key))
    path.write_bytes(seal_vault(vault, key, SOURCE))
    return path


def stored(scene: Scene) -> dict[str, tuple[str, int, int]]:
    """Hash, file and time of all that lies in the destination but operators' files."""
    found = {}
    for path in scene.destination.rglob("*"):
        key = str(path.relative_to(scene.destination))
        if path.is_file() and parse_vault_key(key) is None:
            status = path.stat()
            found[key] = hashlib.sha256(path.read_bytes()).hexdigest(), status.st_ino, status.st_mtime_ns
    return found


def test_g22_any_one_operator_is_enough(scene: Scene) -> None:
    """Noticed: a vault that needs several files, or the first one; an operator whose loss takes the backups along."""
    scene.backup()
    bob, carol = make_operator(scene, "bob"), make_operator(scene, "carol", post_quantum=True)
    for operator in (bob, carol):
        assert add(scene, operator).code == 0
    seal_to(scene, "dave", PassphraseRecipient(PASSPHRASE, LOW_COST))
    files = {path.stem: path for path in scene.destination.glob(f"vault/{SOURCE}/*/*.age")}
    kept = {name: path.read_bytes() for name, path in files.items()}
    assert kept.keys() == {"test", "bob", "carol", "dave"}
    for alone in files:
        for name, path in files.items():
            path.unlink(missing_ok=True)
            if name == alone:
                path.write_bytes(kept[name])
        ways = {"test": scene.identity, "bob": bob.identity, "carol": carol.identity}
        for name, identity in ways.items():
            assert can_read(scene, identity) == (name == alone), (name, alone)
        options = AccessOptions(config=scene.config, passphrase=PassphraseIdentity(PASSPHRASE))
        with resolve_access(options).open() as archive:
            backup = archive.find()
            if alone == "dave":
                assert list(archive.contents(backup))
            else:
                with pytest.raises(NoIdentityError):
                    list(archive.contents(backup))


def test_g23_no_stored_data_change_when_keys_do(scene: Scene) -> None:
    """Noticed: a change of operators or of the vault that rewrites, replaces or deletes anything of a backup."""
    first = scene.backup()
    bob = make_operator(scene, "bob")
    before = stored(scene)
    assert len(before) == 8
    assert add(scene, bob).code == 0
    assert keys(scene, "rotate", *bob.identity).code == 0
    assert keys(scene, "remove", "test", *bob.identity).code == 0
    assert stored(scene) == before
    assert can_read(scene, bob.identity, first)


@pytest.mark.parametrize("removed", ["on the backup host", "elsewhere"])
def test_g24_whoever_is_removed_opens_nothing_that_comes_after_a_rotation(scene: Scene, removed: str) -> None:
    """Noticed: a rotation that keeps the vault, or seals the new one to whoever had the old one; new backups that go to
    the old vault. A rotation that believes a configuration of before a removal on another machine, and lets him in
    again. What he keeps is what he had: the old vault's identity, which opens the old backup still."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    old = scene.backup()
    kept, old_id = vault_identity(scene), current_vault(scene)
    before_removal = scene.config.read_bytes()
    assert keys(scene, "remove", "test", *bob.identity).code == 0
    if removed == "elsewhere":
        scene.config.write_bytes(before_removal)
        lying = set(scene.destination.rglob("*"))
        for identity in ((), bob.identity):
            done = keys(scene, "rotate", *identity)
            assert (done.code, "was 'test' removed elsewhere?" in done.errors) == (6, True), done.errors
        assert (scene.config.read_bytes(), set(scene.destination.rglob("*"))) == (before_removal, lying)
        # The way out that the message names: to take the name out of the configuration.
        assert keys(scene, "remove", "test").code == 0
    assert keys(scene, "rotate", *bob.identity).code == 0
    before = set(scene.destination.rglob("*.age"))
    new = backup(scene)
    assert current_vault(scene) != old_id
    for reference in (old, new):
        assert not can_read(scene, scene.identity, reference)
        assert can_read(scene, bob.identity, reference)
    objects = set(scene.destination.rglob("*.age")) - before
    assert len(objects) == 3
    for path in objects:
        with pytest.raises(NoIdentityError):
            unseal_bytes(path.read_bytes(), [kept])
    for path in before:
        if "data" in path.parts and "vault" not in path.parts:
            unseal_bytes(path.read_bytes(), [kept])


def backup(scene: Scene) -> str:
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code in (0, 3), done.errors
    return str(done.document["backup"])


@pytest.mark.parametrize("decoy", ["none", "garbage", "planted"])
def test_g25_the_last_way_into_a_vault_is_never_removed(scene: Scene, decoy: str) -> None:
    """Noticed: a removal that counts files instead of opening one. Anybody who may create keys can put files there."""
    scene.backup()
    bob = make_operator(scene, "bob")
    (own,) = scene.destination.glob(f"vault/{SOURCE}/*/test.age")
    if decoy == "garbage":
        (own.parent / "bob.age").write_bytes(b"age-encryption.org/v1\n")
    elif decoy == "planted":
        (own.parent / "bob.age").write_bytes(seal_bytes(b"not the vault's", [bob.recipient]))
    for identity in (scene.identity, bob.identity):
        done = keys(scene, "remove", "test", *identity)
        assert done.code in (2, 4), done.errors
        assert own.exists()
    assert can_read(scene, scene.identity)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_g26_a_rotation_that_fails_leaves_the_old_vault_in_use(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Noticed: a configuration that names a vault whose files are not all there: its backups would open for nobody."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    before, calls = scene.config.read_bytes(), []
    genuine = LocalStore.create

    def create(store: LocalStore, key: str, *arguments: Any) -> Any:
        calls.append(key)
        if len(calls) == number:
            raise StorageError("the network is gone")
        return genuine(store, key, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "create", create)
        if number > 2:
            patched.setattr("archiver.operations.keys_rotate._prove", gone)
        done = keys(scene, "rotate", *bob.identity)
    assert done.code == 7, done.errors
    assert scene.config.read_bytes() == before
    scene.backup()
    assert can_read(scene, scene.identity)
    assert can_read(scene, bob.identity)


def gone(*_: object) -> None:
    raise StorageError("the network is gone")


@pytest.fixture
def kms(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


def test_g27_kms_is_asked_on_request_only_and_for_the_vault_that_it_was_sealed_for(
    scene: Scene, kms: KmsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed: KMS that is asked without ``--kms``; a context that is not compared, or not sent: then a ciphertext of
    another vault or source, for which the same key is used, would be decrypted for whoever moved it."""
    scene.backup()
    path = seal_to(scene, "aws", KmsKey(kms.key()))
    asked: list[str] = []
    genuine = BaseClient._make_api_call  # type: ignore[attr-defined]

    def note(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        asked.append(operation)
        return genuine(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", note)
    assert run(scene, "verify", "--level", "data").code == 0
    assert archiver("verify", "--level", "data", "--config", str(scene.config)).code == 2
    assert not can_read(scene, make_operator(scene, "a-stranger").identity)
    assert asked == []
    assert can_read(scene, ("--kms",))
    assert asked == ["Decrypt"]
    good = path.read_bytes()
    sealed = json.loads(good)
    for name in ("archiver:source", "archiver:vault"):
        other = sealed | {"context": sealed["context"] | {name: "0" * 16}}
        path.write_text(json.dumps(other))
        assert not can_read(scene, ("--kms",))
    assert asked == ["Decrypt"]
    # A file that says the right thing and holds the ciphertext of another context: KMS refuses.
    other_file = kms.client().encrypt(KeyId=kms.key(), Plaintext=b"x", EncryptionContext={"archiver:source": "other"})
    ciphertext = other_file["CiphertextBlob"]
    path.write_text(json.dumps(sealed | {"ciphertext": base64.b64encode(ciphertext).decode()}))
    assert not can_read(scene, ("--kms",))


@pytest.mark.parametrize("vault", ["no key", "of low order", "another's"])
def test_g28_without_a_key_that_can_be_used_nothing_is_sent(scene: Scene, vault: str) -> None:
    """Noticed: a backup that goes on without encryption, or to a vault that nobody can open."""
    text = scene.config.read_text()
    own = next(line for line in text.splitlines() if line.startswith("vault = "))
    weak = str(X25519Recipient(bytes(32)))
    wanted = {"no key": "age1qqqq", "of low order": weak, "another's": str(make_operator(scene, "x").recipient)}[vault]
    scene.config.write_text(text.replace(own, f'vault = "{wanted}"'))
    if vault == "of low order":
        place = scene.destination / vault_key(SOURCE, vault_id(weak), "test", "age")
        place.parent.mkdir()
        place.write_bytes(b"so that there is one")
    before = set(scene.destination.rglob("*"))
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 2, done.errors
    new = [path for path in set(scene.destination.rglob("*")) - before if path.is_file()]
    # The first key of a run is an empty one, which proves the right to create.
    assert [path.read_bytes() for path in new] in ([], [b""])
