"""Where requests go: bucket in the path or in the host name, and the endpoints of AWS, which no test may call."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.forward_proxy import forward_proxy
from tests.servers.process import S3Server
from tests.servers.seaweed_gateway import plain_gateway
from tests.stores.s3_connections import prove
from tests.stores.s3_help import KEY, PART, Open, endpoint_of, fetch


@pytest.fixture(scope="module")
def gateway(seaweed_server: S3Server) -> Iterator[S3Server]:
    with plain_gateway(seaweed_server) as server:
        yield server


@pytest.mark.parametrize("server", ["seaweed", "localstack"])
def test_the_bucket_in_the_host_name(
    request: pytest.FixtureRequest, open_s3: Open, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Through a proxy, which finds the name: not every machine's DNS does."""
    url = request.getfixturevalue(f"{server}_url")
    if server == "seaweed":
        port = request.getfixturevalue("gateway").endpoint.rpartition(":")[2]
        endpoint = f"http://localhost:{port}"
    else:
        endpoint = f"http://s3.localhost.localstack.cloud:{endpoint_of(url).rpartition(':')[2]}"
    with forward_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        store = open_s3(url.replace(endpoint_of(url), endpoint) + "&path_style=false")
        prove(store)
        store.create(KEY, [bytes(PART + 1)])
        assert fetch(store, KEY) == bytes(PART + 1)
        assert KEY in [item.key for item in store.list()]
        host = endpoint.replace("http://", "http://archiver-test.")
        assert all(address.startswith((f"{host}/", f"{host}?")) for address in proxy.forwarded)
        assert proxy.forwarded
    monkeypatch.delenv("HTTP_PROXY")
    assert fetch(open_s3(url), KEY) == bytes(PART + 1)


@pytest.mark.parametrize(
    ("options", "environment", "address"),
    [
        ("region=eu-west-1", {}, "https://bucket.s3.eu-west-1.amazonaws.com/prefix/key"),
        ("region=eu-west-1&path_style=true", {}, "https://s3.eu-west-1.amazonaws.com/bucket/prefix/key"),
        ("", {"AWS_DEFAULT_REGION": "eu-west-2"}, "https://bucket.s3.eu-west-2.amazonaws.com/prefix/key"),
        ("region=cn-north-1", {}, "https://bucket.s3.cn-north-1.amazonaws.com.cn/prefix/key"),
        (
            "region=eu-west-1",
            {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "https://bucket.s3.dualstack.eu-west-1.amazonaws.com/prefix/key",
        ),
        (
            "region=us-east-2",
            {"AWS_USE_FIPS_ENDPOINT": "true"},
            "https://bucket.s3-fips.us-east-2.amazonaws.com/prefix/key",
        ),
        (
            "region=us-east-2",
            {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
            "https://bucket.s3-fips.dualstack.us-east-2.amazonaws.com/prefix/key",
        ),
        ("endpoint=https://s3.example:9000", {}, "https://s3.example:9000/bucket/prefix/key"),
        ("endpoint=https://s3.example&path_style=false", {}, "https://bucket.s3.example/prefix/key"),
        ("endpoint=https://example/s3", {}, "https://example/s3/bucket/prefix/key"),
    ],
)
def test_the_address_of_a_key(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch, options: str, environment: dict[str, str], address: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert address_of(open_s3, f"s3://bucket/prefix?{options}", monkeypatch) == address


def test_a_bucket_whose_name_has_a_dot_stands_in_the_path(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """No certificate of AWS holds for such a host name."""
    address = address_of(open_s3, "s3://my.bucket/prefix?region=eu-west-1", monkeypatch)
    assert address == "https://s3.eu-west-1.amazonaws.com/my.bucket/prefix/key"


class _Unsent(Exception):  # noqa: N818 - no error: it only ends the request
    """In place of sending a request."""


def address_of(open_s3: Open, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL that a GET of ``key`` would be sent to."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    addresses: list[str] = []

    def note(request: Any, **_: object) -> None:
        addresses.append(request.url)
        raise _Unsent

    store = open_s3(url)
    store._connection.client.meta.events.register("before-send.s3", note)
    with pytest.raises(_Unsent):
        fetch(store, "key")
    (address,) = addresses
    return address
