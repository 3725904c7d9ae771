"""A source in which every secret is known to the test, and a place for everything that a command says of it."""

import contextlib
import logging
import os
import secrets
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import pytest

from archiver.catalog.names import vault_key
from archiver.cli import main, output
from archiver.crypto import bech32
from archiver.crypto.hybrid import HybridIdentity
from archiver.crypto.identities import read_identity_file, write_secret_file
from archiver.crypto.keys import SecretKey, identity_file
from archiver.crypto.minisign import SigningKey
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import OperatorKey, seal_vault
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.vaults import unlock_vault, vault_places
from tests.operations.scene import SOURCE, Done, Scene, archiver, configure
from tests.security.detector import Detector, Kind, Secret

CREATED = "2026-11-25T00:00:00Z"
LOW_COST = 10
"""scrypt's work factor in tests, which try many passphrases."""


@dataclass
class Said:
    """All that one command line has said, and the exceptions that ended it."""

    done: Done
    log: list[str]
    errors: list[BaseException]

    @property
    def everything(self) -> str:
        """Streams, log records, and of each exception text, arguments, notes and the traceback, without locals, which
        Python does not show by default."""
        parts = [self.done.raw.decode("utf-8", "surrogateescape"), self.done.errors, *self.log]
        for error in self.errors:
            for one in chain(error):
                notes = getattr(one, "__notes__", [])
                parts += [str(one), repr(one), repr(one.args), repr(vars(one)), repr(notes)]
            parts += traceback.format_exception(error)
        return "\n".join(parts)


def chain(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that led to it, also what ``from None`` hides: a crash reporter may look at it."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


@dataclass
class Planted:
    """``scene`` with operators of every kind. ``home`` holds what an operator keeps to himself."""

    scene: Scene
    home: Path
    hybrid: Path
    passphrase: str
    secrets: list[Secret] = field(default_factory=list)
    label: str = ""

    @property
    def detector(self) -> Detector:
        return Detector(self.secrets)

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Said:
        """Run a command line in this process, and note all that it says."""
        errors: list[BaseException] = []
        records: list[str] = []
        genuine = output.report

        def report(place: output.Output, error: BaseException) -> int:
            errors.append(error)
            return genuine(place, error)

        class Records(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(f"{self.format(record)} {record.msg!r} {record.args!r}")

        logger, handler = logging.getLogger("archiver"), Records(logging.DEBUG)
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(main, "report", report)
                done = archiver(*arguments)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        return Said(done, records, errors)


def check(planted: Planted, said: Said, *codes: int) -> None:
    """It ended with one of ``codes``, and none of it repeats a secret that opens something, or what is in a backup."""
    assert said.done.code in codes, (said.done.output, said.done.errors)
    assert planted.detector.find(said.everything, "key", "content") == set()


def plant(root: Path, url: str | None = None) -> Planted:
    """Set up a source below ``root`` whose every secret is known, and back it up once to ``url``."""
    mark = secrets.token_hex
    scene = Scene(root / "scene", url or (root / "destination").as_uri())
    home = root / "home"
    home.mkdir(parents=True)
    planted = Planted(scene, home, home / "hybrid.txt", f"passphrase {mark(16)}", label=f"label-{mark(12)}")
    _text(planted, "passphrase", "key", planted.passphrase)
    _make_data(planted)
    configure(scene)
    _keep_operators(planted)
    with pytest.MonkeyPatch.context() as patched:
        # A fixture of a whole module runs before the one that keeps backups from slowing down the tests after them.
        patched.setattr(os, "nice", lambda _: 0)
        scene.backup("--label", planted.label)
    return planted


def _make_data(planted: Planted) -> None:
    mark = secrets.token_hex
    scene = planted.scene
    database, value, entry = f"database-{mark(12)}", f"value-{mark(40)}", f"entry-{mark(40)}"
    (scene.data / "vector").mkdir(parents=True)
    with lmdb.open(str(scene.data / "vector"), map_size=1 << 24, max_dbs=2) as environment:
        handle = environment.open_db(database.encode())
        with environment.begin(write=True) as transaction:
            transaction.put(entry.encode(), value.encode(), db=handle)
    content, large = f"content-{mark(40)}", f"large-{mark(40)}"
    name, directory = f"file-{mark(12)}", f"directory-{mark(12)}"
    (scene.media / directory).mkdir(parents=True)
    (scene.media / directory / name).write_text(content)
    # Above the limit of packs, it is an object of its own.
    with (scene.media / "large").open("wb") as file:
        file.truncate(40 << 20)
        file.write(large.encode())
    (scene.media / "damaged link").symlink_to(name)
    for what, text in (("value", value), ("entry", entry), ("content of a file", content), ("of a large file", large)):
        _text(planted, what, "content", text)
    for what, text in (("database", database), ("file", name), ("directory", directory), ("label", planted.label)):
        _text(planted, what, "name", text)


def _text(planted: Planted, name: str, kind: Kind, text: str) -> None:
    planted.secrets.append(Secret(name, kind, text.encode(), (text,)))


def _keep_operators(planted: Planted) -> None:
    """The card's operator, and two more; what the vault's identity is."""
    scene = planted.scene
    access = resolve_access(AccessOptions(identity=scene.card))
    hybrid = HybridIdentity.generate()
    write_secret_file(planted.hybrid, identity_file(hybrid, CREATED))
    with access.open() as archive:
        store = archive.store
        vault = unlock_vault(store, vault_places(store, SOURCE), access.keyring, None).identity
        others: dict[str, OperatorKey] = {
            "hybrid": hybrid.recipient,
            "phrase": PassphraseRecipient(planted.passphrase, LOW_COST),
        }
        for name, recipient in others.items():
            key = vault_key(SOURCE, vault_id(str(vault.recipient)), name, "age")
            store.create(key, [seal_vault(vault, recipient, SOURCE)])
    (operator,) = read_identity_file(scene.card)
    signer = SigningKey.parse((scene.root / "archiver-signing.key").read_text())
    planted.secrets += [
        key_secret("operator's identity", operator),
        key_secret("post-quantum identity", hybrid),
        key_secret("vault's identity", vault),
        Secret("signing key", "key", signer._key.private_bytes_raw()),
    ]


def key_secret(name: str, identity: SecretKey) -> Secret:
    """The text of an identity counts without its prefix, and in either case."""
    body = identity.encode().rpartition("1")[2]
    _, raw = bech32.decode(identity.encode())
    return Secret(name, "key", raw, (body, body.lower()))


def stored(scene: Scene) -> Iterator[tuple[str, bytes]]:
    """Every key of the destination with its bytes."""
    with resolve_access(AccessOptions(identity=scene.card)).open() as archive:
        for item in archive.store.list():
            yield item.key, b"".join(archive.store.read(item.key))


@contextlib.contextmanager
def altered(path: Path, data: bytes | None) -> Iterator[None]:
    """Meanwhile ``path`` holds ``data``, or is not there."""
    kept, mode = path.read_bytes(), path.stat().st_mode
    try:
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        yield
    finally:
        path.write_bytes(kept)
        path.chmod(mode)


@contextlib.contextmanager
def no_umask() -> Iterator[None]:
    """Meanwhile nothing takes away the rights of new files but who makes them."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
