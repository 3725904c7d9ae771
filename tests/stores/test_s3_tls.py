"""S3 over TLS with a certificate authority of the company's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.errors import StorageError
from archiver.stores.journal import Journal
from tests.servers.answering import Answer, answering
from tests.servers.process import S3Server
from tests.servers.seaweed_gateway import secure_gateway
from tests.servers.tls import Authority, Certificate
from tests.stores.s3_connections import prove, refused
from tests.stores.s3_help import KEY, PART, Open, endpoint_of, fetch, impatient


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.certificate("127.0.0.1")


@pytest.fixture(scope="module")
def secure_server(seaweed_server: S3Server, certificate: Certificate) -> Iterator[S3Server]:
    with secure_gateway(seaweed_server, certificate) as server:
        yield server


@pytest.fixture
def secure_url(seaweed_url: str, secure_server: S3Server) -> str:
    return seaweed_url.replace(endpoint_of(seaweed_url), secure_server.endpoint)


def test_an_authority_that_the_url_names(secure_url: str, open_s3: Open, authority: Authority) -> None:
    prove(open_s3(f"{secure_url}&ca_bundle={authority.bundle}"))


def test_an_authority_that_the_environment_names(
    secure_url: str, open_s3: Open, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    prove(open_s3(secure_url))


def test_an_authority_that_the_profile_names(
    secure_url: str, open_s3: Open, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        f"[profile company]\nca_bundle = {authority.bundle}\n"
        "aws_access_key_id = admin\naws_secret_access_key = admin-secret\n"
    )
    prove(open_s3(f"{secure_url}&profile=company"))


def test_many_parts(secure_url: str, open_s3: Open, authority: Authority, journal: Journal) -> None:
    store = open_s3(f"{secure_url}&ca_bundle={authority.bundle}")
    data = bytes(range(256)) * (2 * PART // 256) + b"end"
    assert store.create(KEY, [data]).size == len(data)
    assert fetch(store, KEY) == data
    assert fetch(store, KEY, PART - 5, 10) == data[PART - 5 : PART + 5]
    assert [item.key for item in store.list()] == [KEY]
    assert journal.entries() == []
    assert store.requests["UploadPart"] == 3


def test_an_authority_that_nobody_named(secure_url: str, open_s3: Open, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(lambda: list(open_s3(secure_url).list()), capsys)
    assert "certificate verify failed: unable to get local issuer certificate" in message
    assert "ca_bundle" in message


def test_another_authority(secure_url: str, open_s3: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Authority(tmp_path, "other authority")
    message = refused(lambda: list(open_s3(f"{secure_url}&ca_bundle={other.bundle}").list()), capsys)
    assert "certificate verify failed" in message


@pytest.mark.parametrize(
    ("host", "expired", "reason"),
    [
        ("other.example", False, "hostname '127.0.0.1' doesn't match 'other.example'"),
        ("127.0.0.1", True, "certificate has expired"),
    ],
)
def test_a_certificate_that_does_not_hold(
    seaweed_url: str, open_s3: Open, authority: Authority, host: str, expired: bool, reason: str
) -> None:
    """It is refused at once, not after minutes of retries, and before any request goes out."""
    with answering(lambda _: Answer(), authority.certificate(host, expired=expired)) as server:
        url = seaweed_url.replace(endpoint_of(seaweed_url), server.endpoint)
        store = open_s3(f"{url}&ca_bundle={authority.bundle}")
        pauses: list[float] = []
        store._connection.retry = impatient(4, pauses)
        with pytest.raises(StorageError, match=reason):
            list(store.list())
        assert pauses == []
        assert server.questions == []


def test_plain_http_where_tls_is_spoken(secure_url: str, open_s3: Open, capsys: pytest.CaptureFixture[str]) -> None:
    url = secure_url.replace("endpoint=https:", "endpoint=http:")
    assert "endpoint" in refused(lambda: list(open_s3(url).list()), capsys)


def test_tls_where_plain_http_is_spoken(seaweed_url: str, open_s3: Open, capsys: pytest.CaptureFixture[str]) -> None:
    url = seaweed_url.replace("endpoint=http:", "endpoint=https:")
    assert "no secure connection to https://" in refused(lambda: list(open_s3(url).list()), capsys)
