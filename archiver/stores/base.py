"""The store protocol: what every destination promises. Its docstrings are the contract; tests/stores/ enforces it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from archiver.buffers import Buffer
from archiver.retention.rules import Rule


class StoredObject(msgspec.Struct, frozen=True):
    """What a store says of one key."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """When the key was created, by the store's clock, UTC; S3 gives whole seconds."""
    storage_class: str | None = None
    """The store's name for where it keeps the key; None: the standard one, or the store was not asked."""


Availability = Literal["ready", "archived", "thawing"]
"""Whether a key can be read now; must be thawed first, for hours; or is being thawed."""


class Store(Protocol):
    """A flat map from keys to immutable byte strings.

    Keys are relative to the destination's prefix: non-empty segments joined by ``/``, each at most 255 bytes of
    ``[A-Za-z0-9._-]`` and neither ``.`` nor ``..``; anything else raises ``UsageError`` before a request is made.
    A key is created once and never overwritten, and nothing but ``delete`` ends it. All methods may be called from
    several threads. Errors: ``NotFoundError`` for a missing key and for a directory that does not exist,
    ``StorageError`` when the store cannot be reached or refuses, a missing bucket included; never an exception of a
    third-party library.
    """

    url: str
    """The destination as the operator wrote it, without secrets."""

    @property
    def part_size(self) -> int:
        """In how large buffers ``create`` takes its body best: those of exactly so many bytes it passes on without a
        copy."""

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were sent to a service so far, failed ones included, by operation; empty without one."""

    def clock(self) -> datetime:
        """The store's own time, UTC: what ``modified`` of a key created now would be compared with."""

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        """Create ``key`` with all bytes of ``body``, atomically: complete and durable on return, absent before.

        Raises ``AlreadyExistsError`` when the key exists, which then keeps its bytes. Whatever ``body`` raises
        passes through unchanged. After any failure, Ctrl-C included, the key does not exist and nothing that was
        begun for it is left behind in the store. Bounded memory for a body of any length. One exception: where the
        answer to the request that makes the key is lost, comes too late for a Ctrl-C, or says that something else was
        stored, it fails although the key may exist; callers use random keys, so nothing clashes.
        """

    def copy(self, source: str, key: str) -> StoredObject:
        """Create ``key`` with the bytes of the key ``source``, within the store: nothing passes through this host.

        As ``create`` in everything else: atomic, never over an existing key, and with the attributes (storage class,
        lock, encryption) that ``key`` would get there; its ``modified`` is that of the copy. Raises ``NotFoundError``
        for a missing ``source``, and ``RefusedError`` for one that must be thawed.
        """

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of ``key`` from ``start``, ``length`` of them or up to the end, in buffers of at most 8 MiB.

        Where nothing breaks and no limit is set, every buffer but the last has 8 MiB: a range of up to so many bytes
        comes as one. A range that reaches beyond the end, or a body that ends early, raises: a short read is never
        silent. The first error of a missing key may come with the first buffer.
        """

    def stat(self, key: str) -> StoredObject:
        """Size and age of one key."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every key that starts with ``prefix``, which need not end at a ``/``.

        The keys of one directory come in order of their bytes; how directories and keys interleave is the store's own
        business (SeaweedFS sorts each directory for itself).
        """

    def list_names(self, prefix: str = "") -> Iterator[str]:
        """The distinct next segments below ``prefix``, which is empty or ends with ``/``, in order, each once.

        For ``a/b/c`` and ``a/d``, ``list_names("a/")`` gives ``b`` and ``d``. Cheap however much lies below them.
        """

    def availability(self, key: str) -> Availability:
        """Whether ``key`` can be read now. Raises ``NotFoundError``."""

    def thaw(self, key: str, days: int) -> None:
        """Ask the store to make the archived ``key`` readable for so many days; it takes hours. Asking again is no
        error. Raises ``StorageError`` where the store cannot."""

    def rules(self) -> Sequence[Rule] | None:
        """The lifecycle rules that are enabled for the whole bucket, by prefixes of full keys; None where nothing ever
        runs any, as in a directory. Raises ``RefusedError`` where they may not be read."""

    def full_key(self, key: str) -> str:
        """``key``, or a prefix of keys, as rules name it."""

    def unlock(self, key: str) -> None:
        """Take the legal hold off ``key``, where there is one, so that it can be deleted for good. Raises
        ``NotFoundError``, and ``RefusedError`` where the credentials may not.

        Only for a command that an administrator runs, as ``delete``.
        """

    def delete(self, key: str) -> None:
        """Delete ``key``: absent, durably, on return. Raises ``NotFoundError`` when it does not exist.

        Only for a command that an administrator runs to remove something: nothing that a backup or a restore does calls
        it (tests/test_deletion.py), and a backup host's credentials need not allow it. A bucket with versions keeps the
        deleted one. After an error the key may exist or not.
        """

    def recover(self) -> int:
        """Abort what earlier runs of this source left open (multipart uploads, temporary files), as their journal
        records it; the number of them. Only for the one run that holds the source's lock."""

    def abandon(self) -> None:
        """Let creates, copies and reads that are under way in other threads fail soon, with ``StorageError``: nobody
        wants their results any more, as after Ctrl-C. What begins afterwards is not affected."""

    def close(self) -> None:
        """Release connections. The store is not used afterwards."""
