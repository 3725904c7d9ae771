"""The copies of a backup: where they lie, until when they are promised, and when they are not worth a word any more."""

from datetime import datetime, timedelta

import pytest

from archiver.catalog.names import BackupPlace, backup_time
from archiver.catalog.terms import MAX_TERMS, Terms, encode_terms
from archiver.errors import AuthenticityError, NotFoundError, RefusedError, UnsignedError
from archiver.operations.history import Backup, Unreadable
from archiver.operations.promotion import promote_copy
from archiver.progress import Silent
from tests.operations.archives import DURATION, Site
from tests.operations.promoting import BACKUP, DAY, commit, place, terms_of, trial_site, trial_store

STARTED = backup_time(BACKUP)
SECOND = timedelta(seconds=1)
DAILY, MONTHLY, HELD = place("daily"), place("monthly"), place("held")


@pytest.fixture
def site() -> Site:
    """A backup with a copy in ``monthly``, which was made ten days later."""
    site = trial_site()
    commit(site)
    site.store.now += 10 * DAY
    promote(site, "monthly")
    site.store.now += DAY
    return site


def promote(site: Site, target: str) -> None:
    promote_copy(site.archive(), site.archive().find(), target, terms_of(), Silent())


def remove(site: Site, *keys: str) -> None:
    for key in keys:
        site.store.remove(key)


def shown(site: Site, now: datetime, *, everything: bool = False) -> list[Backup | Unreadable]:
    site.store.now = now
    return list(site.archive().survey(now, everything=everything).backups)


def test_all_copies_are_known_the_oldest_first(site: Site) -> None:
    promote(site, "held")
    found = site.archive().find()
    assert (found.place, found.places) == (DAILY, (DAILY, MONTHLY, HELD))
    assert found.promises == {"daily": STARTED + 35 * DAY, "monthly": STARTED + 400 * DAY, "held": None}
    assert (found.promised_until, found.doubts) == (None, ())
    (listed,) = site.archive().backups()
    assert listed == found


def test_within_a_second_the_original_comes_first(site: Site) -> None:
    """S3 tells no more of a key's age."""
    site.store._objects = {key: (data, STARTED) for key, (data, _) in site.store._objects.items()}
    assert site.archive().find().places == (DAILY, MONTHLY)


def test_one_copy_can_be_asked_for(site: Site) -> None:
    found = site.archive().find(f"monthly/{BACKUP}")
    assert (found.place, found.places) == (MONTHLY, (MONTHLY,))
    assert found.promised_until == STARTED + 400 * DAY


@pytest.mark.parametrize("name", ["objects", "contents", "placement"])
@pytest.mark.parametrize("at", [DAILY, MONTHLY])
def test_a_place_without_all_lists_does_not_count(site: Site, at: BackupPlace, name: str) -> None:
    (other,) = {DAILY, MONTHLY} - {at}
    remove(site, getattr(at, name))
    assert site.archive().find().places == (other,)


def test_a_list_of_another_size_is_none(site: Site) -> None:
    site.store.overwrite(DAILY.contents, b"short")
    assert site.archive().find().places == (MONTHLY,)


def test_the_copy_is_enough_when_the_original_has_expired(site: Site) -> None:
    trial_store(site).expire("daily/")
    (found,) = shown(site, STARTED + 50 * DAY)
    assert isinstance(found, Backup)
    assert (found.place, found.places) == (MONTHLY, (MONTHLY,))
    assert site.archive().find().place == MONTHLY


def test_a_backup_is_hidden_when_all_its_promises_are_over(site: Site) -> None:
    assert len(shown(site, STARTED + 400 * DAY - SECOND)) == 1
    assert shown(site, STARTED + 400 * DAY) == []
    assert len(shown(site, STARTED + 400 * DAY, everything=True)) == 1
    promote(site, "held")
    assert len(shown(site, STARTED + 40000 * DAY)) == 1


@pytest.mark.parametrize(
    "planted",
    [
        b"",
        b"garbage",
        b"[" * 1000,
        encode_terms(Terms(version=1, keep_days=400, lease_days=35)).rstrip() + b" " * MAX_TERMS,
        b'{"version":2,"keep_days":400,"lease_days":35}',
        b'{"version":1,"keep_days":400,"lease_days":null}',
        b'{"version":1,"keep_days":0,"lease_days":1}',
        b"\xff" * 50,
    ],
)
def test_terms_that_cannot_be_read_lose_nothing(site: Site, planted: bytes) -> None:
    site.store.overwrite(MONTHLY.terms, planted)
    found = site.archive().find()
    assert found.places == (DAILY, MONTHLY)
    assert found.promises == {"daily": STARTED + 35 * DAY, "monthly": STARTED + 35 * DAY}
    (doubt,) = found.doubts
    assert doubt.startswith(f"{MONTHLY.terms} is ignored: ")


@pytest.mark.parametrize("error", [NotFoundError("gone"), RefusedError("archived")])
def test_terms_that_the_store_will_not_give_out_lose_nothing(
    site: Site, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = site.store.read

    def refusing(key: str, start: int = 0, length: int | None = None) -> object:
        if key == MONTHLY.terms:
            raise error
        return read(key, start, length)

    monkeypatch.setattr(site.store, "read", refusing)
    found = site.archive().find()
    assert found.places == (DAILY, MONTHLY)
    assert found.doubts == (f"{MONTHLY.terms} is ignored: {error}",)


@pytest.mark.parametrize(
    ("keep", "promise"),
    [(1, STARTED + 35 * DAY), (35, STARTED + 35 * DAY), (36, STARTED + 36 * DAY), (None, None)],
)
def test_terms_that_were_planted_take_nothing_away(site: Site, keep: int | None, promise: datetime | None) -> None:
    """Whoever may create keys would have a backup hidden before its time."""
    lease = None if keep is None else 1
    terms = encode_terms(Terms(version=1, keep_days=keep, lease_days=lease))
    site.store.create(DAILY.terms, [terms])
    assert site.archive().find().promises["daily"] == promise
    # In the same second, or before the manifest, while the backup was made.
    for earlier in (timedelta(0), timedelta(minutes=1)):
        site.store._objects[DAILY.terms] = terms, STARTED + DURATION - earlier
        assert site.archive().find().promises["daily"] == promise


# A signature is the older key, and goes first.


def test_what_is_about_to_expire_is_no_news(site: Site) -> None:
    trial_store(site).expire("monthly/")
    remove(site, DAILY.signature)
    (found,) = shown(site, STARTED + 35 * DAY - SECOND)
    assert isinstance(found, Unreadable)
    assert isinstance(found.error, UnsignedError)
    assert shown(site, STARTED + 35 * DAY) == []
    (found,) = shown(site, STARTED + 35 * DAY, everything=True)
    assert isinstance(found, Unreadable)
    with pytest.raises(AuthenticityError, match="has no signature"):
        site.archive().find()


def test_the_terms_of_a_copy_speak_for_it_too(site: Site) -> None:
    trial_store(site).expire("daily/")
    remove(site, MONTHLY.signature)
    assert len(shown(site, STARTED + 400 * DAY - SECOND)) == 1
    assert shown(site, STARTED + 400 * DAY) == []
    # They were created before the signature, so they may be gone as well.
    remove(site, MONTHLY.terms)
    assert shown(site, STARTED + 35 * DAY) == []


def test_one_copy_that_should_be_there_is_news(site: Site) -> None:
    """However many others are expiring."""
    remove(site, DAILY.signature, MONTHLY.signature)
    assert len(shown(site, STARTED + 35 * DAY)) == 1
    assert shown(site, STARTED + 400 * DAY) == []


@pytest.mark.parametrize("name", ["manifest", "signature"])
def test_what_is_damaged_does_not_expire(site: Site, name: str) -> None:
    trial_store(site).expire("monthly/")
    if name == "manifest":
        remove(site, DAILY.signature)
    site.store.overwrite(getattr(DAILY, name), b"garbage")
    assert len(shown(site, STARTED + 35 * DAY)) == 1


def test_an_expiring_copy_says_nothing_against_the_other(site: Site) -> None:
    remove(site, DAILY.signature)
    (found,) = shown(site, STARTED + 36 * DAY)
    assert isinstance(found, Backup)
    assert (found.places, found.irregular) == ((MONTHLY,), ())
