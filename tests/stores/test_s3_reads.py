"""Reads that survive broken connections, and never put two objects together."""

import secrets
from collections.abc import Callable

import pytest

from archiver.errors import IntegrityError, StorageError
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, every, in_order
from tests.stores.s3_help import KEY, MIB, PART, Open, endpoint_of, fetch


@pytest.mark.parametrize(("start", "length"), [(0, None), (1000, None), (1000, 4 * MIB)])
def test_a_read_goes_on_after_broken_connections(url: str, open_s3: Open, start: int, length: int | None) -> None:
    data = secrets.token_bytes(PART)
    open_s3(url).create(KEY, [data])
    breaks = [
        Fault(Kind.TRUNCATED, after=2 * MIB),
        Fault(Kind.LOST_REPLY, after=10),
        Fault(Kind.TRUNCATED, after=1500 * 1024),
    ]
    with fault_proxy(endpoint_of(url), in_order(*breaks)) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        assert fetch(store, KEY, start, length) == data[start : None if length is None else start + length]
        store.close()
        assert proxy.hits == {Kind.TRUNCATED: 2, Kind.LOST_REPLY: 1}


@pytest.mark.parametrize(
    "fault", [Fault(Kind.LOST_REPLY), Fault(Kind.LOST_REPLY, after=10), Fault(Kind.TRUNCATED, after=0)]
)
def test_a_read_gives_up_when_no_byte_comes(url: str, open_s3: Open, fault: Fault) -> None:
    open_s3(url).create(KEY, [bytes(MIB)])
    with fault_proxy(endpoint_of(url), every(1, fault)) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        with pytest.raises(StorageError, match=r"cannot reach http|broke again and again while s3://"):
            fetch(store, KEY)
        store.close()
        assert proxy.hits == {fault.kind: 4}


def test_a_read_never_mixes_two_objects(url: str, open_s3: Open) -> None:
    writer = open_s3(url)
    writer.create(KEY, [b"a" * PART])
    connection = writer._connection
    with fault_proxy(endpoint_of(url), in_order(Fault(Kind.TRUNCATED, after=3 * MIB))) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        buffers = store.read(KEY)
        next(buffers)
        connection.client.put_object(Bucket=connection.bucket, Key=connection.full_key(KEY), Body=b"b" * PART)
        with pytest.raises(IntegrityError, match="changed while it was read"):
            list(buffers)
        store.close()
        assert proxy.hits == {Kind.TRUNCATED: 1}


@pytest.mark.parametrize("after", [20, 60, 150, 250, 10_000])
def test_an_answer_that_was_cut_off_is_asked_for_again(url: str, open_s3: Open, after: int) -> None:
    """Left to themselves, http.client and botocore take what came for all of it, and a listing for an empty one."""
    open_s3(url).create(KEY, [b"0123456789"])
    with fault_proxy(endpoint_of(url)) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        requests: list[tuple[Callable[[], object], object]] = [
            (lambda: [item.key for item in store.list()], [KEY]),
            (lambda: list(store.list_names("daily/")), ["data"]),
            (lambda: store.stat(KEY).size, 10),
            (lambda: fetch(store, KEY), b"0123456789"),
            (lambda: store.create(f"{KEY}.small", [b"0"]).size, 1),
            (lambda: store.create(f"{KEY}.large", [bytes(PART + 1)]).size, PART + 1),
        ]
        for request, expected in requests:
            # The first and every second after it: never one request twice in a row.
            proxy.follow(every(2, Fault(Kind.LOST_REPLY, after=after)))
            store.clock()
            assert request() == expected
            assert proxy.hits
        store.close()
