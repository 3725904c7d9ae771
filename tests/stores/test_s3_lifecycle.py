"""A bucket's rules over the wire: others' stay, races are seen, and what a store does not keep is said."""

import json
from contextlib import closing
from typing import Any

import pytest
from botocore.exceptions import ClientError

from archiver.config import DEFAULT_CLASSES
from archiver.errors import BusyError, RefusedError, StorageError
from archiver.retention.policy import own_name, wanted_rules
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_lifecycle import change_rules, read_lifecycle, read_rules
from archiver.stores.s3_rules import full_rules, meaning_of
from tests.servers.seaweed import LIMITED
from tests.stores.test_s3_examination import Bucket, bucket, connection, in_localstack, in_seaweed, login

__all__ = ["bucket", "connection"]

BASE = "backups/here/"
WANTED = full_rules(wanted_rules(DEFAULT_CLASSES, versioned=True), BASE)
FOREIGN: list[dict[str, Any]] = [
    {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}},
    {
        "ID": "tagged & sized",
        "Status": "Enabled",
        "Expiration": {"Days": 1},
        "Filter": {"And": {"Prefix": "q/", "Tags": [{"Key": "a", "Value": "b"}], "ObjectSizeGreaterThan": 5}},
    },
    {
        "ID": "kept versions",
        "Status": "Enabled",
        "Filter": {"Prefix": "other/"},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 3, "NewerNoncurrentVersions": 2},
    },
]


def put(bucket: Bucket, rules: list[dict[str, Any]]) -> None:
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": rules})


def get(bucket: Bucket) -> list[dict[str, Any]]:
    answer = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
    return list(answer["Rules"])


def no_pause(_: float) -> None:
    pass


def test_a_bucket_without_rules(connection: S3Connection) -> None:
    assert read_rules(connection) == ()
    found = read_lifecycle(connection)
    assert (found.rules, found.raw, found.versioned) == ((), b"", False)
    change_rules(connection, found, WANTED)
    assert list(read_rules(connection)) == WANTED
    assert [item.meaning for item in read_lifecycle(connection).rules] == [meaning_of(rule) for rule in WANTED]


def test_rules_of_others_stay(bucket: Bucket, connection: S3Connection) -> None:
    stale = {"ID": f"{own_name(BASE)}weekly-data", "Status": "Enabled", "Filter": {"Prefix": "x/"}}
    put(bucket, [FOREIGN[0], stale | {"Expiration": {"Days": 3}}, *FOREIGN[1:]])
    before = get(bucket)
    existing = read_lifecycle(connection)
    assert [item.enabled for item in existing.rules] == [False, True, True, True]
    change_rules(connection, existing, WANTED)
    after = get(bucket)
    assert after[: len(FOREIGN)] == [rule for rule in before if rule["ID"] != stale["ID"]]
    assert [rule["ID"] for rule in after[len(FOREIGN) :]] == [rule.name for rule in WANTED]


@in_localstack
def test_the_smallest_object_that_moves_stays_as_it_was_set(bucket: Bucket, connection: S3Connection) -> None:
    """A setting of the bucket that a change without it would set back."""
    size = "varies_by_storage_class"
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": FOREIGN[:1]}, TransitionDefaultMinimumObjectSize=size
    )
    change_rules(connection, read_lifecycle(connection), WANTED)
    answer = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)
    assert answer["TransitionDefaultMinimumObjectSize"] == size
    assert len(answer["Rules"]) == 1 + len(WANTED)


def test_a_change_by_somebody_else_meanwhile(bucket: Bucket, connection: S3Connection) -> None:
    put(bucket, FOREIGN[:1])
    existing = read_lifecycle(connection)
    put(bucket, FOREIGN[:2])
    with pytest.raises(BusyError, match="were changed meanwhile"):
        change_rules(connection, existing, WANTED)
    assert [rule["ID"] for rule in get(bucket)] == [rule["ID"] for rule in FOREIGN[:2]]


def test_the_first_rules_by_somebody_else_meanwhile(bucket: Bucket, connection: S3Connection) -> None:
    existing = read_lifecycle(connection)
    put(bucket, FOREIGN[:1])
    with pytest.raises(BusyError, match="were changed meanwhile"):
        change_rules(connection, existing, WANTED)
    assert len(get(bucket)) == 1


def test_a_store_that_drops_what_it_does_not_know(
    bucket: Bucket, connection: S3Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ceph drops filters by size: whatever it is, it must not go unseen."""

    def drop(params: dict[str, Any], **_: object) -> None:
        params["body"] = params["body"].replace(b"<NewerNoncurrentVersions>2</NewerNoncurrentVersions>", b"")

    put(bucket, FOREIGN)
    existing = read_lifecycle(connection)
    real = connection.client.put_bucket_lifecycle_configuration

    def dropping(**parameters: Any) -> Any:
        # Registered last, so that it sees what is sent.
        connection.client.meta.events.register_last("before-call.s3.PutBucketLifecycleConfiguration", drop)
        return real(**parameters)

    monkeypatch.setattr(connection.client, "put_bucket_lifecycle_configuration", dropping)
    pauses: list[float] = []
    with pytest.raises(StorageError, match="has other lifecycle rules than it was sent: 'kept versions'"):
        change_rules(connection, existing, WANTED, sleep=pauses.append)
    assert 20 < sum(pauses) < 60


def test_a_change_that_shows_late(bucket: Bucket, connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 says that it may answer with the rules of before for a while."""
    put(bucket, FOREIGN[:1])
    existing = read_lifecycle(connection)
    with closing(bucket.connect()) as other:
        monkeypatch.setattr(connection.client, "put_bucket_lifecycle_configuration", lambda **_: None)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                change_rules(other, existing, WANTED)

        change_rules(connection, existing, WANTED, sleep=pause)
    assert len(pauses) == 3
    assert list(read_rules(connection)) == WANTED


def test_nothing_else_is_sent_than_the_rules(
    bucket: Bucket, connection: S3Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler that replaces a body is for one request."""
    change_rules(connection, read_lifecycle(connection), WANTED)
    request: Any = {"Bucket": bucket.name, "LifecycleConfiguration": {"Rules": FOREIGN[:1]}}
    connection.client.put_bucket_lifecycle_configuration(**request)
    assert [rule["ID"] for rule in get(bucket)] == ["off"]


@in_seaweed
def test_credentials_that_may_not_change_the_rules(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bucket, FOREIGN[:1])
    login(monkeypatch, LIMITED)
    with closing(bucket.connect()) as connection:
        existing = read_lifecycle(connection)
        with pytest.raises(RefusedError, match="s3:PutLifecycleConfiguration is denied") as caught:
            change_rules(connection, existing, WANTED)
    assert caught.value.hint is not None
    assert "administrator" in caught.value.hint
    assert len(get(bucket)) == 1


@in_seaweed
def test_credentials_that_may_not_read_the_rules(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bucket, FOREIGN[:1])
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:GetLifecycleConfiguration",
                "Resource": f"arn:aws:s3:::{bucket.name}",
            }
        ],
    }
    bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(policy))
    login(monkeypatch, LIMITED)
    with closing(bucket.connect()) as connection:
        for read in (read_rules, read_lifecycle):
            with pytest.raises(RefusedError, match="s3:GetLifecycleConfiguration is denied to these credentials"):
                read(connection)


def test_a_store_without_lifecycle_rules(connection: S3Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        answer: Any = {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        raise ClientError(answer, "GetBucketLifecycleConfiguration")

    monkeypatch.setattr(connection.client, "get_bucket_lifecycle_configuration", missing)
    with pytest.raises(RefusedError, match="the store does not have that request") as caught:
        read_rules(connection)
    assert caught.value.hint is not None
    assert "archiver expire" in caught.value.hint
