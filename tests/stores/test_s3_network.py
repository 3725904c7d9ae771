"""Links that are slow, and links that stand still: the one is waited for, the other is not."""

import secrets
from collections.abc import Iterator

import pytest

from archiver.errors import StorageError
from archiver.stores.s3_multipart import open_uploads
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, Request, every, in_order
from tests.stores.s3_help import KEY, MIB, PART, Open, endpoint_of, fetch
from tests.waiting import PATIENCE, wait_until


def is_part(request: Request) -> bool:
    return "partNumber" in request.target


@pytest.mark.slow
def test_a_slow_link_is_waited_for(seaweed_url: str, open_s3: Open) -> None:
    """80 MiB at 4 MiB a second take twice the patience. What the kernel holds of them, up to 10 MiB, is on its way for
    some seconds after the last byte was handed over."""
    size, patience = 80 * MIB, 10.0
    data = secrets.token_bytes(size)
    with fault_proxy(endpoint_of(seaweed_url), every(1, Fault(Kind.SLOW, rate=4 * MIB))) as proxy:
        store = open_s3(
            seaweed_url,
            endpoint=proxy.endpoint,
            connect_timeout=patience,
            read_timeout=patience,
            part_size=size,
        )
        store.create(KEY, [data, b"x"])
        assert store.requests["UploadPart"] == 2
        store.close()
        assert proxy.hits[Kind.SLOW] >= 2
    assert fetch(open_s3(seaweed_url), KEY) == data + b"x"


def test_a_part_that_stands_still_is_sent_again(seaweed_url: str, open_s3: Open) -> None:
    data = secrets.token_bytes(PART + 1)
    stalls = in_order(Fault(Kind.STALL), Fault(Kind.STALL), where=is_part)
    with fault_proxy(endpoint_of(seaweed_url), stalls) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint, connect_timeout=2, read_timeout=2)
        store.create(KEY, [data])
        assert store.requests["UploadPart"] >= 4
        assert fetch(store, KEY) == data
        store.close()
        assert proxy.hits == {Kind.STALL: 2}


def test_a_part_of_an_upload_that_was_given_up_is_not_sent_again(seaweed_url: str, open_s3: Open) -> None:
    def body() -> Iterator[bytes]:
        yield bytes(2 * PART)
        raise KeyboardInterrupt

    with fault_proxy(endpoint_of(seaweed_url), in_order(*[Fault(Kind.STALL)] * 50, where=is_part)) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint, connect_timeout=1, read_timeout=1)
        with pytest.raises(KeyboardInterrupt):
            store.create(KEY, body())
        # Of two parts the second may not have begun; each would be sent four times.
        assert store.requests.get("UploadPart", 0) <= 2
        assert open_uploads(store._connection, KEY) == []
        store.close()


def test_a_read_that_stands_still_goes_on(seaweed_url: str, open_s3: Open) -> None:
    data = secrets.token_bytes(2 * MIB)
    open_s3(seaweed_url).create(KEY, [data])
    with fault_proxy(endpoint_of(seaweed_url)) as proxy:
        # Until it has taken effect: a busy machine may not get as far as that in time.
        proxy.follow(lambda _: None if proxy.hits else Fault(Kind.STALLED_BODY, after=MIB))
        store = open_s3(seaweed_url, endpoint=proxy.endpoint, read_timeout=1)
        assert fetch(store, KEY) == data
        store.close()
        assert proxy.hits == {Kind.STALLED_BODY: 1}


@pytest.mark.parametrize("kind", [Kind.STALL, Kind.SLOW_DOWN])
def test_patience_ends(seaweed_url: str, open_s3: Open, kind: Kind) -> None:
    message = {Kind.STALL: "did not answer in time", Kind.SLOW_DOWN: "it asked to slow down"}[kind]
    with fault_proxy(endpoint_of(seaweed_url), every(1, Fault(kind))) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint, read_timeout=0.2 if kind is Kind.STALL else PATIENCE)
        with pytest.raises(StorageError, match=message):
            store.create(KEY, [b"x"])
        # What the store has given up is read by the proxy all the same, if perhaps later.
        wait_until(lambda: proxy.requests == 4)
        store.close()
        assert proxy.hits == {kind: 4}
