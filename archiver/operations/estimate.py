"""What a month costs, now and once the policy has reached its steady state: arithmetic over what was measured.

It errs on the dear side: no copy in a calendar's class refers to what a longer class stores already, and where the
sizes of single objects are not known each is charged as the least one beside its bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

import msgspec

from archiver.catalog.names import VAULTS
from archiver.config import ARCHIVE_CLASSES, HELD, Every, RetentionClass
from archiver.operations.cost import STANDARD, Habit, Measured
from archiver.operations.prices import Prices, StoragePrices

MONTH = 365.25 / 12
"""Days."""
_PERIOD: Mapping[Every, float] = {"week": 7.0, "month": MONTH, "year": 365.25}
"""Days, on average."""
_LISTS = 6
"""Small keys of a backup: started, three lists, signature, manifest."""
_PAGE = 1000
"""Keys in an answer to LIST."""
_LISTINGS = 3
"""How often a night lists a source: for the chain, at the commit, for promotions."""
_RANGE = 8 * 1024 * 1024
"""Bytes that one request of a restore reads."""
_MUCH = 1.1
"""From which ratio on it is told that small objects are charged as larger ones."""
_GIB = 2**30


class Storage(msgspec.Struct, frozen=True):
    """What is stored in one storage class of one retention class, and what a month of it costs."""

    retention_class: str
    storage_class: str
    keys: float
    size: float
    """Bytes that are charged: sizes and days that are too small count as the least ones."""
    cost: float


class Requests(msgspec.Struct, frozen=True):
    """What a month's requests cost."""

    what: str
    count: float
    cost: float


class Restore(msgspec.Struct, frozen=True):
    """What one full restore of a usual backup costs, of all sources, from one class."""

    retention_class: str
    storage_class: str
    size: float
    """Bytes."""
    cost: float
    must_thaw: bool


class Estimate(msgspec.Struct, frozen=True):
    """All of it, in the currency of the prices."""

    now: Sequence[Storage]
    steady: Sequence[Storage]
    requests: Sequence[Requests]
    restores: Sequence[Restore]
    notes: Sequence[str]

    @property
    def monthly_now(self) -> float:
        return sum(item.cost for item in self.now) + sum(item.cost for item in self.requests)

    @property
    def monthly_steady(self) -> float:
        return sum(item.cost for item in self.steady) + sum(item.cost for item in self.requests)


class _Stream(msgspec.Struct, frozen=True):
    """Backups or copies that come into a class again and again."""

    retention_class: str
    storage_class: str
    """Of the objects."""
    per_day: float
    habit: Habit
    days: int
    """For how long its data stay."""


def estimate(
    measured: Measured, classes: Mapping[str, RetentionClass], prices: Prices, default: str, part_size: int
) -> Estimate:
    """A month, from what was measured; ``default`` is the storage class of objects where a class names none, and
    ``part_size`` the bytes in one part of an upload. Raises ``ConfigError`` for a storage class without prices."""
    streams = list(_streams(measured.habits, classes, default))
    now = [
        Storage(name, storage, pile.keys, pile.size + pile.small, _stored(pile.size + pile.small, prices.of(storage)))
        for (name, storage), pile in sorted(measured.piles.items())
    ]
    # What nobody adds to stays as it is: what is held, vaults, classes that are used no longer.
    growing = {stream.retention_class for stream in streams}
    steady = [item for item in now if item.retention_class not in growing]
    return Estimate(
        now=now,
        steady=_merged([*steady, *(row for stream in streams for row in _steady(stream, prices))]),
        requests=_requests(streams, prices, part_size),
        restores=_restores(streams, prices),
        notes=list(_notes(streams, measured, classes, prices)),
    )


def _streams(habits: Sequence[Habit], classes: Mapping[str, RetentionClass], default: str) -> Iterable[_Stream]:
    for habit in habits:
        made = classes.get(habit.retention_class)
        if made is not None:
            yield _stream(habit.retention_class, made, habit.per_day, habit, default)
    for source in dict.fromkeys(habit.source for habit in habits):
        own = [habit for habit in habits if habit.source == source]
        most = max(own, key=lambda habit: habit.per_day)
        for name, retention in classes.items():
            # What is backed up into it directly covers the calendar.
            if retention.every is not None and all(habit.retention_class != name for habit in own):
                per_day = min(1 / _PERIOD[retention.every], sum(habit.per_day for habit in own))
                yield _stream(name, retention, per_day, most, default)


def _stream(name: str, retention: RetentionClass, per_day: float, habit: Habit, default: str) -> _Stream:
    return _Stream(name, retention.storage_class or default, per_day, habit, retention.keep + retention.lease)


def _steady(stream: _Stream, prices: Prices) -> Iterable[Storage]:
    """Objects, and beside them the lists, which never have another storage class than the standard one."""
    habit, own, standard = stream.habit, prices.of(stream.storage_class), prices.of(STANDARD)
    kept, charged = stream.per_day * stream.days, stream.per_day * max(stream.days, own.minimum_days)
    size = charged * _charged_size(habit, own)
    yield Storage(stream.retention_class, stream.storage_class, kept * habit.objects, size, _stored(size, own))
    size = kept * habit.lists
    yield Storage(stream.retention_class, STANDARD, kept * _LISTS, size, _stored(size, standard))


def _charged_size(habit: Habit, prices: StoragePrices) -> float:
    """Bytes of a backup's objects, where each counts as the least at least."""
    return habit.size + habit.objects * habit.shortfalls.get(prices.minimum_bytes, prices.minimum_bytes)


def _merged(rows: Iterable[Storage]) -> list[Storage]:
    """One row for each pair of classes."""
    found: dict[tuple[str, str], Storage] = {}
    for row in rows:
        key = row.retention_class, row.storage_class
        before = found.get(key, Storage(*key, 0.0, 0.0, 0.0))
        found[key] = Storage(*key, before.keys + row.keys, before.size + row.size, before.cost + row.cost)
    return [found[key] for key in sorted(found)]


def _stored(size: float, prices: StoragePrices) -> float:
    return size / _GIB * prices.gib_month


def _requests(streams: Sequence[_Stream], prices: Prices, part_size: int) -> list[Requests]:
    standard = prices.of(STANDARD)
    uploads = copies = upload_cost = copy_cost = 0.0
    listings = 0.0
    for stream in streams:
        habit, own = stream.habit, prices.of(stream.storage_class)
        nights = stream.per_day * MONTH
        small = nights * _LISTS
        if stream.retention_class == habit.retention_class:
            # Of an object in parts each part counts, and so do its beginning and its end.
            count = nights * (habit.objects + habit.size / part_size)
            uploads, upload_cost = (
                uploads + count + small,
                upload_cost + _charged(count, own) + _charged(small, standard),
            )
            keys = sum(
                other.per_day * other.days * (other.habit.objects + _LISTS)
                for other in streams
                if other.habit.source == habit.source
            )
            listings += nights * _LISTINGS * ceil(keys / _PAGE)
        else:
            count = nights * habit.objects
            copies, copy_cost = copies + count + small, copy_cost + _charged(count, own) + _charged(small, standard)
    return [
        Requests("uploads", uploads, upload_cost),
        Requests("copies", copies, copy_cost),
        Requests("listings", listings, _charged(listings, standard)),
    ]


def _charged(count: float, prices: StoragePrices) -> float:
    return count / 1000 * prices.put


def _restores(streams: Sequence[_Stream], prices: Prices) -> list[Restore]:
    """One of each source, from each class; the lists are small beside the objects."""
    found: dict[tuple[str, str], Restore] = {}
    for stream in streams:
        key, own, habit = (stream.retention_class, stream.storage_class), prices.of(stream.storage_class), stream.habit
        must_thaw = stream.storage_class in ARCHIVE_CLASSES
        cost = habit.size / _GIB * (prices.egress_gib + own.retrieval_gib)
        cost += (habit.objects + habit.size / _RANGE) / 1000 * own.get
        cost += habit.objects / 1000 * own.thaw if must_thaw else 0.0
        before = found.get(key, Restore(*key, 0.0, 0.0, must_thaw))
        found[key] = Restore(*key, before.size + habit.size, before.cost + cost, must_thaw)
    return [found[key] for key in sorted(found)]


def _notes(
    streams: Sequence[_Stream], measured: Measured, classes: Mapping[str, RetentionClass], prices: Prices
) -> Iterable[str]:
    for name, storage, days in sorted({(item.retention_class, item.storage_class, item.days) for item in streams}):
        least = prices.of(storage).minimum_days
        if days < least:
            yield f"{storage} charges at least {least} days, and {name} keeps its data for {days}"
    for stream in streams:
        own, habit = prices.of(stream.storage_class), stream.habit
        charged = _charged_size(habit, own)
        if charged > _MUCH * habit.size:
            yield (
                f"{stream.storage_class} charges at least {own.minimum_bytes} bytes for an object: a backup of "
                f"{habit.source} in {stream.retention_class} counts as {charged:.0f} bytes, and has {habit.size:.0f}"
            )
    for name in sorted({name for name, _ in measured.piles} - set(classes) - {VAULTS.rstrip("/")}):
        yield f"{name} is taken to stay as it is: " + (
            "what is held stays until archiver release" if name == HELD else "the configuration does not name it"
        )
