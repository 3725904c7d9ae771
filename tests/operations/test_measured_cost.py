"""archiver cost: what is taken from the destination, before anything is multiplied."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from archiver.config import DEFAULT_CLASSES as CLASSES
from archiver.config import Config, load_config
from archiver.errors import ConfigError, NotFoundError
from archiver.operations.cost import habits_of, measure
from archiver.operations.history import Backup
from archiver.stores.base import StoredObject
from tests.operations.archives import SOURCE, Site
from tests.operations.scene import Scene
from tests.operations.test_cost import PLAIN, PRICES


def backups(site: Site, *ids: str) -> list[Backup]:
    for identifier in ids:
        site.commit(identifier)
    return [backup for backup in site.archive().backups() if isinstance(backup, Backup)]


def test_what_is_usual_is_taken_from_the_last_thirty_days() -> None:
    found = backups(
        Site(), *(f"202611{day:02}T020000Z-{day:06x}" for day in (1, 3, 21, 23, 27)), "20261001T020000Z-abcdef"
    )

    (habit,) = habits_of(SOURCE, found, CLASSES, datetime(2026, 11, 29, tzinfo=UTC))

    assert habit.nights == 5
    assert habit.per_day == pytest.approx(4 / 26)
    assert habits_of(SOURCE, found, CLASSES, datetime(2027, 3, 1, tzinfo=UTC)) == []


def test_a_first_day_counts_as_nightly() -> None:
    found = backups(Site(), "20261122T020000Z-aaaaaa", "20261122T021000Z-bbbbbb", "20261122T022000Z-cccccc")

    (habit,) = habits_of(SOURCE, found, CLASSES, datetime(2026, 11, 22, 3, tzinfo=UTC))

    assert habit.per_day == 1.0


def test_a_copy_in_another_class_is_no_night() -> None:
    (backup,) = backups(Site(), "20261122T020000Z-aaaaaa")
    end = backup.manifest.promised_until
    copied = replace(backup, promises={"monthly": end + timedelta(days=365), "daily": end})

    (habit,) = habits_of(
        SOURCE, [copied, replace(backup, promises={"monthly": None})], CLASSES, datetime(2026, 11, 23, tzinfo=UTC)
    )

    assert (habit.retention_class, habit.nights) == ("daily", 1)


@pytest.fixture
def config(scene: Scene) -> Config:
    return load_config(scene.config)


def test_what_is_stored_is_counted_by_class_and_storage_class(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    record = site.put_object(b"x" * 100)
    site.commit(objects=[record])
    site.store.create("stranger.txt", [b"12345"])
    listed = site.store.list

    def cold(prefix: str = "") -> Iterator[StoredObject]:
        for item in listed(prefix):
            yield replace(item, storage_class="DEEP_ARCHIVE" if ".tar." in item.key else None)

    monkeypatch.setattr(site.store, "list", cold)
    site.store.now = datetime(2026, 11, 23, tzinfo=UTC)
    config = replace(config, trusted=(str(site.signing_key.verify_key),))

    measured = measure(site.store, config, PRICES)

    pile = measured.piles["daily", "DEEP_ARCHIVE"]
    assert (pile.keys, pile.size, pile.small) == (1, record.stored_size, 1000 - record.stored_size)
    assert measured.piles["stranger.txt", "STANDARD"].size == 5
    assert sum(pile.size for pile in measured.piles.values()) == sum(item.size for item in listed())
    (habit,) = measured.habits
    assert habit.source == SOURCE
    assert habit.shortfalls == {0: 0.0, 1000: 1000 - record.stored_size}
    with pytest.raises(ConfigError, match="DEEP_ARCHIVE"):
        measure(site.store, config, replace(PRICES, storage={"STANDARD": PLAIN}))


def test_how_small_objects_are_is_taken_from_the_listing_of_source_and_class(config: Config) -> None:
    site = Site()
    records = [site.put_object(bytes([number]) * size) for number, size in enumerate((1, 2, 3))]
    large = site.put_object(random.Random(1).randbytes(5000))
    site.commit(objects=[*records, large])
    # Neither another source's, nor another class's, nor lists.
    site.store.create(f"daily/data/another/{1:032x}.tar.zst.age", [b"x"])
    site.store.create(f"monthly/data/{SOURCE}/{2:032x}.tar.zst.age", [b"x"])
    site.store.now = datetime(2026, 11, 23, tzinfo=UTC)

    (habit,) = measure(site.store, replace(config, trusted=(str(site.signing_key.verify_key),)), PRICES).habits

    short = sum(1000 - record.stored_size for record in records)
    assert large.stored_size > 1000
    assert habit.shortfalls[1000] == pytest.approx(short / 4)


def test_without_a_backup_there_is_nothing_to_estimate_from(config: Config) -> None:
    with pytest.raises(NotFoundError, match="no backup"):
        measure(Site().store, config, PRICES)
