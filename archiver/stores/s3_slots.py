"""How many bodies one store sends at a time, of all its creates together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from archiver.stores.abandonment import Abandonment

_STEP = 0.1
"""Seconds until a thread that waits notices that its work was given up."""


class Slots:
    """``count`` places, which bound the memory of parts that are being sent."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The places that one create has; all are free again when the block has ended, in which no part may be under
        way any more."""
        share = Share(self._free)
        try:
            yield share
        finally:
            share.release_all()


class Share:
    """The places of one create. They are taken by the thread that has a part in its hands, never while it waits for
    one: so each is given back as soon as a part has been sent, and no create waits for another one's body."""

    def __init__(self, free: threading.BoundedSemaphore) -> None:
        self._free = free
        self._lock = threading.Lock()
        self._taken = 0

    def take(self, abandonment: Abandonment, name: str) -> None:
        """Wait for a place; raises when ``name`` was given up."""
        while not self._free.acquire(timeout=_STEP):
            abandonment.check(name)
        with self._lock:
            self._taken += 1

    def release(self) -> None:
        """Give one back."""
        with self._lock:
            self._taken -= 1
        self._free.release()

    def release_all(self) -> None:
        """Give back those of parts that were never sent."""
        while self._taken:
            self.release()
