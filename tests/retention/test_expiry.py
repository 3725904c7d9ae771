"""What goes, and what must not go."""

from datetime import UTC, datetime, timedelta
from random import Random

from archiver.catalog.names import BackupPlace
from archiver.retention.expiry import Deletion, Need, expired, released, threatened
from archiver.retention.policy import Term
from tests.retention.world import DAY, Item

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TERMS = {"daily": Term("daily", 35, 42), "held": Term("held", 1, 2)}
OLD = "20261001T020000Z-3f9c2a"
NEW = "20261120T020000Z-3f9c2a"


def item(key: str, days: float) -> Item:
    return Item(key, 5, NOW - days * DAY)


def test_what_the_rules_would_have_removed() -> None:
    kept = [
        item("daily/backups/prod/b/manifest.json", 35 - 1e-4),
        item("daily/data/prod/b.started", 42 - 1e-4),
        item("daily/other/prod/x", 9999),
        item("held/backups/prod/b/manifest.json", 9999),
        item("held/data/prod/x", 9999),
        item("vault/prod/52d4c36485504eae/alice.age", 9999),
        item("strange/data/prod/x", 9999),
        item("daily", 9999),
    ]
    gone = [item("daily/backups/prod/a/manifest.json", 35), item("daily/data/prod/a.started", 42)]
    assert expired([*kept, *gone], TERMS, NOW) == [
        Deletion(gone[0].key, 5, "created on 2026-10-18, and daily keeps its manifests for 35 days"),
        Deletion(gone[1].key, 5, "created on 2026-10-11, and daily keeps its data for 42 days"),
    ]


def test_they_go_at_midnight_as_in_a_bucket() -> None:
    late = [Item("daily/data/prod/a", 5, NOW - 42 * DAY + timedelta(seconds=1))]
    assert expired(late, TERMS, NOW + DAY - timedelta(microseconds=1)) == []
    assert len(expired(late, TERMS, NOW + DAY)) == 1


def test_manifests_go_first_and_what_names_others_last() -> None:
    place = BackupPlace("daily", "backups", OLD)
    ordered = [
        place.manifest,
        place.signature,
        place.terms,
        f"daily/data/backups/{'0' * 32}.tar.zst.age",
        place.started,
        place.contents,
        place.objects,
        place.placement,
    ]
    mixed = [item(key, 99) for key in ordered]
    Random(1).shuffle(mixed)
    assert [deletion.key for deletion in expired(mixed, TERMS, NOW)] == ordered


def need(backup: str, name: str, promise: datetime | None, *keys: str) -> Need:
    return Need(backup, "prod", name, promise, dict.fromkeys(keys))


def test_what_a_promise_needs_is_threatened() -> None:
    deletions = [Deletion("a", 1, "old"), Deletion("b", 1, "old")]
    over = need("1", "daily", NOW, "a")
    promised = need("2", "daily", NOW + timedelta(microseconds=1), "b", "c")
    held = need("3", "held", None, "a")
    found = threatened(deletions, [over, promised, held], NOW)
    assert [(threat.need, threat.key, threat.reason) for threat in found] == [
        (promised, "b", "old"),
        (held, "a", "old"),
    ]


def test_a_release_takes_what_only_that_backup_needs() -> None:
    held, other = BackupPlace("held", "prod", OLD), BackupPlace("held", "prod", NEW)
    own, shared = "held/data/prod/own.tar.zst.age", "held/data/prod/shared.tar.zst.age"
    lists = [held.contents, held.objects, held.placement]
    stored = [
        item(key, 1)
        for key in (
            *(own, shared, *lists, held.manifest, held.signature, held.terms, other.manifest, other.placement),
            "held/data/prod/of-an-interrupted-hold.tar.zst.age",
            f"daily/data/prod/{OLD}.contents.jsonl.zst.age",
        )
    ]
    mine = need(OLD, "held", None, held.manifest, *lists, own, shared, "daily/data/prod/lent.tar.zst.age")
    needs = [mine, need(NEW, "held", None, other.manifest, shared), need(OLD, "daily", NOW, "daily/x")]

    expected = [held.manifest, held.signature, held.terms, own, *lists]
    assert [deletion.key for deletion in released(OLD, stored, needs)] == expected
    # Again, after it stopped half-way: the manifest is gone, and the placement tells what the objects are.
    assert [deletion.key for deletion in released(OLD, stored[:5], needs)] == [own, *lists]
    assert [deletion.key for deletion in released(OLD, stored[:5], needs[1:])] == lists
