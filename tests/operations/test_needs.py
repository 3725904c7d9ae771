"""What each copy of a backup needs, until when it is sure to be there, and what list says of it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from archiver.catalog.lines import encode_lines
from archiver.catalog.names import backup_time
from archiver.catalog.records import PLACEMENT, PlacementRecord
from archiver.config import DEFAULT_CLASSES
from archiver.errors import NotFoundError, RefusedError, StorageError
from archiver.operations.history import Backup
from archiver.operations.needs import (
    Guarantee,
    best,
    destination_rules,
    guarantee,
    key_sure_until,
    missing,
    needs,
    standings,
)
from archiver.operations.objects import write_object
from archiver.operations.promotion import promote_copy
from archiver.progress import Silent
from archiver.retention.expiry import Need
from archiver.retention.policy import in_force
from archiver.retention.rules import Rule
from archiver.stores.base import StoredObject
from tests.operations.archives import SOURCE, TUNING, Site
from tests.operations.promoting import (
    BACKUP,
    DAY,
    WEEKLY,
    commit,
    objects_in,
    place,
    terms_of,
    trial_site,
    trial_store,
)

STARTED = backup_time(BACKUP)
TERMS = terms_of()


@pytest.fixture
def site() -> Site:
    """A backup with a copy in ``monthly``, which was made ten days later."""
    site = trial_site()
    commit(site)
    site.store.now += 10 * DAY
    promote_copy(site.archive(), site.archive().find(), "monthly", TERMS, Silent())
    return site


def found(site: Site) -> Backup:
    return site.archive().find()


def needed(site: Site) -> dict[str, Need]:
    """By class."""
    return {need.retention_class: need for need in needs(site.archive(), [found(site)])}


def test_a_copy_needs_its_objects_lists_and_what_says_what_it_is(site: Site) -> None:
    copies = needed(site)
    assert list(copies) == ["daily", "monthly"]
    for name, need in copies.items():
        at = place(name)
        own = {at.manifest, at.signature, at.contents, at.objects, at.placement, *objects_in(site, name)}
        assert set(need.keys) == (own | {at.terms} if name == "monthly" else own)
        assert (need.backup, need.source) == (BACKUP, SOURCE)
        assert missing(need) == []
        assert {stored.key: stored.size for stored in need.keys.values() if stored} == {
            key: len(site.store.bytes_of(key)) for key in need.keys
        }
    assert copies["daily"].promise == STARTED + 35 * DAY
    assert copies["monthly"].promise == STARTED + 400 * DAY


def test_objects_of_a_longer_class_are_needed_where_they_lie(site: Site) -> None:
    """A copy that refers to objects elsewhere breaks with them."""
    terms = terms_of(weekly=WEEKLY)
    promote_copy(site.archive(), found(site), "weekly", terms, Silent())
    assert objects_in(site, "weekly") == []
    assert set(objects_in(site, "monthly")) <= set(needed(site)["weekly"].keys)
    key = objects_in(site, "monthly")[0]
    site.store.remove(key)
    gone = {name: missing(need) for name, need in needed(site).items()}
    assert gone == {"daily": [], "monthly": [key], "weekly": [key]}


def test_each_prefix_is_listed_once_however_many_backups_there_are(site: Site) -> None:
    store = site.store
    latest = commit(site, "20261123T020000Z-000023", before=place("daily"))
    archive = site.archive()
    backups = [item for item in archive.backups() if isinstance(item, Backup)]
    assert len(backups) == 2
    store.lists.clear()
    store.reads.clear()
    assert len(needs(archive, backups)) == 3
    assert sorted(store.lists) == sorted(
        f"{name}/{area}/{SOURCE}/" for name in ("daily", "monthly") for area in ("backups", "data")
    )
    assert sorted(key for key, _, _ in store.reads) == sorted(
        at.placement for at in (place("daily"), place("monthly"), latest)
    )


@pytest.mark.parametrize("name", ["contents", "objects", "placement", "signature"])
def test_what_is_missing_is_none(site: Site, name: str) -> None:
    backup = found(site)
    key = getattr(place("monthly"), name)
    site.store.remove(key)
    daily, monthly = needs(site.archive(), [backup])
    assert missing(daily) == []
    assert missing(monthly) == [key]


@pytest.mark.parametrize("name", ["contents", "objects"])
def test_a_list_of_another_size_is_as_good_as_missing(site: Site, name: str) -> None:
    key = getattr(place("daily"), name)
    site.store.overwrite(key, b"short")
    (daily,) = [need for need in needs(site.archive(), [found_in_daily(site)]) if need.retention_class == "daily"]
    assert missing(daily) == [key]


def found_in_daily(site: Site) -> Backup:
    return site.archive().load(place("daily"))


def test_an_object_that_is_gone_is_none_in_the_copies_that_refer_to_it(site: Site) -> None:
    key = objects_in(site, "daily")[1]
    site.store.remove(key)
    assert {name: missing(need) for name, need in needed(site).items()} == {"daily": [key], "monthly": []}


@pytest.mark.parametrize("planted", [b"", b"garbage", None])
def test_a_placement_that_cannot_be_read_spoils_its_copy_alone(
    site: Site, planted: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = place("daily").placement
    if planted is not None:
        site.store.overwrite(key, planted)
    else:
        read = site.store.read

        def refusing(wanted: str, start: int = 0, length: int | None = None) -> object:
            if wanted == key:
                raise RefusedError("it lies in an archive class")
            return read(wanted, start, length)

        monkeypatch.setattr(site.store, "read", refusing)
    copies = needed(site)
    assert {name: missing(need) for name, need in copies.items()} == {"daily": [key], "monthly": []}
    now = site.store.now
    assert guarantee(copies["daily"], TERMS, None, now) == (now, f"{key} is missing, or not what it should be")


def test_a_placement_that_leaves_out_an_object_is_none(site: Site) -> None:
    """Else nobody would miss the object."""
    at = place("daily")
    kept = list(site.archive().placement(found(site)).items())[1:]
    site.store.remove(at.placement)
    records = [PlacementRecord(id=name, key=key) for name, key in kept]
    write_object(site.store, at.placement, encode_lines(records, PLACEMENT), [], TUNING)
    assert missing(needed(site)["daily"]) == [at.placement]


def test_a_store_that_cannot_be_asked_is_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known must not look like what is not there: whoever deletes would take it for a permission."""
    backup = found(site)

    def failing(key: str, start: int = 0, length: int | None = None) -> object:
        raise StorageError("the network is gone")

    monkeypatch.setattr(site.store, "read", failing)
    with pytest.raises(StorageError):
        needs(site.archive(), [backup])


def test_a_key_that_lies_elsewhere_is_asked_for_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A placement may name any key of the object: nothing is listed for that."""
    asked = []
    known = site.store.stat

    def stat(key: str) -> StoredObject:
        if "/other/" in key:
            asked.append(key)
            raise NotFoundError(f"{key} does not exist")
        return known(key)

    archive = site.archive()
    backup = found(site)
    placement = archive.placement(backup)
    foreign = {name: key.replace(f"/{SOURCE}/", "/other/").replace("daily", "zzz") for name, key in placement.items()}
    monkeypatch.setattr(archive, "placement", lambda _: foreign)
    monkeypatch.setattr(site.store, "stat", stat)
    site.store.lists.clear()
    (daily, _) = needs(archive, [backup])
    assert missing(daily) == asked[: len(foreign)] == list(foreign.values())
    assert len(asked) == 2 * len(foreign)
    assert not any("zzz" in prefix or "other" in prefix for prefix in site.store.lists)


def guarantees(site: Site, rules: Sequence[Rule] | None = None) -> dict[str, Guarantee]:
    terms = in_force(DEFAULT_CLASSES, rules)
    return {name: guarantee(need, terms, rules, site.store.now) for name, need in needed(site).items()}


def test_an_untouched_copy_is_guaranteed_until_its_promise(site: Site) -> None:
    assert guarantees(site) == {
        "daily": (STARTED + 35 * DAY, "promised"),
        "monthly": (STARTED + 400 * DAY, "promised"),
    }


def test_a_held_copy_is_guaranteed_for_ever(site: Site) -> None:
    promote_copy(site.archive(), found(site), "held", TERMS, Silent())
    assert guarantees(site)["held"] == (None, "held")


def test_the_first_key_that_goes_ends_it(site: Site) -> None:
    rule = Rule("foreign", "daily/data/", expires_days=20)
    until, reason = guarantee(needed(site)["daily"], {}, [rule], site.store.now)
    first = min(
        (item for item in site.store.list(f"daily/data/{SOURCE}/") if not item.key.endswith(".started")),
        key=lambda item: item.modified,
    )
    assert until == first.modified + 20 * DAY
    assert reason in {f"{key} expires" for key in objects_in(site, "daily")}
    # With the configuration the manifest counts as going a day before its data, as archiver expire would have it.
    manifest = site.store.stat(place("daily").manifest)
    assert guarantees(site, [rule])["daily"] == (manifest.modified + 19 * DAY, f"{manifest.key} expires")


def test_a_policy_that_became_shorter_ends_it(site: Site) -> None:
    """archiver expire goes by the configuration."""
    (daily, _) = needs(site.archive(), [found(site)])
    stored = daily.keys[place("daily").manifest]
    assert stored is not None
    assert key_sure_until(stored, TERMS, ()) == stored.modified + 35 * DAY
    assert key_sure_until(stored, {}, ()) is None
    data = daily.keys[place("daily").contents]
    assert data is not None
    assert key_sure_until(data, TERMS, ()) == data.modified + 42 * DAY
    assert key_sure_until(data, TERMS, [Rule("r", "daily/", expires_days=41)]) == data.modified + 41 * DAY


def test_the_best_copy_counts() -> None:
    early, late = Guarantee(STARTED, "a"), Guarantee(STARTED + DAY, "b")
    assert best([early, late]) == late
    assert best([late, Guarantee(None, "held"), early]) == (None, "held")


class RuledStore:
    """As a store answers."""

    def __init__(self, rules: list[Rule] | None) -> None:
        self._rules = rules

    def rules(self) -> list[Rule] | None:
        if self._rules is None:
            raise RefusedError("denied")
        return self._rules

    def full_key(self, key: str) -> str:
        return f"base/{key}"


def test_rules_are_relative_to_the_destination() -> None:
    rules = [Rule("a", "base/daily/", expires_days=1), Rule("b", "elsewhere/", expires_days=1), Rule("c", "")]
    store = RuledStore(rules)
    assert destination_rules(store) == [Rule("a", "daily/", expires_days=1), Rule("c", "")]  # type: ignore[arg-type]
    assert destination_rules(RuledStore(None)) is None  # type: ignore[arg-type]
    assert destination_rules(trial_store(trial_site())) is None


def test_standings_tell_of_damage_only_while_it_is_promised(site: Site) -> None:
    backup = found(site)
    gone = objects_in(site, "daily")
    for key in gone:
        site.store.remove(key)

    def standing(now: datetime) -> tuple[Guarantee, tuple[str, ...]]:
        (found,) = standings(site.archive(), [backup], None, now)
        return found.guarantee, found.damage

    guaranteed, (damage,) = standing(STARTED + 35 * DAY - timedelta(seconds=1))
    assert guaranteed == (STARTED + 400 * DAY, "promised")
    assert damage.startswith(f"the copy of {BACKUP} in class daily is damaged: ")
    assert damage.endswith("and 2 more keys are missing, or not what they should be")
    assert standing(STARTED + 35 * DAY) == (guaranteed, ())
