"""Deleting a key of a bucket: without the right to, where versions are kept, and from a store that lies or is slow."""

import secrets
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from archiver.errors import NotFoundError, StorageError
from archiver.stores.s3 import S3Store
from tests.iam.policies import load_policy
from tests.iam.territory import Territory
from tests.servers.answering import Answer, Question, answering
from tests.servers.localstack import REGION
from tests.servers.process import S3Server
from tests.servers.seaweed import LIMITED
from tests.stores.s3_help import KEY, Open, fetch

XML = {"Content-Type": "application/xml"}
HEAD = {"ETag": '"1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Content-Length": "0"}
THERE = Answer(b"", 200, HEAD)
GONE = Answer(b"", 404)


def error(code: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>No.</Message></Error>'.encode()


def in_turn(*answers: Answer) -> Callable[[], Answer]:
    """Gives ``answers`` one after the other, the last one for ever."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def try_deleting(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch, heads: Callable[[], Answer], deletes: Callable[[], Answer]
) -> list[str]:
    """Delete ``KEY`` of a store that gives these answers; the methods of the requests that were sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def answer(question: Question) -> Answer:
        return heads() if question.method == "HEAD" else deletes()

    with answering(answer) as server:
        open_s3(f"s3://bucket/prefix?endpoint={server.endpoint}&region={REGION}").delete(KEY)
        return [question.method for question in server.questions]


def test_a_missing_right_is_named(
    seaweed_url: str, seaweed_server: S3Server, monkeypatch: pytest.MonkeyPatch, open_s3: Open
) -> None:
    admin = open_s3(seaweed_url)
    admin.create(KEY, [b"stays"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LIMITED[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", LIMITED[1])
    with pytest.raises(StorageError, match=r"refused s3:DeleteObject on s3://.*: access denied") as caught:
        open_s3(seaweed_url).delete(KEY)
    assert "Allow s3:DeleteObject" in str(caught.value.hint)
    assert fetch(admin, KEY) == b"stays"


def test_the_administrators_policy_is_enough(
    seaweed_server: S3Server, monkeypatch: pytest.MonkeyPatch, open_s3: Open
) -> None:
    """It answers 403 for keys that are missing, because they may be listed below the prefix alone."""
    territory = Territory.create(seaweed_server)
    keys = territory.user(load_policy("administrator"))
    for name, value in territory.admin.environment.items():
        monkeypatch.setenv(name, value)
    admin = open_s3(territory.url)
    others = [f"vault/prod/0011223344556677/{name}.age" for name in ("alice", "bob")]
    for key in (KEY, *others):
        admin.create(key, [b"x"])
    for name, value in keys.environment.items():
        monkeypatch.setenv(name, value)
    administrator = open_s3(territory.url)
    administrator.delete(others[0])
    with pytest.raises(NotFoundError):
        administrator.delete(others[0])
    administrator.delete(KEY)
    assert {item.key for item in admin.list()} == {others[1]}


def test_where_versions_are_kept_the_old_one_stays(
    localstack_server: S3Server, localstack_url: str, open_s3: Open
) -> None:
    bucket = f"versions-{secrets.token_hex(8)}"
    client: Any = boto3.session.Session().client("s3", endpoint_url=localstack_server.endpoint, region_name=REGION)
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store: S3Store = open_s3(f"s3://{bucket}/prefix?endpoint={localstack_server.endpoint}&region={REGION}")
    store.create(KEY, [b"recoverable"])
    store.delete(KEY)
    with pytest.raises(NotFoundError):
        store.stat(KEY)
    assert list(store.list()) == []
    (version,) = client.list_object_versions(Bucket=bucket)["Versions"]
    body = client.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"]
    assert body.read() == b"recoverable"
    client.close()
    with pytest.raises(NotFoundError):
        store.delete(KEY)


def test_what_is_there_afterwards_was_not_deleted(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="exists still, though the store says that it was deleted"):
        try_deleting(open_s3, monkeypatch, in_turn(THERE), in_turn(Answer(b"", 204)))


def test_an_object_under_lock_is_said_to_be_refused(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="refused s3:DeleteObject"):
        try_deleting(open_s3, monkeypatch, in_turn(THERE), in_turn(Answer(error("AccessDenied"), 403, XML)))


@pytest.mark.parametrize("second", [Answer(b"", 204), Answer(error("NoSuchKey"), 404, XML)], ids=["s3", "others"])
def test_a_lost_answer(open_s3: Open, monkeypatch: pytest.MonkeyPatch, second: Answer) -> None:
    """The first request deleted the key, and the second one finds nothing."""
    lost = Answer(error("InternalError"), 500, XML)
    sent = try_deleting(open_s3, monkeypatch, in_turn(THERE, GONE), in_turn(lost, second))
    assert sent == ["HEAD", "DELETE", "DELETE", "HEAD"]


def test_nothing_is_sent_for_a_key_that_is_missing(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError):
        try_deleting(open_s3, monkeypatch, in_turn(GONE), in_turn(Answer(b"", 204)))
