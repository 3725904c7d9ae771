"""Operators of a scene: their keys, what they can still read, and what a command about keys may have changed."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver.catalog.names import vault_key
from archiver.config import load_config
from archiver.crypto.keys import PublicKey, generate_identity, identity_file, parse_recipient
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import create_vault, seal_vault
from archiver.stores.base import Store
from archiver.stores.destination import open_store, parse_destination
from tests.operations.scene import SOURCE, Done, Scene, Tree, archiver, tree

OWNER = "test"
"""The operator whom ``configure`` makes; the identity is on the scene's card."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody with a key of their own in the file ``path``."""

    name: str
    path: Path
    recipient: PublicKey

    @property
    def identity(self) -> tuple[str, str]:
        return "--identity", str(self.path)


def make_operator(scene: Scene, name: str, *, post_quantum: bool = False) -> Operator:
    """A new key pair; nobody knows of it yet."""
    identity = generate_identity(post_quantum=post_quantum)
    path = scene.root / f"{name}.txt"
    path.write_text(identity_file(identity, "2026-11-25T00:00:00Z"))
    return Operator(name, path, identity.recipient)


def use_cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch new ones in this process with 1 MiB for a moment, not with 256 MiB for a second."""
    monkeypatch.setattr(PassphraseRecipient.__init__, "__defaults__", (10,))


def forbid_changing_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a directory that may not be written to."""

    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)


def keys(scene: Scene, command: str, *arguments: str) -> Done:
    """Run ``archiver keys`` with the scene's configuration."""
    return archiver("keys", command, *arguments, "--config", str(scene.config))


def add(scene: Scene, operator: Operator, *arguments: str) -> Done:
    """``keys add`` by the scene's owner."""
    return keys(scene, "add", operator.name, "--recipient", str(operator.recipient), *scene.identity, *arguments)


def can_read(scene: Scene, identity: tuple[str, ...], backup: str = "latest") -> bool:
    """Whether somebody with ``identity`` can read all of a backup's data."""
    done = archiver("verify", backup, "--level", "data", *identity, "--config", str(scene.config))
    assert done.code in (0, 4), done.errors
    return done.code == 0


def can_open(scene: Scene, identity: tuple[str, ...]) -> bool:
    """Whether ``keys check`` finds that somebody with ``identity`` can open all that is needed."""
    done = keys(scene, "check", *identity)
    assert done.code in (0, 4), done.errors
    return done.code == 0


def current_vault(scene: Scene) -> str:
    """The id of the configured vault."""
    return vault_id(load_config(scene.config).sources[SOURCE].vault)


def operators(scene: Scene) -> dict[str, str]:
    """Those of the configuration."""
    return dict(load_config(scene.config).sources[SOURCE].operators)


def open_destination(scene: Scene) -> Store:
    return open_store(parse_destination(scene.url))


def files(scene: Scene) -> set[str]:
    """The operators' files: VAULT/NAME.FORM."""
    store = open_destination(scene)
    found = {item.key.removeprefix(f"vault/{SOURCE}/") for item in store.list(f"vault/{SOURCE}/")}
    store.close()
    return found


def plant_vault(scene: Scene, name: str, key: PublicKey) -> str:
    """What a thief of the backup host's credentials can do: a vault of his own, sealed to an operator. Its id."""
    vault = create_vault()
    planted = vault_id(str(vault.recipient))
    store = open_destination(scene)
    store.create(vault_key(SOURCE, planted, name, "age"), [seal_vault(vault, key, SOURCE)])
    store.close()
    return planted


def owner_key(scene: Scene) -> PublicKey:
    """The public key of the scene's owner."""
    return parse_recipient(operators(scene)[OWNER])


def state(scene: Scene) -> tuple[Tree, bytes]:
    """The whole destination, and the configuration."""
    return tree(scene.destination), scene.config.read_bytes()
