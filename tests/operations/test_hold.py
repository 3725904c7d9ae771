"""Holding a backup and releasing it: what stays, what goes, and what an interruption leaves."""

from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.buffers import Buffer
from archiver.catalog.lines import encode_lines
from archiver.catalog.names import BackupPlace, object_key, parse_object_key, vault_key
from archiver.catalog.records import PLACEMENT, PlacementRecord
from archiver.catalog.terms import Terms, encode_terms
from archiver.config import DEFAULT_CLASSES, HELD, Tuning
from archiver.crypto.trust import TrustedKey
from archiver.errors import AlreadyExistsError, IntegrityError, NotFoundError, StorageError
from archiver.operations.copy_plan import plan_copy
from archiver.operations.copy_site import CopySite
from archiver.operations.expire import carry_out as carry_out_expiry
from archiver.operations.expire import plan_expiry
from archiver.operations.history import Backup
from archiver.operations.hold import hold
from archiver.operations.needs import needs
from archiver.operations.promotion import carry_out, promote_copy
from archiver.operations.release import LEFT_OVER, left_over, list_held, release
from archiver.operations.writing import write_object
from archiver.progress import Silent
from archiver.retention.policy import in_force
from archiver.retention.rules import Rule
from archiver.stores.base import StoredObject
from tests.operations.archives import SOURCE, Site
from tests.operations.promoting import (
    BACKUP,
    DAY,
    check_whole,
    commit,
    copy_site,
    objects_in,
    place,
    terms_of,
    trial_site,
    trial_store,
)
from tests.operations.test_promote import Heard

OTHER = "20261123T020000Z-0000bb"
THIRD = "20261124T020000Z-0000cc"


@pytest.fixture
def site() -> Site:
    site = trial_site()
    first = commit(site)
    commit(site, OTHER, before=first)
    return site


def do_hold(site: Site, reference: str = BACKUP) -> None:
    hold(copy_site(site), reference, Silent(), dry_run=False)


def do_release(site: Site, reference: str = BACKUP) -> list[str]:
    """The keys that were deleted, in order."""
    done = release(copy_site(site), reference, Silent(), dry_run=False)
    return [deletion.key for deletion in done.deletions]


def test_a_held_backup_outlives_every_class(site: Site) -> None:
    do_hold(site)
    store = trial_store(site)
    site.store.now += 30_000 * DAY
    store.expire("daily/", "monthly/")

    survey = site.archive().survey(site.store.now)

    assert [item.place for item in survey.backups] == [place(HELD)]
    check_whole(site.archive(), place(HELD))


def test_what_is_held_is_not_held_again(site: Site) -> None:
    do_hold(site)

    with pytest.raises(AlreadyExistsError, match="is held already"):
        do_hold(site, "20261122")


def test_a_class_before_the_id_does_not_choose_what_is_believed(site: Site) -> None:
    """A planted copy's placement may lead to garbage: the oldest copy's counts, whichever is named."""
    plant_copy(site, place("daily"), "monthly")
    do_hold(site, f"monthly/{BACKUP}")
    trial_store(site).expire("daily/", "monthly/")
    check_whole(site.archive(), place(HELD))


def plant_copy(site: Site, first: BackupPlace, name: str) -> None:
    """A copy of a backup that leads to garbage of the right size; younger than the original."""
    site.store.now += timedelta(minutes=5)
    archive = site.archive()
    backup = archive.find(first.backup)
    planted = BackupPlace(name, first.source, first.backup)
    records = []
    for record in archive.objects(backup).values():
        key = object_key(name, first.source, record.id, record.kind)
        site.store.create(key, [bytes(record.stored_size)])
        records.append(PlacementRecord(id=record.id, key=key))
    write_object(site.store, planted.placement, encode_lines(records, PLACEMENT), [], Tuning(workers=1))
    for ours, theirs in (
        (first.contents, planted.contents),
        (first.objects, planted.objects),
        (first.signature, planted.signature),
        (first.manifest, planted.manifest),
    ):
        site.store.copy(ours, theirs)


def test_release_takes_its_own_keys_and_no_others(site: Site) -> None:
    before = trial_store(site).keys
    do_hold(site)
    do_hold(site, OTHER)
    others = {key for key in trial_store(site).keys if OTHER in key}

    deleted = do_release(site)

    assert deleted[0] == place(HELD).manifest
    assert deleted[-1] == place(HELD).placement
    assert trial_store(site).unlocked == deleted
    assert len(deleted) == 3 + 6
    assert trial_store(site).keys >= before | others
    for kept in (place("daily"), place("daily", OTHER), place(HELD, OTHER)):
        check_whole(site.archive(), kept)
    do_release(site, OTHER)
    assert trial_store(site).keys == before


def test_a_dry_run_says_the_same_and_does_nothing(site: Site) -> None:
    before = trial_store(site).keys
    plan = hold(copy_site(site), BACKUP, Silent(), dry_run=True)
    assert (len(plan.plan.copies), plan.copied) == (3, None)
    assert trial_store(site).keys == before
    do_hold(site)
    held = trial_store(site).keys

    said = release(copy_site(site), BACKUP, Silent(), dry_run=True)

    assert trial_store(site).keys == held
    assert trial_store(site).unlocked == []
    assert [deletion.key for deletion in said.deletions] == do_release(site)
    assert said.stays_in == ["daily"]


def test_where_it_stays_is_said(site: Site) -> None:
    do_hold(site)
    trial_store(site).expire("daily/")

    assert release(copy_site(site), BACKUP, Silent(), dry_run=False).stays_in == []


def test_what_can_be_released_is_said(site: Site) -> None:
    with pytest.raises(NotFoundError) as caught:
        do_release(site, "latest")
    assert caught.value.hint == "What is released is called by its id. None is held."

    do_hold(site)
    do_hold(site, OTHER)

    with pytest.raises(NotFoundError) as caught:
        do_release(site, "latest")
    assert (
        caught.value.hint
        == f"What is released is called by its id. Held are {OTHER}, {BACKUP}: give the id, or its beginning."
    )


@pytest.mark.parametrize("reference", ["latest", BACKUP, "held/2026", "", "held/", "nothing"])
def test_what_is_not_held_is_not_released(site: Site, reference: str) -> None:
    before = trial_store(site).keys

    with pytest.raises(NotFoundError):
        do_release(site, reference)

    assert trial_store(site).keys == before


def test_a_beginning_of_two_ids_is_refused(site: Site) -> None:
    do_hold(site)
    do_hold(site, OTHER)

    with pytest.raises(NotFoundError, match="the beginning of 2"):
        do_release(site, "held/2026")


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("number", range(1, 10))
def test_an_interrupted_release_goes_on(site: Site, number: int, lost: bool) -> None:
    before = trial_store(site).keys
    do_hold(site)
    store = trial_store(site)
    store.written.clear()
    store.fail_at, store.answer_lost = number, lost

    with pytest.raises(StorageError):
        do_release(site)

    store.fail_at = None
    whole = place(HELD).manifest in store.keys
    assert whole == (number == 1 and not lost)
    assert set(site.archive().find(BACKUP).promises) == ({"daily", HELD} if whole else {"daily"})
    if store.keys != before:
        do_release(site)
    assert store.keys == before


@pytest.mark.parametrize("number", range(1, 10))
def test_an_interrupted_hold_can_be_gone_on_with_and_given_up(site: Site, number: int) -> None:
    before = trial_store(site).keys
    store = trial_store(site)

    def interrupt() -> None:
        store.written.clear()
        store.fail_at = number
        with pytest.raises(StorageError):
            do_hold(site)
        store.fail_at = None

    interrupt()
    assert set(site.archive().find(BACKUP).promises) == {"daily"}
    if store.keys != before:
        do_release(site)
    assert store.keys == before
    interrupt()
    do_hold(site)
    assert len(objects_in(site, HELD)) == 3
    store.expire("daily/")
    check_whole(site.archive(), place(HELD))


@pytest.mark.parametrize("number", range(2, 10))
def test_what_was_left_too_long_ago_is_not_used(site: Site, number: int) -> None:
    """archiver expire may have decided to delete it."""
    store = trial_store(site)
    before = store.keys
    interrupt_hold(site, number)
    debris = store.keys
    site.store.now += 6 * DAY

    with pytest.raises(IntegrityError, match="left by an interrupted hold or release more than 6 days ago") as caught:
        do_hold(site)

    assert caught.value.hint is not None
    assert f"archiver release {BACKUP} removes" in caught.value.hint
    assert store.keys == debris
    do_release(site)
    assert store.keys == before
    do_hold(site)
    check_whole(site.archive(), place(HELD))


def test_what_was_left_lately_is_used(site: Site) -> None:
    interrupt_hold(site, 8)
    site.store.now += 6 * DAY - timedelta(seconds=1)

    do_hold(site)

    assert len(objects_in(site, HELD)) == 3
    check_whole(site.archive(), place(HELD))


def share(site: Site) -> None:
    """A third backup, which refers to an object of the second."""
    record = next(iter(site.archive().objects(site.archive().find(OTHER)).values()))
    site.follow(place("daily", OTHER), THIRD, objects=[record])


def test_what_another_held_copy_has_had_for_long_is_used(site: Site) -> None:
    share(site)
    do_hold(site, OTHER)
    site.store.now += 20 * DAY

    do_hold(site, THIRD)

    assert len(objects_in(site, HELD)) == 3
    do_release(site, OTHER)
    assert len(objects_in(site, HELD)) == 1
    check_whole(site.archive(), place(HELD, THIRD))


def test_a_release_on_another_machine_fails_the_hold_that_relied_on_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(site)
    do_hold(site, OTHER)
    create = site.store.create

    def releasing(key: str, body: Iterable[Buffer]) -> StoredObject:
        if key == place(HELD, THIRD).terms:
            do_release(site, OTHER)
        return create(key, body)

    with monkeypatch.context() as patched:
        patched.setattr(site.store, "create", releasing)
        with pytest.raises(IntegrityError, match="does not list it"):
            do_hold(site, THIRD)

    assert HELD not in site.archive().find(THIRD).promises
    do_release(site, THIRD)
    do_hold(site, THIRD)
    check_whole(site.archive(), place(HELD, THIRD))


def interrupt_hold(site: Site, number: int) -> None:
    """Let a hold fail at one of its writes."""
    store = trial_store(site)
    store.written.clear()
    store.fail_at = number
    with pytest.raises(StorageError):
        do_hold(site)
    store.fail_at = None


def test_a_hold_that_goes_on_after_an_expire_has_decided_loses_nothing(site: Site) -> None:
    """It was planned before what it goes on with was left over."""
    interrupt_hold(site, 9)
    site.store.now += 6 * DAY - timedelta(minutes=1)
    archive = site.archive()
    plan = plan_copy(archive, archive.find(BACKUP), HELD, terms_of())
    site.store.now += DAY + timedelta(hours=1)
    expiry = plan_expiry(site.store, DEFAULT_CLASSES, Silent())
    assert [item for item in expiry.deletions if item.key.startswith("held/")]
    carry_out(archive, plan, Silent())

    carry_out_expiry(site.store, expiry, Silent())

    check_whole(site.archive(), place(HELD))


def test_a_hold_that_begins_anew_after_an_expire_has_decided_loses_nothing(site: Site) -> None:
    interrupt_hold(site, 9)
    site.store.now += 9 * DAY
    expiry = plan_expiry(site.store, DEFAULT_CLASSES, Silent())
    assert [item for item in expiry.deletions if item.key.startswith("held/")]
    do_release(site)
    do_hold(site)

    carry_out_expiry(site.store, expiry, Silent())

    check_whole(site.archive(), place(HELD))


def test_what_became_young_meanwhile_is_not_deleted(site: Site) -> None:
    """A hold that is under way has a key that is younger than what it goes on with."""
    interrupt_hold(site, 6)
    store = trial_store(site)
    site.store.now += LEFT_OVER
    expiry = plan_expiry(store, DEFAULT_CLASSES, Silent())
    debris = store.in_class(HELD)
    site.store.create(place(HELD).placement, [b"of a hold that is under way"])

    done = carry_out_expiry(store, expiry, Silent())

    assert store.in_class(HELD) > debris
    assert [item for item in done.deletions if item.key.startswith("held/")] == []


def left(site: Site) -> set[str]:
    """What archiver expire would take out of held."""
    archive = site.archive()
    needed = needs(archive, [item for item in archive.backups() if isinstance(item, Backup)])
    return {item.key for item in left_over(list_held(archive), needed, SOURCE, site.store.now)}


def test_what_an_interrupted_hold_left_is_cleared_after_a_week(site: Site) -> None:
    do_hold(site, OTHER)
    commit(site, THIRD, before=place("daily", OTHER))
    whole = trial_store(site).keys
    store = trial_store(site)
    store.written.clear()
    store.fail_at = 7
    with pytest.raises(StorageError):
        do_hold(site)
    store.fail_at = None
    debris = store.keys - whole
    assert debris

    assert left(site) == set()
    site.store.now += LEFT_OVER - timedelta(seconds=1)
    assert left(site) == set()
    site.store.now += timedelta(seconds=1)
    assert left(site) == debris
    store.fail_at = 8
    store.written.clear()
    with pytest.raises(StorageError):
        do_hold(site, THIRD)
    store.fail_at = None
    assert left(site) == set(), "that hold may be under way"


def test_nothing_is_cleared_while_a_held_copy_cannot_be_read(site: Site) -> None:
    do_hold(site)
    do_hold(site, OTHER)
    site.store.now += 100 * DAY
    assert left(site) == set()
    site.store.overwrite(place(HELD).placement, b"garbage")
    trial_store(site).expire(place("daily").manifest)

    assert left(site) == set()


@pytest.mark.parametrize("broken", ["manifest", "signature", "placement"])
def test_nothing_is_released_while_another_held_copy_cannot_be_read(site: Site, broken: str) -> None:
    """It may need the same objects."""
    do_hold(site)
    do_hold(site, OTHER)
    site.store.overwrite(getattr(place(HELD, OTHER), broken), b"garbage")
    before = trial_store(site).keys

    with pytest.raises(IntegrityError, match=OTHER) as caught:
        do_release(site)

    assert trial_store(site).keys == before
    assert caught.value.hint is not None
    assert place(HELD, OTHER).manifest in caught.value.hint


@pytest.mark.parametrize("broken", ["manifest", "signature", "placement"])
def test_a_held_copy_that_cannot_be_read_is_released(site: Site, broken: str) -> None:
    before = trial_store(site).keys
    do_hold(site)
    site.store.overwrite(getattr(place(HELD), broken), b"garbage")

    do_release(site)

    assert trial_store(site).keys == before


def test_a_planted_placement_costs_no_other_backup_a_key(site: Site) -> None:
    """Who may create keys below held can say that a backup's objects are another's."""
    do_hold(site, OTHER)
    mine = place(HELD)
    site.store.create(mine.placement, [site.store.bytes_of(place(HELD, OTHER).placement)])

    assert do_release(site) == [mine.placement]

    check_whole(site.archive(), place(HELD, OTHER))


def test_a_hold_of_what_a_revoked_key_signed_is_warned_of(site: Site) -> None:
    key = TrustedKey(site.signing_key.verify_key, site.store.now + DAY)
    heard = Heard()

    hold(CopySite(site.archive(trusted=[key]), terms_of(), terms_of()), OTHER, heard, dry_run=False)

    assert any("revoked" in warning for warning in heard.warnings)


def test_what_nobody_could_restore_is_not_held(site: Site) -> None:
    site.store.remove(vault_key(SOURCE, site.vault_id, "ada", "age"))

    with pytest.raises(IntegrityError, match="holds no key file of vault"):
        do_hold(site)

    assert trial_store(site).in_class(HELD) == set()


EVERYTHING = in_force(DEFAULT_CLASSES, [Rule("somebody else's", "", expires_days=30)])


def test_a_hold_that_a_rule_of_the_bucket_ends_is_whole_and_warned_of(site: Site) -> None:
    """The rule may be gone tomorrow: what was borrowed because of it would stay borrowed."""
    heard = Heard()

    hold(CopySite(site.archive(), terms_of(), EVERYTHING), BACKUP, heard, dry_run=False)

    assert heard.warnings == [
        "a rule of the bucket deletes what lies in held after 29 days; archiver lifecycle check shows which one"
    ]
    assert site.archive().find(BACKUP).promises[HELD] is None
    assert len(objects_in(site, HELD)) == 3
    trial_store(site).expire("daily/")
    check_whole(site.archive(), place(HELD))


def test_a_rule_that_ends_only_the_data_is_warned_of() -> None:
    rules = [Rule("short", "daily/data/", expires_days=38)]
    there = CopySite(trial_site().archive(), terms_of(), in_force(DEFAULT_CLASSES, rules))

    assert there.shortened("monthly") is None
    assert there.shortened(HELD) is None
    assert "what lies in daily after 38 days" in (there.shortened("daily") or "")


def plant_finite(site: Site) -> None:
    site.store.overwrite(place(HELD).terms, encode_terms(Terms(version=1, keep_days=29, lease_days=1)))


def plant_elsewhere(site: Site) -> None:
    site.store.overwrite(place(HELD).placement, site.store.bytes_of(place("daily").placement))


def lose_an_object(site: Site) -> None:
    site.store.remove(objects_in(site, HELD)[0])


def lose_the_terms(site: Site) -> None:
    site.store.remove(place(HELD).terms)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (plant_finite, "promised until 2026-12-27 only"),
        (lose_the_terms, "promised until 2026-12-27 only"),
        (plant_elsewhere, "it needs daily/data/"),
        (lose_an_object, "is missing, or not what it should be"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_copy_in_held_that_does_not_hold_is_told_and_can_be_made_anew(
    site: Site, spoil: Callable[[Site], None], problem: str, dry_run: bool
) -> None:
    do_hold(site)
    spoil(site)

    with pytest.raises(IntegrityError, match=f"the copy of {BACKUP} in held does not hold it: .*{problem}") as caught:
        hold(copy_site(site), BACKUP, Silent(), dry_run=dry_run)

    assert caught.value.hint == f"archiver release {BACKUP} removes that copy; then hold it again."
    do_release(site)
    do_hold(site)
    trial_store(site).expire("daily/")
    check_whole(site.archive(), place(HELD))


@settings(deadline=None)
@given(st.lists(st.sampled_from(["hold a", "release a", "hold b", "release b", "promote a"]), max_size=8))
def test_whatever_is_held_and_released_the_rest_is_whole(steps: list[str]) -> None:
    site = trial_site()
    ids = {"a": BACKUP, "b": OTHER}
    commit(site, OTHER, objects=1, before=commit(site, BACKUP, objects=2))
    held: set[str] = set()
    for step in steps:
        verb, name = step.split()
        if verb == "promote":
            archive = site.archive()
            if "monthly" not in archive.find(ids[name]).promises:
                promote_copy(archive, archive.find(ids[name]), "monthly", terms_of(), Silent())
        elif verb == "hold" and name not in held:
            do_hold(site, ids[name])
            held.add(name)
        elif verb == "release" and name in held:
            do_release(site, ids[name])
            held.remove(name)
    for name, backup in ids.items():
        promises = site.archive().find(backup).promises
        assert (HELD in promises) == (name in held)
        for retention_class in promises:
            check_whole(site.archive(), BackupPlace(retention_class, SOURCE, backup))
    objects = [key for key in trial_store(site).in_class(HELD) if parse_object_key(key) is not None]
    assert len(objects) == 2 * ("a" in held) + ("b" in held)
