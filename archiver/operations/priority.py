"""The backup's share of the processors: little beside a live server that needs them, all that it leaves otherwise."""

import os

_LOWER = 10


def give_way() -> None:
    """Lower the priority of this process and of the helper processes that it starts from now on.

    Compression keeps two cores busy, and a server that waits for a core commits late (docs/BENCHMARKS.md). It is not
    the lowest priority on purpose: beside a host that is busy all the time a backup would then take many times as long,
    and as long as it pins a snapshot the server's files grow and do not shrink again.
    """
    os.nice(_LOWER)
