"""What only S3 has: lost answers, broken connections, refusals, options."""

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from archiver.errors import (
    AlreadyExistsError,
    ArchiverError,
    ConfigError,
    IntegrityError,
    NotFoundError,
    StorageError,
)
from archiver.stores.journal import Journal
from archiver.stores.s3 import S3Store
from archiver.stores.s3_multipart import abort_upload, open_uploads
from tests.servers.process import S3Server
from tests.servers.seaweed import LIMITED
from tests.stores.s3_help import KEY, PART, Open, fetch

KMS_ALIAS = "alias/archiver-test"
"""What localstack/ready.py makes."""


def lose_answers(store: S3Store, operation: str, count: int) -> list[str]:
    """Let the store carry out ``operation`` and lose its answer, ``count`` times; the list grows with each."""
    lost: list[str] = []

    def lose(**_: object) -> None:
        if len(lost) < count:
            lost.append(operation)
            raise ConnectionClosedError(endpoint_url="http://lost")

    store._connection.client.meta.events.register(f"after-call.s3.{operation}", lose)
    return lost


def count_requests(store: S3Store) -> list[str]:
    """The operations that are sent from now on."""
    sent: list[str] = []
    store._connection.client.meta.events.register("before-call.s3", lambda model, **_: sent.append(model.name))
    return sent


@pytest.mark.parametrize(("size", "operation"), [(10, "PutObject"), (PART + 1, "CompleteMultipartUpload")])
def test_a_create_whose_answer_was_lost_succeeds(url: str, open_s3: Open, size: int, operation: str) -> None:
    store = open_s3(url)
    lost = lose_answers(store, operation, 2)
    assert store.create(KEY, [bytes(size)]).size == size
    assert lost == [operation] * 2
    assert fetch(store, KEY) == bytes(size)


@pytest.mark.parametrize("size", [10, PART + 1])
def test_a_lost_answer_does_not_hide_another_creator(url: str, open_s3: Open, size: int) -> None:
    store = open_s3(url)
    open_s3(url).create(KEY, [b"theirs"])
    lost = lose_answers(store, "PutObject" if size < PART else "CompleteMultipartUpload", 1)
    with pytest.raises(AlreadyExistsError):
        store.create(KEY, [bytes(size)])
    assert len(lost) == 1
    assert fetch(store, KEY) == b"theirs"


def test_an_upload_whose_id_was_lost_is_aborted(url: str, open_s3: Open, journal: Journal) -> None:
    store = open_s3(url)
    lost = lose_answers(store, "CreateMultipartUpload", 1)
    store.create(KEY, [bytes(PART + 1)])
    assert lost
    assert open_uploads(store._connection, KEY) == []
    # The lost request might still have been under way.
    assert journal.entries() == [KEY]
    assert store.recover() == 0
    assert journal.entries() == []


@pytest.mark.parametrize("size", [10, PART + 1])
def test_giving_up_is_a_storage_error(url: str, open_s3: Open, journal: Journal, size: int) -> None:
    store = open_s3(url)
    lost = lose_answers(store, "PutObject" if size < PART else "UploadPart", 100)
    with pytest.raises(StorageError, match="cannot reach http"):
        store.create(KEY, [bytes(size)])
    assert len(lost) >= 4
    assert journal.entries() == []
    assert open_uploads(store._connection, KEY) == []


def test_an_upload_that_cannot_be_aborted_stays_in_the_journal(url: str, open_s3: Open, journal: Journal) -> None:
    store = open_s3(url)
    lose_answers(store, "UploadPart", 100)

    def refuse(**_: object) -> None:
        raise ConnectionClosedError(endpoint_url="http://lost")

    events = store._connection.client.meta.events
    events.register("before-call.s3.AbortMultipartUpload", refuse)
    with pytest.raises(StorageError) as caught:
        store.create(KEY, [bytes(PART + 1)])
    assert "multipart upload is still open" in caught.value.__notes__[0]
    events.unregister("before-call.s3.AbortMultipartUpload", refuse)
    assert len(journal.entries()) == 1
    assert store.recover() == 1


def test_an_upload_that_is_interrupted_before_its_answer_is_aborted(url: str, open_s3: Open) -> None:
    store = open_s3(url)

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    store._connection.client.meta.events.register("after-call.s3.CreateMultipartUpload", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.create(KEY, [bytes(PART + 1)])
    assert open_uploads(store._connection, KEY) == []


@pytest.mark.parametrize("moment", [1, 2])
def test_an_upload_that_is_interrupted_after_its_answer_is_aborted(
    url: str, open_s3: Open, journal: Journal, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """As a signal does it that comes while the id is written down: at its first write, or when it is on disk."""
    store = open_s3(url)
    add = journal.add

    def interrupted(entry: str) -> None:
        if " " in entry:
            if moment == 2:
                add(entry)
            raise KeyboardInterrupt
        add(entry)

    monkeypatch.setattr(journal, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.create(KEY, [bytes(PART + 1)])
    assert open_uploads(store._connection, KEY) == []
    assert journal.entries() == []


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("checksum", ["crc32", "none"])
def test_checksums(url: str, open_s3: Open, checksum: str, conditional: bool) -> None:
    store = open_s3(url, checksum=checksum, conditional_writes=conditional)
    for key, size in (("small", 10), ("large", 2 * PART)):
        store.create(key, [bytes(size)])
        assert hashlib.sha256(fetch(store, key)).digest() == hashlib.sha256(bytes(size)).digest()
        with pytest.raises(AlreadyExistsError):
            store.create(key, [b"other"])


def test_a_small_create_is_one_request(url: str, open_s3: Open) -> None:
    store = open_s3(url)
    sent = count_requests(store)
    store.create("small", [b"x"])
    assert sent == ["PutObject"]


def test_an_altered_part_is_noticed(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url)

    def alter(parsed: dict[str, Any], **_: object) -> None:
        parsed["ChecksumCRC32"] = "AAAAAA=="

    store._connection.client.meta.events.register("after-call.s3.PutObject", alter)
    with pytest.raises(IntegrityError, match="altered on its way"):
        store.create("small", [b"x"])


def test_a_whole_object_that_was_stored_otherwise_is_noticed(url: str, open_s3: Open) -> None:
    store = open_s3(url)
    stated: list[str] = []

    def alter(parsed: dict[str, Any], **_: object) -> None:
        stated.append(parsed["ChecksumCRC32"])
        parsed["ChecksumCRC32"] = "AAAAAA=="

    store._connection.client.meta.events.register("after-call.s3.HeadObject", alter)
    with pytest.raises(IntegrityError, match="altered on its way"):
        store.create("large", [bytes(PART), b"x"])
    whole = zlib.crc32(bytes(PART) + b"x").to_bytes(4, "big")
    assert stated == [base64.b64encode(whole).decode()]


@pytest.mark.parametrize("operation", ["PutObject", "UploadPart", "CompleteMultipartUpload"])
def test_the_store_refuses_a_wrong_checksum(url: str, open_s3: Open, journal: Journal, operation: str) -> None:
    store = open_s3(url)

    def alter(params: dict[str, Any], **_: object) -> None:
        params["ChecksumCRC32"] = "AAAAAA=="

    store._connection.client.meta.events.register(f"provide-client-params.s3.{operation}", alter)
    with pytest.raises(StorageError):
        store.create(KEY, [b"x" if operation == "PutObject" else bytes(PART + 1)])
    assert list(store.list()) == []
    assert open_uploads(store._connection, KEY) == []
    assert journal.entries() == []


def test_a_checksum_of_the_parts_is_none_of_the_whole(url: str, open_s3: Open) -> None:
    store = open_s3(url)

    def alter(parsed: dict[str, Any], **_: object) -> None:
        parsed["ChecksumCRC32"] = "AAAAAA==-2"

    store._connection.client.meta.events.register("after-call.s3.HeadObject", alter)
    assert store.create("large", [bytes(PART), b"x"]).size == PART + 1


def test_bodies_are_files_that_nobody_has_to_ask_for(url: str, open_s3: Open) -> None:
    """Bytes would have to pass within one time limit. Before a file botocore would wait for "100 Continue", and hang
    where the connection ends within it."""
    store = open_s3(url)
    sent: dict[str, tuple[bool, bool]] = {}

    def note(request: Any, event_name: str, **_: object) -> None:
        sent[event_name.rpartition(".")[2]] = hasattr(request.body, "read"), "Expect" in request.headers

    store._connection.client.meta.events.register("before-send.s3", note)
    store.create("small", [b"x"])
    store.create("large", [bytes(PART), b"x"])
    assert {"PutObject": (True, False), "UploadPart": (True, False)}.items() <= sent.items()


@pytest.mark.parametrize("token", [None, "again"])
def test_a_listing_that_cannot_go_on_is_no_end(url: str, open_s3: Open, token: str | None) -> None:
    store = open_s3(url)
    store.create(KEY, [b"x"])

    def truncate(parsed: dict[str, Any], **_: object) -> None:
        parsed |= {"IsTruncated": True, "NextContinuationToken": token}

    def forget(params: dict[str, Any], **_: object) -> None:
        params.pop("ContinuationToken", None)

    events = store._connection.client.meta.events
    events.register("after-call.s3.ListObjectsV2", truncate)
    events.register("provide-client-params.s3.ListObjectsV2", forget)
    with pytest.raises(StorageError, match="a listing goes on, and not where"):
        list(store.list())


def test_requests_are_counted_repeated_ones_included(url: str, open_s3: Open) -> None:
    store = open_s3(url)
    lose_answers(store, "UploadPart", 1)
    store.create(KEY, [bytes(PART + 1)])
    assert store.requests == {
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "CompleteMultipartUpload": 1,
        "HeadObject": 1,
    }


@pytest.mark.parametrize("size", [1, PART + 1])
@pytest.mark.parametrize("alias", [None, KMS_ALIAS])
def test_encryption_with_a_key_in_kms(localstack_url: str, open_s3: Open, alias: str | None, size: int) -> None:
    store = open_s3(localstack_url, sse="aws:kms", sse_kms_key=alias)
    store.create(KEY, [bytes(size)])
    head = store._connection.client.head_object(**store._connection.address(KEY))
    assert head["ServerSideEncryption"] == "aws:kms"
    assert head["SSEKMSKeyId"]
    assert fetch(store, KEY) == bytes(size)


@pytest.mark.parametrize("size", [1, PART + 1])
def test_a_key_in_kms_that_is_not_there(localstack_url: str, open_s3: Open, journal: Journal, size: int) -> None:
    store = open_s3(localstack_url, sse="aws:kms", sse_kms_key="00000000-0000-0000-0000-000000000000")
    with pytest.raises(StorageError, match=r"the key in KMS cannot be used \(NotFoundException\)") as caught:
        store.create(KEY, [bytes(size)])
    assert "sse_kms_key" in str(caught.value.hint)
    assert list(store.list()) == []
    assert journal.entries() == []


@pytest.mark.parametrize("size", [1, PART + 1])
def test_encryption_with_the_stores_own_key(url: str, open_s3: Open, size: int) -> None:
    store = open_s3(url, sse="AES256")
    store.create(KEY, [bytes(size)])
    head = store._connection.client.head_object(**store._connection.address(KEY))
    assert head["ServerSideEncryption"] == "AES256"
    assert fetch(store, KEY) == bytes(size)


@pytest.mark.parametrize("size", [1, PART + 1])
def test_an_encryption_that_the_store_ignores_is_an_error(
    localstack_url: str, open_s3: Open, journal: Journal, size: int
) -> None:
    store = open_s3(localstack_url, sse="AES256")

    def forget(parsed: dict[str, Any], **_: object) -> None:
        del parsed["ServerSideEncryption"]

    for operation in ("PutObject", "HeadObject"):
        store._connection.client.meta.events.register(f"after-call.s3.{operation}", forget)
    with pytest.raises(StorageError, match="expected the store to encrypt with AES256, got nothing"):
        store.create(KEY, [bytes(size)])
    assert open_uploads(store._connection, KEY) == []
    assert journal.entries() == []


def test_the_requester_pays_for_every_request(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url, requester_pays=True)
    headers: dict[str, bytes | None] = {}

    def note(request: Any, event_name: str, **_: object) -> None:
        headers[event_name.rpartition(".")[2]] = request.headers.get("x-amz-request-payer")

    store._connection.client.meta.events.register("before-send.s3", note)
    store.create("small", [b"x"])
    store.create(KEY, [bytes(PART + 1)])
    store.stat(KEY)
    fetch(store, "small")
    list(store.list())
    upload = store._connection.client.create_multipart_upload(**store._connection.address("other"))["UploadId"]
    abort_upload(store._connection, "other", upload)
    assert {name for name, payer in headers.items() if payer in (b"requester", "requester")} == {
        "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject", "GetObject",
        "ListObjectsV2", "AbortMultipartUpload",
    }  # fmt: skip


def test_too_many_parts(localstack_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.stores.s3_writes.MAX_PARTS", 2)
    store = open_s3(localstack_url)
    with pytest.raises(StorageError, match="would need more than 2 parts"):
        store.create(KEY, [bytes(PART)] * 3)
    assert open_uploads(store._connection, KEY) == []


def test_the_destinations_storage_class_is_for_objects_only(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url, storage_class="STANDARD_IA")
    objects = [f"daily/data/prod/{name}.zst.age" for name in (f"{2:032x}.mdb", f"{1:032x}.0123abcd.tar")]
    others = ("daily/backups/prod/1/manifest.json", "daily/data/prod/20261122T200334Z-f05d75.contents.jsonl.zst.age")
    for key in (*objects, *others):
        store.create(key, [bytes(PART + 1 if "mdb" in key else 1)])
    assert {item.key: item.storage_class for item in store.list()} == {
        **dict.fromkeys(objects, "STANDARD_IA"),
        **dict.fromkeys(others),
    }


def test_more_keys_than_one_page(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url)
    keys = [f"daily/data/{number:04}" for number in range(1005)]
    for key in keys:
        store.create(key, [b""])
    assert [item.key for item in store.list("daily/")] == keys
    assert list(store.list_names("daily/data/")) == [f"{number:04}" for number in range(1005)]
    assert list(store.list_names("daily/")) == ["data"]


def test_what_is_not_a_key_is_not_listed(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url)
    connection = store._connection
    for foreign in ("a b", "a//b", "c/"):
        connection.client.put_object(Bucket=connection.bucket, Key=connection.full_key(foreign))
    store.create("a/d", [b""])
    assert [item.key for item in store.list()] == ["a/d"]
    assert list(store.list_names()) == ["a", "c"]
    assert list(store.list_names("a/")) == ["d"]


def test_a_missing_bucket_is_not_an_empty_one(url: str, open_s3: Open) -> None:
    store = open_s3(url.replace("archiver-test/", "no-such-bucket/"))
    attempts: list[Callable[[], object]] = [
        lambda: list(store.list()),
        lambda: list(store.list_names()),
        store.clock,
        lambda: store.create(KEY, [b""]),
        lambda: store.create(KEY, [bytes(PART + 1)]),
        lambda: fetch(store, KEY),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match="the bucket does not exist") as caught:
            attempt()
        assert caught.value.hint


@pytest.mark.parametrize(
    ("access", "secret", "reason"),
    [("nobody", "admin-secret", "the access key is not known"), ("admin", "wrong-secret", "the signature is wrong")],
)
def test_bad_credentials(
    seaweed_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch, access: str, secret: str, reason: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = open_s3(seaweed_url)
    attempts: list[Callable[[], object]] = [
        lambda: list(store.list()),
        lambda: store.create(KEY, [b""]),
        lambda: fetch(store, KEY),
    ]
    for attempt in attempts:
        with pytest.raises(StorageError, match=reason) as caught:
            attempt()
        assert secret not in str(caught.value)
    with pytest.raises(StorageError, match=reason):
        store.stat(KEY)


@pytest.mark.parametrize("size", [1, PART + 1])
def test_no_right_to_write(
    seaweed_url: str, open_s3: Open, journal: Journal, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LIMITED[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", LIMITED[1])
    store = open_s3(seaweed_url)
    assert list(store.list()) == []
    with pytest.raises(StorageError, match=r"refused s3:PutObject on s3://archiver-test/\S+: access denied") as caught:
        store.create(KEY, [bytes(size)])
    assert caught.value.hint == "Allow s3:PutObject there to the credentials in use, or use other credentials."
    assert journal.entries() == []


@pytest.mark.parametrize("present", [True, False])
def test_a_missing_key_is_told_from_one_that_may_not_be_read(url: str, open_s3: Open, present: bool) -> None:
    """AWS answers 403 in both cases where the right to list is tied to a prefix."""
    store = open_s3(url)
    store.create(KEY if present else f"{KEY}.other", [b"x"])

    def deny(**_: object) -> None:
        raise ClientError({"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "any")  # type: ignore[typeddict-item]

    for operation in ("HeadObject", "GetObject"):
        store._connection.client.meta.events.register(f"after-call.s3.{operation}", deny)
    attempts: list[Callable[[], object]] = [lambda: store.stat(KEY), lambda: fetch(store, KEY)]
    for attempt in attempts:
        with pytest.raises(StorageError if present else NotFoundError):
            attempt()


def test_no_credentials(localstack_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StorageError, match="no usable credentials for s3://"):
        open_s3(localstack_url).stat(KEY)


def test_an_unknown_profile(open_s3: Open) -> None:
    with pytest.raises(StorageError, match=r"profile \(nobody\) could not be found"):
        open_s3("s3://bucket?profile=nobody")


def test_an_unreachable_endpoint(localstack_url: str, open_s3: Open) -> None:
    with pytest.raises(StorageError, match=r"cannot reach http://127\.0\.0\.1:1: failed to establish"):
        open_s3(localstack_url, endpoint="http://127.0.0.1:1").clock()


def test_an_untrusted_certificate(localstack_url: str, localstack_server: S3Server, open_s3: Open) -> None:
    endpoint = localstack_server.endpoint.replace("http://", "https://")
    with pytest.raises(StorageError, match="no secure connection to https://") as caught:
        open_s3(localstack_url, endpoint=endpoint).clock()
    assert "ca_bundle" in str(caught.value.hint)


def test_a_ca_bundle_of_the_environment_that_is_missing(
    localstack_url: str, localstack_server: S3Server, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/missing")
    endpoint = localstack_server.endpoint.replace("http://", "https://")
    with pytest.raises(StorageError):
        open_s3(localstack_url, endpoint=endpoint).clock()


def test_a_missing_ca_bundle(open_s3: Open) -> None:
    with pytest.raises(ConfigError, match="ca_bundle: /missing does not exist"):
        open_s3("s3://bucket?ca_bundle=/missing")


def test_an_empty_prefix(localstack_url: str, open_s3: Open) -> None:
    prefix = localstack_url.split("/")[3].partition("?")[0]
    store = open_s3(localstack_url.replace(f"/{prefix}?", "?"))
    key = f"{prefix}/x"
    store.create(key, [b"x"])
    assert fetch(store, key) == b"x"
    assert [item.key for item in store.list(f"{prefix}/")] == [key]
    with pytest.raises(NotFoundError):
        store.stat(f"{prefix}/y")


def test_errors_are_ours(open_s3: Open) -> None:
    with pytest.raises(ArchiverError):
        open_s3("s3://bucket?endpoint=http://127.0.0.1:1&region=no such region").clock()
