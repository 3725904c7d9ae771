"""The copy of a backup in another class: what it refers to, what it copies, and what a failure leaves."""

from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.buffers import Buffer
from archiver.catalog.lines import encode_lines
from archiver.catalog.names import object_key
from archiver.catalog.records import PLACEMENT, PlacementRecord
from archiver.catalog.terms import decode_terms
from archiver.config import HELD, RetentionClass
from archiver.crypto.minisign import SigningKey
from archiver.errors import ArchiverError, AuthenticityError, IntegrityError, RefusedError, StorageError
from archiver.operations.copy_plan import plan_copy
from archiver.operations.promotion import carry_out, promote_copy
from archiver.operations.writing import write_object
from archiver.progress import Silent
from archiver.retention.policy import Term
from archiver.stores.base import StoredObject
from tests.operations.archives import TUNING, Site
from tests.operations.promoting import (
    BACKUP,
    DAY,
    WEEKLY,
    YEARLY,
    check_whole,
    commit,
    objects_in,
    place,
    terms_of,
    trial_site,
    trial_store,
)

TERMS = terms_of(yearly=YEARLY, weekly=WEEKLY)


@pytest.fixture
def site() -> Site:
    site = trial_site()
    commit(site)
    return site


def promote(site: Site, target: str, terms: dict[str, Term] = TERMS, backup: str = BACKUP) -> tuple[int, int]:
    """How many objects were used and copied."""
    archive = site.archive()
    copied = promote_copy(archive, archive.find(backup), target, terms, Silent())
    assert copied.place == place(target, backup)
    return copied.objects_used, copied.objects_copied


def test_a_copy_is_whole_when_the_original_is_gone(site: Site) -> None:
    original = place("daily")
    manifest = site.store.bytes_of(original.manifest)

    assert promote(site, "monthly") == (0, 3)

    trial_store(site).expire("daily/")
    check_whole(site.archive(), place("monthly"))
    assert site.store.bytes_of(place("monthly").manifest) == manifest
    found = site.archive().find()
    assert found.promises == {"monthly": found.manifest.started + timedelta(days=400)}


def test_the_terms_of_the_copy_are_those_of_its_class(site: Site) -> None:
    promote(site, "monthly", {**TERMS, "monthly": Term("monthly", 390, 400, "month")})
    promote(site, HELD)

    stated = [decode_terms(site.store.bytes_of(place(name).terms), name) for name in ("monthly", HELD)]
    assert [(terms.keep_days, terms.lease_days) for terms in stated] == [(390, 10), (None, None)]


def test_the_manifest_is_the_last_key_and_the_signature_comes_before_it(site: Site) -> None:
    store = trial_store(site)
    store.written.clear()

    promote(site, "monthly")

    copy = place("monthly")
    assert store.written[-6:] == [
        copy.contents,
        copy.objects,
        copy.placement,
        copy.terms,
        copy.signature,
        copy.manifest,
    ]
    assert sorted(store.written[:-6]) == objects_in(site, "monthly")
    assert not any(key.endswith(".started") for key in store.written)


def test_a_shorter_class_refers_to_the_longest(site: Site) -> None:
    assert promote(site, "yearly") == (0, 3)
    assert promote(site, "monthly") == (3, 0)
    assert promote(site, "weekly") == (3, 0)

    assert objects_in(site, "monthly") == objects_in(site, "weekly") == []
    for name in ("yearly", "monthly", "weekly"):
        check_whole(site.archive(), place(name))
    placed = site.archive().placement(replace(site.archive().find(), place=place("weekly")))
    assert sorted(placed.values()) == objects_in(site, "yearly")


def test_held_lends_to_nobody_and_borrows_from_nobody(site: Site) -> None:
    assert promote(site, "yearly") == (0, 3)
    assert promote(site, HELD) == (0, 3)
    trial_store(site).expire("yearly/")
    assert promote(site, "monthly") == (0, 3)

    trial_store(site).expire("daily/", "monthly/")
    check_whole(site.archive(), place(HELD))
    assert site.archive().find().promised_until is None


def test_a_copy_is_made_of_what_is_held_only_where_nothing_else_is_left(site: Site) -> None:
    """On some stores it is under a legal hold too."""
    promote(site, HELD)
    archive = site.archive()
    found = archive.find()
    sources = {item.source.partition("/")[0] for item in plan_copy(archive, found, "monthly", TERMS).objects}
    assert sources == {"daily"}
    # Also where each must be proven.
    site.store.overwrite(found.place.placement, b"garbage")
    for item in plan_copy(archive, found, "monthly", TERMS).objects:
        assert [key.partition("/")[0] for key in item.doubtful] == ["daily", HELD]


def test_what_an_archive_class_has_is_not_referred_to_and_not_copied(site: Site) -> None:
    store = trial_store(site)
    promote(site, "yearly")
    store.storage_classes = dict.fromkeys(objects_in(site, "yearly"), "DEEP_ARCHIVE")

    assert promote(site, "monthly") == (0, 3)
    store.expire("yearly/")
    check_whole(site.archive(), place("monthly"))


def test_a_backup_that_is_archived_everywhere_must_be_thawed_first(site: Site) -> None:
    store = trial_store(site)
    promote(site, "yearly")
    store.expire("daily/")
    store.storage_classes = dict.fromkeys(objects_in(site, "yearly"), "GLACIER")
    before = store.keys

    store.thawed = set(objects_in(site, "yearly")[:1])
    with pytest.raises(RefusedError, match=r"^2 objects of 2026.* are archived") as caught:
        promote(site, HELD)
    assert caught.value.hint is not None
    assert f"archiver restore {BACKUP} --thaw" in caught.value.hint
    assert store.keys == before

    store.thawed = set(objects_in(site, "yearly"))
    assert promote(site, HELD) == (0, 3)
    check_whole(site.archive(), place(HELD))


def test_a_key_that_ends_too_early_is_copied_to_a_further_one(site: Site) -> None:
    """Monthly was short when an object came to lie there; now it is long."""
    record = next(iter(site.archive().objects(site.archive().find()).values()))
    plain = object_key("monthly", "prod", record.id, record.kind)
    site.store.now -= 50 * DAY
    site.store.create(plain, [site.store.bytes_of(site.key_of(record.id))])
    site.store.now += 50 * DAY
    archive = site.archive()
    planned = plan_copy(archive, archive.find(), "monthly", TERMS)
    assert plain not in {item.key for item in planned.objects}, "an attempt that must fail"

    assert promote(site, "monthly") == (0, 3)

    keys = objects_in(site, "monthly")
    assert len(keys) == 4
    (further,) = [key for key in keys if record.id in key and key != plain]
    assert further.startswith(plain.removesuffix(".tar.zst.age") + ".")
    trial_store(site).expire("daily/", plain)
    check_whole(site.archive(), place("monthly"))


def test_a_planted_key_of_another_size_is_neither_used_nor_in_the_way(site: Site) -> None:
    for record in site.archive().objects(site.archive().find()).values():
        for name in ("monthly", "yearly"):
            site.store.create(object_key(name, "prod", record.id, record.kind), [b"garbage"])

    assert promote(site, "monthly") == (0, 3)

    trial_store(site).expire("daily/", "yearly/")
    check_whole(site.archive(), place("monthly"))


def plant(site: Site, name: str) -> None:
    """What a thief of the host can: keys of the right names and sizes, without the bytes."""
    for record in site.archive().objects(site.archive().find(BACKUP)).values():
        site.store.create(object_key(name, "prod", record.id, record.kind), [bytes(record.stored_size)])


@pytest.mark.parametrize("since", [timedelta(0), timedelta(minutes=2), 2 * DAY])
@pytest.mark.parametrize(("planted", "target"), [(HELD, HELD), ("monthly", "monthly"), ("yearly", "monthly")])
def test_planted_keys_of_the_right_size_are_not_relied_on(
    site: Site, planted: str, target: str, since: timedelta
) -> None:
    """A hold is what an operator does when a thief has been there. He may be there while the run is."""
    site.store.now += since
    plant(site, planted)
    site.store.now += 2 * DAY

    assert promote(site, target) == (0, 3)

    trial_store(site).expire("daily/")
    check_whole(site.archive(), place(target))


@pytest.mark.parametrize("since", [timedelta(0), timedelta(minutes=30)])
def test_a_key_that_was_planted_beside_the_original_is_not_the_source(site: Site, since: timedelta) -> None:
    site.store.now += since
    for record in site.archive().objects(site.archive().find(BACKUP)).values():
        planted = object_key("daily", "prod", record.id, record.kind, "deadbeef")
        site.store.create(planted, [bytes(record.stored_size)])

    assert promote(site, "monthly") == (0, 3)

    trial_store(site).expire("daily/")
    check_whole(site.archive(), place("monthly"))


def test_a_planted_placement_of_planted_keys_is_refused(site: Site) -> None:
    site.store.now += 2 * DAY
    plant(site, HELD)
    lines = [PlacementRecord(id=key.split("/")[3][:32], key=key) for key in objects_in(site, HELD)]
    write_object(site.store, place(HELD).placement, encode_lines(lines, PLACEMENT), [], TUNING)

    with pytest.raises(IntegrityError, match="is there already, and does not hold object"):
        promote(site, HELD)

    assert place(HELD).manifest not in trial_store(site).keys


def test_what_was_left_long_ago_is_proven_and_used(site: Site) -> None:
    site.store.now += 2 * DAY
    interrupt(site, 6, HELD)
    site.store.reads.clear()

    assert promote(site, HELD) == (3, 0)

    assert {key for key, _, _ in site.store.reads} >= set(objects_in(site, HELD))
    trial_store(site).expire("daily/")
    check_whole(site.archive(), place(HELD))


def test_in_a_copied_destination_the_placement_vouches(site: Site) -> None:
    """All its keys are as new as planted ones."""
    store = trial_store(site)
    site.store.now += 3 * DAY
    store._objects = {key: (data, site.store.now) for key, (data, _) in store._objects.items()}
    site.store.reads.clear()

    assert promote(site, "monthly") == (0, 3)

    assert not {key for key, _, _ in site.store.reads} & set(objects_in(site, "daily"))


def test_what_nothing_vouches_for_is_not_copied(site: Site) -> None:
    """The original is gone, and somebody put other bytes where it was."""
    store = trial_store(site)
    records = list(site.archive().objects(site.archive().find()).values())
    store.expire(*objects_in(site, "daily"))
    site.store.now += 2 * DAY
    for record in records:
        site.store.create(object_key("weekly", "prod", record.id, record.kind), [bytes(record.stored_size)])

    with pytest.raises(IntegrityError, match=r"is not what it should be at weekly/"):
        promote(site, "monthly")

    assert place("monthly").placement not in store.keys


def test_what_nothing_vouches_for_and_must_be_thawed_is_not_copied(site: Site) -> None:
    store = trial_store(site)
    promote(site, "yearly")
    store.storage_classes = dict.fromkeys(objects_in(site, "yearly"), "GLACIER")
    store.expire(*objects_in(site, "daily"))

    with pytest.raises(IntegrityError, match=r"lies at yearly/.* only, .* must be thawed before it can be proven"):
        promote(site, "monthly")


@pytest.mark.parametrize("damage", ["object", "placement"])
def test_where_the_oldest_copy_is_damaged_another_is_proven(site: Site, damage: str) -> None:
    """Garbage that was planted beside the true key is passed over."""
    promote(site, "yearly")
    record = next(iter(site.archive().objects(site.archive().find()).values()))
    site.store.now += 2 * DAY
    if damage == "object":
        site.store.remove(site.key_of(record.id))
    else:
        site.store.overwrite(place("daily").placement, b"damaged")
    beside = object_key("yearly", "prod", record.id, record.kind, "deadbeef")
    site.store.create(beside, [bytes(record.stored_size)])

    promote(site, HELD)

    trial_store(site).expire("daily/", "yearly/")
    check_whole(site.archive(), place(HELD))


def test_a_key_of_another_kind_is_not_the_objects(site: Site) -> None:
    record = next(iter(site.archive().objects(site.archive().find()).values()))
    assert record.kind == "tar"
    site.store.create(object_key("yearly", "prod", record.id, "mdb"), [bytes(record.stored_size)])

    assert promote(site, "monthly") == (0, 3)


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_an_object_that_is_not_what_it_should_be_is_not_promoted(site: Site, damage: str) -> None:
    record = next(iter(site.archive().objects(site.archive().find()).values()))
    key = site.key_of(record.id)
    data = site.store.bytes_of(key)
    site.store.remove(key) if damage == "gone" else site.store.overwrite(key, data[:-1])
    before = trial_store(site).keys

    with pytest.raises(IntegrityError, match=record.id):
        promote(site, "monthly")

    assert trial_store(site).keys == before


def test_an_object_that_shrinks_while_it_is_copied_is_noticed(site: Site) -> None:
    archive = site.archive()
    plan = plan_copy(archive, archive.find(), "monthly", TERMS)
    key = plan.copies[1].source
    site.store.overwrite(key, site.store.bytes_of(key)[:-1])
    with pytest.raises(IntegrityError, match=r"expected .* bytes, got"):
        carry_out(archive, plan, Silent())

    assert place("monthly").manifest not in trial_store(site).keys


@pytest.mark.parametrize("target", ["monthly", HELD])
@pytest.mark.parametrize("what", ["object", "contents", "objects", "shorter"])
def test_what_goes_while_it_is_copied_is_noticed_before_the_signature(
    site: Site, target: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a release or an expire on another machine."""
    promote(site, "yearly")
    create = site.store.create

    def deleting(key: str, body: Iterable[Buffer]) -> StoredObject:
        stored = create(key, body)
        if key == place(target).placement:
            lent = objects_in(site, "yearly" if target == "monthly" else HELD)[1]
            if what == "shorter":
                site.store.overwrite(lent, b"x")
            else:
                site.store.remove(lent if what == "object" else getattr(place(target), what))
        return stored

    archive = site.archive()
    plan = plan_copy(archive, archive.find(), target, TERMS)
    monkeypatch.setattr(site.store, "create", deleting)
    with pytest.raises(IntegrityError, match=r"does not list it|the store lists 1") as caught:
        carry_out(archive, plan, Silent())

    assert caught.value.hint is not None
    assert "the copy was not made" in caught.value.hint
    assert place(target).signature not in trial_store(site).keys


def test_a_copy_is_not_signed_that_would_not_last(site: Site) -> None:
    """Its class was made shorter while it was copied."""
    archive = site.archive()
    plan = plan_copy(archive, archive.find(), "monthly", TERMS)
    with pytest.raises(IntegrityError, match="expected to last until"):
        carry_out(archive, replace(plan, configured={"monthly": Term("monthly", 30, 40)}), Silent())

    assert place("monthly").signature not in trial_store(site).keys


@pytest.mark.parametrize("target", ["monthly", HELD])
def test_a_class_that_keeps_for_less_long_than_the_manifest_says_takes_nothing(site: Site, target: str) -> None:
    before = trial_store(site).keys

    with pytest.raises(RefusedError, match=f"^{target} keeps for less long than {BACKUP} is promised"):
        promote(site, target, {**TERMS, target: Term(target, 34, 42)})
    assert trial_store(site).keys == before

    promote(site, target, {**TERMS, target: Term(target, 35, 42)})
    assert site.archive().find().promises[target] == site.archive().find().manifest.promised_until


def test_a_manifest_that_is_replaced_meanwhile_is_not_copied(site: Site) -> None:
    archive = site.archive()
    found = archive.find()
    site.store.overwrite(found.place.manifest, site.store.bytes_of(found.place.manifest) + b" ")

    with pytest.raises(IntegrityError, match="was replaced"):
        promote_copy(archive, found, "monthly", TERMS, Silent())

    assert trial_store(site).in_class("monthly") == set()


def test_a_signature_that_is_replaced_meanwhile_is_not_copied(site: Site) -> None:
    archive = site.archive()
    found = archive.find()
    other = SigningKey.generate().sign(site.store.bytes_of(found.place.manifest), "by another")
    site.store.overwrite(found.place.signature, other.encode())

    with pytest.raises(AuthenticityError, match="signed by key"):
        promote_copy(archive, found, "monthly", TERMS, Silent())

    assert trial_store(site).in_class("monthly") == set()


@pytest.mark.parametrize("name", ["contents", "objects"])
def test_a_backup_with_a_damaged_list_is_not_copied(site: Site, name: str) -> None:
    key = getattr(place("daily"), name)
    site.store.overwrite(key, site.store.bytes_of(key)[:-1])

    with pytest.raises(IntegrityError, match=r"expected \d+ bytes"):
        promote(site, "monthly")

    assert place("monthly").placement not in trial_store(site).keys


def test_what_nobody_checked_is_not_copied(site: Site) -> None:
    archive = site.archive(trusted=None)

    with pytest.raises(AuthenticityError, match="without checking"):
        promote_copy(archive, archive.find(), "monthly", TERMS, Silent())


@pytest.mark.parametrize("lost", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("number", range(1, 10))
def test_whatever_fails_the_next_run_goes_on(site: Site, number: int, lost: bool) -> None:
    store = trial_store(site)
    store.written.clear()
    store.fail_at, store.answer_lost = number, lost

    with pytest.raises(StorageError, match="on purpose"):
        promote(site, "monthly")

    made = place("monthly").manifest in store.keys
    assert made == (lost and number == 9)
    assert set(site.archive().find().promises) == ({"daily", "monthly"} if made else {"daily"})
    store.fail_at = None
    promote(site, "monthly")
    assert len(objects_in(site, "monthly")) == 3, "an object was copied twice"
    store.expire("daily/")
    check_whole(site.archive(), place("monthly"))


def interrupt(site: Site, number: int, target: str = "monthly") -> None:
    store = trial_store(site)
    store.written.clear()
    store.fail_at = number
    with pytest.raises(StorageError):
        promote(site, target)
    store.fail_at = None


LEFT: dict[str, Callable[[Site], object]] = {
    "contents": lambda site: site.store.overwrite(place("monthly").contents, b"x"),
    "objects": lambda site: site.store.overwrite(place("monthly").objects, b"x"),
    "placement": lambda site: site.store.overwrite(place("monthly").placement, b"x"),
    "terms": lambda site: site.store.overwrite(place("monthly").terms, b'{"version":1,"keep_days":1,"lease_days":1}'),
    "long terms": lambda site: site.store.overwrite(place("monthly").terms, bytes(2000)),
    "signature": lambda site: site.store.overwrite(place("monthly").signature, b"x"),
    "object": lambda site: site.store.remove(objects_in(site, "monthly")[0]),
    "object of another size": lambda site: site.store.overwrite(objects_in(site, "monthly")[0], b"x"),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_was_left_is_not_believed(site: Site, left: str) -> None:
    """A thief of the host can plant all of this: a copy that cannot be restored must not look like one."""
    interrupt(site, 9)
    LEFT[left](site)

    with pytest.raises(IntegrityError, match="is there already, and ") as caught:
        promote(site, "monthly")

    assert caught.value.hint is not None
    assert "administrator" in caught.value.hint
    assert place("monthly").manifest not in trial_store(site).keys


def test_a_left_placement_that_names_a_key_of_a_shorter_class_is_refused(site: Site) -> None:
    interrupt(site, 9)
    daily = site.store.bytes_of(place("daily").placement)
    site.store.overwrite(place("monthly").placement, daily)

    with pytest.raises(IntegrityError, match=r"is there already, and names daily/.* is kept for less long"):
        promote(site, "monthly")


def test_a_key_that_appears_after_the_listing_is_worked_around(site: Site) -> None:
    archive = site.archive()
    plan = plan_copy(archive, archive.find(), "monthly", TERMS)
    site.store.create(plan.copies[0].key, [b"planted meanwhile"])
    carry_out(archive, plan, Silent())

    assert len(objects_in(site, "monthly")) == 4
    trial_store(site).expire("daily/")
    check_whole(site.archive(), place("monthly"))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["weekly", "monthly", "yearly", HELD]), max_size=5, unique=True),
    st.data(),
)
def test_in_any_order_every_copy_outlives_what_is_shorter(targets: list[str], data: st.DataObject) -> None:
    """Whatever was copied where before: when the rules have removed all that they may before a promise ends, the copy
    is whole. Nothing is stored more often than once a class."""
    site = trial_site()
    commit(site, objects=2)
    for target in targets:
        promote(site, target)
        site.store.now += data.draw(st.integers(0, 20)) * DAY
    for target in targets:
        assert len(objects_in(site, target)) <= 2
    store = trial_store(site)
    kept = dict(store._objects)
    for target in targets:
        store._objects = dict(kept)
        promise = site.archive().find().promises[target]
        for key in list(store._objects):
            name, kind, *_ = key.split("/")
            term = TERMS.get(name)
            days = None if term is None else term.keep if kind == "backups" else term.data
            gone = (
                name == HELD != target
                if days is None
                else (promise is None or store.stat(key).modified + days * DAY < promise)
            )
            if gone and name != "vault":
                store.remove(key)
        check_whole(site.archive(), place(target))


def test_a_class_that_keeps_what_it_lends_shorter_than_it_promises_lends_nothing(site: Site) -> None:
    """The same class under a bucket's rule that leaves less of its data than a new copy needs."""
    promote(site, "yearly")
    site.store.now += 100 * DAY
    short = {**TERMS, "yearly": Term("yearly", 400, 60, None)}

    assert promote(site, "monthly", short) == (0, 3)


def test_the_plan_writes_nothing(site: Site) -> None:
    before = trial_store(site).keys
    archive = site.archive()

    plan = plan_copy(archive, archive.find(), "monthly", TERMS)

    assert (len(plan.copies), plan.copied_bytes) == (3, sum(item.record.stored_size for item in plan.objects))
    assert trial_store(site).keys == before


def test_a_backup_of_one_class_can_be_copied_from_any(site: Site) -> None:
    """Once the original has expired, the copies are the source."""
    promote(site, "monthly")
    trial_store(site).expire("daily/")

    assert promote(site, HELD, terms_of(daily=RetentionClass())) == (0, 3)
    trial_store(site).expire("monthly/")
    check_whole(site.archive(), place(HELD))
    with pytest.raises(ArchiverError):
        site.archive().find(f"monthly/{BACKUP}")


@pytest.mark.parametrize(("late", "dated"), [(timedelta(minutes=57), "store"), (timedelta(minutes=58), "unproven")])
def test_the_store_dates_a_copy_that_was_made_at_once(site: Site, late: timedelta, dated: str) -> None:
    """Its manifest's age is all that is left when the original is gone; the run took three minutes."""
    site.store.now += late + timedelta(minutes=3)
    promote(site, "monthly")
    assert site.archive().find().dated == "store"

    trial_store(site).expire("daily/")

    assert site.archive().find().dated == dated


def test_a_later_copy_is_dated_by_the_chain(site: Site) -> None:
    commit(site, "20261123T020000Z-0000bb", before=place("daily"))
    promote(site, "monthly")

    trial_store(site).expire(place("daily").manifest)

    assert site.archive().find(BACKUP).dated == "chain"
