"""What a pin could leave behind: helper processes, descriptors, threads, reader slots."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archiver.environment.lockfile import Reader
from archiver.environment.locks import OWN_NUMBERS, inspect_lock
from tests.environment.live import open_descriptors


def children(pid: int | str = "self") -> list[int]:
    """The processes that process ``pid`` has started and not yet reaped."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        # A thread that ends meanwhile leaves what it started to another.
        with suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in path.read_text().split()]
    return found


def alive(pid: int) -> bool:
    """Whether a thread of process ``pid`` still runs; one that only waits to be reaped does not.

    The state of the process is that of its first thread, which may be dead while another still holds the descriptors.
    """
    return any(_state(path) not in "ZX" for path in Path(f"/proc/{pid}/task").glob("*/stat"))


def _state(path: Path) -> str:
    try:
        return path.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def pins(directory: Path) -> list[Reader]:
    """The reader slots that archivers hold in ``directory``."""
    return [reader for reader in inspect_lock(directory).readers if reader.pid in OWN_NUMBERS]


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """The block leaves no process, no descriptor and no thread of this process behind."""
    before = _traces()
    yield
    # What an earlier test has left to the garbage collector may go meanwhile.
    assert not _traces() - before


def _traces() -> set[object]:
    return {*children(), *open_descriptors(), *threading.enumerate()}
