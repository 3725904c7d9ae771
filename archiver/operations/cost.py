"""``archiver cost``: what there is to be paid for: what the store holds, and what is added to it night by night."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import is_class, parse_object_key
from archiver.config import Config, RetentionClass
from archiver.errors import NotFoundError
from archiver.operations.access import configured_keys
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.prices import Prices
from archiver.stores.base import Store

STANDARD = "STANDARD"
"""What a store calls the storage class of keys for which none is named."""
_USUAL_CLASS = "daily"
"""What is backed up into where no class is named."""
_WINDOW = timedelta(days=30)
"""How far back the nights that are taken for usual go."""


class Pile(msgspec.Struct):
    """What lies in one storage class of one retention class."""

    keys: int = 0
    size: int = 0
    """Bytes."""
    small: int = 0
    """Bytes by which keys fall short of the least that is charged."""


class _Objects(msgspec.Struct):
    """Those of one source in one class, as LIST has them."""

    count: int = 0
    short: dict[int, int] = msgspec.field(default_factory=dict)
    """By each least size that some storage class charges: bytes by which they fall short of it."""

    def add(self, size: int, least: Iterable[int]) -> None:
        self.count += 1
        for limit in least:
            self.short[limit] = self.short.get(limit, 0) + max(0, limit - size)


class Habit(msgspec.Struct, frozen=True):
    """The backups that a source makes into one class, on average."""

    source: str
    retention_class: str
    per_day: float
    nights: int
    """How many backups this was taken from."""
    objects: float
    """In one backup."""
    size: float
    """Bytes of its objects."""
    lists: float
    """Bytes of its lists."""
    shortfalls: Mapping[int, float] = msgspec.field(default_factory=dict)
    """By a number of bytes: by how many an object falls short of it, on average over what LIST shows of the source in
    the class. Empty where it shows none."""


class Measured(msgspec.Struct, frozen=True):
    """What the store holds, and what is added to it."""

    piles: Mapping[tuple[str, str], Pile]
    """By retention class (or ``vault``) and storage class."""
    habits: Sequence[Habit]


def measure(store: Store, config: Config, prices: Prices) -> Measured:
    """Look at everything that the destination holds. Raises ``NotFoundError`` where there is no backup."""
    piles: dict[tuple[str, str], Pile] = {}
    sources: set[str] = set()
    objects: dict[tuple[str, str], _Objects] = {}
    least = {each.minimum_bytes for each in prices.storage.values()}
    for item in store.list():
        name, _, rest = item.key.partition("/")
        if is_class(name) and rest.startswith("backups/"):
            sources.add(rest.split("/")[1])
        place = parse_object_key(item.key)
        if place is not None:
            objects.setdefault((place.source, name), _Objects()).add(item.size, least)
        storage_class = item.storage_class or STANDARD
        pile = piles.setdefault((name, storage_class), Pile())
        pile.keys += 1
        pile.size += item.size
        pile.small += max(0, prices.of(storage_class).minimum_bytes - item.size)
    now = store.clock()
    trusted = configured_keys(config)
    habits = []
    for source in sorted(sources):
        readable = [found for found in Archive(store, source, trusted).backups() if isinstance(found, Backup)]
        for habit in habits_of(source, readable, config.classes, now):
            listed = objects.get((source, habit.retention_class), _Objects())
            shortfalls = {limit: short / listed.count for limit, short in listed.short.items()}
            habits.append(replace(habit, shortfalls=shortfalls))
    if not habits:
        raise NotFoundError(
            f"{store.url} holds no backup of the last {_WINDOW.days} days that the cost could be estimated from",
            hint="Make a first backup with archiver backup.",
        )
    return Measured(piles, habits)


def habits_of(
    source: str, backups: Iterable[Backup], classes: Mapping[str, RetentionClass], now: datetime
) -> list[Habit]:
    """What ``source`` does usually, by the class that its backups are made into. Where nothing but promoted copies is
    left they do not tell how often: the newest one counts as a first night, in that of ``classes`` that has its terms.
    """
    recent = [backup for backup in backups if now - _WINDOW <= backup.manifest.started <= now]
    by_class: dict[str, list[Backup]] = {}
    for backup in recent:
        name = next((name for name, end in backup.promises.items() if end == backup.manifest.promised_until), None)
        if name is not None:
            by_class.setdefault(name, []).append(backup)
    if recent and not by_class:
        newest = max(recent, key=lambda backup: backup.manifest.started)
        by_class[_class_of(newest, classes)] = [newest]
    return [_habit(source, name, found) for name, found in sorted(by_class.items())]


def _class_of(backup: Backup, classes: Mapping[str, RetentionClass]) -> str:
    """Into which class a backup was made of which only copies in other ones are left."""
    terms = (backup.manifest.keep_days, backup.manifest.lease_days)
    like = (name for name, item in classes.items() if (item.keep, item.lease) == terms and item.every is None)
    return next(like, _USUAL_CLASS)


def _habit(source: str, name: str, backups: Sequence[Backup]) -> Habit:
    manifests = [backup.manifest for backup in backups]
    started = [manifest.started for manifest in manifests]
    days = (max(started) - min(started)) / timedelta(days=1)
    count = len(manifests)
    return Habit(
        source=source,
        retention_class=name,
        # Some backups of one day, as after the installation, do not tell how often there will be one.
        per_day=(count - 1) / days if days >= 1 else 1.0,
        nights=count,
        objects=sum(manifest.totals.objects for manifest in manifests) / count,
        size=sum(manifest.totals.stored_bytes for manifest in manifests) / count,
        # The placement has about the size of the objects list.
        lists=sum(manifest.contents.stored_size + 2 * manifest.objects.stored_size for manifest in manifests) / count,
    )
