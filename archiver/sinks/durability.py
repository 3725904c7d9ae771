"""Making restored files durable: once for a file system, instead of a wait for the disk at the end of each file."""

import ctypes
import os
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver.errors import TargetError
from archiver.filesystem import DIRECTORY

_FIRST_TO_REPORT = (5, 8)
"""The first version of Linux whose ``syncfs`` says that data could not be written."""
_WRITE = 2
"""``SYNC_FILE_RANGE_WRITE``: begin, and wait for nothing."""


class FileSystem:
    """The file system of ``directory``, held from before the first file is written to it until all are durable.

    The kernel reports an error of writing to a descriptor that was open when the error happened. A context manager.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = os.open(directory, DIRECTORY)
        self.device = os.fstat(self._descriptor).st_dev
        """Which file system it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def sync(self) -> None:
        """Wait until all that was written to it is durable, names included; raises ``TargetError``.

        Where the system cannot tell that this failed, ``sync_file`` has done it for each file, and names are left to
        those who make the files' directories durable.
        """
        syncfs = _syncfs()
        if syncfs is None:
            return
        if syncfs(self._descriptor):
            reason = os.strerror(ctypes.get_errno()).lower()
            raise TargetError(
                f"{self._directory}: restored files could not be written to disk: {reason}",
                hint="Look for disk errors in the system's log, and restore to another file system with --to.",
            )


def sync_file(descriptor: int) -> None:
    """Make one file or directory durable at once, if ``FileSystem.sync`` will not do it; raises ``OSError``."""
    if _syncfs() is None:
        os.fsync(descriptor)


def begin_writing(descriptor: int, offset: int, length: int) -> None:
    """Let the disk begin with these bytes of a file now, so that little is left to be waited for at the end.

    A hint: what it cannot do, it leaves.
    """
    function = _sync_file_range()
    if function is not None:
        function(descriptor, offset, length, _WRITE)


def reports_errors(release: str) -> bool:
    """Whether ``syncfs`` of the Linux called ``release`` fails when data could not be written."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= _FIRST_TO_REPORT


@cache
def _syncfs() -> Callable[[int], int] | None:
    if not reports_errors(platform.release()):
        return None
    return _function("syncfs", [ctypes.c_int])


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    return _function("sync_file_range", [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint])


def _function(name: str, arguments: list[type]) -> Callable[..., int] | None:
    """The function ``name`` of the C library; None where it has none."""
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None
    function.argtypes = arguments
    return function  # type: ignore[no-any-return]  # ctypes tells no more
