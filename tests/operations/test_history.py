"""Which of the stored backups are believed: attacks with and without a stolen signing key, on what a store holds."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3

from archiver.catalog.manifest import Previous
from archiver.catalog.names import BackupPlace, backup_time
from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey
from archiver.errors import ArchiverError, AuthenticityError, StorageError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup, Survey, Unreadable
from archiver.operations.verify import verify
from archiver.progress import Silent
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.operations.archives import DURATION, SOURCE, Site
from tests.operations.scene import Scene, archiver

IDS = tuple(f"202611{day}T020000Z-0000{day}" for day in range(20, 25))
DAY = timedelta(days=1)
NOW = backup_time(IDS[-1]) + DAY
"""When the attack takes place."""
LATER = "20261126T020000Z-0000ff"


@dataclass(frozen=True, slots=True)
class Story:
    """Five nights of an honest host, the oldest first."""

    site: Site
    places: list[BackupPlace]

    @property
    def key(self) -> SigningKey:
        return self.site.signing_key

    def copy_destination(self, modified: datetime) -> None:
        """As ``cp -r`` or a replication leaves it: everything is as old as the copy."""
        store = self.site.store
        store._objects = {key: (data, modified) for key, (data, _) in store._objects.items()}

    def archive(self, revoked: datetime | None = None, *others: SigningKey) -> Archive:
        keys = [TrustedKey(self.key.verify_key, revoked), *(TrustedKey(key.verify_key) for key in others)]
        return self.site.archive(trusted=keys)

    def link(self, number: int) -> Previous:
        data = self.site.store.bytes_of(self.places[number].manifest)
        until = backup_time(IDS[number]) + 35 * DAY
        return Previous(backup=IDS[number], blake3=blake3(data).hexdigest(), promised_until=until)


@pytest.fixture
def story() -> Story:
    site = Site()
    places = [site.commit(IDS[0])]
    for backup in IDS[1:]:
        places.append(site.follow(places[-1], backup))
    site.store.now = NOW
    return Story(site, places)


def told(found: Sequence[Backup | Unreadable]) -> dict[str, str]:
    """What vouches for each backup, or that it is refused."""
    return {item.place.backup: "refused" if isinstance(item, Unreadable) else item.dated for item in found}


def survey(archive: Archive) -> Survey:
    return archive.survey(NOW)


def refused(archive: Archive, backup: str) -> ArchiverError:
    """Why ``backup`` is neither found nor listed."""
    with pytest.raises(AuthenticityError) as caught:
        archive.find(backup)
    (listed,) = [item for item in archive.backups() if item.place.backup == backup]
    assert isinstance(listed, Unreadable)
    assert listed.error.message == caught.value.message
    assert caught.value.hint
    return caught.value


def test_an_untouched_destination_gives_no_reason_to_doubt(story: Story) -> None:
    found = survey(story.archive())
    assert told(found.backups) == dict.fromkeys(IDS, "store")
    assert [item.doubts for item in found.backups if isinstance(item, Backup)] == [()] * 5
    assert found.removed == []


def test_the_latest_costs_one_manifest_and_its_signature(story: Story) -> None:
    store = story.site.store
    store.reads.clear()
    store.lists.clear()
    assert story.archive().find().manifest.backup == IDS[-1]
    assert [key for key, _, _ in store.reads] == [story.places[-1].signature, story.places[-1].manifest]
    assert store.lists == [f"daily/backups/{SOURCE}/"]


def test_an_older_one_costs_those_after_it_as_well(story: Story) -> None:
    store = story.site.store
    for reference, at in ((IDS[2], None), ("latest", backup_time(IDS[2]))):
        store.reads.clear()
        assert story.archive().find(reference, at).manifest.backup == IDS[2]
        assert {key for key, _, _ in store.reads} == {
            key for place in story.places[2:] for key in (place.manifest, place.signature)
        }


def test_only_a_long_run_is_asked_for_its_first_key(story: Story) -> None:
    site = story.site
    started = backup_time(LATER)
    place = BackupPlace("daily", SOURCE, LATER)
    site.store.now = started
    site.store.create(place.started, [])
    site.follow(story.places[-1], LATER, finished=started + timedelta(hours=8))
    site.store.lists.clear()
    assert story.archive().find().dated == "store"
    assert site.store.lists == [f"daily/backups/{SOURCE}/", place.started]


def test_a_copied_destination_is_restored_with_a_warning(story: Story) -> None:
    story.copy_destination(NOW)
    archive = story.archive()
    found = archive.find()
    assert found.dated == "unproven"
    assert "nothing vouches for the time of" in found.doubts[0]
    assert told(survey(archive).backups) == dict.fromkeys(IDS[:4], "chain") | {IDS[4]: "unproven"}
    # The next backup vouches for all that was copied.
    story.site.follow(story.places[-1], LATER)
    assert told(archive.backups()) == dict.fromkeys(IDS, "chain") | {LATER: "store"}
    assert archive.find(IDS[0]).doubts == ()


@pytest.mark.parametrize("number", range(4))
def test_a_removed_backup_is_missed_by_name(story: Story, number: int) -> None:
    for key in (story.places[number].manifest, story.places[number].signature):
        story.site.store.remove(key)
    (missing,) = survey(story.archive()).removed
    assert (missing.previous.backup, missing.named_by) == (IDS[number], IDS[number + 1])
    assert missing.previous.promised_until == backup_time(IDS[number]) + 35 * DAY


def test_what_expired_is_not_missed(story: Story) -> None:
    for place in story.places[:2]:
        story.site.store.remove(place.manifest)
    archive = story.archive()
    assert archive.survey(backup_time(IDS[1]) + 35 * DAY).removed == []
    assert len(archive.survey(backup_time(IDS[1]) + 35 * DAY - timedelta(seconds=1)).removed) == 1


def test_what_lies_in_another_class_is_not_missed(story: Story) -> None:
    for name in ("objects", "contents", "placement"):
        key = getattr(story.places[1], name)
        story.site.store.create(key.replace("daily", "weekly", 1), [story.site.store.bytes_of(key)])
    story.site.copy(story.places[1], BackupPlace("weekly", SOURCE, IDS[1]))
    found = survey(story.archive())
    # The copy is later, but the original is as old as it was.
    assert told(found.backups) == dict.fromkeys(IDS, "store")
    story.site.store.remove(story.places[1].manifest)
    found = survey(story.archive())
    assert found.removed == []
    assert told(found.backups)[IDS[1]] == "chain"


@pytest.mark.parametrize("to", [BackupPlace("daily", SOURCE, LATER), BackupPlace("weekly", SOURCE, LATER)])
def test_an_old_manifest_under_a_new_id_is_refused(story: Story, to: BackupPlace) -> None:
    """A rollback: the latest would be an old backup."""
    story.site.copy(story.places[0], to)
    error = refused(story.archive(), LATER)
    assert "it was moved or replayed" in error.message
    assert told(story.archive().backups()) == dict.fromkeys(IDS, "store") | {LATER: "refused"}


def test_a_backup_of_another_source_is_refused(story: Story) -> None:
    to = BackupPlace("daily", "other", IDS[0])
    story.site.copy(story.places[0], to)
    with pytest.raises(AuthenticityError, match="it was moved or replayed"):
        Archive(story.site.store, "other", [TrustedKey(story.key.verify_key)]).find()


def test_a_thief_cannot_date_back(story: Story) -> None:
    """With the key he can have it believed until that is revoked, and never without a warning."""
    forged = story.site.commit("20261119T020000Z-0000ee", stored=NOW)
    found = story.archive().find(forged.backup)
    assert found.dated == "unproven"
    assert "a backup that was dated back with a stolen signing key" in found.doubts[0]
    assert "which is revoked since" in refused(story.archive(NOW), forged.backup).message
    assert told(story.archive(NOW).backups())[IDS[0]] == "store"


def test_a_thief_cannot_let_a_run_begin_long_ago(story: Story) -> None:
    place = BackupPlace("daily", SOURCE, "20261119T020000Z-0000ee")
    story.site.store.create(place.started, [])
    story.site.commit(place.backup, finished=NOW, stored=NOW)
    assert story.archive().find(place.backup).dated == "unproven"


def test_a_thief_cannot_stay_the_latest_for_ever(story: Story) -> None:
    forged = story.site.commit("29991231T235959Z-0000ee", stored=NOW)
    assert "is dated in the future" in refused(story.archive(), forged.backup).message
    with pytest.raises(AuthenticityError) as caught:
        story.archive().find()
    assert str(caught.value.hint).endswith(" archiver list shows which backups can be had: give the id of one.")
    assert story.archive().find(IDS[-1]).doubts == ()


def test_a_revoked_key_counts_for_what_the_store_had_before(story: Story) -> None:
    for place in story.places:
        stored = backup_time(place.backup) + DURATION
        for revoked, believed in ((stored, False), (stored + timedelta(seconds=1), True)):
            found = told(story.archive(revoked).backups())
            assert (found[place.backup] == "store") is believed, place
            if not believed:
                refused(story.archive(revoked), place.backup)


def test_a_new_key_goes_on_with_the_chain(story: Story) -> None:
    fresh = SigningKey.generate()
    story.site.follow(story.places[-1], LATER, signing_key=fresh)
    found = survey(story.archive(NOW, fresh))
    assert told(found.backups) == dict.fromkeys((*IDS, LATER), "store")
    assert found.removed == []
    # In a copied destination the good key vouches for what the stolen one signed before.
    story.copy_destination(NOW + 2 * DAY)
    assert told(story.archive(NOW, fresh).backups()) == dict.fromkeys(IDS, "chain") | {LATER: "unproven"}
    assert set(told(story.archive(NOW).backups()).values()) == {"refused"}


@pytest.mark.parametrize("stored", [backup_time(IDS[1]) + timedelta(hours=9), NOW])
def test_a_backup_that_was_replaced_is_refused(story: Story, stored: datetime) -> None:
    """By whoever may delete, too, and has the key: the next backup names another hash."""
    place = story.places[1]
    for key in (place.manifest, place.signature, place.objects, place.contents, place.placement):
        story.site.store.remove(key)
    story.site.commit(place.backup, stored=stored, keep_days=99)
    error = refused(story.archive(), place.backup)
    assert f"is not the backup that {IDS[2]} names" in error.message
    assert "signing.revoked" in str(error.hint)


@pytest.mark.parametrize("retention_class", ["aaa", "zzz"])
def test_another_manifest_of_the_same_id_hides_nothing(story: Story, retention_class: str) -> None:
    """Signed with the stolen key, in another class, with lists of its own."""
    story.site.commit(IDS[1], retention_class, stored=NOW, keep_days=99)
    for found in (story.archive().find(IDS[1]), story.archive().backups()[3]):
        assert isinstance(found, Backup)
        assert (found.place, found.dated, found.manifest.keep_days) == (story.places[1], "store", 35)
        (doubt,) = found.doubts
        assert doubt.startswith(f"{retention_class}/backups/{SOURCE}/{IDS[1]}/manifest.json is another manifest of ")
    # In a copied destination the later backup's word decides.
    story.copy_destination(NOW)
    assert story.archive().find(IDS[1]).place == story.places[1]
    # For the latest it is the order in which they came.
    story.site.commit(IDS[4], retention_class, stored=NOW + DAY, keep_days=99)
    assert story.archive().find().place == story.places[4]


def test_backups_out_of_order_are_told(story: Story) -> None:
    story.site.commit("20261121T040000Z-0000ee", sequence=4)
    found = survey(story.archive())
    (odd,) = [item for item in found.backups if isinstance(item, Backup) and item.doubts]
    assert odd.place.backup == "20261121T040000Z-0000ee"
    assert "has sequence number 4, the later 20261122T020000Z-000022 has 3" in odd.doubts[0]
    assert told(found.backups)[odd.place.backup] == "store"


def test_a_stolen_key_cannot_speak_against_what_the_store_dates(story: Story) -> None:
    false = story.link(2)
    lie = Previous(backup=false.backup, blake3="f" * 64, promised_until=false.promised_until)
    story.site.commit("20261125T010000Z-0000ee", sequence=9, previous=lie)
    assert told(story.archive().backups())[IDS[2]] == "store"


def test_a_stolen_key_can_raise_an_alarm_only_until_it_is_revoked(story: Story) -> None:
    gone = Previous(backup="20261118T020000Z-0000ee", blake3="f" * 64, promised_until=NOW + DAY)
    story.site.commit("20261125T010000Z-0000ee", sequence=9, previous=gone)
    assert [item.previous for item in survey(story.archive()).removed] == [gone]
    assert survey(story.archive(backup_time(IDS[4]) + timedelta(hours=1))).removed == []


def plant_copy(story: Story, retention_class: str, *, began: datetime | None) -> BackupPlace:
    """All of the oldest backup but its objects and ``terms.json``, in the second in which its manifest was made."""
    store, original = story.site.store, story.places[0]
    planted = BackupPlace(retention_class, SOURCE, original.backup)
    if began is not None:
        store._objects[planted.started] = b"", began
    for name in ("objects", "contents", "placement", "signature", "manifest"):
        key = getattr(original, name)
        store._objects[getattr(planted, name)] = store.bytes_of(key), store.stat(original.manifest).modified
    return planted


@pytest.mark.parametrize("retention_class", ["aaa", "zzz"])
@pytest.mark.parametrize("late", [None, timedelta(seconds=1), timedelta(minutes=3)])
def test_a_copy_planted_within_the_second_does_not_pass_for_the_original(
    story: Story, retention_class: str, late: timedelta | None
) -> None:
    """Whatever it is called, and though it has no terms: its thief learned the id from the run's first key."""
    original, store = story.places[0], story.site.store
    began = backup_time(IDS[0])
    store._objects[original.started] = b"", began
    planted = plant_copy(story, retention_class, began=None if late is None else began + late)
    store.lists.clear()
    found = story.archive().find(IDS[0])
    assert (found.place, found.places) == (original, (original, planted))
    assert {original.started, planted.started} <= set(store.lists)


def test_first_keys_are_looked_for_only_within_a_second(story: Story) -> None:
    planted = plant_copy(story, "zzz", began=None)
    store = story.site.store
    data, modified = store._objects[planted.manifest]
    store._objects[planted.manifest] = data, modified + timedelta(seconds=1)
    store.lists.clear()
    assert story.archive().find(IDS[0]).place == story.places[0]
    assert [prefix for prefix in store.lists if prefix.endswith(".started")] == []


class Refusing(LocalStore):
    """Does not give the keys that contain ``refused``."""

    refused = ""

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if self.refused in key:
            raise StorageError(f"{key}: permission denied")
        return super().read(key, start, length)


def test_what_is_wrong_with_other_backups_does_not_stop_a_restore(scene: Scene) -> None:
    first, second, third = (scene.backup() for _ in range(3))
    store = Refusing(scene.destination, Journal(None))
    store.refused = second
    archive = scene.archive(store)
    assert archive.find().manifest.backup == third
    found = archive.find(first)
    (doubt,) = found.doubts
    assert doubt.startswith(f"{first} was not compared with all later backups: ")
    assert verify(archive, found, "data", Silent()).files == 16
    (scene.destination / f"daily/backups/prod/{second}/manifest.json").write_bytes(b"garbage")
    found = scene.archive(LocalStore(scene.destination, Journal(None))).find(first)
    assert (found.dated, found.doubts) == ("store", ())


def test_a_refused_copy_of_a_manifest_hides_nothing(scene: Scene) -> None:
    backup = scene.backup()
    place = scene.destination / f"daily/backups/prod/{backup}"
    other = scene.destination / f"zzz/backups/prod/{backup}"
    other.mkdir(parents=True)
    for name in ("manifest.json", "manifest.json.minisig"):
        (other / name).write_bytes((place / name).read_bytes())
    store = Refusing(scene.destination, Journal(None))
    store.refused = "zzz/"
    assert scene.archive(store).find().place.retention_class == "daily"


def restored(scene: Scene, target: Path, *arguments: str) -> tuple[int, str]:
    done = scene.restore("--to", str(target), *arguments)
    return done.code, done.errors


def test_a_destination_that_cp_copied_is_restored_and_warned_of(scene: Scene, tmp_path: Path) -> None:
    names = [scene.backup(), scene.backup()]
    old = backup_time(names[0]).timestamp()
    for path in scene.destination.rglob("*"):
        os.utime(path, (old + 90_000, old + 90_000))
    code, errors = restored(scene, tmp_path / "out")
    assert code == 3, errors
    assert errors.count("warning: nothing vouches for the time of") == 1
    assert (tmp_path / "out/media").is_dir()
    for command in (("verify",), ("restore", "--dry-run", "--to", str(tmp_path / "dry"))):
        done = archiver(*command, *scene.identity)
        assert done.code == 3, done.errors
        assert "dated by itself alone" in done.output
    listed = archiver("list", *scene.identity)
    assert listed.code == 0, listed.errors
    assert [line.split()[-1] for line in listed.output.splitlines()] == ["DATED", "unproven", "chain"]
    shown = archiver("show", *scene.identity)
    assert shown.code == 0
    assert "doubt            nothing vouches for the time of" in shown.output


def test_commands_tell_who_signed_and_what_is_missing(scene: Scene, tmp_path: Path) -> None:
    names = [scene.backup() for _ in range(3)]
    (scene.destination / f"daily/backups/prod/{names[1]}/manifest.json").unlink()
    listed = archiver("list", *scene.identity)
    assert listed.code == 4
    assert f"warning: {names[1]} is missing: it was removed: {names[2]} names it as the one before" in listed.errors
    documents = archiver("list", *scene.identity, "--json").document
    assert [item["backup"] for item in documents] == [names[2], names[0], names[1]]
    assert "it was removed" in documents[2]["problem"]
    key = documents[0]["signer"]
    assert {(item["signature"], item["signer"], item["dated"]) for item in documents[:2]} == {
        ("verified", key, "store")
    }
    everything = archiver("verify", "--all", *scene.identity)
    assert everything.code == 4
    assert f"{names[1]} is missing" in everything.errors
    assert everything.output.count(f"signature verified by key {key}, dated by the store") == 2
    done = scene.restore("--to", str(tmp_path / "out"), "--json")
    assert done.code == 0, done.errors
    assert {key: done.document[key] for key in ("signature", "signer", "dated", "doubts")} == {
        "signature": "verified",
        "signer": key,
        "dated": "store",
        "doubts": [],
    }
    unchecked = archiver("verify", "--from", scene.url, "--source", "prod", "--trust-unsigned")
    assert "signature unchecked, dated by the store" in unchecked.output
