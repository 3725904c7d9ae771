"""Limits of what passes to and from S3, and threads that are given up while they wait for one."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from archiver.errors import StorageError
from archiver.stores.abandonment import Abandonment
from archiver.stores.limits import Limiter, Limits
from archiver.stores.s3_bodies import PacedBody
from archiver.stores.s3_multipart import open_uploads
from tests.stores.pace import Clock
from tests.stores.s3_help import KEY, MIB, PART, Open, fetch
from tests.waiting import PATIENCE, wait_until


def test_a_body_that_is_read_for_a_signature_does_not_count_against_the_limit() -> None:
    clock = Clock()
    body = PacedBody(
        bytes(MIB), Limiter(MIB, sleep=clock.sleep, monotonic=lambda: clock.now), Abandonment(), "s3://bucket"
    )
    assert len(body.read(MIB)) == MIB
    body.seek(0)
    assert clock.now == 0
    body.begin()
    read = [len(piece) for piece in iter(lambda: body.read(128 * 1024), b"")]
    assert sum(read) == MIB
    assert max(read) == MIB // 16
    assert 0.8 < clock.now <= 1


def test_uploads_keep_to_the_limit(seaweed_url: str, open_s3: Open) -> None:
    rate = 8 * MIB
    store = open_s3(seaweed_url, limits=Limits(upload=rate))
    data = secrets.token_bytes(3 * PART)
    started = time.monotonic()
    store.create(KEY, [data])
    assert time.monotonic() - started >= (len(data) - rate / 8) / rate
    assert fetch(store, KEY) == data


def test_downloads_keep_to_the_limit(seaweed_url: str, open_s3: Open) -> None:
    rate = 4 * MIB
    data = secrets.token_bytes(PART)
    open_s3(seaweed_url).create(KEY, [data])
    store = open_s3(seaweed_url, limits=Limits(download=rate))
    started = time.monotonic()
    assert fetch(store, KEY) == data
    assert time.monotonic() - started >= (len(data) - rate / 8) / rate


def test_a_limit_keeps_nobody_who_gives_up(seaweed_url: str, open_s3: Open) -> None:
    """At the limit, a part would take more than an hour."""
    open_s3(seaweed_url).create(f"{KEY}.whole", [bytes(PART)])
    store = open_s3(seaweed_url, limits=Limits(upload=1024, download=1024))
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("UploadPart", lambda: store.create(KEY, [bytes(4 * PART)])),
        ("GetObject", lambda: fetch(store, f"{KEY}.whole")),
    ]

    def has_sent(request: str) -> bool:
        return request in store.requests

    for request, attempt in attempts:
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(attempt)
            wait_until(partial(has_sent, request))
            time.sleep(0.1)
            started = time.monotonic()
            store.abandon()
            with pytest.raises(StorageError):
                running.result()
            assert time.monotonic() - started < PATIENCE
    assert open_uploads(store._connection, KEY) == []


def test_an_interrupt_does_not_wait_for_a_limit(seaweed_url: str, open_s3: Open) -> None:
    def body() -> Iterator[bytes]:
        yield bytes(2 * PART)
        raise KeyboardInterrupt

    store = open_s3(seaweed_url, limits=Limits(upload=1024))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        store.create(KEY, body())
    assert time.monotonic() - started < PATIENCE
    assert open_uploads(store._connection, KEY) == []
