"""Credentials that cannot be had: one line that says which and why, and nothing is sent to the store."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.errors import StorageError
from tests.servers.answering import Answer, AnsweringServer, answering
from tests.servers.localstack import REGION
from tests.servers.metadata import Credentials, container_credentials, sso_portal
from tests.servers.process import S3Server
from tests.servers.seaweed_gateway import AUDIENCE, ROLE, token_gateway
from tests.servers.web_identity import Issuer, issuer
from tests.stores.s3_connections import refused
from tests.stores.s3_help import Open, impatient

ROLE_PROFILE = f"""
[profile backup]
role_arn = {ROLE}
source_profile = base

[profile base]
aws_access_key_id = AKIDEXAMPLE
aws_secret_access_key = hunter2
"""
SSO_PROFILE = """
[profile person]
sso_start_url = https://company.example/start
sso_region = us-east-1
sso_account_id = 000000000000
sso_role_name = backup
"""


@pytest.fixture
def store() -> Iterator[AnsweringServer]:
    """Where the requests would go."""
    with answering(lambda _: Answer(status=500)) as server:
        yield server


@pytest.fixture
def failure(
    store: AnsweringServer, open_s3: Open, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], str]:
    """The message that an operator gets, after it was found that no request was sent."""

    def attempt() -> object:
        return list(open_s3(f"s3://bucket/prefix?endpoint={store.endpoint}&region={REGION}").list())

    def get() -> str:
        message = refused(attempt, capsys)
        assert store.questions == []
        # What is logged as a warning goes to stderr.
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert message.startswith("archiver: no usable credentials for s3://bucket: ")
        assert "hunter2" not in message
        return message

    return get


def configure(tmp_path: Path, text: str) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(text)


def test_none_at_all(failure: Callable[[], str]) -> None:
    assert failure().splitlines() == [
        "archiver: no usable credentials for s3://bucket: none are given",
        "hint: Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or give the host a role.",
    ]


def test_half_of_them(failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    assert "missing: AWS_SECRET_ACCESS_KEY" in failure()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/bin/sh -c 'echo the vault is sealed >&2; exit 3'", "the vault is sealed"),
        ("/bin/echo nonsense", "expecting value"),
        ("/missing/tool", "/missing/tool: no such file or directory"),
    ],
)
def test_a_process(
    failure: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    configure(tmp_path, f"[profile vault]\ncredential_process = {command}\n")
    monkeypatch.setenv("AWS_PROFILE", "vault")
    assert message in failure()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Issuer]:
    with issuer() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(seaweed_server: S3Server, cluster: Issuer) -> Iterator[S3Server]:
    with token_gateway(seaweed_server, cluster.url) as server:
        yield server


def test_a_role_that_may_not_be_assumed(
    failure: Callable[[], str], gateway: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by the token service: that the store had refused it would send people the wrong way."""
    profile = ROLE_PROFILE.replace(ROLE, f"{ROLE}-of-others").replace("AKIDEXAMPLE", gateway.access_key)
    configure(tmp_path, profile.replace("hunter2", gateway.secret_key))
    monkeypatch.setenv("AWS_PROFILE", "backup")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", gateway.endpoint)
    message = failure()
    assert "AssumeRole was refused: AccessDenied" in message
    assert "trust policy" in message
    assert gateway.secret_key not in message


def test_a_web_identity_that_has_expired(
    failure: Callable[[], str],
    gateway: S3Server,
    cluster: Issuer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "token").write_text(cluster.token("backup", AUDIENCE, seconds=-3600))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", gateway.endpoint)
    assert "AssumeRoleWithWebIdentity was refused: ExpiredToken" in failure()


def test_a_web_identity_whose_file_is_missing(failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/missing/token")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    assert "/missing/token: no such file or directory" in failure()


def test_a_token_service_that_is_unreachable(
    store: AnsweringServer, open_s3: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worth a retry, as an unreachable store is, and named: the store itself may be well."""
    configure(tmp_path, ROLE_PROFILE)
    monkeypatch.setenv("AWS_PROFILE", "backup")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    # botocore tries four times itself, with pauses.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    opened = open_s3(f"s3://bucket?endpoint={store.endpoint}&region={REGION}")
    pauses: list[float] = []
    opened._connection.retry = impatient(3, pauses)
    with pytest.raises(StorageError, match=r"no usable credentials for s3://bucket: http://127\.0\.0\.1:1/: failed to"):
        list(opened.list())
    assert len(pauses) == 2
    assert store.questions == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/missing/token", "/missing/token: no such file or directory"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "line\n", "auth token value is not a legal header value"),
    ],
)
def test_a_container_without_its_token(
    failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")
    monkeypatch.setenv(name, value)
    assert message in failure()


def test_an_answer_to_a_container_that_lacks_something(
    failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(lambda _: Answer(b'{"AccessKeyId": "a", "SecretAccessKey": "hunter2"}')) as service:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.endpoint)
        assert "the answer lacks 'Token'" in failure()


def test_credentials_that_have_expired_when_they_come(
    failure: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Credentials("AKIDEXAMPLE", "hunter2", "token", datetime.now(UTC) - timedelta(hours=1))
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "task")
    with container_credentials(lambda: given, authorization="task") as service:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", service.endpoint)
        assert "the refreshed credentials are still expired" in failure()


def test_single_sign_on_that_was_not_done(
    failure: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, SSO_PROFILE)
    monkeypatch.setenv("AWS_PROFILE", "person")
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path))
    message = failure()
    assert "Token for https://company.example/start does not exist" in message
    assert "aws sso login" in message


def test_single_sign_on_that_was_ended(
    failure: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, SSO_PROFILE)
    monkeypatch.setenv("AWS_PROFILE", "person")
    # botocore looks for HOME when it is imported.
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(tmp_path))
    token = {"accessToken": "ended", "expiresAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    # The name is the SHA-1 of the URL where the session starts.
    (tmp_path / "6de5429f0b053f08cede2b3ac6756f2de80f894e.json").write_text(json.dumps(token))
    given = Credentials("AKIDEXAMPLE", "hunter2", "token", datetime.now(UTC))
    with sso_portal(lambda: given, bearer="person") as portal:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", portal.endpoint)
        message = failure()
        assert "aws sso login" in message
        assert portal.questions
