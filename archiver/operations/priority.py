"""The backup's share of the processors: what the live server leaves."""

import os

_LOWEST = 19


def give_way() -> None:
    """Run this process, and the helper processes that it starts from now on, at the lowest priority there is.

    Compression keeps two cores busy, and a server that waits for a core commits late: on two cores, one of which the
    server used, p99 of its commits rose to six times what it is without a backup, and with this to less than twice
    (docs/BENCHMARKS.md). Where cores are idle it costs a backup no time.
    """
    os.nice(_LOWEST)
