"""What the tests of the guarantees share: a small source, its destination, and what an attacker does to them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archiver.catalog.manifest import decode_manifest, encode_manifest
from archiver.catalog.names import new_backup_id
from archiver.crypto.keys import SecretKey
from archiver.crypto.minisign import SigningKey
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.vaults import unlock_vault, vault_places
from archiver.stores.local import LocalStore
from tests.environment.live import make_environment
from tests.operations.scene import SOURCE, Done, Scene, archiver, configure

CONTENT = b"a file that is backed up\n"


def make_house(root: Path, url: str | None = None) -> Scene:
    """A source with one small environment and one file, set up by ``init``; no backup yet."""
    scene = Scene(root, url or (root / "destination").as_uri())
    make_environment(scene.data / "vector", 20)
    scene.media.mkdir()
    (scene.media / "note.txt").write_bytes(CONTENT)
    configure(scene)
    return scene


def run(scene: Scene, *arguments: str) -> Done:
    """A command with the card and the configuration, whose revocations both count."""
    return archiver(*arguments, *scene.identity, "--config", str(scene.config))


def restores(scene: Scene, target: Path, backup: str = "latest") -> bool:
    """Whether ``backup`` is restored; False when it is refused for what it is, and then nothing was written."""
    done = run(scene, "restore", backup, "--to", str(target))
    assert done.code in (0, 3, 4), done.errors
    if done.code == 4:
        assert not target.exists(), "something was written of what was refused"
        return False
    assert (target / "media/note.txt").read_bytes() == CONTENT
    return True


def manifest_file(scene: Scene, backup: str) -> Path:
    (found,) = scene.destination.glob(f"*/backups/{SOURCE}/{backup}/manifest.json")
    return found


def signing_key(scene: Scene) -> SigningKey:
    """The backup host's, as whoever has taken the host has it."""
    return SigningKey.parse((scene.root / "archiver-signing.key").read_text())


def forge(scene: Scene, backup: str, started: datetime, signer: SigningKey | None = None, **changes: Any) -> str:
    """Put a copy of ``backup`` into the destination that claims to be from ``started``, signed by ``signer``, by
    default with the stolen signing key; its id."""
    original = manifest_file(scene, backup)
    forged = new_backup_id(started)
    old = decode_manifest(original.read_bytes(), "it")
    times = {"started": started, "finished": started + (old.finished - old.started)}
    manifest = encode_manifest(msgspec.structs.replace(old, backup=forged, **(times | changes)))
    place = original.parent.with_name(forged)
    place.mkdir()
    (place / "manifest.json").write_bytes(manifest)
    (place / "manifest.json.minisig").write_text((signer or signing_key(scene)).sign(manifest, "forged"))
    for path in scene.destination.glob(f"daily/data/{SOURCE}/{backup}.*"):
        shutil.copy(path, path.with_name(path.name.replace(backup, forged)))
    return forged


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    """Meanwhile the clock of directories shows another time; what is written then still gets the time of today."""
    began = datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalStore, "clock", lambda _: moment + (datetime.now(UTC) - began))
        yield


def backup_from(scene: Scene, moment: datetime, *, stored: bool = True) -> str:
    """A backup that was made at ``moment``; without ``stored`` it only claims so, and was stored today."""
    before = set(scene.destination.rglob("*"))
    with at(moment):
        done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code in (0, 3), done.errors
    if stored:
        for path in set(scene.destination.rglob("*")) - before:
            os.utime(path, (moment.timestamp(), moment.timestamp()))
    return str(done.document["backup"])


def revoke(scene: Scene, since: datetime) -> SigningKey:
    """What an operator does after a theft: the host gets a new signing key, and the old one is revoked. The old one."""
    stolen = signing_key(scene)
    path = scene.root / "new-signing.key"
    done = archiver("keys", "generate", "--signing", "--output", str(path), "--json")
    assert done.code == 0, done.errors
    new = done.document["verify_key"]
    text = scene.config.read_text()
    text = text.replace('key = "archiver-signing.key"', f'key = "{path.name}"')
    old = f'trusted = ["{stolen.verify_key}"]'
    assert old in text
    time = f"{since:%Y-%m-%dT%H:%M:%SZ}"
    table = f'trusted = ["{stolen.verify_key}", "{new}"]\n\n[signing.revoked]\n"{stolen.verify_key}" = {time}\n'
    scene.config.write_text(text.replace(old, table))
    return stolen


def write_card(scene: Scene) -> None:
    """The recovery card anew, from the configuration."""
    new = scene.root / "card-new.txt"
    done = run(scene, "keys", "card", "--output", str(new))
    assert done.code == 0, done.errors
    new.replace(scene.card)


def ago(**time: float) -> datetime:
    return datetime.now(UTC) - timedelta(**time)


def listed(scene: Scene, *arguments: str) -> tuple[int, Any]:
    """How ``archiver list`` ends, and what it says."""
    done = run(scene, "list", "--json", *arguments)
    return done.code, json.loads(done.raw)


def vault_identity(scene: Scene) -> SecretKey:
    """The current vault's, opened with the card."""
    access = resolve_access(AccessOptions(identity=scene.card))
    with access.open() as archive:
        places = vault_places(archive.store, SOURCE)
        return unlock_vault(archive.store, places, access.keyring, None).identity
