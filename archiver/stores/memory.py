"""A store in memory: the reference implementation of the contract, for tests and for proofs before a change."""

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from archiver.buffers import Buffer
from archiver.errors import AlreadyExistsError, NotFoundError
from archiver.stores.base import StoredObject
from archiver.stores.keys import check_directory, check_key, check_prefix, next_segment
from archiver.stores.plain import PlainStore
from archiver.stores.ranges import READ_SIZE, check_range, range_end


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryStore(PlainStore):
    """Implements Store; its time is what ``clock`` returns."""

    def __init__(self, url: str = "memory://", clock: Callable[[], datetime] = _now) -> None:
        self.url = url
        self._now = clock
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    def clock(self) -> datetime:
        return self._now()

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        check_key(key)
        data = b"".join(body)
        with self._lock:
            if key in self._objects:
                raise AlreadyExistsError(f"{key} exists already in {self.url}")
            self._objects[key] = data, self._now()
        return self.stat(key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, length)
        data, _ = self._get(key)
        end = range_end(key, len(data), start, length)
        return (data[offset : min(offset + READ_SIZE, end)] for offset in range(start, end, READ_SIZE))

    def stat(self, key: str) -> StoredObject:
        check_key(key)
        data, modified = self._get(key)
        return StoredObject(key, len(data), modified)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        check_prefix(prefix)
        with self._lock:
            found = sorted(key for key in self._objects if key.startswith(prefix))
        return (self.stat(key) for key in found)

    def list_names(self, prefix: str = "") -> Iterator[str]:
        check_directory(prefix)
        with self._lock:
            names = {next_segment(key, prefix) for key in self._objects if key.startswith(prefix)}
        return iter(sorted(names))

    def copy(self, source: str, key: str) -> StoredObject:
        check_key(source)
        return self.create(key, [self._get(source)[0]])

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            if self._objects.pop(key, None) is None:
                raise NotFoundError(f"{key} does not exist in {self.url}")

    def recover(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is held open."""

    def _get(self, key: str) -> tuple[bytes, datetime]:
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise NotFoundError(f"{key} does not exist in {self.url}") from None
