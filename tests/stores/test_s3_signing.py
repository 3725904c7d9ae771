"""Whether the signature of a request covers its body: where somebody could alter that on its way."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.stores.s3_proxies import is_private_way
from tests.servers.answering import Answer, AnsweringServer, answering
from tests.servers.tls import Authority
from tests.stores.s3_help import KEY, Open

UNSIGNED = "UNSIGNED-PAYLOAD"
RECEIPT = Answer(fields={"ETag": '"0"', "x-amz-request-id": "0"})


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    """A server that takes everything, and credentials for it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with answering(lambda _: RECEIPT) as server:
        yield server


def hashes(server: AnsweringServer) -> set[str]:
    """What was said of the bodies' SHA-256."""
    return {question.fields["x-amz-content-sha256"] for question in server.questions}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_bodies_that_stay_on_this_host_are_not_signed(recording: AnsweringServer, open_s3: Open, host: str) -> None:
    endpoint = recording.endpoint.replace("127.0.0.1", host)
    open_s3(f"s3://bucket?endpoint={endpoint}&region=x").create(KEY, [b"x" * 1000])
    assert hashes(recording) == {UNSIGNED}
    assert all("x-amz-checksum-crc32" in question.fields["authorization"] for question in recording.questions)


@pytest.mark.parametrize("endpoint", ["http://192.0.2.1:9000", "http://127.0.0.1:9000"])
def test_bodies_that_leave_this_host_unprotected_are_signed(
    recording: AnsweringServer, open_s3: Open, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """Behind a proxy, 127.0.0.1 is not this host."""
    monkeypatch.setenv("HTTP_PROXY", recording.endpoint)
    open_s3(f"s3://bucket?endpoint={endpoint}&region=x").create(KEY, [b"x" * 1000])
    assert UNSIGNED not in hashes(recording)


def test_an_endpoint_of_the_environment_counts_as_well(
    recording: AnsweringServer, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")
    monkeypatch.setenv("HTTP_PROXY", recording.endpoint)
    open_s3("s3://bucket?path_style=true&region=x").create(KEY, [b"x" * 1000])
    assert UNSIGNED not in hashes(recording)


def test_bodies_over_tls_are_not_signed(open_s3: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    authority = Authority(tmp_path)
    with answering(lambda _: RECEIPT, authority.certificate("127.0.0.1")) as server:
        url = f"s3://bucket?endpoint={server.endpoint}&region=x&ca_bundle={authority.bundle}"
        open_s3(url).create(KEY, [b"x" * 1000])
        assert hashes(server) == {UNSIGNED}


@pytest.mark.parametrize(
    ("endpoint", "private"),
    [
        ("https://s3.example.com", True),
        ("http://127.1.2.3:80", True),
        ("http://[::1]:80", True),
        ("http://[::2]:80", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_private_ways(endpoint: str, private: bool) -> None:
    assert is_private_way(endpoint) == private
