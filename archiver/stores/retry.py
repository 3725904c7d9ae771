"""Retries with full jitter, for single requests that are safe to repeat."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from archiver.stores.abandonment import Abandonment

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Brake:
    """Until when nobody sends anything, because the store has asked one of the threads to slow down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def pull(self, until: float) -> None:
        """Hold everybody at least until the time ``until``."""
        with self._lock:
            self._until = max(self._until, until)

    def wait(self, now: float) -> float:
        """Seconds for which to hold."""
        with self._lock:
            return max(0.0, self._until - now)


class Retry(msgspec.Struct, frozen=True):
    """Repeats a call while its error is transient, and holds all other calls back while the store is throttling.

    Before attempt n + 1 it waits a random time between 0 and ``base * 2**(n - 1)`` seconds, at most ``cap``: "full
    jitter" of the AWS Architecture Blog's "Exponential Backoff And Jitter", which spreads clients that failed
    together. There are ``attempts`` of them in all, and none begins later than ``budget`` seconds after the first
    failure: not after the first attempt, because a large request over a slow link may itself take longer. After an
    error that ``is_throttling``, the calls of all threads wait as long as this one does, and a random part of ``base``
    longer.
    """

    is_transient: Callable[[Exception], bool]
    is_throttling: Callable[[Exception], bool] = lambda _: False
    attempts: int = 8
    base: float = 0.5
    cap: float = 20.0
    budget: float = 300.0
    sleep: Callable[[Abandonment, float], None] = Abandonment.sleep
    random: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic
    brake: Brake = msgspec.field(default_factory=Brake)

    def call(
        self,
        function: Callable[[], T],
        *,
        describe: Callable[[Exception], str] = str,
        patient: bool = False,
        abandonment: Abandonment | None = None,
    ) -> T:
        """The result of ``function``; raises its last error when that is not transient or patience is exhausted, or
        as soon as it was given up.

        ``describe`` says in the log what went wrong. ``patient``: for as long as the budget lasts, however many
        attempts that takes, because nobody waits for it and much was done before.
        """
        work = abandonment or Abandonment()
        failures = 0
        first_failure = math.inf
        while True:
            self._hold(work)
            try:
                return function()
            except Exception as error:
                now = self.monotonic()
                failures += 1
                first_failure = min(first_failure, now)
                delay = max(self.delay(failures), self.brake.wait(now))
                exhausted = failures >= self.attempts and not patient
                late = now + delay > first_failure + self.budget
                if exhausted or late or work.abandoned or not self.is_transient(error):
                    raise
                limit = f"times, goes on for up to {self.budget:.0f} s" if patient else f"of {self.attempts} times"
                # A single failure is everyday; a person who waits wants to know of more.
                level = logging.INFO if failures == 1 else logging.WARNING
                logger.log(level, "%s; again in %.1f s (failed %d %s)", describe(error), delay, failures, limit)
                if self.is_throttling(error):
                    self.brake.pull(self.monotonic() + delay)
                    continue
            self.sleep(work, delay)

    def _hold(self, work: Abandonment) -> None:
        while (held := self.brake.wait(self.monotonic())) and not work.abandoned:
            self.sleep(work, held + self.random() * self.base)

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return self.random() * min(self.cap, math.ldexp(self.base, min(failures, 64) - 1))
