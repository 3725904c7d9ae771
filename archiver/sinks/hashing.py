"""Where the bytes of a verification land: nowhere, but hashed."""

from types import TracebackType
from typing import Self

from blake3 import blake3

from archiver.buffers import Buffer
from archiver.errors import IntegrityError
from archiver.filesystem import hash_zeros


class HashedFile:
    """Observes the bytes of a file of ``size`` bytes in order of their offsets, as a StagedFile does, and keeps only
    their hash; bytes that are passed over are holes."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._hasher = blake3()
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Keep nothing."""

    def observe(self, offset: int, buffer: Buffer) -> None:
        """Hash ``buffer``, and zeros for what lies between it and the last one."""
        if offset < self._position:
            raise IntegrityError(f"{self._name}: bytes from {offset} on come twice or out of order")
        hash_zeros(self._hasher, offset - self._position)
        self._hasher.update(buffer)
        self._position = offset + len(buffer)

    def finish(self, blake3_hex: str) -> None:
        """Raise ``IntegrityError`` unless the whole file hashes to ``blake3_hex``."""
        hash_zeros(self._hasher, self._size - self._position)
        found = self._hasher.hexdigest()
        if found != blake3_hex or self._position > self._size:
            raise IntegrityError(f"{self._name}: content hashes to {found}, expected {blake3_hex}")
