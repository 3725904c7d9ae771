"""The policies of docs/iam/ allow every request that archiver makes, recorded while it has the admin's rights."""

import random
from contextlib import closing
from pathlib import Path

import pytest

from archiver.config import RetentionClass
from archiver.crypto.identities import write_secret_file
from archiver.crypto.x25519 import X25519Identity
from archiver.retention.attributes import attribution
from archiver.stores.base import Store
from archiver.stores.destination import S3Destination, open_store, parse_destination
from archiver.stores.journal import Journal
from archiver.stores.s3 import S3Store
from tests.iam.conftest import Session
from tests.iam.policies import load_policy, with_contents
from tests.iam.recording import Record, operations, refused
from tests.iam.territory import Territory
from tests.operations.scene import MIB, Scene, archiver, make_scene

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


def test_setting_up(territory: Territory, session: Session, record: Record, tmp_path: Path) -> None:
    session.login(territory.admin)
    with record() as calls:
        make_scene(tmp_path, territory.url)
    assert {call.operation for call in calls} >= {"ListObjectsV2", "PutObject"}
    assert refused(territory, load_policy("administrator"), calls) == []


def test_operators(scene: Scene, territory: Territory, record: Record, tmp_path: Path) -> None:
    scene.backup()
    bob = X25519Identity.generate()
    write_secret_file(tmp_path / "bob.txt", bob.encode() + "\n")
    commands = [
        ("show",),
        ("add", "bob", "--recipient", str(bob.recipient), *scene.identity),
        ("rotate", *scene.identity),
        ("check", "--identity", str(tmp_path / "bob.txt")),
        ("remove", "test", "--identity", str(tmp_path / "bob.txt")),
        ("card", "--output", str(tmp_path / "card.txt")),
    ]
    with record() as calls:
        for command in commands:
            done = archiver("keys", *command, "--config", str(scene.config))
            assert done.code in (0, 3), (command, done.errors)
    assert {call.operation for call in calls} >= {"DeleteObject", "GetObject", "ListObjectsV2", "PutObject"}
    assert refused(territory, load_policy("administrator"), calls) == []


def test_backups(scene: Scene, territory: Territory, record: Record) -> None:
    with record() as calls:
        scene.backup()
        scene.backup()
    assert {call.operation for call in calls} >= {
        "CompleteMultipartUpload", "CreateMultipartUpload", "GetObject", "HeadObject", "ListObjectsV2", "PutObject",
        "UploadPart",
    }  # fmt: skip
    assert refused(territory, load_policy("backup-host"), calls) == []


def test_a_backup_that_may_overwrite(scene: Scene, territory: Territory, record: Record) -> None:
    # The option for stores without conditional writes does not go together with a policy that insists on them.
    scene.config.write_text(scene.config.read_text().replace("&part_size", "&conditional_writes=false&part_size"))
    with record() as calls:
        scene.backup()
    assert {call.operation for call in refused(territory, load_policy("backup-host"), calls)} == {
        "CompleteMultipartUpload",
        "PutObject",
    }


def test_aborting_what_an_earlier_run_left(
    territory: Territory, session: Session, record: Record, tmp_path: Path
) -> None:
    session.login(territory.admin)
    key = "daily/data/prod/00.tar.zst.age"
    territory.client(territory.admin).create_multipart_upload(Bucket=territory.bucket, Key=f"{territory.prefix}/{key}")
    journal = Journal(tmp_path / "journal")
    journal.add(key)
    destination = parse_destination(territory.url)
    assert isinstance(destination, S3Destination)
    store = S3Store(destination.bucket, destination.prefix, destination.options, journal=journal)
    with closing(store), record() as calls:
        assert store.recover() == 1
    assert {call.operation for call in calls} == {"ListMultipartUploads", "AbortMultipartUpload"}
    assert refused(territory, load_policy("backup-host"), calls) == []


OBJECTS = [f"{name}/data/prod/{1:032x}.tar.zst.age" for name in ("daily", "monthly", "held")]


def open_locking(territory: Territory) -> Store:
    """A store that locks, and archives what is monthly."""
    classes = {"daily": RetentionClass(), "monthly": RetentionClass(400, 35, "month", "DEEP_ARCHIVE")}
    destination = parse_destination(f"{territory.url}&object_lock=governance&part_size={PART}")
    return open_store(destination, attributes=attribution(classes))


def test_copying_under_lock(locking: Territory, session: Session, record: Record) -> None:
    session.login(locking.admin)
    daily, monthly, held = OBJECTS
    with closing(open_locking(locking)) as store, record() as calls:
        store.create(daily, [bytes(PART + 1)])
        store.create(f"{daily}.small", [b"x"])
        store.copy(daily, monthly)
    assert {call.operation for call in calls} >= {"CopyObject", "CreateMultipartUpload", "PutObject"}
    # SeaweedFS is told again of a copy's lock.
    assert "PutObjectRetention" in {call.operation for call in calls}
    assert all("ObjectLockMode" in call.parameters for call in calls if call.operation in ("CopyObject", "PutObject"))
    assert refused(locking, load_policy("backup-host"), calls) == []
    with closing(open_locking(locking)) as store, record() as calls:
        store.copy(daily, held)
        store.unlock(held)
        store.delete(held)
        vault = "vault/prod/0011223344556677/bob.age"
        store.create(vault, [b"x"])
        store.delete(vault)
    assert {call.operation for call in calls} >= {"CopyObject", "PutObjectLegalHold", "DeleteObject", "PutObject"}
    assert refused(locking, load_policy("administrator"), calls) == []
    assert {call.operation for call in refused(locking, load_policy("backup-host"), calls)} >= {
        "CopyObject",
        "DeleteObject",
        "PutObject",
        "PutObjectLegalHold",
    }


def test_thawing(locking: Territory, session: Session, record: Record) -> None:
    session.login(locking.admin)
    daily, monthly, _ = OBJECTS
    with closing(open_locking(locking)) as store:
        store.create(daily, [b"x"])
        store.copy(daily, monthly)
        # The request is made, though SeaweedFS does not have it: there one byte proves that none is needed.
        with record() as calls:
            store.thaw(monthly, 1)
    assert operations(calls) == {"RestoreObject", "HeadObject", "GetObject"}
    assert refused(locking, load_policy("restore-host"), calls) == []
    assert {call.operation for call in refused(locking, load_policy("backup-host"), calls)} == {"RestoreObject"}


def test_doctor(scene: Scene, territory: Territory, record: Record) -> None:
    scene.backup()
    with record() as calls:
        # A warning: the admin may delete.
        assert archiver("doctor", "--config", str(scene.config)).code == 3
    assert {call.operation for call in refused(territory, load_policy("backup-host"), calls)} == {"DeleteObject"}


def test_reading(scene: Scene, territory: Territory, record: Record, tmp_path: Path) -> None:
    scene.backup()
    with record() as calls:
        assert len(scene.backups()) == 1
        assert scene.restore("--to", str(tmp_path / "out")).code == 0
        assert archiver("verify", "--level", "restore", *scene.identity).code == 0
        assert archiver("cat", "latest", "media/album/1.png", *scene.identity).code == 0
    assert refused(territory, load_policy("restore-host"), calls) == []


def test_auditing(scene: Scene, territory: Territory, record: Record) -> None:
    scene.backup()
    auditor = load_policy("auditor")
    with record() as calls:
        assert archiver("list", "--config", str(scene.config)).code == 0
        assert archiver("show", "--config", str(scene.config)).code == 0
    assert refused(territory, auditor, calls) == []
    with record() as calls:
        assert archiver("verify", "--level", "storage", "--config", str(scene.config)).code == 0
    assert [call.parameters["Key"].partition(".")[2] for call in refused(territory, auditor, calls)] == [
        "contents.jsonl.zst.age"
    ]
    assert refused(territory, with_contents(auditor), calls) == []
