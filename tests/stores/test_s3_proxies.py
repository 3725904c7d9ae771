"""S3 through the forward proxy that the environment names."""

import logging
from collections.abc import Iterator

import pytest

from archiver.errors import StorageError
from tests.servers.forward_proxy import ForwardProxy, forward_proxy
from tests.servers.process import S3Server
from tests.servers.seaweed_gateway import secure_gateway
from tests.servers.tls import Authority
from tests.stores.s3_connections import prove, refused
from tests.stores.s3_help import KEY, PART, Open, endpoint_of, fetch, impatient

SECRET = "hunter2"
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure_server(seaweed_server: S3Server, authority: Authority) -> Iterator[S3Server]:
    with secure_gateway(seaweed_server, authority.certificate("127.0.0.1")) as server:
        yield server


@pytest.fixture
def secure_url(seaweed_url: str, secure_server: S3Server, authority: Authority) -> str:
    return seaweed_url.replace(endpoint_of(seaweed_url), secure_server.endpoint) + f"&ca_bundle={authority.bundle}"


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    """A proxy that everybody may use."""
    with forward_proxy() as running:
        yield running


@pytest.fixture
def guarded() -> Iterator[ForwardProxy]:
    """A proxy for those who know the password."""
    with forward_proxy(f"user:{SECRET}") as running:
        yield running


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_http(seaweed_url: str, open_s3: Open, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "HTTP_PROXY":
        monkeypatch.setenv("HTTPS_PROXY", f"http://{NOBODY}")
    monkeypatch.setenv(name, proxy.url())
    store = open_s3(seaweed_url)
    prove(store)
    store.create("large", [bytes(PART + 1)])
    assert fetch(store, "large") == bytes(PART + 1)
    assert len(proxy.forwarded) == sum(store.requests.values())
    assert all(url.startswith(f"{endpoint_of(seaweed_url)}/archiver-test/") for url in proxy.forwarded)
    assert proxy.tunnelled == []


def test_https(secure_url: str, open_s3: Open, proxy: ForwardProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees the host alone: TLS goes through it."""
    monkeypatch.setenv("HTTP_PROXY", f"http://{NOBODY}")
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    store = open_s3(secure_url)
    store.create(KEY, [bytes(PART + 1)])
    assert fetch(store, KEY) == bytes(PART + 1)
    assert set(proxy.tunnelled) == {endpoint_of(secure_url).removeprefix("https://")}
    assert proxy.forwarded == []


@pytest.mark.parametrize("value", ["127.0.0.1", "example.com,127.0.0.1", "*"])
def test_exceptions(seaweed_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{NOBODY}")
    with pytest.raises(StorageError, match="through the proxy"):
        list(open_s3(seaweed_url).list())
    monkeypatch.setenv("NO_PROXY", value)
    prove(open_s3(seaweed_url))


@pytest.mark.parametrize("credentials", [f"user:{SECRET}", "us%40er:p%40ss%2Fword"])
def test_a_password(
    seaweed_url: str, secure_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    plain = credentials.replace("%40", "@").replace("%2F", "/")
    with forward_proxy(plain) as guarded:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, guarded.url(credentials))
        prove(open_s3(seaweed_url))
        prove(open_s3(secure_url))
        assert guarded.refused == []
        assert guarded.forwarded
        assert guarded.tunnelled


@pytest.mark.parametrize("credentials", ["", f"user:{SECRET}-but-wrong"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses(
    request: pytest.FixtureRequest,
    open_s3: Open,
    guarded: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    scheme: str,
    credentials: str,
) -> None:
    """Once: it will not change its mind, and some lock the account after a few attempts."""
    url = request.getfixturevalue("seaweed_url" if scheme == "http" else "secure_url")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", guarded.url(credentials))
    caplog.set_level(logging.DEBUG)
    store = open_s3(url)
    message = refused(lambda: list(store.list()), capsys)
    assert len(guarded.refused) == 1
    assert "the proxy" in message
    assert "_PROXY" in message
    if scheme == "https":
        assert f"through the proxy http://127.0.0.1:{guarded.port}: " in message
        assert "407" in message
    assert SECRET not in message + caplog.text


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_unreachable(
    request: pytest.FixtureRequest,
    open_s3: Open,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    scheme: str,
) -> None:
    url = request.getfixturevalue("seaweed_url" if scheme == "http" else "secure_url")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:{SECRET}@{NOBODY}")
    caplog.set_level(logging.DEBUG)
    store = open_s3(url)
    message = refused(lambda: list(store.list()), capsys)
    assert f"{endpoint_of(url)} through the proxy http://{NOBODY}: failed to establish a new connection" in message
    assert "failed 1 of 4 times" in caplog.text
    assert SECRET not in message + caplog.text


@pytest.mark.parametrize(
    "value",
    [
        f"http://user:{SECRET}/x@127.0.0.1:3128",
        f"http://user:{SECRET}#x@127.0.0.1:3128",
        f"http://user:{SECRET}?x@127.0.0.1:3128",
        f"http://user:{SECRET}@127.0.0.1:port",
        f"http://user:{SECRET}@127.0.0.1:3128/path",
        f"http://user:{SECRET}@[::1",
        f"socks5://user:{SECRET}@127.0.0.1:1080",
        "http://",
    ],
)
def test_what_is_no_url_of_a_proxy(
    seaweed_url: str,
    open_s3: Open,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    value: str,
) -> None:
    """Passwords with special characters make them, and urllib3 would repeat what it took for the port."""
    monkeypatch.setenv("HTTP_PROXY", value)
    caplog.set_level(logging.DEBUG)
    message = refused(lambda: open_s3(seaweed_url), capsys, code=2)
    assert "the proxy in HTTP_PROXY: expected http://[USER:PASSWORD@]HOST[:PORT]" in message
    assert SECRET not in message + caplog.text


def test_a_proxy_for_other_places_is_not_looked_at(
    seaweed_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    prove(open_s3(seaweed_url))
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    prove(open_s3(seaweed_url))


def test_a_proxy_that_does_not_answer_is_worth_a_retry(
    seaweed_url: str, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://{NOBODY}")
    store = open_s3(seaweed_url)
    pauses: list[float] = []
    store._connection.retry = impatient(3, pauses)
    with pytest.raises(StorageError):
        list(store.list())
    assert len(pauses) == 2
