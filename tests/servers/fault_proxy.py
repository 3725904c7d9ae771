"""A reverse proxy for S3 that breaks, delays and damages the requests that a schedule chooses. Standard library only.

It passes heads on as they are: the client's signature covers the Host header, which therefore names the proxy. Every
request goes over a new connection to the server, whose habit of closing idle ones would add faults of its own.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.servers.fault_schedules import Fault, Kind, Request, Schedule, can_hit, no_faults
from tests.servers.http_messages import Body, Head, answer_body, read_head, request_body

STALL_SECONDS = 60
"""How long a stalled connection is held at most."""
_REFUSALS = {
    Kind.INTERNAL_ERROR: ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
    Kind.SLOW_DOWN: ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
}
_GONE = (OSError, asyncio.IncompleteReadError)
"""How the loss of a connection shows."""


class _EndError(Exception):
    """The client's connection is to end: after what was written to it, or at once with a reset."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class FaultProxy:
    """Relays to the server at the URL ``target``, in a thread of its own, from its creation until ``close``."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.requests = 0
        """How many came since the schedule was set."""
        self.hits: Counter[Kind] = Counter()
        """How many faults have taken effect since then."""
        self._schedule: Schedule = no_faults
        self._stopping = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="fault proxy")
        self._thread.start()

    def follow(self, schedule: Schedule) -> None:
        """Let ``schedule`` decide from now on, and count anew. No request may be under way."""
        self._schedule, self.requests, self.hits = schedule, 0, Counter()

    def close(self) -> None:
        """End all connections, stalled ones too."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._connection, sock=listener)
        await self._stopping.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections)
        await server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        reset = True
        try:
            while not self._stopping.is_set() and (head := await read_head(reader)):
                await self._exchange(head, reader, writer)
        except _EndError as end:
            reset = end.reset
        except (*_GONE, asyncio.CancelledError):
            pass
        finally:
            await _end(writer, reset=reset)
            self._connections.discard(task)

    async def _exchange(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        self.requests += 1
        request = Request(self.requests, head.words[0], head.words[1])
        fault = self._schedule(request)
        body = request_body(reader, head)
        if fault is None or not can_hit(fault, request):
            await self._relay(_Exchange(request, None, self.hits), head, body, writer)
        elif fault.kind is Kind.RESET:
            self.hits[fault.kind] += 1
            raise _EndError(reset=True)
        elif fault.kind is Kind.STALL:
            self.hits[fault.kind] += 1
            await _stall()
        elif fault.kind in _REFUSALS:
            self.hits[fault.kind] += 1
            await _refuse(fault.kind, head, body, writer)
        else:
            await self._relay(_Exchange(request, fault, self.hits), head, body, writer)

    async def _relay(self, exchange: "_Exchange", head: Head, body: Body, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._target)
        sending = asyncio.create_task(exchange.send(head, body, to_server))
        is_complete = False
        try:
            is_last = await exchange.answer(from_server, writer)
            # A server may answer before it has read everything, and then does not read the rest.
            is_complete = sending.done()
            if is_last or head.closes or not is_complete:
                raise _EndError(reset=False)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            await _end(to_server, reset=not is_complete)


class _Exchange:
    """A request that the server gets, and its answer."""

    def __init__(self, request: Request, fault: Fault | None, hits: "Counter[Kind]") -> None:
        self._request = request
        self._fault = fault
        self._kind = None if fault is None else fault.kind
        self._hits = hits
        self._was_hit = False

    async def send(self, head: Head, body: Body, writer: asyncio.StreamWriter) -> None:
        """Pass the request on. When either side goes, the server sees a broken connection."""
        try:
            writer.write(head.raw)
            await self._pass(body, writer, damaged=self._kind is Kind.CORRUPTED_REQUEST)
        except _GONE:
            writer.transport.abort()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass the answer on; whether the connection ends with it."""
        while (head := await read_head(reader)) and head.status < 200:
            writer.write(head.raw)
        if head is None:
            raise _EndError(reset=True)
        body = answer_body(reader, head, self._request.method)
        if self._kind is Kind.LOST_REPLY:
            await self._lose(head, body, writer)
        writer.write(head.raw)
        # Of an error's body, which is XML, no byte is altered.
        damaged = self._kind in (Kind.TRUNCATED, Kind.STALLED_BODY) or (
            self._kind is Kind.CORRUPTED and head.status in (200, 206)
        )
        await self._pass(body, writer, damaged=damaged)
        return head.closes or body.ends_with_connection

    async def _lose(self, head: Head, body: Body, writer: asyncio.StreamWriter) -> None:
        async for _ in body.pieces():
            pass
        self._hit()
        assert self._fault is not None
        writer.write(head.raw[: self._fault.after or 0])
        raise _EndError(reset=False)

    async def _pass(self, body: Body, writer: asyncio.StreamWriter, *, damaged: bool) -> None:
        place = self._place(body) if damaged else -1
        sent = 0
        async for piece in body.pieces():
            if 0 <= place - sent < len(piece):
                await self._write(body, piece[: place - sent], writer)
                rest = await self._damage(piece[place - sent :])
                await self._write(body, rest, writer)
            else:
                await self._write(body, piece, writer)
            sent += len(piece)
        writer.write(body.end)
        await writer.drain()

    def _place(self, body: Body) -> int:
        assert self._fault is not None
        return (body.length or 0) // 2 if self._fault.after is None else self._fault.after

    async def _damage(self, rest: bytes) -> bytes:
        """What comes in place of ``rest``, the bytes from the fault's place on; or nothing any more."""
        self._hit()
        if self._kind is Kind.TRUNCATED:
            raise _EndError(reset=False)
        if self._kind is Kind.STALLED_BODY:
            await _stall()
        return bytes([rest[0] ^ 1]) + rest[1:]

    async def _write(self, body: Body, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if self._fault is None or self._kind is not Kind.SLOW:
            if piece:
                writer.write(body.framed(piece))
                await writer.drain()
            return
        # In small steps: slow, but never without progress.
        step = max(1, self._fault.rate // 20)
        for start in range(0, len(piece), step):
            part = piece[start : start + step]
            self._hit()
            await asyncio.sleep(len(part) / self._fault.rate)
            writer.write(body.framed(part))
            await writer.drain()

    def _hit(self) -> None:
        if not self._was_hit:
            assert self._kind is not None
            self._hits[self._kind] += 1
        self._was_hit = True


async def _stall() -> None:
    await asyncio.sleep(STALL_SECONDS)
    raise _EndError(reset=True)


async def _refuse(kind: Kind, head: Head, body: Body, writer: asyncio.StreamWriter) -> None:
    status, code, message = _REFUSALS[kind]
    document = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    if "expect" not in head.fields:
        async for _ in body.pieces():
            pass
    fields = f"Content-Type: application/xml\r\nContent-Length: {len(document)}\r\nConnection: close"
    answer = f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n" + ("" if head.words[0] == "HEAD" else document)
    writer.write(answer.encode())
    raise _EndError(reset=False)


async def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close the connection: with a reset, or after everything that was written has gone out."""
    with contextlib.suppress(OSError):
        try:
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            writer.close()
            await writer.wait_closed()
        except asyncio.CancelledError:
            # Whoever is to read what is left does not.
            writer.transport.abort()


@contextmanager
def fault_proxy(target: str, schedule: Schedule = no_faults) -> Iterator[FaultProxy]:
    """A proxy to the server at the URL ``target`` that follows ``schedule``, until the end of the block."""
    proxy = FaultProxy(target)
    proxy.follow(schedule)
    try:
        yield proxy
    finally:
        proxy.close()
