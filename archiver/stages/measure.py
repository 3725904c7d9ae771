"""Observing a stream apart from transforming it: bytes and BLAKE3."""

from collections.abc import Callable, Generator, Iterable

from blake3 import blake3

from archiver.buffers import Buffer


class Count:
    """Counts the bytes of a stream."""

    def __init__(self) -> None:
        self.size = 0


class Meter:
    """Counts the bytes of a stream and hashes them with BLAKE3, as ``b3sum`` does."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self.size = 0

    def update(self, buffer: Buffer) -> None:
        self._hasher.update(buffer)
        self.size += len(buffer)

    @property
    def blake3(self) -> str:
        """The hash of what has passed so far: 64 hex digits."""
        return self._hasher.hexdigest()


def counted(
    buffers: Iterable[Buffer], count: Count, advance: Callable[[int], None] | None = None
) -> Generator[Buffer, None, None]:
    """Pass ``buffers`` through unchanged while ``count``, and ``advance`` with each size, see them."""
    for buffer in buffers:
        count.size += len(buffer)
        if advance is not None:
            advance(len(buffer))
        yield buffer
        del buffer


def measured(buffers: Iterable[Buffer], meter: Meter) -> Generator[Buffer, None, None]:
    """Pass ``buffers`` through unchanged while ``meter`` sees them."""
    for buffer in buffers:
        meter.update(buffer)
        yield buffer
        # Not held while the next one is made: a part has megabytes.
        del buffer
