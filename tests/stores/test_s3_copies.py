"""Copies within a bucket when answers are lost, others write in between, and stores do what they were not asked to."""

import itertools
import time
import tomllib
from collections.abc import Callable
from typing import Any

import pytest

from archiver.errors import AlreadyExistsError, ArchiverError, IntegrityError, StorageError
from archiver.stores.retry import Retry
from archiver.stores.s3 import S3Store
from archiver.stores.s3_errors import is_transient
from tests.servers.answering import Answer, Question, answering
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, Request, every, in_order
from tests.servers.localstack import REGION
from tests.servers.process import REPOSITORY
from tests.stores.s3_help import KEY, MIB, PART, Open, endpoint_of, fetch

COPY = "monthly/data/prod/0123.mdb.zst.age"
XML = {"Content-Type": "application/xml"}
HEAD = {"ETag": '"1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
RESULT = b'<CopyObjectResult><ETag>"1"</ETag><LastModified>2025-01-01T00:00:00Z</LastModified></CopyObjectResult>'


def is_copy(request: Request) -> bool:
    return request.method == "PUT"


def events_of(store: S3Store) -> Any:
    return store._connection.client.meta.events


def once(store: S3Store, operation: str, action: Callable[[], object]) -> None:
    """Let ``action`` happen before ``store`` sends the first ``operation``."""
    events = events_of(store)

    def act(**_: object) -> None:
        events.unregister(f"before-call.s3.{operation}", act)
        action()

    events.register(f"before-call.s3.{operation}", act)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(
    "fault",
    [
        Fault(Kind.LOST_REPLY),
        Fault(Kind.LOST_REPLY, after=40),
        Fault(Kind.RESET),
        Fault(Kind.INTERNAL_ERROR),
        Fault(Kind.SLOW_DOWN),
    ],
    ids=["lost", "cut", "reset", "500", "503"],
)
def test_a_copy_whose_answer_did_not_come_succeeds(url: str, open_s3: Open, fault: Fault, conditional: bool) -> None:
    data = bytes(PART) + b"x"
    open_s3(url).create(KEY, [data])
    with fault_proxy(endpoint_of(url), in_order(fault, fault, where=is_copy)) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint, conditional_writes=conditional)
        copied = store.copy(KEY, COPY)
        store.close()
        assert proxy.hits == {fault.kind: 2}
    assert (copied.key, copied.size) == (COPY, len(data))
    assert fetch(open_s3(url), COPY) == data


def test_giving_up_leaves_nothing(url: str, open_s3: Open) -> None:
    open_s3(url).create(KEY, [b"x"])
    resets = every(1, Fault(Kind.RESET))
    with fault_proxy(endpoint_of(url), lambda request: resets(request) if is_copy(request) else None) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        with pytest.raises(StorageError, match="cannot reach http"):
            store.copy(KEY, COPY)
        store.close()
        assert proxy.hits[Kind.RESET] == 4
    assert [item.key for item in open_s3(url).list()] == [KEY]


@pytest.mark.parametrize("method", ["PUT", "HEAD"], ids=["CopyObject", "HeadObject"])
def test_a_copy_outlasts_an_outage(seaweed_url: str, open_s3: Open, method: str) -> None:
    """From the request that copies on; what is looked at before is looked at again by the next run."""
    open_s3(seaweed_url).create(KEY, [b"x"])
    with fault_proxy(endpoint_of(seaweed_url)) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint)
        store._connection.retry = Retry(is_transient, attempts=2, base=0.01, cap=0.02)
        outage = in_order(*[Fault(Kind.RESET)] * 12, where=lambda request: request.method == method)
        once(store, "CopyObject", lambda: proxy.follow(outage))
        store.copy(KEY, COPY)
        assert proxy.hits == {Kind.RESET: 12}
        store.close()
    assert fetch(open_s3(seaweed_url), COPY) == b"x"


def test_what_another_made_in_between_is_not_overwritten(seaweed_url: str, open_s3: Open) -> None:
    store, other = open_s3(seaweed_url), open_s3(seaweed_url)
    store.create(KEY, [b"ours"])
    once(store, "CopyObject", lambda: other.create(COPY, [b"x"]))
    with pytest.raises(AlreadyExistsError, match=f"{COPY} exists already"):
        store.copy(KEY, COPY)
    assert fetch(store, COPY) == b"x"


def test_what_another_made_over_it_is_not_ours(url: str, open_s3: Open) -> None:
    """As on LocalStack, which ignores the condition of a copy: the loser notices."""
    store, other = open_s3(url), open_s3(url, conditional_writes=False)
    store.create(KEY, [b"ours"])
    connection = other._connection

    def overwrite(**_: object) -> None:
        connection.client.put_object(**connection.address(COPY), Body=b"fill")

    events_of(store).register("after-call.s3.CopyObject", overwrite)
    with pytest.raises(AlreadyExistsError):
        store.copy(KEY, COPY)


def test_a_source_that_is_replaced_in_between_is_noticed(url: str, open_s3: Open) -> None:
    store, connection = open_s3(url), open_s3(url)._connection
    store.create(KEY, [b"first"])

    once(store, "CopyObject", lambda: connection.client.put_object(**connection.address(KEY), Body=b"other"))
    with pytest.raises(IntegrityError, match=f"{KEY} changed while it was copied"):
        store.copy(KEY, COPY)
    assert [item.key for item in store.list()] == [KEY]


def test_a_source_that_goes_in_between_is_named(url: str, open_s3: Open) -> None:
    store, other = open_s3(url), open_s3(url)
    store.create(KEY, [b"first"])
    once(store, "CopyObject", lambda: other.delete(KEY))
    with pytest.raises(ArchiverError, match=f"{KEY} does not exist") as caught:
        store.copy(KEY, COPY)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("ContentLength", 4, "expected 5 bytes to be stored, got 4"), ("ChecksumCRC32", "AAAAAA==", "altered on its way")],
)
def test_other_bytes_are_noticed(url: str, open_s3: Open, name: str, value: object, message: str) -> None:
    store = open_s3(url)
    store.create(KEY, [b"bytes"])
    copied: list[bool] = []

    def alter(parsed: dict[str, Any], **_: object) -> None:
        assert name in parsed or not copied
        if copied:
            parsed[name] = value

    events_of(store).register("after-call.s3.CopyObject", lambda **_: copied.append(True))
    events_of(store).register("after-call.s3.HeadObject", alter)
    with pytest.raises(IntegrityError, match=message):
        store.copy(KEY, COPY)


def test_a_copy_inherits_nothing(url: str, open_s3: Open) -> None:
    store = open_s3(url)
    connection = store._connection
    client = connection.client
    client.put_object(
        **connection.address(KEY),
        Body=b"x",
        StorageClass="STANDARD_IA",
        Metadata={"color": "blue"},
        Tagging="expire=soon",
    )
    assert store.stat(KEY).storage_class == "STANDARD_IA"
    assert store.copy(KEY, COPY).storage_class is None
    head = client.head_object(**connection.address(COPY))
    assert list(head["Metadata"]) == ["archiver-create"]
    assert client.get_object_tagging(**connection.address(COPY))["TagSet"] == []
    assert {item.key: item.storage_class for item in store.list()} == {KEY: "STANDARD_IA", COPY: None}


def test_a_copy_is_encrypted_as_configured(url: str, open_s3: Open) -> None:
    open_s3(url).create(KEY, [b"x"])
    store = open_s3(url, sse="AES256")
    store.copy(KEY, COPY)
    connection = store._connection
    assert connection.client.head_object(**connection.address(COPY))["ServerSideEncryption"] == "AES256"


def test_a_copy_is_four_requests(url: str, open_s3: Open) -> None:
    open_s3(url).create(KEY, [b"x"])
    store = open_s3(url)
    store.copy(KEY, COPY)
    assert store.requests == {"HeadObject": 3, "CopyObject": 1}


def try_copying(
    open_s3: Open,
    monkeypatch: pytest.MonkeyPatch,
    put: Answer,
    *,
    sent: list[str],
    size: int = 1,
    delay: float = 0.0,
    **options: Any,
) -> None:
    """Copy in a store that has ``KEY`` alone, and gives the answer ``put`` to a copy after ``delay`` seconds. ``sent``
    becomes the methods of the requests that it got."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    found = HEAD | {"Content-Length": str(size)}
    copied: list[dict[str, str]] = []

    def answer(question: Question) -> Answer:
        if question.method == "PUT":
            time.sleep(delay)
            if put.body == RESULT:
                name = "x-amz-meta-archiver-create"
                copied.append({name: question.fields[name]})
            return put
        if question.target.endswith(KEY):
            return Answer(b"", 200, found)
        return Answer(b"", 200, found | copied[0]) if copied else Answer(b"", 404)

    with answering(answer) as server:
        place = f"s3://bucket/prefix?endpoint={server.endpoint}&region={REGION}"
        try:
            open_s3(place, **options).copy(KEY, COPY)
        finally:
            sent[:] = [question.method for question in server.questions]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"<Error><Code>InternalError</Code><Message>We tried.</Message></Error>", 200, XML),
        Answer(b"<Error><Code>SlowDown</Code><Message>Less.</Message></Error>", 200, XML),
        Answer(b"<html><body><h1>Welcome</h1></body></html>", 200, {"Content-Type": "text/html"}),
        Answer(b"", 200, XML),
        Answer(b"{}", 200, XML),
    ],
    ids=["internal", "slow", "page", "empty", "json"],
)
def test_an_answer_of_200_that_is_no_receipt(open_s3: Open, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """S3 says 200 before it copies, and may have to add an error."""
    sent: list[str] = []
    with pytest.raises(StorageError):
        try_copying(open_s3, monkeypatch, answer, sent=sent)
    assert sent == ["HEAD", "HEAD", *["PUT"] * 4]


def test_a_large_copy_may_take_long(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt, sent = Answer(RESULT, 200, XML), list[str]()
    try_copying(open_s3, monkeypatch, receipt, sent=sent, size=100 * MIB, delay=2, read_timeout=1)
    # On a busy machine a HEAD may not be answered in time either, and is sent again.
    assert [method for method, _ in itertools.groupby(sent)] == ["HEAD", "PUT", "HEAD"]
    assert sent.count("PUT") == 1
    with pytest.raises(StorageError, match="did not answer in time"):
        try_copying(open_s3, monkeypatch, receipt, sent=sent, size=1, delay=1, read_timeout=0.3)


def test_the_right_that_is_missing_is_named(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "User: arn:aws:iam::1:user/x is not authorized to perform: s3:PutObjectRetention on resource: y"
    denied = Answer(f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>".encode(), 403, XML)
    with pytest.raises(StorageError, match=f"refused s3:PutObject on s3://bucket/prefix/{COPY}") as caught:
        try_copying(open_s3, monkeypatch, denied, sent=[])
    assert "Allow s3:PutObjectRetention there" in str(caught.value.hint)


def test_the_oldest_boto3_that_is_allowed_knows_the_condition_of_a_copy() -> None:
    """botocore has it from 1.40.61 on, which boto3 of the same number asks for; before, it refuses the parameter."""
    requirements = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    (least,) = [text.removeprefix("boto3>=") for text in requirements if text.startswith("boto3>=")]
    assert tuple(map(int, least.split("."))) >= (1, 40, 61)
