"""Answers that no server at hand gives, over the wire: each becomes one line with the place, the reason and advice."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from botocore.parsers import ResponseParserError

from archiver.cli.output import Output, report
from archiver.errors import AlreadyExistsError, ArchiverError, NotFoundError, StorageError
from archiver.stores.s3 import S3Store
from archiver.stores.s3_answers import check_answer
from tests.servers.answering import Answer, AnsweringServer, Question, answering
from tests.servers.localstack import REGION
from tests.stores.s3_connections import refused
from tests.stores.s3_help import KEY, PART, Open, fetch

ATTEMPTS = 4
XML = {"Content-Type": "application/xml"}
HTML = {"Content-Type": "text/html"}
PAGE = b"<!DOCTYPE html><html><body><h1>Welcome to the hotel</h1><br>Your room number?</body></html>"
XHTML = b"<html><body><h1>Welcome to the hotel</h1><br/></body></html>"
OPERATIONS: dict[str, Callable[[S3Store], object]] = {
    "list": lambda store: list(store.list()),
    "names": lambda store: list(store.list_names()),
    "clock": lambda store: store.clock(),
    "stat": lambda store: store.stat(KEY),
    "read": lambda store: fetch(store, KEY),
    "range": lambda store: fetch(store, KEY, 1, 2),
    "small": lambda store: store.create(KEY, [b"x"]),
    "large": lambda store: store.create(KEY, [bytes(PART + 1)]),
}
HEAD = "stat"
"""Whose answer has no body, and so no reason."""


def error(code: str, message: str = "No.", more: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}'
        "<RequestId>1</RequestId></Error>"
    ).encode()


class Stand:
    """A server that gives the same answer always, and a store in front of it."""

    def __init__(self, open_s3: Open) -> None:
        self.answer = Answer()
        self._open = open_s3
        self.server: AnsweringServer

    def give(self, _: Question) -> Answer:
        return self.answer

    def store(self, answer: Answer) -> S3Store:
        self.answer = answer
        del self.server.questions[:]
        return self._open(f"s3://bucket/prefix?endpoint={self.server.endpoint}&region={REGION}")


@pytest.fixture
def stand(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stand = Stand(open_s3)
    with answering(stand.give) as stand.server:
        yield stand


@pytest.mark.parametrize(
    ("answer", "reason", "advice"),
    [
        (Answer(error("RequestTimeTooSkewed"), 403, XML), "clock differs too much", "NTP"),
        (Answer(error("ExpiredToken"), 400, XML), "the credentials have expired", "Renew"),
        (Answer(error("InvalidToken"), 400, XML), "the session token is malformed", "endpoint"),
        (Answer(error("InvalidAccessKeyId"), 403, XML), "the access key is not known", "AWS_ACCESS_KEY_ID"),
        (Answer(error("AccessDenied"), 403, XML), "access denied", "Allow s3:"),
        (Answer(error("QuotaExceeded"), 403, XML), "its quota is used up", "quota"),
        (Answer(error("InvalidObjectState"), 403, XML), "archive class", "restore it first"),
        (Answer(PAGE, 403, HTML), "access denied", "Allow s3:"),
    ],
    ids=["skew", "expired", "token", "key", "denied", "quota", "archived", "page"],
)
def test_refusals(stand: Stand, capsys: pytest.CaptureFixture[str], answer: Answer, reason: str, advice: str) -> None:
    """Told once, and not repeated."""
    store = stand.store(answer)
    for name, operation in OPERATIONS.items():
        del stand.server.questions[:]
        message = refused(partial(operation, store), capsys)
        # botocore asks for the region after a HEAD, and archiver whether a key that is refused is there at all.
        assert len(stand.server.questions) <= 2, name
        assert message.startswith(f"archiver: {stand.server.endpoint} refused s3:"), name
        assert "s3://bucket/prefix/" in message
        if name != HEAD:
            assert reason in message, name
            assert advice in message, name


@pytest.mark.parametrize(
    "answer",
    [
        Answer(error("PermanentRedirect"), 301, {**XML, "x-amz-bucket-region": "eu-west-1"}),
        Answer(error("AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"), 400, XML),
        Answer(b"", 301, {"x-amz-bucket-region": "eu-west-1"}),
    ],
    ids=["redirect", "malformed", "empty"],
)
def test_another_region_is_named(stand: Stand, capsys: pytest.CaptureFixture[str], answer: Answer) -> None:
    store = stand.store(answer)
    for name, operation in OPERATIONS.items():
        if name == HEAD and answer.status == 400:
            continue
        message = refused(partial(operation, store), capsys)
        assert "the bucket is in another region\nhint: Set the option region to eu-west-1." in message, name


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("body", [PAGE, XHTML, error("TemporaryRedirect")], ids=["page", "xhtml", "xml"])
def test_a_redirect_to_somewhere_else_is_not_followed(
    stand: Stand, capsys: pytest.CaptureFixture[str], status: int, body: bytes
) -> None:
    """botocore follows redirects, which say a region in S3, and asks for the region where one says none: for ever."""
    store = stand.store(Answer(body, status, {**HTML, "Location": "https://login.example/"}))
    for name, operation in OPERATIONS.items():
        del stand.server.questions[:]
        message = refused(partial(operation, store), capsys)
        assert "it redirects to https://login.example/\nhint: Set the option endpoint" in message, name
        assert len(stand.server.questions) == 1, name


@pytest.mark.parametrize("code", ["SlowDown", "ServiceUnavailable"])
def test_throttling_to_the_end(stand: Stand, code: str) -> None:
    store = stand.store(Answer(error(code), 503, XML))
    with pytest.raises(StorageError, match=r"s3:ListBucket on s3://bucket/prefix/: ") as caught:
        list(store.list())
    assert len(stand.server.questions) == ATTEMPTS
    assert caught.value.exit_code == 7
    assert "gain" in str(caught.value.hint)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(PAGE, 200, HTML),
        Answer(XHTML, 200, HTML),
        Answer(b"\x00\xffgarbage", 200, XML),
        Answer(b'{"status": "ok"}', 200, {"Content-Type": "application/json"}),
        Answer(b'<?xml version="1.0"?><Other><Thing/></Other>', 200, XML),
    ],
    ids=["page", "xhtml", "garbage", "json", "other"],
)
def test_what_is_not_s3(stand: Stand, capsys: pytest.CaptureFixture[str], answer: Answer) -> None:
    """A login page must never be taken for an empty bucket, nor for the receipt of a body."""
    store = stand.store(answer)
    for name, operation in OPERATIONS.items():
        if name == "range":
            continue
        message = refused(partial(operation, store), capsys)
        assert "with something that is not S3's\nhint: Check the endpoint, and that no proxy or login" in message, name


def test_an_answer_without_anything(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be one that was cut off, and is repeated; but it is no empty listing and no receipt."""
    store = stand.store(Answer(b"", 200))
    for name, operation in OPERATIONS.items():
        if name == "range":
            continue
        del stand.server.questions[:]
        assert stand.server.endpoint in refused(partial(operation, store), capsys), name
        assert len(stand.server.questions) >= ATTEMPTS, name


def test_a_page_in_place_of_a_range(stand: Stand) -> None:
    with pytest.raises(StorageError):
        fetch(stand.store(Answer(PAGE, 200, HTML)), KEY, 1, 2)


@pytest.mark.parametrize("body", [PAGE, XHTML, b""], ids=["page", "xhtml", "empty"])
@pytest.mark.parametrize("status", [401, 404, 405, 511])
def test_a_page_with_the_status_of_an_error(
    stand: Stand, capsys: pytest.CaptureFixture[str], status: int, body: bytes
) -> None:
    """A 404 that is not S3's does not mean that a key is missing, or that there are no backups."""
    store = stand.store(Answer(body, status, HTML))
    for name, operation in OPERATIONS.items():
        if name == HEAD:
            continue
        message = refused(partial(operation, store), capsys)
        assert f": {status}" in message, name
        assert "login page" in message, name


def test_a_head_has_no_reason(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    store = stand.store(Answer(error("ExpiredToken"), 400, XML))
    assert "archiver doctor" in refused(lambda: store.stat(KEY), capsys)


def test_what_is_missing(stand: Stand) -> None:
    with pytest.raises(NotFoundError):
        fetch(stand.store(Answer(error("NoSuchKey"), 404, XML)), KEY)
    with pytest.raises(NotFoundError):
        stand.store(Answer(b"", 404)).stat(KEY)


@pytest.mark.parametrize("body", [error("PreconditionFailed"), b""])
def test_what_exists(stand: Stand, body: bytes) -> None:
    def answer(question: Question) -> Answer:
        if question.method == "HEAD":
            return Answer(b"", 200, {"ETag": '"1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"})
        return Answer(body, 412, XML)

    with answering(answer) as stand.server, pytest.raises(AlreadyExistsError):
        stand.store(Answer()).create(KEY, [b"x"])


@pytest.mark.parametrize(
    "message",
    ["line one\nline two", "x" * 5000, "&#x9b;2J&#x9b;31m", "no full stop."],
    ids=["lines", "long", "escapes", "stop"],
)
def test_what_others_write_stays_on_one_line(stand: Stand, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArchiverError) as caught:
        list(stand.store(Answer(error("Peculiar", message), 400, XML)).list())
    report(Output(), caught.value)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.rstrip("\n").isprintable()
    assert ": Peculiar" in printed
    assert len(printed) < 1000
    assert not printed.endswith(".\n")


def test_an_error_in_an_answer_that_began_well(stand: Stand) -> None:
    """S3 sends its 200 before it has put parts together, and the error in its body."""
    answers: dict[str, Any] = {
        "POST uploads": Answer(
            b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>", 200, XML
        ),
        "PUT": Answer(b"", 200, {"ETag": '"1"'}),
        "POST": Answer(error("InternalError", "We met an internal error."), 200, XML),
        "DELETE": Answer(b"", 204),
        "GET": Answer(b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"),
    }

    def answer(question: Question) -> Answer:
        begins = question.method == "POST" and question.target.endswith("?uploads")
        return answers["POST uploads" if begins else question.method]  # type: ignore[no-any-return]

    with answering(answer) as stand.server:
        store = stand.store(Answer())
        with pytest.raises(StorageError, match="InternalError"):
            store.create(KEY, [bytes(PART + 1)])
        completions = [q for q in stand.server.questions if q.method == "POST" and not q.target.endswith("?uploads")]
        assert len(completions) == ATTEMPTS
        assert stand.server.questions[-1].method == "DELETE"


@pytest.mark.parametrize(("body", "accepted"), [(b"", True), (XHTML, False), (PAGE, False)])
def test_a_page_is_no_receipt_of_an_abort(body: bytes, accepted: bool) -> None:
    answer = {"status_code": 200, "headers": {}, "body": body}
    with nullcontext() if accepted else pytest.raises(ResponseParserError):
        check_answer("response-received.s3.AbortMultipartUpload", answer, {"ResponseMetadata": {}})
