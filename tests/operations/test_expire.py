"""archiver expire: exactly what has outlived its class goes, and nothing that a promise still needs."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.catalog.lines import encode_lines
from archiver.catalog.names import BackupPlace
from archiver.catalog.records import PLACEMENT, ObjectRecord, PlacementRecord
from archiver.catalog.terms import Terms, encode_terms
from archiver.config import RetentionClass
from archiver.crypto.minisign import SigningKey
from archiver.errors import IntegrityError, RefusedError
from archiver.operations.expire import Expiry, carry_out, plan_expiry
from archiver.operations.writing import write_object
from archiver.progress import Silent
from archiver.stores.destination import open_store, parse_destination
from archiver.stores.local import LocalStore
from tests.operations.archives import SOURCE, TUNING, Site
from tests.operations.scene import Scene, archiver, make_scene

CLASSES = {"daily": RetentionClass(keep=35, lease=7), "monthly": RetentionClass(keep=400, lease=35, every="month")}
OLD = "20261001T020000Z-aaaaaa"
NEW = "20261122T020000Z-bbbbbb"
OLD_GOES = datetime(2026, 11, 6, tzinfo=UTC)
"""The midnight after 35 days."""
OLD_DATA_GO = OLD_GOES + timedelta(days=7)


class Hearing(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def put(site: Site, backup: str, retention_class: str = "daily", **changes: Any) -> tuple[BackupPlace, ObjectRecord]:
    """A backup with an object of its own, in the store since it was made."""
    site.store.now = datetime.strptime(backup[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    record = site.put_object(backup.encode())
    return site.commit(backup, retention_class, [record], **changes), record


@pytest.fixture
def site() -> Site:
    """Two backups, one of which is past its promise in the middle of November."""
    site = Site()
    put(site, OLD)
    put(site, NEW)
    return site


def keys(site: Site) -> set[str]:
    return {item.key for item in site.store.list()}


def plan(
    site: Site, now: datetime, classes: Mapping[str, RetentionClass] = CLASSES, hearing: Silent | None = None
) -> Expiry:
    site.store.now = now
    return plan_expiry(site.store, classes, hearing or Silent())


def expire(site: Site, now: datetime, classes: Mapping[str, RetentionClass] = CLASSES) -> set[str]:
    """What is gone afterwards."""
    before = keys(site)
    expiry = plan(site, now, classes)
    assert keys(site) == before, "planning deletes nothing"
    done = carry_out(site.store, expiry, Silent())
    gone = before - keys(site)
    assert gone == {deletion.key for deletion in expiry.deletions}
    assert done == expiry
    return gone


@pytest.mark.parametrize(
    ("now", "areas"),
    [
        (OLD_GOES - timedelta(microseconds=1), set()),
        (OLD_GOES, {"backups"}),
        (OLD_DATA_GO - timedelta(microseconds=1), {"backups"}),
        (OLD_DATA_GO, {"backups", "data"}),
    ],
)
def test_manifests_go_after_keep_and_data_after_keep_and_lease(site: Site, now: datetime, areas: set[str]) -> None:
    old = {key for key in keys(site) if OLD in key} | {site.key_of(object_of(site, OLD))}

    gone = expire(site, now)

    assert gone == {key for key in old if key.split("/")[1] in areas}


def object_of(site: Site, backup: str, retention_class: str = "daily") -> str:
    place = BackupPlace(retention_class, SOURCE, backup)
    archive = site.archive()
    return next(iter(archive.objects(archive.load(place))))


def test_what_remains_is_whole_and_nothing_else_remains(site: Site) -> None:
    expire(site, OLD_DATA_GO)

    assert expire(site, OLD_DATA_GO) == set(), "there is nothing to do a second time"
    archive = site.archive()
    (backup,) = archive.backups()
    assert backup.place.backup == NEW
    assert needed(site, backup.place) <= keys(site)
    assert not any(OLD in key for key in keys(site))
    assert sum(key.startswith("vault/") for key in keys(site)) == 1


def test_several_sources_and_classes_at_once(site: Site) -> None:
    for key in list(keys(site)):
        if f"/{SOURCE}/" in key and not key.startswith("vault/"):
            site.store.now = next(item.modified for item in site.store.list(key))
            site.store.create(key.replace(f"/{SOURCE}/", "/another/"), [site.store.bytes_of(key)])
            site.store.create(key.replace("daily/", "monthly/", 1), [site.store.bytes_of(key)])
    now = OLD_DATA_GO

    expiry = plan(site, now)

    # Those of the other source were renamed by hand, and their manifests say so: they go by their age all the same.
    assert {(place.source, place.retention_class, place.backup) for place, _ in expiry.backups} == {
        (SOURCE, "daily", OLD),
        ("another", "daily", OLD),
    }
    assert {deletion.key.split("/")[0] for deletion in expiry.deletions} == {"daily"}


def test_nothing_is_read_while_nothing_goes(site: Site) -> None:
    site.store.reads.clear()

    assert plan(site, OLD_GOES - timedelta(days=1)).deletions == []
    assert site.store.reads == []


SHORTER = {"daily": RetentionClass(keep=3, lease=1)}
SHORTER_NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def refused(site: Site, now: datetime, classes: Mapping[str, RetentionClass]) -> str:
    before = keys(site)
    with pytest.raises(IntegrityError, match="nothing was deleted") as caught:
        plan(site, now, classes)
    assert keys(site) == before
    assert caught.value.exit_code == 4
    return caught.value.message


def test_a_shorter_keep_does_not_break_a_promise(site: Site) -> None:
    message = refused(site, SHORTER_NOW, SHORTER)

    assert NEW in message
    assert OLD not in message
    assert "2026-12-27" in message


def test_a_manifest_alone_does_not_go_before_its_promise_is_over(site: Site) -> None:
    """Its objects would stay: they have a long lease."""
    classes = {"daily": RetentionClass(keep=3, lease=100)}

    assert BackupPlace("daily", SOURCE, NEW).manifest in refused(site, SHORTER_NOW, classes)


@pytest.mark.parametrize("why", ["unsigned", "another key"])
def test_a_backup_that_is_not_believed_here_goes_no_sooner(site: Site, why: str) -> None:
    place = BackupPlace("daily", SOURCE, NEW)
    site.store.remove(place.signature)
    if why == "another key":
        site.store.now = SHORTER_NOW - timedelta(days=7)
        data = site.store.bytes_of(place.manifest)
        site.store.create(place.signature, [SigningKey.generate().sign(data, "").encode()])

    assert NEW in refused(site, SHORTER_NOW, SHORTER)


def test_a_manifest_that_may_not_be_read_stops_everything(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = site.store.read

    def refuse(key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if NEW in key:
            raise RefusedError(f"{key}: access denied")
        return read(key, start, length)

    monkeypatch.setattr(site.store, "read", refuse)
    with pytest.raises(RefusedError, match="access denied"):
        plan(site, OLD_DATA_GO)


def copy_into(
    site: Site, place: BackupPlace, retention_class: str, keep: int | None, keys: Mapping[str, str]
) -> BackupPlace:
    """What a promotion makes: lists, a placement of its own, terms, and the manifest verbatim."""
    to = BackupPlace(retention_class, place.source, place.backup)
    for source, key in ((place.contents, to.contents), (place.objects, to.objects)):
        site.store.create(key, [site.store.bytes_of(source)])
    placed = [PlacementRecord(id=identifier, key=key) for identifier, key in keys.items()]
    write_object(site.store, to.placement, encode_lines(placed, PLACEMENT), [], TUNING)
    terms = Terms(version=1, keep_days=keep, lease_days=None if keep is None else 35)
    site.store.create(to.terms, [encode_terms(terms)])
    site.copy(place, to)
    return to


@pytest.mark.parametrize("keep", [400, None])
def test_what_a_copy_in_another_class_needs_stays(site: Site, keep: int | None) -> None:
    """No copy is made like this; but classes can be configured anew, and then it may lie so."""
    identifier = object_of(site, OLD)
    to = copy_into(site, BackupPlace("daily", SOURCE, OLD), "monthly", keep, {identifier: site.key_of(identifier)})

    message = refused(site, OLD_DATA_GO, CLASSES)

    assert site.key_of(identifier) in message
    assert "monthly" in message
    assert ("for ever" if keep is None else "2027-11-05") in message
    site.store.remove(to.manifest)
    assert site.key_of(identifier) in expire(site, OLD_DATA_GO)


def test_a_promise_that_is_over_protects_nothing(site: Site) -> None:
    identifier = object_of(site, OLD)
    copy_into(site, BackupPlace("daily", SOURCE, OLD), "monthly", 36, {identifier: site.key_of(identifier)})

    assert site.key_of(identifier) in expire(site, OLD_DATA_GO)


def test_a_damaged_placement_protects_the_objects_by_their_ids(site: Site) -> None:
    place = BackupPlace("daily", SOURCE, NEW)
    identifier = object_of(site, NEW)
    # The placement is damaged, and everything but the object is younger than it was.
    for key in (place.manifest, place.signature, place.objects, place.contents):
        data = site.store.bytes_of(key)
        site.store.now = SHORTER_NOW
        site.store.overwrite(key, data)
    site.store.overwrite(place.placement, b"damaged")

    assert site.key_of(identifier) in refused(site, SHORTER_NOW, SHORTER)

    site.store.overwrite(place.objects, b"damaged")
    hearing = Hearing()
    expiry = plan(site, SHORTER_NOW, SHORTER, hearing)
    assert site.key_of(identifier) in {deletion.key for deletion in expiry.deletions}
    assert any(place.manifest in warning for warning in hearing.warnings)


def test_a_damaged_manifest_is_told_and_in_nobodys_way(site: Site) -> None:
    site.store.now = OLD_DATA_GO
    site.store.overwrite(BackupPlace("daily", SOURCE, NEW).manifest, b"{}")
    hearing = Hearing()

    expiry = plan(site, OLD_DATA_GO, CLASSES, hearing)

    assert [place.backup for place, _ in expiry.backups] == [OLD]
    assert len(hearing.warnings) == 1
    assert NEW in hearing.warnings[0]


def test_a_damaged_manifest_that_goes_is_not_worth_a_word(site: Site) -> None:
    place = BackupPlace("daily", SOURCE, OLD)
    site.store.now = next(item.modified for item in site.store.list(place.manifest))
    site.store.overwrite(place.manifest, b"{}")
    hearing = Hearing()

    assert plan(site, OLD_DATA_GO, CLASSES, hearing).backups[0][0] == place
    assert hearing.warnings == []


def test_held_and_unknown_classes_and_vaults_are_left_alone(site: Site) -> None:
    place = BackupPlace("daily", SOURCE, OLD)
    identifier = object_of(site, OLD)
    for name, keep in (("held", None), ("quarterly", 100)):
        key = site.key_of(identifier).replace("daily/", f"{name}/", 1)
        site.store.create(key, [site.store.bytes_of(site.key_of(identifier))])
        copy_into(site, place, name, keep, {identifier: key})
    before = keys(site)

    expiry = plan(site, OLD_DATA_GO + timedelta(days=3000))
    carry_out(site.store, expiry, Silent())

    assert set(expiry.left_alone) == {"held", "quarterly"}
    assert "archiver release" in expiry.left_alone["held"]
    assert keys(site) == {key for key in before if not key.startswith("daily/")}
    assert expiry.emptied == [], "the held copy is a backup"


def hold_by_hand(site: Site, *, terms: bool = True, commit: bool = True) -> BackupPlace:
    """What ``archiver hold`` makes of the old backup, up to some step."""
    identifier = object_of(site, OLD)
    key = site.key_of(identifier).replace("daily/", "held/", 1)
    site.store.create(key, [site.store.bytes_of(site.key_of(identifier))])
    to = copy_into(site, BackupPlace("daily", SOURCE, OLD), "held", None, {identifier: key})
    if not commit:
        site.store.remove(to.manifest)
    if not terms:
        site.store.remove(to.terms)
    return to


HELD_SINCE = datetime(2026, 10, 2, tzinfo=UTC)


def test_what_an_interrupted_hold_left_goes_after_a_week(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A legal hold on it is taken off."""
    unlocked: set[str] = set()
    delete = site.store.delete

    def delete_unlocked(key: str) -> None:
        assert (key in unlocked) == key.startswith("held/")
        delete(key)

    monkeypatch.setattr(site.store, "unlock", unlocked.add)
    monkeypatch.setattr(site.store, "delete", delete_unlocked)
    site.store.now = HELD_SINCE
    before = keys(site)
    hold_by_hand(site, commit=False)
    left = keys(site) - before

    week = HELD_SINCE + timedelta(days=7)
    assert plan(site, week - timedelta(seconds=1)).deletions == []
    assert len(left) == 6
    assert expire(site, week) == left


def test_a_hold_that_is_gone_on_with_keeps_what_it_found(site: Site) -> None:
    site.store.now = HELD_SINCE
    place = hold_by_hand(site, commit=False)
    week = HELD_SINCE + timedelta(days=7)
    site.store.remove(place.signature)
    site.store.now = week - timedelta(minutes=1)
    site.store.create(place.signature, [b"of a hold that is under way"])

    assert plan(site, week).deletions == []


@pytest.mark.parametrize("damage", ["", "manifest", "placement", "signature"])
@pytest.mark.parametrize("terms", [True, False])
def test_nothing_of_a_held_copy_is_taken_for_left_over(site: Site, terms: bool, damage: str) -> None:
    site.store.now = HELD_SINCE
    place = hold_by_hand(site, terms=terms)
    if damage:
        site.store.overwrite(getattr(place, damage), b"damaged")
    site.store.create(f"held/data/{SOURCE}/{'0' * 32}.tar.zst.age", [b"left over, if all can be read"])

    gone = expire(site, OLD_DATA_GO + timedelta(days=3000))

    held = {key for key in gone if key.startswith("held/")}
    assert held == (set() if damage in ("manifest", "placement") else {f"held/data/{SOURCE}/{'0' * 32}.tar.zst.age"})


def test_a_source_without_a_backup_left_is_told(site: Site) -> None:
    assert plan(site, OLD_DATA_GO).emptied == []
    assert plan(site, OLD_DATA_GO + timedelta(days=60)).emptied == [SOURCE]


def test_a_deletion_that_stops_anywhere_leaves_no_half_backup_and_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it stops: what still has a manifest has everything."""
    whole = {
        place.manifest: needed(site, place) for place in (BackupPlace("daily", SOURCE, name) for name in (OLD, NEW))
    }
    now = OLD_DATA_GO + timedelta(days=60)
    count = len(plan(site, now).deletions)
    assert count > 10
    delete = site.store.delete
    done = 0

    def stop(key: str) -> None:
        nonlocal done
        if done == allowed:
            raise KeyboardInterrupt
        delete(key)
        done += 1

    for allowed in range(count):
        done = 0
        monkeypatch.setattr(site.store, "delete", stop)
        monkeypatch.setattr("archiver.operations.expire._WORKERS", 1)
        copy = {
            key: (site.store.bytes_of(key), next(item.modified for item in site.store.list(key))) for key in keys(site)
        }
        with pytest.raises(KeyboardInterrupt):
            carry_out(site.store, plan(site, now), Silent())
        left = keys(site)
        assert len(left) == len(copy) - allowed
        for manifest, own in whole.items():
            assert manifest not in left or own <= left
        monkeypatch.setattr(site.store, "delete", delete)
        carry_out(site.store, plan(site, now), Silent())
        assert {key.split("/")[0] for key in keys(site)} == {"vault"}
        for key, (data, modified) in copy.items():
            site.store.now = modified
            site.store.overwrite(key, data)


def test_manifests_are_gone_before_anything_else_is(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several are deleted at a time."""
    for number in range(20):
        put(site, f"20261002T0200{number:02}Z-aaaaaa")
    delete, order = site.store.delete, []

    def note(key: str) -> None:
        if key.endswith("/manifest.json"):
            time.sleep(0.001)
        delete(key)
        order.append(key)

    monkeypatch.setattr(site.store, "delete", note)
    carry_out(site.store, plan(site, OLD_DATA_GO + timedelta(days=60)), Silent())

    stages = [0 if key.endswith("/manifest.json") else 1 if "/backups/" in key else 2 for key in order]
    assert stages == sorted(stages)
    assert set(stages) == {0, 1, 2}


def needed(site: Site, place: BackupPlace) -> set[str]:
    archive = site.archive()
    backup = archive.load(place)
    return {place.signature, place.contents, place.objects, place.placement, *archive.placement(backup).values()}


def test_credentials_that_may_not_delete_are_one_clear_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: str) -> None:
        raise RefusedError(f"{key}: AccessDenied")

    monkeypatch.setattr(site.store, "delete", refuse)
    with pytest.raises(RefusedError, match=r"cannot delete daily/backups/.*/manifest.json: .*AccessDenied") as caught:
        carry_out(site.store, plan(site, OLD_DATA_GO), Silent())
    assert "docs/iam/README.md" in str(caught.value.hint)


def test_what_somebody_else_deleted_meanwhile_is_no_error(site: Site) -> None:
    expiry = plan(site, OLD_DATA_GO)
    site.store.remove(expiry.deletions[0].key)
    site.store.remove(expiry.deletions[-1].key)

    done = carry_out(site.store, expiry, Silent())

    # Nor is it told of as deleted.
    assert done.deletions == expiry.deletions[1:-1]
    assert done.backups == [item for item in expiry.backups if item[0].manifest != expiry.deletions[0].key]
    assert len(done.backups) == len(expiry.backups) - 1
    assert expire(site, OLD_DATA_GO) == set()


def files(scene: Scene) -> set[Path]:
    return {path for path in scene.destination.rglob("*") if path.is_file()}


def past(patch: pytest.MonkeyPatch, ago: timedelta) -> None:
    """What is made in a directory is so old, and its clock says so."""
    publish = LocalStore._publish

    def aged(store: LocalStore, temporary: Path, path: Path) -> datetime:
        moment = (datetime.now(UTC) - ago).timestamp()
        os.utime(temporary, (moment, moment))
        return publish(store, temporary, path)

    patch.setattr(LocalStore, "clock", lambda _: datetime.now(UTC) - ago)
    patch.setattr(LocalStore, "_publish", aged)


def test_the_command(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup of seven weeks ago, by the store's clock, and one of today."""
    with monkeypatch.context() as patch:
        past(patch, timedelta(days=50))
        old = scene.backup()
    with monkeypatch.context() as patch:
        # Not so long after it that a run would save it first.
        past(patch, timedelta(days=20))
        new = scene.backup()
    config = ("--config", str(scene.config))
    before = files(scene)

    rehearsed = archiver("expire", "--dry-run", *config)
    document = archiver("expire", "--dry-run", "--json", *config).document
    assert files(scene) == before
    done = archiver("expire", *config)

    assert (rehearsed.code, done.code) == (0, 0), (rehearsed.errors, done.errors)
    assert f"would delete {old} of prod from daily: created on " in rehearsed.output
    assert rehearsed.output.replace("would delete", "deleted") == done.output
    assert [(backup["backup"], backup["class"]) for backup in document["backups"]] == [(old, "daily")]
    gone = before - files(scene)
    assert document["keys"] == len(gone)
    assert document["bytes"] > 0
    assert {path.relative_to(scene.destination).parts[0] for path in gone} == {"daily"}
    assert new in scene.backups()
    scene.verify(new)
    assert archiver("expire", *config).output == "nothing has expired\n"


def test_in_s3(localstack_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LocalStack runs no rules, so there the command is of use as well. Its clock goes on by itself: ours is ahead."""
    monkeypatch.chdir(tmp_path)
    scene = make_scene(tmp_path / "scene", localstack_url)
    backup = scene.backup()
    with closing(open_store(parse_destination(localstack_url))) as store:
        before = {item.key for item in store.list()}
        kept = {key for key in before if not key.startswith("daily/")}
        assert archiver("expire", "--config", str(scene.config)).output == "nothing has expired\n"
        monkeypatch.setattr(type(store), "clock", lambda _: datetime.now(UTC) + timedelta(days=50))

        done = archiver("expire", "--config", str(scene.config))

        assert done.code == 3
        assert "source 'prod' has no backup any more" in done.errors
        assert f"deleted {backup} of prod from daily" in done.output
        assert {item.key for item in store.list()} == kept


def test_the_command_needs_a_configuration(scene: Scene) -> None:
    assert archiver("expire").code == 2
