"""The valid destination among the vectors: what it is a backup of, and how it was made, once."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from unittest.mock import patch

import lmdb
from blake3 import blake3

from archiver.catalog.names import vault_key
from archiver.config import DEFAULT_CLASSES, PinLimits, Tuning
from archiver.crypto.card import RecoveryCard
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import seal_vault
from archiver.crypto.x25519 import X25519Identity
from archiver.operations import backup as backup_module
from archiver.operations import backup_environments, backup_media
from archiver.operations.backup_request import BackupRequest
from archiver.operations.sources import Source
from archiver.progress import Silent
from archiver.sources.environments import EnvironmentSpec
from archiver.sources.media import batches
from archiver.sources.packs import Pack
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore

VECTORS = Path(__file__).parent
DESTINATION = VECTORS / "destination"
CARD = VECTORS / "keys" / "card.txt"
VAULT = VECTORS / "keys" / "vault.txt"
SIGNING_KEY = VECTORS / "keys" / "signing.key"
EXPECTED = VECTORS / "expected.json"
SOURCE = "example"

_WARNING = "A TEST KEY of archiver's format vectors. It is public. Never use it."
_FRAME_SIZE = 8192
_PACK_LIMIT = 1000
_TIME = 1_763_776_800_123_456_789


def make_destination() -> None:
    """New keys, sample data, a backup of them, and a description of what must come back."""
    (VECTORS / "keys").mkdir()
    signer, vault, operator = SigningKey.generate(), X25519Identity.generate(), X25519Identity.generate()
    card = RecoveryCard(
        destination="file:///tests/vectors/destination",
        source=SOURCE,
        vault_recipient=vault.recipient,
        verify_keys=(TrustedKey(signer.verify_key),),
        created=datetime(2026, 11, 22, tzinfo=UTC),
        identity=operator,
    )
    CARD.write_text(f"# {_WARNING}\n{card.render()}", "utf-8")
    VAULT.write_text(f"# {_WARNING}\n{vault.encode()}\n", "utf-8")
    SIGNING_KEY.write_text(f"untrusted comment: {_WARNING}\n{signer.encode().splitlines()[1]}\n", "utf-8")
    store = LocalStore(DESTINATION, Journal(None))
    key = vault_key(SOURCE, vault_id(str(vault.recipient)), "alice", "age")
    store.create(key, [seal_vault(vault, operator.recipient, SOURCE)])
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        write_data(data)
        request = BackupRequest(
            source=Source(SOURCE, (EnvironmentSpec("graph", data / "graph", None),), data / "media", ()),
            retention_class="daily",
            classes=DEFAULT_CLASSES,
            vault=vault.recipient,
            signing_key=signer,
            state_directory=data / "state",
            pin=PinLimits(),
            tuning=Tuning(frame_size=_FRAME_SIZE),
            label="a label",
        )
        with ExitStack() as patches:
            small_batches = partial(batches, pack_limit=_PACK_LIMIT)
            for module, name, value in (
                (backup_environments, "EXTENT_LIMIT", _FRAME_SIZE),
                (backup_media, "EXTENT_LIMIT", _FRAME_SIZE),
                (backup_media, "batches", small_batches),
                (backup_media, "Pack", partial(Pack, limit=_PACK_LIMIT)),
            ):
                patches.enter_context(patch.object(module, name, value))
            backup_module.backup(store, request, Silent())
        EXPECTED.write_text(json.dumps(describe(data), indent=1, sort_keys=True) + "\n", "utf-8")


def write_data(root: Path) -> None:
    """One environment with two databases, and one file for each way in which files are stored."""
    (root / "graph").mkdir()
    with lmdb.open(str(root / "graph"), map_size=1 << 20, max_dbs=2, mode=0o600) as environment:
        nodes = environment.open_db(b"nodes")
        types = environment.open_db(b"by_type", dupsort=True)
        with environment.begin(write=True) as transaction:
            for number in range(5):
                transaction.put(number.to_bytes(8, "little"), b'{"id": %d}' % number, db=nodes)
                transaction.put((b"fact", b"event")[number % 2], number.to_bytes(8, "little"), db=types)
            transaction.put(b"large", bytes(5000), db=nodes)
    media = root / "media"
    (media / "notes").mkdir(parents=True)
    (media / "empty").write_bytes(b"")
    (media / "notes" / "größe.txt").write_text("a small file\n", "utf-8")
    (media / "photo.jpg").write_bytes(bytes(number * number % 251 for number in range(20_000)))
    Path(os.fsdecode(os.fsencode(media) + b"/\xff")).write_bytes(b"a name that is not UTF-8\n")
    with (media / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"after a hole\n")
        file.truncate(1 << 21)
    (media / "a link").symlink_to("notes/größe.txt")
    (media / "same photo.jpg").hardlink_to(media / "photo.jpg")
    for number, path in enumerate(sorted(media.rglob("*"), reverse=True)):
        os.utime(path, ns=(_TIME + number, _TIME + number), follow_symlinks=False)
    (media / "notes").chmod(0o750)
    os.utime(media, ns=(_TIME, _TIME))


def describe(root: Path) -> dict[str, object]:
    """What a restore must give back: every entry of the environment, and every path of the media tree."""
    return {
        "environments": {"graph": _describe_environment(root / "graph")},
        "media": dict(_describe_tree(root / "media")),
    }


def _describe_environment(directory: Path) -> dict[str, list[list[str]]]:
    with (
        lmdb.open(str(directory), readonly=True, lock=False, max_dbs=2) as environment,
        environment.begin() as transaction,
    ):
        return {
            name.decode(): [
                [key.hex(), blake3(value).hexdigest()]
                for key, value in transaction.cursor(environment.open_db(name, txn=transaction, create=False))
            ]
            for name in (b"nodes", b"by_type")
        }


def _describe_tree(media: Path) -> Iterator[tuple[str, list[object]]]:
    for path in sorted([media, *media.rglob("*")]):
        status = path.lstat()
        content = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = blake3(path.read_bytes()).hexdigest()
        name = os.fsencode(path.relative_to(media)).decode("utf-8", "backslashreplace")
        yield name, [oct(status.st_mode), status.st_nlink if path.is_file() else 0, status.st_mtime_ns, content]
