"""What a backup continues from, and what this host remembers: nothing planted, removed or forbidden stops a run."""

import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from blake3 import blake3
from msgspec.structs import replace

from archiver.catalog.manifest import MAX_SEQUENCE, Manifest, decode_manifest
from archiver.catalog.names import BackupPlace, backup_time
from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey
from archiver.errors import StorageError
from archiver.operations.archive import Archive
from archiver.operations.backup import backup
from archiver.operations.predecessor import Predecessor, find_predecessor, link_to, memory, remember
from archiver.progress import Silent
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.operations.archives import SOURCE, CountingStore, Site
from tests.operations.backing_up import request_for
from tests.operations.scene import SOURCE as SCENE_SOURCE
from tests.operations.scene import Scene, archiver

FIRST, SECOND, THIRD = "20261120T020000Z-0000aa", "20261121T020000Z-0000bb", "20261122T020000Z-0000cc"
LATER = backup_time(THIRD) + timedelta(days=1)


class Heard(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def site() -> Site:
    """Two nights of an honest host."""
    site = Site()
    site.follow(site.commit(FIRST), SECOND)
    return site


def place_of(backup: str) -> BackupPlace:
    return BackupPlace("daily", SOURCE, backup)


def stored(site: Site, backup: str) -> tuple[Manifest, str]:
    """The manifest that lies there, and its hash."""
    data = site.store.bytes_of(place_of(backup).manifest)
    return decode_manifest(data, backup), blake3(data).hexdigest()


def named(site: Site, backup: str) -> Predecessor:
    """``backup`` as the one that a new one continues from."""
    manifest, digest = stored(site, backup)
    return Predecessor(link_to(manifest, digest), manifest.sequence, 0, backup)


def forget(site: Site, backup: str) -> None:
    for key in (place_of(backup).manifest, place_of(backup).signature):
        site.store.remove(key)


def found(site: Site, directory: Path, archive: Archive | None = None) -> tuple[Predecessor | None, list[str]]:
    heard = Heard()
    site.store.now = LATER
    return find_predecessor(archive or site.archive(), directory, heard), heard.warnings


def test_the_newest_is_continued_from(site: Site, tmp_path: Path) -> None:
    site.store.reads.clear()
    assert found(site, tmp_path) == (named(site, SECOND), [])
    assert {key for key, _, _ in site.store.reads} == {place_of(SECOND).manifest, place_of(SECOND).signature}
    assert found(Site(), tmp_path) == (None, [])


def test_a_change_of_keys_does_not_break_the_chain(site: Site, tmp_path: Path) -> None:
    fresh = SigningKey.generate()
    keys = [TrustedKey(fresh.verify_key), TrustedKey(site.signing_key.verify_key, LATER)]
    assert found(site, tmp_path, site.archive(trusted=keys)) == (named(site, SECOND), [])
    revoked = replace(keys[1], revoked=backup_time(SECOND))
    predecessor, warnings = found(site, tmp_path, site.archive(trusted=[keys[0], revoked]))
    assert predecessor == named(site, FIRST)
    assert [warning.startswith(f"not continuing from {SECOND}: ") for warning in warnings] == [True]


def test_what_a_thief_dated_back_is_not_vouched_for(site: Site, tmp_path: Path) -> None:
    site.commit(THIRD, stored=LATER, sequence=3)
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == named(site, SECOND)
    assert warnings == [f"not continuing from {THIRD}: nothing vouches for its time"]


def test_in_a_copied_destination_only_what_this_host_remembers_is_named(site: Site, tmp_path: Path) -> None:
    site.store._objects = {key: (data, LATER) for key, (data, _) in site.store._objects.items()}
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == replace(named(site, SECOND), link=None)
    assert warnings == [f"not naming {SECOND} as the backup before: nothing vouches for its time"]
    remember(tmp_path, "s3://the/original", *stored(site, SECOND))
    assert found(site, tmp_path) == (named(site, SECOND), [])


def test_what_this_host_remembers_is_missed_and_named(site: Site, tmp_path: Path) -> None:
    expected = named(site, SECOND)
    remember(tmp_path, site.store.url, *stored(site, SECOND))
    assert found(site, tmp_path) == (expected, [])
    forget(site, SECOND)
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == expected
    assert warnings == [
        f"backup {SECOND} was removed from memory://: this host made it, and it is promised until 2026-12-26T02:00:00Z"
    ]
    site.store.remove(place_of(FIRST).manifest)
    assert found(site, tmp_path) == (predecessor, warnings)


def test_what_is_past_its_promise_or_of_another_destination_is_not_missed(site: Site, tmp_path: Path) -> None:
    remember(tmp_path, "s3://another/place", *stored(site, SECOND))
    forget(site, SECOND)
    assert found(site, tmp_path) == (named(site, FIRST), [])
    site = Site()
    site.follow(site.commit(FIRST), SECOND, keep_days=1)
    remember(tmp_path, site.store.url, *stored(site, SECOND))
    forget(site, SECOND)
    assert found(site, tmp_path) == (named(site, FIRST), [])


def test_what_was_replaced_is_told_and_the_right_one_named(site: Site, tmp_path: Path) -> None:
    expected = named(site, SECOND)
    remember(tmp_path, site.store.url, *stored(site, SECOND))
    forget(site, SECOND)
    for name in ("objects", "contents", "placement"):
        site.store.remove(getattr(place_of(SECOND), name))
    site.commit(SECOND, sequence=2, keep_days=99)
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == expected
    assert warnings == [f"backup {SECOND} was replaced in memory://: it is not the one that this host made"]


def test_each_destination_has_a_memory_of_its_own(site: Site, tmp_path: Path) -> None:
    expected = named(site, SECOND)
    remember(tmp_path, site.store.url, *stored(site, SECOND))
    remember(tmp_path, "s3://another/place", *stored(site, FIRST))
    forget(site, SECOND)
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == expected
    assert [f"backup {SECOND} was removed" in warning for warning in warnings] == [True]


def test_an_older_memory_than_the_store_s_is_of_no_weight(site: Site, tmp_path: Path) -> None:
    """The state directory came back from an old copy, or another host backs up as well."""
    remember(tmp_path, site.store.url, *stored(site, FIRST))
    assert found(site, tmp_path) == (named(site, SECOND), [])


def test_a_clock_that_was_set_back_does_not_confuse_the_chain(site: Site, tmp_path: Path) -> None:
    site.follow(place_of(SECOND), "20261119T020000Z-0000ee")
    remember(tmp_path, site.store.url, *stored(site, "20261119T020000Z-0000ee"))
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == replace(named(site, "20261119T020000Z-0000ee"), latest=SECOND)
    assert predecessor.latest_started == backup_time(SECOND)
    assert warnings == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b'{"sequence": 1}',
        b'{"destination":"","sequence":1,"files":0,"link":{"backup":"x","blake3":"","promised_until":""}}',
        b'{"destination":"","sequence":1,"files":0,"link":{"backup":"x","blake3":"%s",'
        b'"promised_until":"2027-01-01T00:00:00Z"}}' % (b"0" * 64),
    ],
)
def test_a_damaged_memory_is_told_and_does_no_harm(site: Site, tmp_path: Path, content: bytes) -> None:
    path = memory(tmp_path, site.store.url)
    path.write_bytes(content)
    predecessor, warnings = found(site, tmp_path)
    assert predecessor == named(site, SECOND)
    assert [warning.startswith(f"{path}, what this host remembers") for warning in warnings] == [True]


class Forbidden(CountingStore):
    """Refuses what a host may lack the right to do."""

    def __init__(self, origin: CountingStore, right: str) -> None:
        super().__init__()
        self._objects = origin._objects
        self._right = right

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        if self._right == "list":
            raise StorageError("access denied")
        return super().list(prefix)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if self._right == "read":
            raise StorageError("access denied")
        return super().read(key, start, length)


@pytest.mark.parametrize("right", ["list", "read"])
def test_a_right_that_is_missing_stops_nothing(site: Site, tmp_path: Path, right: str) -> None:
    expected = named(site, SECOND)
    digest = stored(site, SECOND)
    site.store = Forbidden(site.store, right)
    warning = "the earlier backups cannot be looked at: access denied"
    assert found(site, tmp_path) == (None, [warning])
    remember(tmp_path, site.store.url, *digest)
    assert found(site, tmp_path) == (expected, [warning])
    memory(tmp_path, site.store.url).unlink()
    remember(tmp_path, "s3://another/place", *digest)
    assert found(site, tmp_path) == (None, [warning])


def manifest_of(scene: Scene, backup: str) -> dict[str, object]:
    path = scene.destination / f"daily/backups/{SCENE_SOURCE}/{backup}/manifest.json"
    return dict(json.loads(path.read_bytes()))


def test_a_removed_backup_is_missed_by_the_next_run_and_by_everybody_after_it(scene: Scene) -> None:
    first, second = scene.backup(), scene.backup()
    remembered = json.loads(memory(scene.state / SCENE_SOURCE, scene.url).read_bytes())
    assert (remembered["link"]["backup"], remembered["sequence"], remembered["destination"]) == (second, 2, scene.url)
    for path in (scene.destination / f"daily/backups/{SCENE_SOURCE}/{second}").iterdir():
        path.unlink()
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3, done.errors
    assert f"warning: backup {second} was removed from {scene.url}" in done.errors
    third = done.document["backup"]
    manifest = manifest_of(scene, third)
    assert (manifest["sequence"], manifest["previous"]) == (3, remembered["link"])
    listed = archiver("list", *scene.identity)
    assert listed.code == 4
    assert f"{second} is missing: it was removed: {third} names it as the one before" in listed.errors
    # It is told once by the host that made it; the list goes on telling it.
    assert scene.backup() > third > first


def test_a_memory_that_cannot_be_written_fails_no_backup(scene: Scene) -> None:
    scene.backup()
    path = memory(scene.state / SCENE_SOURCE, scene.url)
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
    path.mkdir()
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3, done.errors
    assert f"this host will not remember {done.document['backup']}: " in done.errors
    assert os.listdir(path) == []
    assert len(scene.backups()) == 2


def test_a_number_at_its_end_stops_no_backup(scene: Scene) -> None:
    """Whoever stole the key can sign any number; the next one must not be one that no manifest can hold."""
    first = scene.backup()
    path = scene.destination / f"daily/backups/{SCENE_SOURCE}/{first}/manifest.json"
    key = SigningKey.parse((scene.root / "archiver-signing.key").read_text())
    data = path.read_bytes().replace(b'"sequence": 1,', b'"sequence": %d,' % MAX_SEQUENCE)
    path.write_bytes(data)
    path.with_name("manifest.json.minisig").write_text(key.sign(data, "forged"))
    memory(scene.state / SCENE_SOURCE, scene.url).unlink()
    assert manifest_of(scene, scene.backup())["sequence"] == MAX_SEQUENCE


class Wrong(LocalStore):
    """Its clock is not that of its files."""

    ahead = timedelta(0)

    def clock(self) -> datetime:
        return super().clock() + self.ahead


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(90, "nothing vouches for the time of "), (-90, "nothing vouches for the time of "), (50, ""), (-50, "")],
)
def test_a_store_whose_clock_is_wrong_is_told_of_at_once(scene: Scene, ahead: int, told: str) -> None:
    store = Wrong(scene.destination, Journal(None))
    store.ahead = timedelta(minutes=ahead)
    heard = Heard()
    backup(store, request_for(scene), heard)
    assert [warning[: len(told)] for warning in heard.warnings] == ([told] if told else [])
