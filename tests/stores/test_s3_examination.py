"""What is found out about a bucket, and that trying it leaves nothing behind."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ConnectionClosedError
from msgspec.structs import replace

from archiver.config import RetentionClass
from archiver.errors import StorageError
from archiver.retention.attributes import attribution
from archiver.retention.rules import Rule
from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_examination import bucket_settings
from archiver.stores.s3_facts import ObjectLock, Rate, Unknown
from archiver.stores.s3_options import S3Options
from archiver.stores.s3_probe import FIRST, MOST, S3Probe, _measure
from tests.servers.seaweed import LIMITED
from tests.stores.s3_help import impatient

KEY = f"daily/data/prod/{'0' * 32}.file.zst.age"
PREFIX = "backups/here"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of its own, as whoever has made it sees it, and as archiver does."""

    server: str
    client: Any
    name: str
    options: S3Options

    def connect(self, **options: Any) -> S3Connection:
        retry = impatient(3)
        return S3Connection(self.name, PREFIX, replace(self.options, **options), retry)

    def uploads(self) -> list[str]:
        listing = self.client.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in listing.get("Uploads", [])]

    def versions(self) -> list[str]:
        """Keys, their versions and delete markers."""
        listing = self.client.list_object_versions(Bucket=self.name)
        return [item["Key"] for kind in ("Versions", "DeleteMarkers") for item in listing.get(kind, [])]

    def is_untouched(self) -> bool:
        return (self.uploads(), self.versions()) == ([], [])


@pytest.fixture(params=["localstack", "seaweed"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """One in each server in turn."""
    destination = parse_destination(request.getfixturevalue(f"{request.param}_url"))
    assert isinstance(destination, S3Destination)
    options, name = destination.options, f"examined-{secrets.token_hex(6)}"
    # Not boto3's default session: it keeps the first credentials that it finds.
    client = boto3.session.Session().client("s3", endpoint_url=options.endpoint, region_name=options.region)
    with closing(client):
        client.create_bucket(Bucket=name)
        yield Bucket(request.param, client, name, options)


in_localstack = pytest.mark.parametrize("bucket", ["localstack"], indirect=True)
in_seaweed = pytest.mark.parametrize("bucket", ["seaweed"], indirect=True)


@pytest.fixture
def connection(bucket: Bucket) -> Iterator[S3Connection]:
    with closing(bucket.connect()) as connection:
        yield connection


@pytest.fixture
def probe(bucket: Bucket, connection: S3Connection) -> S3Probe:
    return S3Probe(connection, bucket.options)


def test_the_settings_of_a_new_bucket(bucket: Bucket, connection: S3Connection) -> None:
    found = bucket_settings(connection)
    assert (found.versioning, found.lifecycle, found.object_lock) == ("off", (), None)
    # The servers name no region where the request for the bucket had none, and are not AWS.
    assert isinstance(found.region, Unknown)
    if bucket.server == "localstack":
        assert (found.encryption, found.unblocked) == ("AES256", ())
        assert found.public == Unknown("the store does not have that request")
    else:
        assert (found.encryption, found.public) == (None, False)
        assert found.unblocked == Unknown("the store does not have that request")


def test_every_setting(bucket: Bucket, connection: S3Connection) -> None:
    client, name = bucket.client, {"Bucket": bucket.name}
    client.put_bucket_versioning(**name, VersioningConfiguration={"Status": "Enabled"})
    retention = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": retention}
    client.put_object_lock_configuration(**name, ObjectLockConfiguration=lock)
    encryption = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    client.put_bucket_encryption(**name, ServerSideEncryptionConfiguration=encryption)
    rules = [
        {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "p/"}, "Expiration": {"Days": 10}},
        {
            "ID": "parts", "Status": "Enabled", "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {
            "ID": "tagged", "Status": "Enabled", "Expiration": {"Days": 1},
            "Filter": {"And": {"Prefix": "q/", "Tags": [{"Key": "a", "Value": "b"}]}},
        },
        {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}},
    ]  # fmt: skip
    client.put_bucket_lifecycle_configuration(**name, LifecycleConfiguration={"Rules": rules})
    found = bucket_settings(connection)
    assert (found.versioning, found.encryption) == ("enabled", "AES256")
    assert found.object_lock == ObjectLock("GOVERNANCE", 3)
    assert found.lifecycle == (
        Rule("old", "p/", expires_days=10),
        Rule("parts", "", aborts_days=7),
        Rule("tagged", "q/", tagged=True, expires_days=1),
    )


def test_suspended_versioning(bucket: Bucket, connection: S3Connection) -> None:
    for status in ("Enabled", "Suspended"):
        bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": status})
    assert bucket_settings(connection).versioning == "suspended"


@in_seaweed
def test_a_public_bucket(bucket: Bucket, connection: S3Connection) -> None:
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", '
        f'"Resource": "arn:aws:s3:::{bucket.name}/*"}}]}}'
    )
    bucket.client.put_bucket_policy(Bucket=bucket.name, Policy=policy)
    assert bucket_settings(connection).public is True


@in_localstack
def test_public_access_that_is_half_blocked(bucket: Bucket, connection: S3Connection) -> None:
    block = {"BlockPublicAcls": True, "BlockPublicPolicy": True}
    bucket.client.put_public_access_block(Bucket=bucket.name, PublicAccessBlockConfiguration=block)
    assert bucket_settings(connection).unblocked == ("IgnorePublicAcls", "RestrictPublicBuckets")
    bucket.client.delete_public_access_block(Bucket=bucket.name)
    assert bucket_settings(connection).unblocked == (
        "BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets",
    )  # fmt: skip


def test_a_bucket_in_another_region(localstack_eu_url: str) -> None:
    destination = parse_destination(localstack_eu_url)
    assert isinstance(destination, S3Destination)
    options = replace(destination.options, region="us-east-1")
    with closing(S3Connection(destination.bucket, destination.prefix, options)) as connection:
        assert bucket_settings(connection).region == destination.options.region


def login(monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])


@in_seaweed
def test_settings_that_may_not_be_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    login(monkeypatch, LIMITED)
    with closing(bucket.connect()) as connection:
        found = bucket_settings(connection)
    assert found.encryption == Unknown("s3:GetEncryptionConfiguration is denied to these credentials")
    assert found.versioning == "off"


def test_an_upload_that_leaves_nothing(bucket: Bucket, connection: S3Connection, probe: S3Probe) -> None:
    create, abort, listed, rate = probe.upload(KEY)
    assert (create, abort, listed) == ("allowed", "allowed", "allowed")
    assert isinstance(rate, Rate)
    assert FIRST <= rate.size <= MOST
    assert rate.seconds > 0
    assert connection.requests["UploadPart"] in (1, 2)
    assert "CompleteMultipartUpload" not in connection.requests
    assert bucket.is_untouched()


@in_localstack
def test_it_is_begun_as_a_backup_begins_its_own(bucket: Bucket, connection: S3Connection) -> None:
    probe = S3Probe(connection, replace(bucket.options, storage_class="NO_SUCH_CLASS"))
    create, abort, *_ = probe.upload(KEY)
    assert isinstance(create, StorageError)
    assert "does not know the storage class" in create.message
    assert isinstance(abort, Unknown)
    assert bucket.is_untouched()


def test_a_lock_is_tried_as_a_backup_would_set_it(bucket: Bucket, connection: S3Connection) -> None:
    name = {"Bucket": bucket.name}
    bucket.client.put_bucket_versioning(**name, VersioningConfiguration={"Status": "Enabled"})
    bucket.client.put_object_lock_configuration(**name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    sent: list[Any] = []
    connection.client.meta.events.register(
        "provide-client-params.s3.CreateMultipartUpload", lambda params, **_: sent.append(params)
    )
    options = replace(bucket.options, object_lock="governance")
    probe = S3Probe(connection, options, attribution({"daily": RetentionClass(storage_class="STANDARD_IA")}))
    create, abort, *_ = probe.upload(KEY)
    assert (create, abort) == ("allowed", "allowed")
    assert bucket.is_untouched()
    (request,) = sent
    assert (request["ObjectLockMode"], request["StorageClass"]) == ("GOVERNANCE", "STANDARD_IA")


def fail_after(real: Callable[..., Any], error: BaseException, times: int = 100) -> Callable[..., Any]:
    """``real``, whose first answers are lost."""
    left = [error] * times

    def call(**parameters: Any) -> Any:
        answer = real(**parameters)
        if left:
            raise left.pop()
        return answer

    return call


@pytest.mark.parametrize("request_name", ["create_multipart_upload", "upload_part"])
def test_ctrl_c_leaves_nothing(
    bucket: Bucket, connection: S3Connection, probe: S3Probe, monkeypatch: pytest.MonkeyPatch, request_name: str
) -> None:
    real = getattr(connection.client, request_name)
    monkeypatch.setattr(connection.client, request_name, fail_after(real, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        probe.upload(KEY)
    assert connection.requests["CreateMultipartUpload"] == 1
    assert bucket.is_untouched()


def test_a_lost_answer_leaves_nothing(
    bucket: Bucket, connection: S3Connection, probe: S3Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ConnectionClosedError(endpoint_url="here")
    real = connection.client.create_multipart_upload
    monkeypatch.setattr(connection.client, "create_multipart_upload", fail_after(real, lost, times=1))
    create, abort, listed, _ = probe.upload(KEY)
    assert (create, abort, listed) == ("allowed", "allowed", "allowed")
    assert connection.requests["CreateMultipartUpload"] == 2
    assert connection.requests["AbortMultipartUpload"] == 2
    assert bucket.is_untouched()


def test_a_part_that_cannot_be_sent_leaves_nothing(
    bucket: Bucket, connection: S3Connection, probe: S3Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = ConnectionClosedError(endpoint_url="here")
    monkeypatch.setattr(connection.client, "upload_part", fail_after(lambda **_: None, lost))
    create, abort, _, rate = probe.upload(KEY)
    assert isinstance(create, StorageError)
    assert (abort, rate) == ("allowed", Unknown("nothing could be sent"))
    assert bucket.is_untouched()


@in_seaweed
def test_credentials_that_may_only_read(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{PREFIX}/there", Body=b"body")
    login(monkeypatch, LIMITED)
    with closing(bucket.connect()) as connection:
        probe = S3Probe(connection, bucket.options)
        create, _, listed, _ = probe.upload(KEY)
        read, refused = probe.read("there"), probe.delete(KEY)
    assert isinstance(create, StorageError)
    assert "refused s3:PutObject" in create.message
    assert (listed, read) == ("allowed", "allowed")
    assert isinstance(refused, StorageError)
    assert "refused s3:DeleteObject" in refused.message
    assert bucket.uploads() == []


def test_deleting_what_does_not_exist(bucket: Bucket, probe: S3Probe) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=f"{PREFIX}/there", Body=b"body")
    assert probe.delete(KEY) == "allowed"
    assert bucket.versions() == [f"{PREFIX}/there"]


def test_the_way_down(bucket: Bucket, connection: S3Connection, probe: S3Probe) -> None:
    size = FIRST + 100
    bucket.client.put_object(Bucket=bucket.name, Key=f"{PREFIX}/there", Body=bytes(size))
    rate = probe.download("there", size)
    assert isinstance(rate, Rate)
    assert FIRST <= rate.size <= size
    assert probe.download("there", FIRST - 1) == Unknown("no object is large enough to measure with")
    gone = probe.download("elsewhere", size)
    assert isinstance(gone, Unknown)
    assert "does not exist" in gone.reason


def test_the_latency(connection: S3Connection, probe: S3Probe) -> None:
    assert 0 < probe.latency() < 60
    assert connection.requests["ListObjectsV2"] == 6


@pytest.mark.parametrize(
    ("per_second", "limit", "sizes"),
    [
        (1000, MOST, [FIRST]),
        (FIRST / 5, MOST, [FIRST]),
        (FIRST, MOST, [FIRST, 5 * FIRST]),
        (1e9, MOST, [FIRST, MOST]),
        (1e9, FIRST + 1, [FIRST, FIRST + 1]),
        (1e9, FIRST, [FIRST]),
    ],
)
def test_a_slow_link_is_not_asked_for_much(per_second: float, limit: int, sizes: list[int]) -> None:
    sent = []

    def transfer(size: int) -> float:
        sent.append(size)
        return size / per_second

    rate = _measure(transfer, limit)
    assert sent == sizes
    assert rate.size == sizes[-1]
    assert rate.per_second == pytest.approx(per_second)
