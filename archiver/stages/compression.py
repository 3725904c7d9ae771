"""How hard to compress: the level of each frame, by what the configuration says and by what the run waits for."""

from collections.abc import Callable

from archiver.config import Compression

_NAMED = {"auto": 3, "fast": 1, "balanced": 3, "best": 12}


def levels(
    compression: Compression,
    waiting: Callable[[], int] = lambda: 0,  # noqa: ARG001 - the scaffold does not adapt yet
    *,
    pinned: bool = False,  # noqa: ARG001
) -> Callable[[], int]:
    """What gives the zstd level of the next frame, whenever it is called.

    ``waiting`` says how many sealed bytes wait for the store right now: many mean that the store is what the run waits
    for, none that it waits for this host's processors. ``pinned``: while it lasts a snapshot costs a live server room.
    """
    level = _NAMED[compression] if isinstance(compression, str) else compression
    return lambda: level
