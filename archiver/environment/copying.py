"""A compact copy of a snapshot as a stream of buffers."""

from collections.abc import Iterator
from io import FileIO

from archiver.buffers import Buffer
from archiver.environment.meta import DATA_FILE, Meta, newest, parse_meta
from archiver.environment.snapshot import Snapshot
from archiver.errors import SourceError


def copy_stream(snapshot: Snapshot, buffer_size: int) -> Iterator[Buffer]:
    """The bytes of a compact copy of ``snapshot``, in new buffers of ``buffer_size`` bytes; the last may be shorter.

    The iterator ends only after LMDB has reported success, the pin has proven to have held until then, and the size is
    what the copy's own meta page says; otherwise it raises ``SourceError`` or ``PinGivenUpError``, of which
    ``SnapshotChangedError`` and the latter mean that another attempt is worth while. The server may use the snapshot's
    pages again as soon as LMDB has read them all, whenever the consumer takes the last buffer.
    """
    pipe = snapshot.begin_copy()
    head = bytearray()
    head_size = 2 * snapshot.page_size
    copied = 0
    while buffer := _read(pipe, buffer_size):
        copied += len(buffer)
        if len(head) < head_size:
            head += buffer[: head_size - len(head)]
        yield buffer
    snapshot.finish_copy()
    expected = _copied_meta(head, snapshot).size
    if copied != expected:
        raise SourceError(f"the copy of {snapshot.directory} is incomplete: expected {expected} bytes, got {copied}")


def _read(pipe: FileIO, size: int) -> memoryview:
    """The next ``size`` bytes, fewer only at the end of the pipe, which is not yet success."""
    view = memoryview(bytearray(size))
    filled = 0
    while filled < size and (count := pipe.readinto(view[filled:])):
        filled += count
    return view[:filled]


def _copied_meta(head: bytearray, snapshot: Snapshot) -> Meta:
    path = snapshot.directory / DATA_FILE
    return newest((parse_meta(head, path, 0), parse_meta(head[snapshot.page_size :], path, 1)))
