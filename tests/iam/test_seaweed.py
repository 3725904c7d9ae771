"""SeaweedFS enforces the policies of docs/iam/, as far as it knows what they speak of: docs/iam/README.md has the
record."""

import random
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.config import RetentionClass
from archiver.errors import RefusedError, StorageError
from archiver.retention.attributes import attribution
from archiver.stores.base import Store
from archiver.stores.destination import open_store, parse_destination
from tests.iam.calls import Call
from tests.iam.cases import ADDED, CASES, MANIFEST
from tests.iam.conftest import Session
from tests.iam.policies import (
    BUCKET,
    ROLES,
    Policy,
    fill_in,
    load_policy,
    with_contents,
    without_condition_keys,
    without_prefix,
)
from tests.iam.territory import Territory
from tests.operations.scene import MIB, Done, Scene, archiver, check_restored, make_scene, tree
from tests.servers.localstack import REGION
from tests.stores.conftest import open_uploads

PART = 5 * MIB
OUTSIDE_KEY = "data/prod/00.tar.zst.age"
ENFORCEABLE = [case for case in CASES if case.enforceable]
CREATING = {
    case.name
    for case in ENFORCEABLE
    if any(authorization.action == "s3:PutObject" for authorization in case.call.authorizations())
}


def allowed(territory: Territory, *policies: Policy) -> set[str]:
    """The names of the cases that the store lets a user with ``policies`` do; the admin without any."""
    territory.prepare()
    keys = territory.user(*policies) if policies else territory.admin
    return {case.name for case in ENFORCEABLE if territory.is_allowed(keys, case.call)}


def expected(role: str) -> set[str]:
    return {case.name for case in ENFORCEABLE if role in case.roles}


def unenforced(role: str) -> set[str]:
    return {case.name for case in CASES if role in case.unenforced}


def test_the_admin_may_do_all_of_it(territory: Territory) -> None:
    # Else a refusal below would say nothing of the policy.
    assert allowed(territory) == {case.name for case in ENFORCEABLE}


@pytest.mark.parametrize("role", ["restore-host", "auditor"])
def test_readers(territory: Territory, role: str) -> None:
    assert allowed(territory, load_policy(role)) == expected(role)


@pytest.mark.parametrize("role", ["backup-host", "administrator"])
def test_writers(territory: Territory, role: str) -> None:
    policy = without_condition_keys(load_policy(role))
    assert allowed(territory, policy) == expected(role) | unenforced(role)


@pytest.mark.parametrize("role", ["backup-host", "administrator"])
def test_writers_with_conditions_that_the_store_does_not_know(territory: Territory, role: str) -> None:
    # It fails closed: the conditions never hold, so nothing can be created.
    assert allowed(territory, load_policy(role)) == expected(role) - CREATING


@pytest.mark.parametrize("role", ROLES)
def test_the_denials_hold_against_another_policy(territory: Territory, role: str) -> None:
    generous = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    other: Policy = {"Version": "2012-10-17", "Statement": [generous]}
    # It takes listing uploads for writing, and that is denied to readers.
    less = {"list uploads"} if role in ("restore-host", "auditor") else set()
    # Outside of vaults, only the conditions would keep the administrator from overwriting.
    more = unenforced(role) | (unenforced("backup-host") if role == "administrator" else set())
    added = ADDED[role] & {case.name for case in ENFORCEABLE}
    assert allowed(territory, load_policy(role), other) == expected(role) | more | added - less


def test_why_the_policies_name_what_they_deny(territory: Territory) -> None:
    # AWS would refuse to read: the only action that is not denied is another one.
    policy = load_policy("restore-host")
    policy["Statement"].append({"Effect": "Deny", "NotAction": "s3:ListBucket", "Resource": "*"})
    assert allowed(territory, policy) == expected("restore-host")


def test_versions_keep_what_was_overwritten(territory: Territory) -> None:
    """Where the condition keys are not known, versions of the bucket are the way back: they cannot be removed."""
    admin = territory.client(territory.admin)
    admin.put_bucket_versioning(Bucket=territory.bucket, VersioningConfiguration={"Status": "Enabled"})
    territory.prepare()
    place = {"Bucket": territory.bucket, "Key": fill_in(MANIFEST, territory.bucket, territory.prefix)}
    first = admin.head_object(**place)["VersionId"]
    host = territory.user(without_condition_keys(load_policy("backup-host")))

    assert territory.is_allowed(host, Call("PutObject", {"Bucket": BUCKET, "Key": MANIFEST, "Body": b"forged"}))
    removal = Call("DeleteObject", {"Bucket": BUCKET, "Key": MANIFEST, "VersionId": first})
    assert not territory.is_allowed(host, removal)

    assert admin.get_object(**place)["Body"].read() == b"forged"
    assert admin.get_object(**place, VersionId=first)["Body"].read() == MANIFEST.encode()


@pytest.fixture
def scene(territory: Territory, session: Session, tmp_path: Path) -> Scene:
    """A source with a file of several parts, set up by the admin."""
    session.login(territory.admin)
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, f"{territory.url}&part_size={PART}&attempts=2")
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(3 * PART))
    return scene


def refused(done: Done, action: str) -> None:
    assert done.code == 7, done.errors
    assert f"refused {action}" in done.errors
    assert "access denied" in done.errors


def test_the_backup_host_backs_up(scene: Scene, territory: Territory, session: Session) -> None:
    session.login(territory.user(without_condition_keys(load_policy("backup-host"))))
    names = [scene.backup(), scene.backup()]
    assert scene.backups() == names[::-1]
    found = archiver("doctor", "--config", str(scene.config), "--json").document
    assert [item["facts"] for item in found if item["subject"].startswith("permissions")] == [
        {"create": True, "abort": True, "list_uploads": True, "read": True, "delete": False}
    ]
    known = re.compile("no lifecycle rule|is the only operator")
    assert [item for item in found if item["severity"] != "ok" and not known.search(item["message"])] == []
    assert archiver("verify", "--level", "storage", *scene.identity).code == 0
    assert open_uploads(scene.url) == []
    # Whoever has these credentials alone has no vault's file, and without it nothing can be opened.
    refused(scene.restore("--to", str(scene.root / "out")), "s3:GetObject")


def test_a_destination_without_a_prefix(territory: Territory, session: Session, tmp_path: Path) -> None:
    whole = replace(territory, prefix="")
    session.login(whole.admin)
    scene = make_scene(tmp_path, whole.url)
    session.login(whole.user(without_prefix(without_condition_keys(load_policy("backup-host")))))
    name = scene.backup()
    session.login(whole.user(without_prefix(load_policy("auditor"))))
    assert scene.backups() == [name]
    session.login(whole.user(without_prefix(load_policy("restore-host"))))
    scene.verify()


def init_second(scene: Scene, tmp_path: Path) -> Done:
    return archiver(
        "init", "--to", scene.url, "--source", "second", "--media", str(scene.media),
        "--config", str(tmp_path / "second.toml"), "--card", str(tmp_path / "second.txt"),
    )  # fmt: skip


def test_init_is_for_the_administrator(scene: Scene, territory: Territory, session: Session, tmp_path: Path) -> None:
    session.login(territory.user(without_condition_keys(load_policy("backup-host"))))
    refused(init_second(scene, tmp_path), "s3:PutObject")
    assert not (tmp_path / "second.txt").exists()
    session.login(territory.user(without_condition_keys(load_policy("administrator"))))
    done = init_second(scene, tmp_path)
    assert done.code == 0, done.errors
    assert (tmp_path / "second.txt").exists()


def test_the_administrator_deletes_below_the_prefix(scene: Scene, territory: Territory, session: Session) -> None:
    name = scene.backup()
    other = f"{territory.bucket}/elsewhere?endpoint={territory.server.endpoint}&region={REGION}"
    beside = open_store(parse_destination(f"s3://{other}"))
    beside.create(OUTSIDE_KEY, [b"theirs"])
    beside.close()
    session.login(territory.user(without_condition_keys(load_policy("administrator"))))
    assert scene.backups() == [name]
    assert archiver("verify", "--level", "data", *scene.identity).code == 0
    store, beside = open_store(parse_destination(scene.url)), open_store(parse_destination(f"s3://{other}"))
    with pytest.raises(StorageError, match=r"refused s3:(DeleteObject|GetObject)"):
        beside.delete(OUTSIDE_KEY)
    for item in list(store.list()):
        store.delete(item.key)
    assert list(store.list()) == []
    store.close()
    beside.close()


CLASSES = {"daily": RetentionClass(), "monthly": RetentionClass(400, 35, "month")}
DAILY, MONTHLY, HELD_OBJECT = (f"{name}/data/prod/{1:032x}.tar.zst.age" for name in ("daily", "monthly", "held"))


def open_locking(territory: Territory) -> Store:
    """The store with the credentials that are in the environment, and Object Lock."""
    destination = parse_destination(f"{territory.url}&object_lock=governance")
    return open_store(destination, attributes=attribution(CLASSES))


def test_the_backup_host_creates_and_copies_under_lock(locking: Territory, session: Session) -> None:
    session.login(locking.user(without_condition_keys(load_policy("backup-host"))))
    with closing(open_locking(locking)) as store:
        store.create(DAILY, [b"x"])
        store.copy(DAILY, MONTHLY)
        admin = locking.client(locking.admin)
        for key in (DAILY, MONTHLY):
            head = admin.head_object(Bucket=locking.bucket, Key=store.full_key(key))
            assert head["ObjectLockMode"] == "GOVERNANCE"
        # A legal hold is the administrator's.
        with pytest.raises(RefusedError, match="access denied"):
            store.create(HELD_OBJECT, [b"x"])
        with pytest.raises(RefusedError, match="access denied"):
            store.copy(DAILY, HELD_OBJECT)
        with pytest.raises(RefusedError, match="access denied"):
            store.unlock(DAILY)


def test_the_administrator_holds_and_releases(locking: Territory, session: Session) -> None:
    session.login(locking.user(without_condition_keys(load_policy("backup-host"))))
    with closing(open_locking(locking)) as store:
        store.create(DAILY, [b"x"])
    session.login(locking.user(without_condition_keys(load_policy("administrator"))))
    with closing(open_locking(locking)) as store:
        store.copy(DAILY, HELD_OBJECT)
        admin = locking.client(locking.admin)
        head = admin.head_object(Bucket=locking.bucket, Key=store.full_key(HELD_OBJECT))
        assert head["ObjectLockLegalHoldStatus"] == "ON"
        store.unlock(HELD_OBJECT)
        store.delete(HELD_OBJECT)
        with pytest.raises(StorageError, match="access denied"):
            store.copy(DAILY, MONTHLY)
        assert [item.key for item in store.list()] == [DAILY]


def test_the_restore_host_restores(scene: Scene, territory: Territory, session: Session, tmp_path: Path) -> None:
    scene.backup()
    original = tree(scene.media)
    session.login(territory.user(load_policy("restore-host")))
    assert len(scene.backups()) == 1
    assert archiver("verify", "--level", "restore", *scene.identity).code == 0
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    check_restored(scene, tmp_path / "out", media=original)
    refused(archiver("backup", "--config", str(scene.config)), "s3:PutObject")


def test_the_auditor_sees_what_there_is(scene: Scene, territory: Territory, session: Session) -> None:
    name = scene.backup()
    session.login(territory.user(load_policy("auditor")))
    assert scene.backups() == [name]
    assert archiver("show", "--config", str(scene.config)).code == 0
    for level in ("storage", "data"):
        refused(archiver("verify", "--level", level, *scene.identity), "s3:GetObject")
    refused(archiver("cat", "latest", "media/album/1.png", *scene.identity), "s3:GetObject")
    refused(archiver("backup", "--config", str(scene.config)), "s3:PutObject")


def test_the_auditor_with_contents_verifies_storage(scene: Scene, territory: Territory, session: Session) -> None:
    scene.backup()
    session.login(territory.user(with_contents(load_policy("auditor"))))
    done = archiver("verify", "--level", "storage", *scene.identity)
    assert done.code == 0, done.errors
    refused(archiver("verify", "--level", "data", *scene.identity), "s3:GetObject")
