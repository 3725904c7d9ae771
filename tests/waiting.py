"""Waiting for what happens by itself, however slow the machine is. Standard library only."""

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds after which a test says that what it waits for does not come. It only guards against hanging: a machine may
be busy with other things for a whole minute."""
_PAUSE = 0.005


def wait_until(condition: Callable[[], object]) -> float:
    """Return as soon as ``condition`` holds, with the seconds that it took; fail when it does not come to hold."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + PATIENCE, "what was waited for did not come"
        time.sleep(_PAUSE)
    return time.monotonic() - began
