"""The same for what keeps backups and lets them go: promotion, holds, expiry, lifecycle rules, archived objects."""

import random
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.stores.base import Availability
from archiver.stores.s3 import S3Store
from tests.iam.conftest import Session
from tests.iam.policies import load_policy
from tests.iam.recording import Record, operations, refused
from tests.iam.territory import Territory
from tests.operations.scene import MIB, Done, Scene, archiver, make_scene

PART = 5 * MIB


@pytest.fixture
def scene(territory: Territory, session: Session, tmp_path: Path) -> Scene:
    """A source with a file of several parts."""
    session.login(territory.admin)
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, f"{territory.url}&part_size={PART}")
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(3 * PART))
    return scene


@pytest.fixture(params=["plain", "locking"])
def place(request: pytest.FixtureRequest) -> Territory:
    """A bucket without Object Lock, and one with it."""
    found: Territory = request.getfixturevalue({"plain": "territory", "locking": "locking"}[request.param])
    return found


@pytest.fixture
def kept(place: Territory, request: pytest.FixtureRequest, session: Session, tmp_path: Path) -> Scene:
    """A source with one backup, in ``place``, under lock where that can be."""
    session.login(place.admin)
    root = tmp_path / "scene"
    root.mkdir()
    lock = "&object_lock=governance" if request.node.callspec.params["place"] == "locking" else ""
    scene = make_scene(root, f"{place.url}&part_size={PART}{lock}", entries=20)
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(3 * PART))
    scene.backup()
    return scene


def run(scene: Scene, *arguments: str) -> Done:
    done = archiver(*arguments, "--config", str(scene.config))
    assert done.code == 0, (arguments, done.output, done.errors)
    return done


def test_promotion(kept: Scene, place: Territory, record: Record) -> None:
    kept.config.write_text(kept.config.read_text().replace('every = "never"', 'every = "month"'))
    with record() as calls:
        run(kept, "promote")
    assert operations(calls) >= {"CopyObject", "PutObject", "GetObject", "ListObjectsV2"}
    assert any("/monthly/backups/" in call.parameters.get("Key", "") for call in calls)
    assert refused(place, load_policy("backup-host"), calls) == []
    assert "CopyObject" in operations(refused(place, load_policy("administrator"), calls))


def test_holding_and_releasing(kept: Scene, place: Territory, record: Record) -> None:
    (backup,) = kept.backups()
    with record() as calls:
        run(kept, "hold", backup)
    assert operations(calls) >= {"CopyObject", "PutObject", "GetObject", "ListObjectsV2"}
    assert refused(place, load_policy("administrator"), calls) == []
    locked = "object_lock" in kept.url
    assert bool(refused(place, load_policy("backup-host"), calls)) == locked
    with record() as calls:
        run(kept, "release", backup)
    assert operations(calls) >= {"DeleteObject"} | ({"PutObjectLegalHold"} if locked else set())
    assert refused(place, load_policy("administrator"), calls) == []
    assert operations(refused(place, load_policy("backup-host"), calls)) >= {"DeleteObject"}


def test_expiring(scene: Scene, territory: Territory, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    clock = S3Store.clock
    # Past keep and lease of the class daily.
    monkeypatch.setattr(S3Store, "clock", lambda store: clock(store) + timedelta(days=60))
    with record() as calls:
        # A warning: no backup is left.
        assert archiver("expire", "--config", str(scene.config)).code == 3
    assert operations(calls) >= {"DeleteObject", "ListObjectsV2"}
    assert refused(territory, load_policy("administrator"), calls) == []
    assert operations(refused(territory, load_policy("backup-host"), calls)) == {"DeleteObject"}
    left = territory.client(territory.admin).list_objects_v2(Bucket=territory.bucket)["Contents"]
    assert {item["Key"].split("/")[1] for item in left} == {"vault"}


def test_setting_the_rules(scene: Scene, territory: Territory, record: Record) -> None:
    scene.backup()
    admin = territory.client(territory.admin)
    admin.delete_bucket_lifecycle(Bucket=territory.bucket)
    with record() as calls:
        run(scene, "lifecycle", "plan")
        run(scene, "lifecycle", "apply")
        run(scene, "lifecycle", "show")
        run(scene, "lifecycle", "check")
    assert operations(calls) >= {"GetBucketLifecycleConfiguration", "PutBucketLifecycleConfiguration"}
    assert refused(territory, load_policy("administrator"), calls) == []
    assert operations(refused(territory, load_policy("backup-host"), calls)) == {"PutBucketLifecycleConfiguration"}


def test_restoring_what_is_archived(
    scene: Scene, territory: Territory, record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """SeaweedFS keeps the name of the storage class, and has no RestoreObject: it is as if it thawed at once."""
    availability, thaw, asked = S3Store.availability, S3Store.thaw, set[str]()

    def look(store: S3Store, key: str) -> Availability:
        found = availability(store, key)
        return found if key in asked else "archived"

    def ask(store: S3Store, key: str, days: int) -> None:
        thaw(store, key, days)
        asked.add(key)

    monkeypatch.setattr(S3Store, "availability", look)
    monkeypatch.setattr(S3Store, "thaw", ask)
    text = scene.config.read_text()
    assert text.count("[class.daily]\n") == 1
    scene.config.write_text(text.replace("[class.daily]\n", '[class.daily]\nstorage_class = "DEEP_ARCHIVE"\n'))
    # A warning, if any: that storage class, in this store.
    assert archiver("backup", "--config", str(scene.config)).code in (0, 3)
    with record() as calls:
        done = scene.restore("--thaw", "--to", str(tmp_path / "out"))
    assert done.code == 0, done.errors
    assert operations(calls) >= {"GetObject", "HeadObject", "ListObjectsV2", "RestoreObject"}
    assert refused(territory, load_policy("restore-host"), calls) == []
    assert "RestoreObject" in operations(refused(territory, load_policy("backup-host"), calls))
    assert asked
