"""Which promotions are done, in which order, and what one that fails means for the others."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest

from archiver.catalog.names import BackupPlace, parse_object_key, vault_key
from archiver.config import RetentionClass
from archiver.crypto.trust import TrustedKey
from archiver.errors import ArchiverError, IntegrityError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.promote import failure, known, preview_due, promote_due
from archiver.progress import Silent
from archiver.retention.policy import Term
from archiver.retention.promotion import Promotion
from archiver.stores.base import StoredObject
from tests.operations.archives import SOURCE, Site
from tests.operations.promoting import (
    DAY,
    WEEKLY,
    YEARLY,
    check_whole,
    commit,
    place,
    terms_of,
    trial_site,
    trial_store,
)

NIGHTS = ("20261130T020000Z-000030", "20261201T020000Z-000001", "20261202T020000Z-000002")
TERMS = terms_of(weekly=WEEKLY, yearly=YEARLY)


class Heard(Silent):
    """Remembers the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def site() -> Site:
    """Three nights: a Monday, and the first two days of a month."""
    site = trial_site()
    before: BackupPlace | None = None
    for night in NIGHTS:
        before = commit(site, night, objects=2, before=before)
    return site


def done(archive: Archive, terms: dict[str, Term] = TERMS) -> list[tuple[str, str, int]]:
    """Which night was copied into which class, and how many objects that took; without a warning."""
    heard = Heard()
    found = promote_due(archive, terms, heard)
    assert heard.warnings == []
    return [(item.copied.place.retention_class, item.copied.place.backup, item.copied.objects_copied) for item in found]


def test_the_first_of_each_period_is_copied_the_longest_class_first(site: Site) -> None:
    first, second, _ = NIGHTS

    assert done(site.archive()) == [
        ("yearly", first, 2),
        ("monthly", first, 0),
        ("monthly", second, 2),
        ("weekly", first, 0),
    ]

    for name, night in (("yearly", first), ("monthly", first), ("monthly", second), ("weekly", first)):
        check_whole(site.archive(), place(name, night))
    assert done(site.archive()) == []


def test_what_this_run_copied_is_not_read_again(site: Site) -> None:
    """Also where the copies come so late that only this run knows who made them."""
    site.store.now += 5 * DAY
    site.store.reads.clear()

    assert len(done(site.archive())) == 4

    assert not {key for key, _, _ in site.store.reads if parse_object_key(key) is not None}


def test_a_backup_that_was_made_in_the_class_covers_its_period(site: Site) -> None:
    store = trial_store(site)
    store.expire("daily/")
    site.commit(NIGHTS[1], "monthly")

    assert done(site.archive(), terms_of()) == []


def test_the_next_of_its_period_takes_the_place_of_one_that_fails(site: Site) -> None:
    """A damaged first backup must not leave the month without any."""
    lose_object(site, NIGHTS[1])
    heard = Heard()

    found = promote_due(site.archive(), TERMS, heard)

    assert [(item.promotion.target, item.promotion.backup) for item in found] == [
        ("yearly", NIGHTS[0]),
        ("monthly", NIGHTS[0]),
        ("monthly", NIGHTS[2]),
        ("weekly", NIGHTS[0]),
    ]
    assert len(heard.warnings) == 1
    assert heard.warnings[0].startswith(f"{NIGHTS[1]} cannot be copied into monthly: object ")
    assert done(site.archive()) == []


def test_one_that_fails_is_due_again_where_none_can_take_its_place(site: Site) -> None:
    for key in [key for key in trial_store(site).keys if NIGHTS[2] in key]:
        site.store.remove(key)
    lost, data = lose_object(site, NIGHTS[1])
    heard = Heard()

    found = promote_due(site.archive(), TERMS, heard)

    assert [item.promotion.target for item in found] == ["yearly", "monthly", "weekly"]
    assert len(heard.warnings) == 1
    site.store.create(lost, [data])
    assert done(site.archive()) == [("monthly", NIGHTS[1], 2)]


def test_a_store_that_refuses_every_copy_is_asked_a_few_times(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for night in range(3, 10):
        commit(site, f"2026120{night}T020000Z-00000{night}", objects=1)

    def refuse(source: str, key: str) -> StoredObject:
        raise RefusedError("access denied")

    monkeypatch.setattr(site.store, "copy", refuse)
    heard = Heard()
    assert promote_due(site.archive(), terms_of(), heard) == []
    assert len(heard.warnings) == 3


def lose_object(site: Site, backup: str) -> tuple[str, bytes]:
    """Take the key of one object away; the key, and its bytes."""
    lost = next(iter(site.archive().placement(site.archive().find(backup)).values()))
    data = site.store.bytes_of(lost)
    site.store.remove(lost)
    return lost, data


def test_a_preview_says_what_is_due_and_what_stands_in_its_way(site: Site) -> None:
    lose_object(site, NIGHTS[1])
    before = trial_store(site).keys

    due = preview_due(site.archive(), TERMS)

    assert [(item.promotion.target, item.promotion.backup) for item in due] == [
        ("yearly", NIGHTS[0]),
        ("monthly", NIGHTS[0]),
        ("monthly", NIGHTS[1]),
        ("weekly", NIGHTS[0]),
    ]
    assert [isinstance(item.plan, IntegrityError) for item in due] == [False, False, True, False]
    assert trial_store(site).keys == before


def test_backups_that_are_not_to_be_trusted_are_not_promoted(site: Site) -> None:
    site.store.overwrite(place("daily", NIGHTS[0]).signature, b"garbage")

    assert [night for _, night, _ in done(site.archive(), terms_of())] == [NIGHTS[1]]


def test_what_a_revoked_key_signed_is_not_promoted(site: Site) -> None:
    """A copy would be younger than the revocation: refused, once the original is gone."""
    revoked = TrustedKey(site.signing_key.verify_key, site.store.now + DAY)
    archive = site.archive(trusted=[revoked])
    assert isinstance(archive.find(), Backup)

    assert done(archive) == []


def test_what_decides_is_what_the_copies_promise(site: Site) -> None:
    backups = [item for item in site.archive().backups() if isinstance(item, Backup)]

    found = known(backups)

    assert [item.backup for item in found] == sorted(NIGHTS, reverse=True)
    assert found[0].promises == {"daily": datetime.fromisoformat("2026-12-02T02:00:00Z") + timedelta(days=35)}
    assert all(item.lasting for item in found)


def test_a_year_later_only_the_first_of_a_month_is_there(site: Site) -> None:
    done(site.archive(), terms_of())
    site.store.now += 60 * DAY
    trial_store(site).expire("daily/")

    survey = site.archive().survey(site.store.now)

    assert ids(survey.backups) == [NIGHTS[1], NIGHTS[0]]
    assert survey.removed == []
    assert done(site.archive(), terms_of()) == []


def test_a_class_that_keeps_for_less_than_the_manifest_says_takes_nothing(site: Site) -> None:
    """The backup stands for its period where it is."""
    terms = terms_of(weekly=RetentionClass(keep=34, lease=7, every="week"))

    assert [(name, night) for name, night, _ in done(site.archive(), terms)] == [
        ("monthly", NIGHTS[0]),
        ("monthly", NIGHTS[1]),
    ]
    assert trial_store(site).in_class("weekly") == set()
    # As long will do.
    terms = terms_of(weekly=RetentionClass(keep=35, lease=7, every="week"))
    assert [(name, night) for name, night, _ in done(site.archive(), terms)] == [("weekly", NIGHTS[0])]


def ids(backups: Iterable[object]) -> list[str]:
    return [item.manifest.backup for item in backups if isinstance(item, Backup)]


def test_what_nobody_could_restore_is_not_promoted(site: Site) -> None:
    """It is due still when the key file is back."""
    key = vault_key(SOURCE, site.vault_id, "ada", "age")
    data = site.store.bytes_of(key)
    site.store.remove(key)
    heard = Heard()

    assert promote_due(site.archive(), TERMS, heard) == []
    assert all(isinstance(item.plan, IntegrityError) for item in preview_due(site.archive(), TERMS))

    assert any(f"holds no key file of vault {site.vault_id}: nobody could restore" in line for line in heard.warnings)
    site.store.create(key, [data])
    assert len(done(site.archive())) == 4


def test_the_error_of_one_names_it() -> None:
    line = failure(Promotion("B", "monthly", "the first of 2026-11"), ArchiverError("no room", hint="Make some."))

    assert line == "B cannot be copied into monthly: no room (Make some.)"
