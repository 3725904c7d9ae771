"""Uploads: how many parts go at a time, how long they are patient, and how they are given up."""

import asyncio
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from archiver.errors import StorageError
from archiver.stores.retry import Retry
from archiver.stores.s3 import S3Store
from archiver.stores.s3_bodies import PacedBody
from archiver.stores.s3_errors import is_transient
from archiver.stores.s3_multipart import open_uploads
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, Request, every, in_order
from tests.servers.process import free_ports
from tests.stores.s3_help import KEY, MIB, PART, Open, endpoint_of, fetch
from tests.waiting import PATIENCE, wait_until


def is_part(request: Request) -> bool:
    return "partNumber" in request.target


def test_a_body_is_sent_in_stretches_without_a_copy(seaweed_url: str, open_s3: Open) -> None:
    """Short enough that a link of 1 Mbit/s carries one, of each of four parts, in less than the time limit."""
    store = open_s3(seaweed_url)
    sizes: list[int] = []
    data = bytearray(secrets.token_bytes(PART))

    class Noting(PacedBody):
        def read(self, size: int = -1) -> memoryview:
            piece = super().read(size)
            assert piece.obj is data or not piece
            sizes.append(len(piece))
            return piece

    store._connection.body = lambda data, abandonment: Noting(data, None, abandonment, "")  # type: ignore[method-assign]
    store.create(KEY, [data])
    assert sum(sizes) == PART
    assert max(sizes) <= 128 * 1024
    assert fetch(store, KEY) == data


class Traffic:
    """How many parts of a store are under way."""

    def __init__(self, store: S3Store, operation: str = "UploadPart") -> None:
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0
        events = store._connection.client.meta.events
        events.register(f"before-call.s3.{operation}", self._begin)
        events.register(f"after-call.s3.{operation}", self._end)

    def _begin(self, **_: object) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def _end(self, **_: object) -> None:
        with self._lock:
            self._now -= 1


def test_parts_of_all_creates_together_are_bounded(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url, uploads=2)
    traffic, small = Traffic(store), Traffic(store, "PutObject")
    data = secrets.token_bytes(3 * PART)
    with ThreadPoolExecutor(8) as threads:
        bodies = [data] * 4 + [b"small"] * 4
        list(threads.map(lambda item: store.create(f"{KEY}.{item[0]}", [item[1]]), enumerate(bodies)))
    assert traffic.most == 2
    assert small.most <= 2
    for number, body in enumerate(bodies):
        assert fetch(store, f"{KEY}.{number}") == body


def test_a_body_that_waits_keeps_no_other_create_from_sending(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url, uploads=1)
    others_done = threading.Event()

    def waiting() -> Iterator[bytes]:
        yield bytes(2 * PART)
        assert others_done.wait(PATIENCE)
        yield bytes(PART)

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(store.create, f"{KEY}.slow", waiting())
        store.create(KEY, [bytes(2 * PART + 1)])
        store.create(f"{KEY}.small", [b"small"])
        others_done.set()
        assert slow.result().size == 3 * PART


def test_a_failed_create_gives_its_places_back(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url, uploads=2)

    def broken() -> Iterator[bytes]:
        yield bytes(4 * PART)
        raise KeyError("broken")

    for _ in range(3):
        with pytest.raises(KeyError):
            store.create(KEY, broken())
    store.create(KEY, [bytes(4 * PART)])


class Part(bytearray):
    """A buffer that can be watched."""


def test_parts_that_were_sent_are_let_go(seaweed_url: str, open_s3: Open) -> None:
    store = open_s3(seaweed_url)
    alive: weakref.WeakSet[Part] = weakref.WeakSet()
    seen = []

    def body() -> Iterator[Part]:
        for _ in range(6):
            part = Part(PART)
            alive.add(part)
            yield part
            del part
        # What cuts the stream may hold the last one.
        wait_until(lambda: len(alive) <= 1)
        seen.append(len(alive))

    # A set by identity: a bytearray has no hash.
    Part.__hash__ = object.__hash__  # type: ignore[assignment]
    store.create(KEY, body())
    assert seen[0] <= 1


def patient(store: S3Store) -> S3Store:
    """``store`` with short pauses, and two attempts for what is not sent patiently."""
    store._connection.retry = Retry(is_transient, attempts=2, base=0.01, cap=0.02)
    return store


@pytest.mark.parametrize(
    ("size", "where"),
    [
        (10, lambda request: request.method == "PUT"),
        (PART + 1, lambda request: request.target.endswith("?uploads")),
        (PART + 1, is_part),
        (PART + 1, lambda request: request.method == "POST" and "uploadId" in request.target),
        (PART + 1, lambda request: request.method == "HEAD"),
    ],
    ids=["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"],
)
def test_uploads_outlast_an_outage(
    seaweed_url: str, open_s3: Open, size: int, where: Callable[[Request], bool]
) -> None:
    with fault_proxy(endpoint_of(seaweed_url), in_order(*[Fault(Kind.RESET)] * 12, where=where)) as proxy:
        store = patient(open_s3(seaweed_url, endpoint=proxy.endpoint))
        store.create(KEY, [bytes(size)])
        assert proxy.hits == {Kind.RESET: 12}
        assert fetch(store, KEY) == bytes(size)
        store.close()


@pytest.mark.parametrize("question", ["list", "clock", "rules"])
def test_what_a_run_asks_after_it_has_begun_outlasts_an_outage(seaweed_url: str, open_s3: Open, question: str) -> None:
    with fault_proxy(endpoint_of(seaweed_url)) as proxy:
        store = patient(open_s3(seaweed_url, endpoint=proxy.endpoint))
        store.create(KEY, [b"x"])
        proxy.follow(in_order(*[Fault(Kind.RESET)] * 12))
        answer = getattr(store, question)()
        assert question != "list" or [item.key for item in answer] == [KEY]
        assert proxy.hits == {Kind.RESET: 12}
        store.close()


def test_nothing_else_does(seaweed_url: str, open_s3: Open) -> None:
    open_s3(seaweed_url).create(KEY, [b"x"])
    with fault_proxy(endpoint_of(seaweed_url)) as proxy:
        store = patient(open_s3(seaweed_url, endpoint=proxy.endpoint))
        for attempt in (lambda: fetch(store, KEY), lambda: list(store.list()), lambda: store.stat(KEY)):
            proxy.follow(every(1, Fault(Kind.RESET)))
            with pytest.raises(StorageError, match="cannot reach"):
                attempt()
            assert proxy.hits == {Kind.RESET: 2}
        store.close()


@contextmanager
def listening_later(port: int, target: str, due: Callable[[], bool]) -> Iterator[None]:
    """At ``port`` nobody listens until it is due; then what comes is passed on to ``target``."""
    there = urlsplit(target)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    connections: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())
        back, forth = await asyncio.open_connection(there.hostname, there.port)
        try:
            await asyncio.gather(copy(reader, forth), copy(back, writer))
        finally:
            forth.close()
            writer.close()

    ended = threading.Event()

    async def serve() -> None:
        while not (due() or ended.is_set()):
            await asyncio.sleep(0.01)
        async with await asyncio.start_server(connected, "127.0.0.1", port):
            await asyncio.to_thread(ended.wait)
            # Its client has gone by then, but the garbage collector may still have a connection of it.
            open_ones = [task for task in connections if task is not None and task.cancel()]
            await asyncio.gather(*open_ones, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_uploads_wait_for_a_store_that_nobody_answers_for(seaweed_url: str, open_s3: Open) -> None:
    port = int(free_ports(1))
    store = open_s3(seaweed_url, endpoint=f"http://127.0.0.1:{port}")
    store._connection.retry = Retry(is_transient, attempts=2, base=0.05, cap=0.1)
    with listening_later(port, endpoint_of(seaweed_url), lambda: store.requests.get("CreateMultipartUpload", 0) > 2):
        store.create(KEY, [bytes(PART + 1)])
        store.close()
    assert fetch(open_s3(seaweed_url), KEY) == bytes(PART + 1)


@pytest.mark.parametrize("size", [10, 2 * PART])
def test_an_upload_that_waits_for_the_store_can_be_given_up(seaweed_url: str, open_s3: Open, size: int) -> None:
    """Any thread can do that, and what begins later goes on."""
    with fault_proxy(endpoint_of(seaweed_url), every(1, Fault(Kind.RESET))) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint)
        store._connection.retry = Retry(is_transient, random=lambda: 1.0, base=1000.0, cap=1000.0, budget=10_000.0)
        with ThreadPoolExecutor(1) as threads:
            creating = threads.submit(store.create, KEY, [bytes(size)])
            wait_until(lambda: proxy.hits)
            proxy.follow(in_order())
            started = time.monotonic()
            store.abandon()
            with pytest.raises(StorageError, match=r"cannot reach|given up"):
                creating.result()
        assert time.monotonic() - started < PATIENCE
        assert open_uploads(store._connection, KEY) == []
        store.create(KEY, [b"again"])
        assert fetch(store, KEY) == b"again"
        store.close()


@pytest.mark.slow
def test_a_link_of_a_megabit_is_fast_enough(seaweed_url: str, open_s3: Open) -> None:
    """With the default time limit, within which it carries less than the kernel's buffers hold."""
    data = secrets.token_bytes(12 * MIB)
    with fault_proxy(endpoint_of(seaweed_url), every(1, Fault(Kind.SLOW, rate=125_000))) as proxy:
        store = open_s3(seaweed_url, endpoint=proxy.endpoint, part_size=16 * MIB)
        store._connection.retry = replace(store._connection.retry, attempts=1)
        store.create(KEY, [data])
        assert store.requests["PutObject"] == 1
        store.close()
