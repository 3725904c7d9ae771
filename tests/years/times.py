"""The time that archiver sees: nights follow each other faster than the sun allows.

Only what a store says of the time is changed, its clock and the age of its keys, and both in the same way. archiver's
code, its terms in days and the bucket's rules stay as they are.
"""

import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import pytest
from msgspec.structs import replace

from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from archiver.stores.s3 import S3Store
from tests.servers.seaweed_lifecycle import Time
from tests.years.script import DAY, night_time


class YearTime(Protocol):
    """How nights pass at one store."""

    def night(self, number: int) -> bool:
        """Go on to this night; False where its time is over already, so that it is missed."""


class DirectoryTime:
    """Of ``file://``: whatever is written is as old as this clock says, which can be set."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.set(night_time(0))
        create = LocalStore.create

        def create_now(store: LocalStore, key: str, body: Any) -> StoredObject:
            created = create(store, key, body)
            moment = self.now()
            path = os.path.join(unquote(urlsplit(store.url).path), key)
            os.utime(path, (moment.timestamp(), moment.timestamp()))
            return replace(created, modified=moment)

        patched.setattr(LocalStore, "create", create_now)
        patched.setattr(LocalStore, "clock", lambda _: self.now())

    def night(self, number: int) -> bool:
        # Each a second later: no promise then ends in the very moment in which something looks at it.
        self.set(night_time(number) + timedelta(seconds=number))
        return True

    def set(self, moment: datetime) -> None:
        """It is ``moment`` from now on: how long a command takes here is nothing that the year should depend on."""
        self._moment = moment

    def now(self) -> datetime:
        return self._moment


class AgedTime:
    """Of SeaweedFS: each night everything that is in the bucket gets a day older, and then its rules are run.

    The clock that archiver sees is as many days ahead of the server's, plus what lies between today and the script.
    """

    def __init__(self, patched: pytest.MonkeyPatch, time_of_bucket: Time) -> None:
        self._time = time_of_bucket
        self._night = 0
        self._ahead = night_time(0) - datetime.now(UTC)
        show_s3_time(patched, self.shown)

    def night(self, number: int) -> bool:
        if number > self._night:
            self.pass_days(number - self._night)
            self._time.run_rules()
        return True

    def pass_days(self, days: int) -> None:
        """Go on by so many nights, in which no rules are run."""
        self._time.pass_days(days)
        self._night += days

    def shown(self, moment: datetime) -> datetime:
        """What archiver sees in place of the server's ``moment``."""
        return moment + self._ahead + self._night * DAY


class ShortDays:
    """Of a server whose days last ``day_seconds``, a whole number.

    A day here is as long as there, exactly: what is N of the server's days old is N days old for archiver. Within each
    day the time first passes as it does everywhere, so that a backup takes seconds, and after that flies.
    """

    _FLIGHT = 0.5
    """Seconds at the end of a server's day in which the rest of the day goes by."""
    _LATE = 0.5
    """Seconds after which it is too late for a night's work."""

    def __init__(self, patched: pytest.MonkeyPatch, day_seconds: int) -> None:
        self._day = day_seconds
        self.restart()
        self._stopped: float | None = None
        show_s3_time(patched, self.shown, now=lambda: datetime.fromtimestamp(self._stopped or time.time(), UTC))

    def restart(self) -> None:
        """Night 0 begins now."""
        # A whole second, because that is all that the server's rules look at.
        self._origin = int(time.time()) + 1

    def night(self, number: int) -> bool:
        begins = self._origin + number * self._day
        late = time.time() - begins
        time.sleep(max(0, -late))
        return late < self._LATE

    def stop(self) -> datetime:
        """From now on archiver's clock stands still; what it shows."""
        self._stopped = time.time()
        return self.shown(datetime.fromtimestamp(self._stopped, UTC))

    def shown(self, moment: datetime) -> datetime:
        """What archiver sees in place of the server's ``moment``."""
        days, seconds = divmod(moment.timestamp() - self._origin, self._day)
        flight = self._day - self._FLIGHT
        if seconds > flight:
            seconds = flight + (seconds - flight) / self._FLIGHT * (DAY.total_seconds() - flight)
        return night_time(int(days)) + timedelta(seconds=seconds)


def show_s3_time(
    patched: pytest.MonkeyPatch,
    shown: Callable[[datetime], datetime],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Every time that an S3Store gives is ``shown`` of the server's; ``now`` is the server's clock, which is ours."""

    def show(stored: StoredObject) -> StoredObject:
        return replace(stored, modified=shown(stored.modified))

    create, copy, stat, list_ = S3Store.create, S3Store.copy, S3Store.stat, S3Store.list

    def list_shown(store: S3Store, prefix: str = "") -> Iterable[StoredObject]:
        return map(show, list_(store, prefix))

    patched.setattr(S3Store, "clock", lambda _: shown(now()))
    patched.setattr(S3Store, "create", lambda store, key, body: show(create(store, key, body)))
    patched.setattr(S3Store, "copy", lambda store, source, key: show(copy(store, source, key)))
    patched.setattr(S3Store, "stat", lambda store, key: show(stat(store, key)))
    patched.setattr(S3Store, "list", list_shown)
