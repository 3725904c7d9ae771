"""Reads that survive broken connections, and never put two objects together."""

import secrets

import pytest

from archiver.errors import IntegrityError, StorageError
from tests.servers.cutting_proxy import HEADERS_ONLY, cutting_proxy
from tests.stores.s3_help import KEY, MIB, PART, Open, endpoint_of, fetch


@pytest.mark.parametrize(("start", "length"), [(0, None), (1000, None), (1000, 4 * MIB)])
def test_a_read_goes_on_after_broken_connections(url: str, open_s3: Open, start: int, length: int | None) -> None:
    data = secrets.token_bytes(PART)
    open_s3(url).create(KEY, [data])
    with cutting_proxy(endpoint_of(url), [2 * MIB, 10, 1500 * 1024]) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        assert fetch(store, KEY, start, length) == data[start : None if length is None else start + length]
        store.close()
        assert proxy.broken == 3


@pytest.mark.parametrize("cut", [0, 10, HEADERS_ONLY])
def test_a_read_gives_up_when_no_byte_comes(url: str, open_s3: Open, cut: int) -> None:
    open_s3(url).create(KEY, [bytes(MIB)])
    with cutting_proxy(endpoint_of(url), [cut] * 50) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        with pytest.raises(StorageError, match=r"cannot reach http|broke again and again while s3://"):
            fetch(store, KEY)
        store.close()
        assert proxy.broken == 4


def test_a_read_never_mixes_two_objects(url: str, open_s3: Open) -> None:
    writer = open_s3(url)
    writer.create(KEY, [b"a" * PART])
    connection = writer._connection
    with cutting_proxy(endpoint_of(url), [3 * MIB]) as proxy:
        store = open_s3(url, endpoint=proxy.endpoint)
        buffers = store.read(KEY)
        next(buffers)
        connection.client.put_object(Bucket=connection.bucket, Key=connection.full_key(KEY), Body=b"b" * PART)
        with pytest.raises(IntegrityError, match="changed while it was read"):
            list(buffers)
        store.close()
