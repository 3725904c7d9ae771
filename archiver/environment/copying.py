"""A compact copy of a snapshot as a stream of buffers."""

from collections.abc import Iterator
from io import BufferedReader, FileIO

from archiver.environment.meta import DATA_FILE, Meta, newest, parse_meta
from archiver.environment.snapshot import Snapshot
from archiver.errors import ArchiverError, FormatError, PinGivenUpError, SnapshotChangedError, SourceError


def copy_stream(snapshot: Snapshot, buffer_size: int) -> Iterator[bytes]:
    """The bytes of a compact copy of ``snapshot``, in new buffers of ``buffer_size`` bytes; the last may be shorter.

    The iterator ends only after LMDB has reported success, the pin has proven to have held until then, and the size is
    what the copy's own meta page says; otherwise it raises ``SourceError`` or ``PinGivenUpError``, of which
    ``SnapshotChangedError`` and the latter mean that another attempt is worth while. A damaged environment may lead to
    a copy without an end: ``FormatError`` as soon as it gets longer than the snapshot. The server may use the
    snapshot's pages again as soon as LMDB has read them all, whenever the consumer takes the last buffer.
    """
    pipe = snapshot.begin_copy()
    head = bytearray()
    head_size = 2 * snapshot.page_size
    copied = 0
    # It reads whole pages straight into the bytes that it gives, without filling them with zeros first, which would
    # cost a fifth of the time that reading takes here; its own buffer is for the ends only.
    with BufferedReader(pipe, snapshot.page_size) as reader:
        # Fewer bytes than asked for mean the end of the pipe, which is not yet success.
        while buffer := reader.read(buffer_size):
            copied += len(buffer)
            if copied > snapshot.meta.size:
                raise _endless(snapshot, pipe)
            if len(head) < head_size:
                head += buffer[: head_size - len(head)]
            yield buffer
    snapshot.finish_copy()
    expected = _copied_meta(head, snapshot).size
    if copied != expected:
        raise SourceError(f"the copy of {snapshot.directory} is incomplete: expected {expected} bytes, got {copied}")


def _endless(snapshot: Snapshot, pipe: FileIO) -> ArchiverError:
    """What it means that the copy is longer than the snapshot: mostly damage."""
    # The helper meets a broken pipe, and tells whether somebody wrote to what it reads without locks.
    pipe.close()
    try:
        snapshot.finish_copy()
    except (SnapshotChangedError, PinGivenUpError) as error:
        return error
    except ArchiverError:
        pass
    return FormatError(
        f"{snapshot.directory} is corrupt: expected a copy of at most {snapshot.meta.size} bytes, got more",
        hint="Restore this environment from a backup.",
    )


def _copied_meta(head: bytearray, snapshot: Snapshot) -> Meta:
    path = snapshot.directory / DATA_FILE
    return newest((parse_meta(head, path, 0), parse_meta(head[snapshot.page_size :], path, 1)))
