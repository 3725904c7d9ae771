"""When AWS KMS refuses, fails, answers with garbage or not at all: one error, in bounded time, without secrets."""

import base64
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.crypto import kms
from archiver.crypto.kms import KmsKey, encryption_context, kms_open, kms_seal
from archiver.errors import ArchiverError, DecryptionError, StorageError
from tests.servers.answering import Answer, Question, answering
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, Request, every
from tests.servers.kms import KmsService
from tests.servers.process import S3Server

KEY = KmsKey.parse("arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab")
CONTEXT = encryption_context("prod", "0011223344556677")
PLAINTEXT = b"AGE-SECRET-KEY-1-NOT-TO-BE-SEEN"
CIPHERTEXT = b"ciphertext-not-to-be-seen"
SECRET_KEY = "hunter2-not-to-be-seen"
TOKEN = "token-not-to-be-seen"
FILE = json.dumps(
    {"version": 1, "key": str(KEY), "context": CONTEXT, "ciphertext": base64.b64encode(CIPHERTEXT).decode()}
).encode()
GIVE_UP = 90
"""Seconds after which a service that does not answer must have been given up."""
Failure = Callable[[], ArchiverError]


def seal() -> object:
    return kms_seal(PLAINTEXT, KEY, CONTEXT)


def open_() -> object:
    return kms_open(FILE, CONTEXT)


def failure(request: Callable[[], object], kind: type[ArchiverError] = StorageError) -> ArchiverError:
    """The error that ``request`` ends with, after it was found that no secret is in it or in its traceback."""
    with pytest.raises(kind) as caught:
        request()
    assert type(caught.value) is kind
    shown = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    for secret in (PLAINTEXT, CIPHERTEXT, SECRET_KEY.encode(), TOKEN.encode()):
        assert secret.decode() not in shown
        assert base64.b64encode(secret).decode() not in shown
    return caught.value


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long botocore would have waited before each repetition."""
    taken: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time.sleep", taken.append)
    return taken


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kms, "_CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(kms, "_READ_TIMEOUT", 0.5)


def refusal(code: str, message: str = "because", status: int = 400) -> Callable[[Question], Answer]:
    return lambda _: Answer(json.dumps({"__type": code, "message": message}).encode(), status)


@pytest.mark.parametrize(("request_", "right"), [(seal, "kms:Encrypt"), (open_, "kms:Decrypt")])
def test_a_right_that_is_missing_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, request_: Callable[[], object], right: str
) -> None:
    with answering(refusal("AccessDeniedException")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        error = failure(request_)
    assert error.message == f"{server.endpoint} refused {right} with {KEY}: access denied"
    assert str(error.hint).startswith(f"Allow {right} with that key")
    assert len(server.questions) == 1


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        ("ExpiredTokenException", "the credentials have expired", "Renew"),
        ("UnrecognizedClientException", "the access key or the session token is not known", "AWS_ACCESS_KEY_ID"),
        ("InvalidSignatureException", "the signature is wrong", "clock"),
        ("com.amazonaws.kms#NotFoundException", "there is no such key", "ARN"),
        ("OptInRequired", "refused kms:Decrypt with arn:.*: OptInRequired", "None"),
    ],
)
def test_a_refusal_has_its_reason(monkeypatch: pytest.MonkeyPatch, code: str, message: str, hint: str) -> None:
    with answering(refusal(code)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        with pytest.raises(StorageError, match=message) as caught:
            open_()
    assert hint in str(caught.value.hint)
    assert len(server.questions) == 1


def test_a_ciphertext_that_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(refusal("IncorrectKeyException")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        assert str(KEY) in failure(open_, DecryptionError).message


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("ThrottlingException", 400, "it asked to slow down"),
        ("KMSInternalException", 500, "failed kms:Decrypt with arn:.*: KMSInternalException"),
        ("DependencyTimeoutException", 503, "failed kms:Decrypt with arn:.*: DependencyTimeoutException"),
    ],
)
def test_what_may_pass_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], code: str, status: int, message: str
) -> None:
    with answering(refusal(code, status=status)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        with pytest.raises(StorageError, match=message):
            open_()
    assert len(server.questions) == 1 + len(pauses) == kms._ATTEMPTS


@pytest.mark.parametrize(
    ("request_", "body", "status"),
    [
        *((open_, body, 200) for body in (b"", b"{}", b"[1]", b"null", b"\xff", b"<html>", b'{"Plaintext": 5}')),
        *((open_, body, 400) for body in (b"[1]", b"\xff", b'{"__type": 5}')),
        *((open_, b"<html>", status) for status in (302, 404)),
        (seal, b"{}", 200),
        (seal, b'{"KeyId": 1, "CiphertextBlob": "AQID"}', 200),
        # It would write a file that nobody could open.
        (seal, b'{"KeyId": "alias/archiver", "CiphertextBlob": "AQID"}', 200),
        (seal, json.dumps({"KeyId": str(KEY), "CiphertextBlob": ""}).encode(), 200),
    ],
)
def test_an_answer_of_garbage(
    monkeypatch: pytest.MonkeyPatch, request_: Callable[[], object], body: bytes, status: int
) -> None:
    with answering(lambda _: Answer(body, status)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        error = failure(request_)
    assert "AWS_ENDPOINT_URL_KMS" in str(error.hint)
    assert len(server.questions) == 1


def test_what_the_service_says_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(question: Question) -> Answer:
        message = f"{question.body.decode()} {dict(question.fields)}"
        return Answer(json.dumps({"__type": "NewException", "message": message}).encode(), 400)

    with answering(echo) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        assert failure(seal).message.endswith(": NewException")
    (question,) = server.questions
    assert base64.b64encode(PLAINTEXT) in question.body
    assert question.fields["x-amz-security-token"] == TOKEN


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_nothing_of_it_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int) -> None:
    """As archiver has it set, and the counter-proof: at debug level botocore would log all of it."""
    caplog.set_level(logging.DEBUG)
    assert logging.getLogger("botocore").level == logging.INFO
    caplog.set_level(level, logger="botocore")
    with answering(refusal("NewException")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        failure(seal)
    assert (base64.b64encode(PLAINTEXT).decode() in caplog.text) == (level == logging.DEBUG)
    assert (TOKEN in caplog.text) == (level == logging.DEBUG)


def test_a_service_that_is_down(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
    error = failure(open_)
    assert error.message.startswith("cannot reach http://127.0.0.1:1: ")
    assert error.message.endswith("Connection refused")
    assert "HTTPS_PROXY" in str(error.hint)
    assert len(pauses) == kms._ATTEMPTS - 1


def test_a_region_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is not known to anybody; no test may ask, so this one cannot be either."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.eu-nowhere-9.invalid")
    assert failure(open_).message.startswith("cannot reach http://kms.eu-nowhere-9.invalid: ")


def test_a_proxy_whose_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example")
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{SECRET_KEY}@127.0.0.1:1")
    assert failure(open_).message.startswith("cannot reach http://kms.example: ")


def test_an_endpoint_whose_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://user:{SECRET_KEY}@127.0.0.1:1")
    assert failure(open_).message.startswith("cannot reach http://127.0.0.1:1: ")


def test_an_endpoint_that_is_no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "127.0.0.1:4566")
    error = failure(open_)
    assert error.message == "cannot ask aws kms in eu-central-1: invalid endpoint: 127.0.0.1:4566"
    assert "AWS_ENDPOINT_URL_KMS" in str(error.hint)


@pytest.mark.usefixtures("short_timeouts")
def test_a_service_that_is_silent(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    with fault_proxy("http://127.0.0.1:1", every(1, Fault(Kind.STALL))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", proxy.endpoint)
        error = failure(open_)
        assert proxy.hits[Kind.STALL] == kms._ATTEMPTS
    assert error.message == f"cannot reach {proxy.endpoint}: it did not answer in time"


def test_a_silent_service_is_given_up_in_time() -> None:
    # botocore's pauses before the repetitions are at most 1, 2, 4, ... seconds.
    pauses = sum(2**number for number in range(kms._ATTEMPTS - 1))
    assert kms._ATTEMPTS * (kms._CONNECT_TIMEOUT + kms._READ_TIMEOUT) + pauses <= GIVE_UP


@pytest.fixture
def sealed(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A good file of a key in LocalStack."""
    service = KmsService(localstack_server, monkeypatch)
    data = kms_seal(PLAINTEXT, KmsKey.parse(service.key()), CONTEXT)
    service.close()
    return data


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.LOST_REPLY, Kind.INTERNAL_ERROR])
def test_a_connection_that_breaks(
    localstack_server: S3Server, sealed: bytes, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    """Once: the answer comes nevertheless. Each time: an error."""

    def first(request: Request) -> Fault | None:
        return Fault(kind) if request.number == 1 else None

    with fault_proxy(localstack_server.endpoint, first) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", proxy.endpoint)
        assert kms_open(sealed, CONTEXT) == PLAINTEXT
        assert proxy.hits[kind] == 1
        proxy.follow(every(1, Fault(kind)))
        failure(lambda: kms_open(sealed, CONTEXT))
        assert proxy.hits[kind] == kms._ATTEMPTS


def test_an_answer_that_is_cut_off(localstack_server: S3Server, sealed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore takes it for whole, and so it does not ask again."""
    with fault_proxy(localstack_server.endpoint, every(1, Fault(Kind.TRUNCATED))) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", proxy.endpoint)
        assert "something that is not KMS's" in failure(lambda: kms_open(sealed, CONTEXT)).message
        assert proxy.hits[Kind.TRUNCATED] >= 1


def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[profile vault]\ncredential_process = {command}\n")
    monkeypatch.setenv("AWS_PROFILE", "vault")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failure]:
    """The failure without the credentials of the other tests, after it was found that nothing was sent."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with answering(lambda _: Answer(status=400)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)

        def get() -> ArchiverError:
            error = failure(open_)
            assert server.questions == []
            assert error.message.startswith(f"no usable credentials for kms key {KEY}: ")
            assert error.hint
            return error

        yield get


def test_no_credentials(without: Failure) -> None:
    assert without().message.endswith(": none are given")


def test_half_of_the_credentials(without: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    assert "missing: AWS_SECRET_ACCESS_KEY" in without().message


@pytest.mark.parametrize("end", ["\n", "\r", "é", "\0x"])
def test_credentials_that_cannot_be_sent(without: Failure, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    given = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_SESSION_TOKEN": TOKEN + end}
    monkeypatch.setattr("os.environ", os.environ | given)
    assert without().message.endswith("one of them holds a character that cannot be sent")


def test_a_profile_that_does_not_exist(without: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    assert "the config profile (missing) could not be found" in without().message


@pytest.mark.parametrize(
    ("command", "message"),
    [("/bin/echo nonsense", "expecting value"), ("/missing/tool", "no such file or directory")],
)
def test_a_process_that_gives_none(
    without: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    configure(tmp_path, monkeypatch, command)
    assert message in without().message.lower()


def test_a_role_that_may_not_be_assumed(without: Failure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("web identity")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/restore")
    document = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    with answering(lambda _: Answer(document, 403)) as tokens:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", tokens.endpoint)
        assert without().message.endswith("AssumeRoleWithWebIdentity was refused: AccessDenied no")


def test_what_a_file_says_is_bound_to_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request names the key and the context, so that KMS refuses what belongs to any other."""
    answer = json.dumps({"Plaintext": base64.b64encode(PLAINTEXT).decode()}).encode()
    with answering(lambda _: Answer(answer)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        assert open_() == PLAINTEXT
    (question,) = server.questions
    asked: dict[str, Any] = json.loads(question.body)
    assert question.fields["x-amz-target"] == "TrentService.Decrypt"
    assert asked == {
        "KeyId": str(KEY),
        "EncryptionContext": CONTEXT,
        "CiphertextBlob": base64.b64encode(CIPHERTEXT).decode(),
    }
