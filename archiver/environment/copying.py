"""A compact copy of a snapshot as a stream of buffers."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import suppress

from archiver.buffers import Buffer
from archiver.environment.meta import DATA_FILE, Meta, newest, parse_meta
from archiver.environment.snapshot import Snapshot
from archiver.errors import SourceError
from archiver.parallel import uninterrupted

_PIPE_SIZE = 1 << 20


def copy_stream(snapshot: Snapshot, buffer_size: int) -> Iterator[Buffer]:
    """The bytes of a compact copy of ``snapshot``, in new buffers of ``buffer_size`` bytes; the last may be shorter.

    The iterator ends only after LMDB has reported success, the size is what the copy's own meta page says, and the
    snapshot has been confirmed; otherwise it raises ``SourceError``, of which ``SnapshotChangedError`` means that
    another attempt is worth while. Closing it early ends the copy; either way no thread or descriptor is left.
    """
    copier = _Copier(snapshot)
    head = bytearray()
    head_size = 2 * snapshot.page_size
    copied = 0
    try:
        while buffer := copier.read(buffer_size):
            copied += len(buffer)
            if len(head) < head_size:
                head += buffer[: head_size - len(head)]
            yield buffer
    finally:
        copier.close()
    # A writer beside a cold copy may also have made it fail or end early: that is the better reason then.
    snapshot.confirm()
    if copier.error is not None:
        raise copier.error
    expected = _copied_meta(head, snapshot).size
    if copied != expected:
        raise SourceError(f"the copy of {snapshot.directory} is incomplete: expected {expected} bytes, got {copied}")


class _Copier:
    """LMDB writing into a pipe in a thread of its own. ``error`` is to be read after ``close``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.error: BaseException | None = None
        self._snapshot = snapshot
        with uninterrupted():
            read_end, self._write_end = os.pipe()
            self._pipe = os.fdopen(read_end, "rb", buffering=0)
        # Fails when the user's allowance of pipe buffers is used up: the default size is slower, not wrong.
        with suppress(OSError):
            fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self._thread = threading.Thread(target=self._run, name="archiver-copy")
        try:
            with uninterrupted():
                self._thread.start()
        except BaseException:
            if self._thread.ident is None:
                os.close(self._write_end)
                self._pipe.close()
            else:
                self.close()
            raise

    def read(self, size: int) -> memoryview:
        """The next ``size`` bytes, fewer only at the end of the pipe, which is not yet success."""
        view = memoryview(bytearray(size))
        filled = 0
        while filled < size and (count := self._pipe.readinto(view[filled:])):
            filled += count
        return view[:filled]

    def close(self) -> None:
        """End the copy if it has not ended: LMDB then meets a broken pipe, which is no error of anyone's."""
        self._pipe.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._snapshot.copy_to(self._write_end)
        except BaseException as error:  # noqa: BLE001 - carried to the consumer's thread, which raises it
            self.error = error
        finally:
            os.close(self._write_end)


def _copied_meta(head: bytearray, snapshot: Snapshot) -> Meta:
    path = snapshot.directory / DATA_FILE
    return newest((parse_meta(head, path, 0), parse_meta(head[snapshot.page_size :], path, 1)))
