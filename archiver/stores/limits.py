"""Limits of how much passes a second, shared by all threads that send or receive."""

import threading
import time
from collections.abc import Callable, Iterator

import msgspec

from archiver.buffers import Buffer

_LARGEST = 128 * 1024
_SHARE = 16
"""Parts of a second in which a stretch passes: so short that nobody at the other end takes the pause between two for a
standstill, though many threads take turns."""


class Limits(msgspec.Struct, frozen=True):
    """Bytes a second to and from a store, payload alone; None: as many as pass."""

    upload: int | None = None
    download: int | None = None


NO_LIMITS = Limits()


class Bucket:
    """A token bucket: in no time does more than ``rate`` bytes a second pass, and ``burst`` bytes.

    As the generic cell rate algorithm keeps it (ITU-T I.371, virtual scheduling): a single time, at which the bucket
    will be full again. Whoever comes gets the next turn, in order, so that nobody starves. Pure: ``now`` in seconds.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._slack = burst / rate
        self._full_at: float | None = None

    def take(self, size: int, now: float) -> float:
        """Take ``size`` bytes, at most the burst; how many seconds from ``now`` on they must wait for."""
        full_at = now if self._full_at is None else max(self._full_at, now)
        self._full_at = full_at + size / self._rate
        return max(0.0, self._full_at - self._slack - now)


class Limiter:
    """Lets ``rate`` bytes a second pass, of all threads together."""

    def __init__(
        self,
        rate: int,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stretch = max(1, min(_LARGEST, rate // _SHARE))
        """How many bytes to pass at a time, at most."""
        # A burst of two makes good for a thread that wakes up late.
        self._bucket = Bucket(rate, 2 * self.stretch)
        self._lock = threading.Lock()
        self._sleep = sleep
        self._monotonic = monotonic

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes, at most a stretch, may pass."""
        with self._lock:
            wait = self._bucket.take(size, self._monotonic())
        if wait:
            self._sleep(wait)


def limiter(rate: int | None) -> Limiter | None:
    """None for no limit."""
    return None if rate is None else Limiter(rate)


def stretches(buffer: Buffer, limiter: Limiter | None) -> Iterator[memoryview]:
    """``buffer`` in pieces, each when it may pass; all of it where there is no limit."""
    view = memoryview(buffer)
    size = len(view) if limiter is None else limiter.stretch
    for start in range(0, len(view), max(1, size)):
        piece = view[start : start + size]
        if limiter is not None:
            limiter.take(len(piece))
        yield piece
