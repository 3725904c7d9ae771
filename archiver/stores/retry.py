"""Retries with full jitter, for single requests that are safe to repeat."""

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retry:
    """Repeats a call while its error is transient.

    Before attempt n + 1 it waits a random time between 0 and ``base * 2**(n - 1)`` seconds, at most ``cap``: "full
    jitter" of the AWS Architecture Blog's "Exponential Backoff And Jitter", which spreads clients that failed
    together. No attempt begins later than ``budget`` seconds after the first one.
    """

    is_transient: Callable[[Exception], bool]
    attempts: int = 8
    base: float = 0.5
    cap: float = 20.0
    budget: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic

    def call(self, function: Callable[[], T], *, describe: str) -> T:
        """The result of ``function``; raises its last error when that is not transient or patience is exhausted.

        ``describe`` names the request in the log.
        """
        started = self.monotonic()
        failures = 0
        while True:
            try:
                return function()
            except Exception as error:
                failures += 1
                delay = self.delay(failures)
                late = self.monotonic() + delay - started > self.budget
                if failures >= self.attempts or late or not self.is_transient(error):
                    raise
                logger.info(
                    "%s failed (%d of %d): %s; again in %.1f s", describe, failures, self.attempts, error, delay
                )
            self.sleep(delay)

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return self.random() * min(self.cap, math.ldexp(self.base, min(failures, 64) - 1))
