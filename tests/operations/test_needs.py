"""What each copy of a backup needs, until when it is sure to be there, and what list says of it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import Vault
from archiver.catalog.names import backup_time, vault_prefix
from archiver.catalog.records import PLACEMENT, PlacementRecord
from archiver.config import DEFAULT_CLASSES
from archiver.crypto.recipients import vault_id
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import IntegrityError, NotFoundError, RefusedError, StorageError
from archiver.operations.history import Backup
from archiver.operations.needs import (
    Guarantee,
    Standing,
    best,
    check_vaults,
    destination_rules,
    guarantee,
    key_sure_until,
    missing,
    needs,
    standings,
)
from archiver.operations.promotion import promote_copy
from archiver.operations.writing import write_object
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


def standing_of(site: Site, rules: Sequence[Rule] | None, monkeypatch: pytest.MonkeyPatch) -> Standing:
    """How the backup stands under ``rules``."""
    monkeypatch.setattr(site.store, "rules", lambda: rules)
    (found,) = standings(site.archive(), [site.archive().find()], None, site.store.now)
    return found


def vault_keys(site: Site) -> list[str]:
    return [item.key for item in site.store.list(vault_prefix(SOURCE, site.vault_id))]


def test_without_a_key_file_of_its_vault_no_copy_is_worth_anything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (key,) = vault_keys(site)
    assert standing_of(site, None, monkeypatch) == Standing(Guarantee(STARTED + 400 * DAY, "promised"))
    site.store.remove(key)
    # What is called otherwise opens nothing.
    site.store.create(f"{vault_prefix(SOURCE, site.vault_id)}README", [b"garbage"])
    found = standing_of(site, None, monkeypatch)
    assert found.guarantee == (site.store.now, f"vault {site.vault_id} has no key file")
    url = site.store.url
    assert found.damage == (f"{BACKUP}: {url} holds no key file of vault {site.vault_id}: nobody could restore",)
    assert found.shortfall is None
    (hint,) = found.hints
    assert hint.startswith(f"Put what was below {vault_prefix(SOURCE, site.vault_id)} back from a copy")
    with pytest.raises(IntegrityError, match=f"holds no key file of vault {site.vault_id}") as caught:
        check_vaults(site.archive(), site.archive().find())
    assert caught.value.hint == hint
    site.store.now = STARTED + 400 * DAY
    assert standing_of(site, None, monkeypatch).damage == ()


def test_each_vault_that_a_backup_names_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After keys rotate objects may be sealed to an older one."""
    site = trial_site()
    other = str(X25519Identity.generate().recipient)
    site.commit(BACKUP, vaults=[site.manifest_vault, Vault(id=vault_id(other), recipient=other)])
    (damage,) = standing_of(site, None, monkeypatch).damage
    assert f"vault {vault_id(other)}" in damage
    with pytest.raises(IntegrityError, match=vault_id(other)):
        check_vaults(site.archive(), site.archive().find())


def test_a_vault_lasts_as_long_as_the_longest_lasting_of_its_files(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = vault_keys(site)
    rule = Rule("foreign", vault_prefix(SOURCE), expires_days=20)
    found = standing_of(site, [rule], monkeypatch)
    end = site.store.stat(first).modified + 20 * DAY
    assert found.guarantee == (end, f"{first} expires")
    promise = STARTED + 400 * DAY
    assert found.damage == ()
    assert found.shortfall == (
        f"{BACKUP} is promised until {promise:%Y-%m-%dT%H:%M:%SZ}, and only sure until {end:%Y-%m-%dT%H:%M:%SZ}: "
        f"{first} expires"
    )
    assert "archiver lifecycle check" in found.hints[0]
    second = site.put_vault("bob", site.operator.recipient)
    later = site.store.stat(second).modified + 20 * DAY
    assert later > end
    assert standing_of(site, [rule], monkeypatch).guarantee == (later, f"{second} expires")
    # A rule for one of the files does no harm as long as the other stays.
    alone = Rule("foreign", first, expires_days=1)
    assert standing_of(site, [alone], monkeypatch) == Standing(Guarantee(promise, "promised"))


def test_a_rule_that_ends_a_copy_is_a_shortfall_only_where_no_other_copy_keeps_the_promise(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [Rule("foreign", "daily/data/", expires_days=12)]
    assert standing_of(site, rules, monkeypatch) == Standing(Guarantee(STARTED + 400 * DAY, "promised"))
    rules.append(Rule("foreign", "monthly/data/", expires_days=12))
    found = standing_of(site, rules, monkeypatch)
    assert found.damage == ()
    assert found.shortfall is not None
    assert "monthly/data/" in found.shortfall


def test_what_is_damaged_does_not_count_as_a_shortfall_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.store.remove(objects_in(site, "monthly")[0])
    found = standing_of(site, None, monkeypatch)
    assert (len(found.damage), found.shortfall, found.hints) == (1, None, ())
    assert found.guarantee == (STARTED + 35 * DAY, "promised")


def test_what_is_held_is_promised_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_copy(site.archive(), found(site), "held", TERMS, Silent())
    assert standing_of(site, None, monkeypatch) == Standing(Guarantee(None, "held"))
    shortfall = standing_of(site, [Rule("foreign", "", expires_days=500)], monkeypatch).shortfall
    assert shortfall is not None
    assert shortfall.startswith(f"{BACKUP} is promised for ever, and only sure until ")


def test_clocks_that_differ_a_little_are_no_shortfall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule goes by the store's clock, a promise by that of the host."""
    site = trial_site()
    for backup, late in (("20261122T020000Z-3f9c2a", 30), ("20261123T020000Z-000023", 90)):
        site.commit(backup, stored=backup_time(backup) - timedelta(minutes=late))
    site.store.now = backup_time("20261124T020000Z-000000")
    monkeypatch.setattr(site.store, "rules", lambda: [Rule("own", "daily/backups/", expires_days=35)])
    archive = site.archive()
    backups = [archive.load(place("daily", name)) for name in ("20261122T020000Z-3f9c2a", "20261123T020000Z-000023")]
    one, other = standings(archive, backups, None, site.store.now)
    assert one.shortfall is None
    assert other.shortfall is not None


def test_each_vault_is_listed_once_however_many_backups_name_it(site: Site) -> None:
    commit(site, "20261123T020000Z-000023", before=place("daily"))
    archive = site.archive()
    backups = [item for item in archive.backups() if isinstance(item, Backup)]
    site.store.lists.clear()
    assert len(standings(archive, backups, None, site.store.now)) == 2
    assert site.store.lists.count(vault_prefix(SOURCE, site.vault_id)) == 1
