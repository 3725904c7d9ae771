"""What the tests of the S3 store share."""

import threading
from collections.abc import Callable

from archiver.stores.abandonment import Abandonment
from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.retry import Retry
from archiver.stores.s3 import S3Store
from archiver.stores.s3_errors import is_transient

MIB = 1 << 20
PART = 5 * MIB
KEY = "daily/data/prod/0123.mdb.zst.age"
Open = Callable[..., S3Store]
"""What the fixture open_s3 gives: a URL and fields of S3Options to a store."""


def endpoint_of(url: str) -> str:
    destination = parse_destination(url)
    assert isinstance(destination, S3Destination)
    assert destination.options.endpoint is not None
    return destination.options.endpoint


def fetch(store: S3Store, key: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.read(key, start, length))


class Pauses(threading.local):
    """The time of each thread, which passes by its pauses alone."""

    now = 0.0

    def sleep(self, _: Abandonment, seconds: float) -> None:
        self.now += seconds


def impatient(attempts: int, pauses: list[float] | None = None) -> Retry:
    """A policy that repeats at once, and everything, uploads too, ``attempts`` times in all; ``pauses`` gets the
    pauses that it would have made."""
    clock = Pauses()

    def sleep(abandonment: Abandonment, seconds: float) -> None:
        clock.sleep(abandonment, seconds)
        if pauses is not None:
            pauses.append(seconds)

    # 1 s and its doubles, so that the next one would be beyond the budget.
    return Retry(
        is_transient,
        attempts=attempts,
        base=1.0,
        cap=1024.0,
        budget=2.0 ** (attempts - 1) - 1,
        sleep=sleep,
        random=lambda: 1.0,
        monotonic=lambda: clock.now,
    )
