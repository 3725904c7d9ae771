"""archiver's own memory on this host: ordered maps of bytes in an LMDB environment that only one process opens."""

import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import lmdb

from archiver.environment.meta import DATA_FILE
from archiver.environment.verification import verify_structure
from archiver.errors import ArchiverError

LONGEST_KEY = 511
"""Bytes of a key; LMDB takes no longer one."""
FIRST_MAP_SIZE = 1 << 30
_LMDB_0_9 = 0
"""The wheel bundles two engines (library.py); verify_structure knows the format of this one."""
_STAMP_MAP = b"about"
_STAMP_KEY = b"stamp"
_READ_AHEAD = 1024
_CHECKSUM = 4
"""Bytes of CRC-32, little-endian, before each value."""


class StateError(ArchiverError):
    """The state cannot be used, for the reason that the message gives: damage, a full disk, missing rights."""


class Change(NamedTuple):
    """What becomes of ``key`` in ``map``; without a value it is removed."""

    map: str
    key: bytes
    value: bytes | None


class State:
    """The maps that are called ``maps`` in the directory ``path``, which is made at need: mode 0700, its file 0600.

    Only the one run that holds the source's lock may open it, so LMDB's own locking is off. ``stamp`` says what the
    state is about; one with another stamp is not used. Everything raises ``StateError``. Methods may be called from any
    thread. What a call to ``write`` changed is durable when it returns, all of it or nothing.

    The whole structure is proven before LMDB touches the file, at about 2.5 microseconds an entry: LMDB believes what
    it reads, and a damaged page could end this process, in this night and in every one after it. Structure says nothing
    of what is within an entry, so each has a checksum of its key and value.
    """

    def __init__(self, path: Path, stamp: bytes, maps: Sequence[str], *, map_size: int = FIRST_MAP_SIZE) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
            path.mkdir(mode=0o700, exist_ok=True)
            if (path / DATA_FILE).exists():
                verify_structure(path / DATA_FILE)
            self._environment = lmdb.open(
                str(path), map_size=map_size, max_dbs=len(maps) + 1, mode=0o600, lock=False, lib_version=_LMDB_0_9
            )
        try:
            with self._translated():
                self._maps = {name: self._environment.open_db(name.encode()) for name in maps}
                self._check_stamp(stamp)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing can be read or written afterwards."""
        with self._lock:
            self._environment.close()

    def items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """All of the map ``name`` in order of the bytes of its keys, read ahead by a bounded number. What is written
        meanwhile before the place that was reached is not seen."""
        last: bytes | None = None
        while found := self._read(name, last):
            yield from found
            last = found[-1][0]

    def write(self, changes: Iterable[Change]) -> None:
        """Carry out ``changes``; the map grows as it must."""
        changes = list(changes)
        with self._lock, self._translated():
            while True:
                try:
                    self._carry_out(changes)
                except lmdb.MapFullError:
                    # Allowed because no transaction is open: all of them begin and end under the lock.
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])
                else:
                    return

    def _carry_out(self, changes: Iterable[Change]) -> None:
        with self._environment.begin(write=True) as transaction:
            for name, key, value in changes:
                if value is None:
                    transaction.delete(key, db=self._maps[name])
                else:
                    transaction.put(key, _checksum(name, key, value) + value, db=self._maps[name])

    def _read(self, name: str, last: bytes | None) -> list[tuple[bytes, bytes]]:
        """The next entries behind the key ``last``. No transaction stays open: one that reads would keep every page
        that is replaced meanwhile from being used again."""
        with (
            self._lock,
            self._translated(),
            self._environment.begin(db=self._maps[name]) as transaction,
            transaction.cursor() as cursor,
        ):
            if last is None:
                found = cursor.first()
            else:
                found = cursor.set_range(last) and (cursor.key() != last or cursor.next())
            return [self._proven(name, *item) for item in islice(cursor.iternext(), _READ_AHEAD)] if found else []

    def _proven(self, name: str, key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        value = stored[_CHECKSUM:]
        if stored[:_CHECKSUM] != _checksum(name, key, value):
            raise StateError(f"{self._path}: an entry of {name} is damaged")
        return key, value

    def _check_stamp(self, stamp: bytes) -> None:
        about = self._environment.open_db(_STAMP_MAP)
        with self._environment.begin(write=True) as transaction:
            found = transaction.get(_STAMP_KEY, db=about)
            if found is None and not any(transaction.stat(database)["entries"] for database in self._maps.values()):
                transaction.put(_STAMP_KEY, stamp, db=about)
            elif found != stamp:
                raise StateError(f"{self._path} is of another version, source or destination")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StateError:
            raise
        except ArchiverError as error:
            raise StateError(error.message) from error
        except lmdb.Error as error:
            raise StateError(f"cannot use {self._path}: {str(error).lower()}") from error
        except OSError as error:
            raise StateError(f"cannot use {self._path}: {(error.strerror or str(error)).lower()}") from error


def _checksum(name: str, key: bytes, value: bytes) -> bytes:
    return zlib.crc32(value, zlib.crc32(key, zlib.crc32(name.encode()))).to_bytes(_CHECKSUM, "little")


def remove_state(path: Path) -> None:
    """Remove the state in ``path``, which nobody has open, where there is one; raises ``StateError``."""
    try:
        (path / DATA_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"cannot remove {path / DATA_FILE}: {(error.strerror or str(error)).lower()}") from error
