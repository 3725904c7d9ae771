"""One run per source at a time on this host."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver.errors import BusyError, TargetError


@contextmanager
def run_lock(directory: Path, source: str) -> Iterator[None]:
    """Hold the lock of ``source`` in its state ``directory``, which is made at need; raises ``BusyError``.

    The kernel drops a flock with its process, so a killed run leaves nothing to clean up.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TargetError(
            f"cannot use the state directory {directory}: {error.strerror}",
            hint="Set state_directory in archiver.toml to a directory that this user may write.",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BusyError(
            f"another run of source {source!r} is under way",
            hint="Wait for it to end; the lock goes with its process.",
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
