"""Every fault as a client sees it, and that without one nothing is changed."""

import http.client
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.servers.fault_schedules import Fault, Kind, every
from tests.waiting import PATIENCE, wait_until

KEY = "/bucket/key"
BODY = bytes(range(256)) * 400


class Handler(BaseHTTPRequestHandler):
    """Answers a GET with BODY, in chunks where the path says so, and everything else with what it was sent."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        if "chunked" not in self.path:
            return self._answer(BODY)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(BODY), 1000):
            piece = BODY[start : start + 1000]
            self.wfile.write(b"%x;ignored=1\r\n%b\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        return None

    def do_PUT(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        if "Transfer-Encoding" not in self.headers:
            return self._answer(self.rfile.read(int(self.headers["Content-Length"])))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return self._answer(body)

    def do_HEAD(self) -> None:
        self._answer(BODY)

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A server that remembers the requests that reached it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []

    def handle_error(self, *_: object) -> None:
        """Say nothing of the connections that the faults break."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with fault_proxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=PATIENCE)
    yield client
    client.close()


def get(client: http.client.HTTPConnection, path: str = KEY) -> bytes:
    client.request("GET", path)
    return client.getresponse().read()


def put(client: http.client.HTTPConnection, body: bytes) -> bytes:
    client.request("PUT", KEY, body)
    return client.getresponse().read()


def test_without_a_fault_nothing_changes(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    client.connect()
    first = client.sock
    for _ in range(2):
        assert get(client) == BODY
        assert get(client, "/bucket/chunked") == BODY
        assert put(client, BODY) == BODY
        assert put(client, b"") == b""
        client.request("HEAD", KEY)
        head = client.getresponse()
        assert head.read() == b""
        assert head.headers["X-Host"] == proxy.endpoint.removeprefix("http://")
        client.request("DELETE", KEY)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
    assert client.sock is first
    assert proxy.requests == 12
    assert not proxy.hits


def test_a_request_in_chunks(client: http.client.HTTPConnection) -> None:
    for _ in range(2):
        client.request("PUT", KEY, iter([BODY, BODY[:1]]), encode_chunked=True)
        assert client.getresponse().read() == BODY + BODY[:1]


def test_a_reset_before_the_server_has_the_request(
    proxy: FaultProxy, client: http.client.HTTPConnection, server: Server
) -> None:
    proxy.follow(every(1, Fault(Kind.RESET)))
    with pytest.raises(ConnectionResetError):
        get(client)
    assert server.seen == []
    assert proxy.hits == {Kind.RESET: 1}


@pytest.mark.parametrize(("after", "error"), [(None, http.client.RemoteDisconnected), (10, http.client.BadStatusLine)])
def test_a_lost_reply(
    proxy: FaultProxy, client: http.client.HTTPConnection, server: Server, after: int | None, error: type[Exception]
) -> None:
    proxy.follow(every(1, Fault(Kind.LOST_REPLY, after=after)))
    with pytest.raises(error):
        put(client, BODY)
    assert server.seen == [KEY]
    assert proxy.hits == {Kind.LOST_REPLY: 1}


def test_a_stall_ends_with_the_proxy(server: Server) -> None:
    with fault_proxy(f"http://127.0.0.1:{server.server_port}", every(1, Fault(Kind.STALL))) as proxy:
        client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=0.2)
        with pytest.raises(TimeoutError):
            get(client)
        assert client.sock is not None
        wait_until(lambda: proxy.requests)
        assert proxy.hits == {Kind.STALL: 1}
    client.sock.settimeout(PATIENCE)
    with pytest.raises(ConnectionResetError):
        client.sock.recv(1)
    client.close()
    assert server.seen == []


def test_a_stalled_request_is_not_read(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.follow(every(1, Fault(Kind.STALL)))
    client.putrequest("PUT", KEY)
    client.putheader("Content-Length", str(64 << 20))
    client.endheaders()
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        for _ in range(64):
            client.send(bytes(1 << 20))


def test_a_body_that_stalls(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.follow(every(1, Fault(Kind.STALLED_BODY, after=1000)))
    client.request("GET", KEY)
    answer = client.getresponse()
    assert answer.read(1000) == BODY[:1000]
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        answer.read(1)
    assert proxy.hits == {Kind.STALLED_BODY: 1}


@pytest.mark.parametrize(
    ("kind", "status", "code"), [(Kind.INTERNAL_ERROR, 500, "InternalError"), (Kind.SLOW_DOWN, 503, "SlowDown")]
)
def test_a_refusal(
    proxy: FaultProxy, client: http.client.HTTPConnection, server: Server, kind: Kind, status: int, code: str
) -> None:
    proxy.follow(every(1, Fault(kind)))
    client.request("PUT", KEY, BODY * 50)
    answer = client.getresponse()
    assert answer.status == status
    assert f"<Code>{code}</Code>".encode() in answer.read()
    client.request("HEAD", KEY)
    answer = client.getresponse()
    assert (answer.status, answer.read()) == (status, b"")
    assert server.seen == []
    assert proxy.hits == {kind: 2}


@pytest.mark.parametrize("path", [KEY, "/bucket/chunked"])
@pytest.mark.parametrize("after", [0, 1, 1500, len(BODY) - 1])
def test_a_truncated_body(proxy: FaultProxy, client: http.client.HTTPConnection, path: str, after: int) -> None:
    proxy.follow(every(1, Fault(Kind.TRUNCATED, after=after)))
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(client, path)
    assert BODY.startswith(caught.value.partial)
    # Of a broken chunk http.client gives nothing.
    assert path != KEY or len(caught.value.partial) == after
    assert proxy.hits == {Kind.TRUNCATED: 1}


def test_a_truncated_body_is_cut_in_its_middle(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.follow(every(1, Fault(Kind.TRUNCATED)))
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(client)
    assert len(caught.value.partial) == len(BODY) // 2


def test_a_fault_beyond_the_end_takes_no_effect(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    for kind in (Kind.TRUNCATED, Kind.CORRUPTED, Kind.STALLED_BODY):
        proxy.follow(every(1, Fault(kind, after=len(BODY))))
        assert get(client) == BODY
        assert not proxy.hits


def test_a_fault_of_bodies_does_nothing_to_an_empty_one(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    for kind in (Kind.CORRUPTED_REQUEST, Kind.SLOW):
        proxy.follow(every(1, Fault(kind)))
        assert put(client, b"") == b""
        assert not proxy.hits


def altered(place: int) -> bytes:
    return BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]


@pytest.mark.parametrize("path", [KEY, "/bucket/chunked"])
@pytest.mark.parametrize("after", [0, 70_000, len(BODY) - 1])
def test_one_byte_of_an_object_is_altered(
    proxy: FaultProxy, client: http.client.HTTPConnection, path: str, after: int
) -> None:
    proxy.follow(every(1, Fault(Kind.CORRUPTED, after=after)))
    assert get(client, path) == altered(after)
    assert get(client, "/bucket?list-type=2") == BODY
    assert proxy.hits == {Kind.CORRUPTED: 1}


def test_one_byte_of_a_request_is_altered(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.follow(every(1, Fault(Kind.CORRUPTED_REQUEST)))
    assert put(client, BODY) == altered(len(BODY) // 2)
    assert proxy.hits == {Kind.CORRUPTED_REQUEST: 1}


def test_a_slow_link(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    rate = 4 * len(BODY)
    proxy.follow(every(1, Fault(Kind.SLOW, rate=rate)))
    began = time.monotonic()
    assert get(client, "/bucket/chunked") == BODY
    assert put(client, BODY) == BODY
    # A quarter of a second for the answer, and twice that for the request and its answer.
    assert time.monotonic() - began >= 3 * len(BODY) / rate
    assert proxy.hits == {Kind.SLOW: 2}


def test_a_long_body_takes_little_memory(server: Server, proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    class Zeros:
        """A file of 256 MiB that is nowhere."""

        left = 256

        def read(self, _: int = -1) -> bytes:
            self.left -= 1
            return piece if self.left >= 0 else b""

    piece = bytes(1 << 20)
    # What is answered before the body is read ends the connection, so only a refusal shows that all of it was read.
    proxy.follow(every(1, Fault(Kind.INTERNAL_ERROR)))
    tracemalloc.start()
    client.request("PUT", KEY, Zeros(), {"Content-Length": str(256 << 20)})
    assert client.getresponse().status == 500
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
