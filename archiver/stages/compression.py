"""How hard to compress: the level of each frame, by what the configuration says and by what the run waits for."""

import threading
from collections.abc import Callable

from archiver.config import Compression

LOWEST = 1
HIGHEST = 6
HIGHEST_PINNED = 3
"""A pin should end as fast as the processors allow, whatever the store does."""
START = 3
FRAMES_PER_STEP = 2
"""How many frames a level is kept before the next decision: few, so that a run of some hundred megabytes is not over
before the level fits."""
FEW = 32 * 1024 * 1024
MANY = 128 * 1024 * 1024
"""Bytes that wait for the store. At most ``FEW``: it takes what it gets. At least ``MANY``: it is what the run waits
for. Parts have 8 MiB, so a part that comes or goes does not cross from one to the other."""
MANY_PINNED = 1024 * 1024 * 1024
"""The same while a snapshot is pinned, when all begins at ``LOWEST``: what waits in the spool holds no pin, and only
where that may get full does a higher level not make the pin longer."""

_NAMED = {"fast": 1, "balanced": 3, "best": 12}


def levels(
    compression: Compression, waiting: Callable[[], int] = lambda: 0, *, pinned: bool = False
) -> Callable[[], int]:
    """What gives the zstd level of the next frame, whenever it is called, from any thread.

    ``waiting`` says how many sealed bytes wait for the store right now: many mean that the store is what the run waits
    for, none that it waits for this host's processors. ``pinned``: while it lasts a snapshot costs a live server room.
    """
    if compression == "auto":
        if pinned:
            return _Adaptive(waiting, LOWEST, HIGHEST_PINNED, MANY_PINNED)
        return _Adaptive(waiting, START, HIGHEST, MANY)
    level = _NAMED[compression] if isinstance(compression, str) else compression
    return lambda: level


def next_level(level: int, waiting: int, highest: int, many: int = MANY) -> int:
    """One step up from ``level`` while ``many`` bytes wait, one down while ``FEW`` do, within ``LOWEST`` and
    ``highest``. Between the two it stays, so that no amount that is constant makes it go back and forth.

    As ``zstd --adapt`` does it, by the bytes in between instead of by which side was blocked.
    """
    step = (waiting >= many) - (waiting <= FEW)
    return min(max(level + step, LOWEST), highest)


class _Adaptive:
    """Counts frames, and decides anew after every ``FRAMES_PER_STEP`` of them."""

    def __init__(self, waiting: Callable[[], int], start: int, highest: int, many: int) -> None:
        self._waiting = waiting
        self._level = start
        self._highest = highest
        self._many = many
        self._frames = 0
        self._lock = threading.Lock()

    def __call__(self) -> int:
        with self._lock:
            if self._frames == FRAMES_PER_STEP:
                self._frames = 0
                self._level = next_level(self._level, self._waiting(), self._highest, self._many)
            self._frames += 1
            return self._level
