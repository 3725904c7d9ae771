"""The names of one directory in order, in bounded memory however many they are."""

import heapq
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from typing import IO

RUN_NAMES = 200_000
"""How many names are held and sorted in memory at once: about 20 MB."""
_BLOCK = 16 * 1024


def sorted_names(names: Iterable[bytes], *, run_names: int = RUN_NAMES) -> Iterator[bytes]:
    """``names`` in byte order. They must hold no NUL byte, as no file name does.

    ``names`` is used up before the first one is yielded. More than ``run_names`` spill as sorted runs to an unnamed
    temporary file that only this user can read, and are merged from there.
    """
    source = iter(names)
    run = sorted(islice(source, run_names))
    if len(run) < run_names:
        yield from run
        return
    with tempfile.TemporaryFile() as spill:
        ends = [0]
        while run:
            spill.writelines(name + b"\0" for name in run)
            ends.append(spill.tell())
            run = sorted(islice(source, run_names))
        spill.flush()
        runs = [_read_run(spill, start, end) for start, end in pairwise(ends)]
        yield from heapq.merge(*runs)


def _read_run(spill: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    pending = b""
    while start < end:
        block = os.pread(spill.fileno(), min(_BLOCK, end - start), start)
        start += len(block)
        *names, pending = (pending + block).split(b"\0")
        yield from names


class PathOrder:
    """Walks one directory's names such that whole paths come out in byte order.

    The paths below ``a`` all begin with ``a/``, so they belong after ``a.txt`` (``.`` sorts before ``/``) but before
    ``a0``. Yields names; after ``descend(name)``, ``name`` with a ``/`` appended follows where its descendants belong.
    """

    def __init__(self, names: Iterator[bytes]) -> None:
        self._names = names
        self._following = next(names, None)
        self._descents: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._descents and (self._following is None or self._descents[0] < self._following):
            return heapq.heappop(self._descents)
        if self._following is None:
            raise StopIteration
        name, self._following = self._following, next(self._names, None)
        return name

    def descend(self, name: bytes) -> None:
        """``name`` is a directory that is to be entered in its turn."""
        heapq.heappush(self._descents, name + b"/")
