"""Object Lock: what is created in a bucket that has it, and by copies; legal holds; and stores that only pretend."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from archiver.config import RetentionClass
from archiver.errors import AlreadyExistsError, ConfigError, NotFoundError, RefusedError, StorageError
from archiver.retention.attributes import attribution
from archiver.stores.destination import parse_destination
from archiver.stores.s3 import S3Store
from tests.servers.localstack import REGION
from tests.servers.process import S3Server
from tests.stores.s3_help import PART, Open, fetch

ATTRIBUTES = attribution({"daily": RetentionClass(35, 7), "monthly": RetentionClass(400, 35, "month")})
DAYS = {"daily": 42, "monthly": 435, "vault": 435}
NAME = "data/prod/00112233445566778899aabbccddeeff.mdb.zst.age"
DAILY, MONTHLY, HELD = (f"{name}/{NAME}" for name in ("daily", "monthly", "held"))
VAULT = "vault/prod/0011223344556677/alice.age"
MANIFEST = "daily/backups/prod/20261122T200334Z-f05d75/manifest.json"


@dataclass
class Bucket:
    """A bucket with Object Lock, for one test."""

    name: str
    url: str
    client: Any

    def head(self, store: S3Store, key: str) -> Any:
        return self.client.head_object(Bucket=self.name, Key=store.full_key(key))

    def remove(self, store: S3Store, key: str) -> None:
        """Delete the version of ``key``."""
        version = self.head(store, key)["VersionId"]
        self.client.delete_object(Bucket=self.name, Key=store.full_key(key), VersionId=version)


@pytest.fixture(params=["localstack", "seaweed"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    name = f"locked-{secrets.token_hex(8)}"
    with closing(boto3.session.Session().client("s3", endpoint_url=server.endpoint, region_name=REGION)) as client:
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        yield Bucket(name, f"s3://{name}/prefix?endpoint={server.endpoint}&region={REGION}", client)


@pytest.mark.parametrize("mode", ["governance", "compliance"])
@pytest.mark.parametrize("size", [1, PART + 1])
def test_what_is_created_is_locked_for_as_long_as_its_class_keeps_it(
    bucket: Bucket, open_s3: Open, mode: str, size: int
) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock=mode)
    for key in (DAILY, MONTHLY, VAULT, MANIFEST):
        created = store.create(key, [bytes(size)])
        head = bucket.head(store, key)
        assert head["ObjectLockMode"] == mode.upper()
        beyond = head["ObjectLockRetainUntilDate"].astimezone(UTC) - created.modified
        days = timedelta(days=DAYS[key.partition("/")[0]])
        assert days <= beyond < days + timedelta(hours=2)
        assert head.get("ObjectLockLegalHoldStatus", "OFF") == "OFF"
        with pytest.raises(ClientError, match="AccessDenied"):
            bucket.remove(store, key)
        with pytest.raises(AlreadyExistsError):
            store.create(key, [b"other"])
        assert fetch(store, key) == bytes(size)


def test_what_is_held_can_be_deleted_for_good_once_it_is_unlocked(bucket: Bucket, open_s3: Open) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance")
    store.create(HELD, [b"held"])
    head = bucket.head(store, HELD)
    assert head["ObjectLockLegalHoldStatus"] == "ON"
    assert "ObjectLockMode" not in head
    with pytest.raises(ClientError, match="AccessDenied"):
        bucket.remove(store, HELD)
    store.unlock(HELD)
    assert bucket.head(store, HELD).get("ObjectLockLegalHoldStatus", "OFF") == "OFF"
    store.unlock(HELD)
    bucket.remove(store, HELD)
    with pytest.raises(NotFoundError):
        store.unlock(HELD)


def test_a_hold_from_before_the_option_was_removed_can_be_taken_off(bucket: Bucket, open_s3: Open) -> None:
    open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance").create(HELD, [b"held"])
    store = open_s3(bucket.url)
    store.unlock(HELD)
    assert bucket.head(store, HELD).get("ObjectLockLegalHoldStatus", "OFF") == "OFF"


def test_in_a_bucket_without_object_lock_there_is_nothing_to_unlock(url: str, open_s3: Open) -> None:
    open_s3(url).create(HELD, [b"x"])
    open_s3(url, object_lock="governance").unlock(HELD)


@pytest.mark.parametrize("mode", ["governance", "compliance"])
def test_a_copy_is_locked_as_its_own_class_has_it(bucket: Bucket, open_s3: Open, mode: str) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock=mode)
    store.create(DAILY, [b"bytes"])
    copied = store.copy(DAILY, MONTHLY)
    head = bucket.head(store, MONTHLY)
    assert head["ObjectLockMode"] == mode.upper()
    assert head["ObjectLockRetainUntilDate"].astimezone(UTC) - copied.modified >= timedelta(days=435)
    store.copy(DAILY, HELD)
    assert bucket.head(store, HELD)["ObjectLockLegalHoldStatus"] == "ON"
    for key in (MONTHLY, HELD):
        with pytest.raises(ClientError, match="AccessDenied"):
            bucket.remove(store, key)
        assert fetch(store, key) == b"bytes"
    with pytest.raises(AlreadyExistsError):
        store.copy(DAILY, MONTHLY)


@pytest.mark.parametrize("lock", ["governance", None])
def test_a_copy_of_what_is_held_is_not_held(bucket: Bucket, open_s3: Open, lock: str | None) -> None:
    """SeaweedFS gives it the hold of its source, and then nothing would ever end it."""
    open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance").create(HELD, [b"held"])
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock=lock)
    store.copy(HELD, DAILY)
    head = bucket.head(store, DAILY)
    assert head.get("ObjectLockLegalHoldStatus", "OFF") == "OFF"
    assert ("ObjectLockMode" in head) is (lock is not None)
    assert bucket.head(store, HELD)["ObjectLockLegalHoldStatus"] == "ON"


def test_a_deleted_key_stays_as_a_version(bucket: Bucket, open_s3: Open) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance")
    store.create(DAILY, [b"locked"])
    version = bucket.head(store, DAILY)["VersionId"]
    store.delete(DAILY)
    with pytest.raises(NotFoundError):
        store.stat(DAILY)
    kept = bucket.client.get_object(Bucket=bucket.name, Key=store.full_key(DAILY), VersionId=version)
    assert kept["Body"].read() == b"locked"


def test_without_the_option_nothing_is_locked(bucket: Bucket, open_s3: Open) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES)
    for key in (DAILY, HELD):
        store.create(key, [b"free"])
        head = bucket.head(store, key)
        assert "ObjectLockMode" not in head
        assert head.get("ObjectLockLegalHoldStatus", "OFF") == "OFF"
        bucket.remove(store, key)


def test_other_keys_are_not_locked(bucket: Bucket, open_s3: Open) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="compliance")
    store.create("unknown/data/prod/x", [b"free"])
    bucket.remove(store, "unknown/data/prod/x")


@pytest.mark.parametrize("size", [1, PART + 1])
def test_a_bucket_without_object_lock_refuses(seaweed_url: str, open_s3: Open, size: int) -> None:
    open_s3(seaweed_url).create(DAILY, [b"x"])
    store = open_s3(seaweed_url, attributes=ATTRIBUTES, object_lock="governance")
    with pytest.raises(RefusedError, match="InvalidRequest"):
        store.create(MONTHLY, [bytes(size)])
    with pytest.raises(RefusedError, match="InvalidRequest"):
        store.copy(DAILY, MONTHLY)


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        (DAILY, "ObjectLockMode", "expected ObjectLockMode to be GOVERNANCE, got nothing"),
        (DAILY, "ObjectLockRetainUntilDate", r"expected it to be locked until 20\S+Z, got nothing"),
        (HELD, "ObjectLockLegalHoldStatus", "expected ObjectLockLegalHoldStatus to be ON, got nothing"),
    ],
)
@pytest.mark.parametrize("size", [1, PART + 1])
def test_a_lock_that_the_store_does_not_confirm_is_an_error(
    bucket: Bucket, open_s3: Open, size: int, key: str, name: str, message: str
) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance")

    def forget(parsed: dict[str, Any], **_: object) -> None:
        parsed.pop(name, None)

    store._connection.client.meta.events.register("after-call.s3.HeadObject", forget)
    with pytest.raises(StorageError, match=message) as caught:
        store.create(key, [bytes(size)])
    assert "s3:GetObjectRetention" in str(caught.value.hint)


def test_a_lock_that_ends_too_soon_is_an_error(bucket: Bucket, open_s3: Open) -> None:
    store = open_s3(bucket.url, attributes=ATTRIBUTES, object_lock="governance")

    def shorten(parsed: dict[str, Any], **_: object) -> None:
        parsed["ObjectLockRetainUntilDate"] -= timedelta(days=1)

    store._connection.client.meta.events.register("after-call.s3.HeadObject", shorten)
    with pytest.raises(StorageError, match="expected it to be locked until"):
        store.create(DAILY, [b"x"])


def test_a_lock_needs_a_checksum() -> None:
    with pytest.raises(ConfigError, match="object_lock: S3 locks nothing that comes without a checksum") as caught:
        parse_destination("s3://bucket?object_lock=governance&checksum=none")
    assert caught.value.hint == "Remove checksum=none, or object_lock."
    with pytest.raises(ConfigError, match="object_lock: expected governance or compliance, got 'GOVERNANCE'"):
        parse_destination("s3://bucket?object_lock=GOVERNANCE")
    url = "s3://bucket?object_lock=compliance"
    assert parse_destination(url).display == url
