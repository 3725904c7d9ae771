"""A line of a given rate and round trip between this host and a server on it: a TCP proxy. Standard library only.

It stands in for the kernel's netem where that is missing. Each direction is a queue that all connections share: a piece
leaves when all before it have, at ``rate``, and arrives half a round trip later. A new connection costs one round trip
more, as its handshake does. Loss and the slow start of TCP are not simulated.

``python -m benchmarks.link_check`` shows how exact it is.
"""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_PIECE = 64 * 1024
_AHEAD = 0.04
"""Seconds that may wait in the queue of a direction, as in a router's. Without them it would stand still while Python
wakes up."""
_UNDER_WAY = 64
"""Pieces of one connection that have left and not arrived."""
_RECEIVE_BUFFER = 256 * 1024
"""The kernel would take megabytes, which their sender would believe to be sent."""
_REQUEST = re.compile(rb"([A-Z]+) /")


@dataclass(frozen=True, slots=True)
class Line:
    """Payload bytes per second in each direction, and seconds from a question to its answer."""

    rate: float
    round_trip: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload bytes that clients have sent and received, and their HTTP requests by method."""

    sent: int = 0
    received: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def __sub__(self, earlier: "Traffic") -> "Traffic":
        return Traffic(self.sent - earlier.sent, self.received - earlier.received, self.requests - earlier.requests)


@contextmanager
def link(server_port: int, line: Line) -> Iterator["Link"]:
    """The other end of ``line`` from ``server_port`` of 127.0.0.1, until the end of the block."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        running = Link(listener, server_port, line)
        try:
            yield running
        finally:
            running.close()


class Link:
    """A running proxy; ``port`` is where clients connect."""

    def __init__(self, listener: socket.socket, server_port: int, line: Line) -> None:
        self.port: int = listener.getsockname()[1]
        self._server_port = server_port
        self._round_trip = line.round_trip
        self._up = _Direction(line.rate)
        self._down = _Direction(line.rate)
        self._requests: Counter[str] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener.dup(),), name="link")
        self._thread.start()

    def traffic(self) -> Traffic:
        """What has passed until now."""
        return Traffic(self._up.carried, self._down.carried, self._requests.copy())

    def close(self) -> None:
        """End all connections."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(self._accept, sock=listener)
        await self._stopping.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._round_trip)
        delay = self._round_trip / 2
        requests = _Requests(self._requests)
        with contextlib.ExitStack() as ends:
            ends.callback(writer.close)
            # A side that is gone ends the connection of the other, as it would without a proxy between them.
            with contextlib.suppress(OSError, ExceptionGroup):
                from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
                ends.callback(to_server.close)
                async with asyncio.TaskGroup() as both:
                    both.create_task(_carry(reader, to_server, self._up, delay, requests.asked))
                    both.create_task(_carry(from_server, writer, self._down, delay, requests.answered))


class _Direction:
    """One way of the line, which all connections share."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = 0.0
        self.carried = 0

    def leave(self, size: int, now: float) -> float:
        """The time at which ``size`` bytes that come ``now`` have left, behind all that came before."""
        self.carried += size
        self._free = max(self._free, now) + size / self._rate
        return self._free


class _Requests:
    """Counts the requests of one connection: what begins with a method, first of all or after some of an answer."""

    def __init__(self, counted: Counter[str]) -> None:
        self._counted = counted
        self._is_new = True

    def asked(self, piece: bytes) -> None:
        if self._is_new and (begins := _REQUEST.match(piece)):
            self._counted[begins[1].decode()] += 1
        self._is_new = False

    def answered(self, _: bytes) -> None:
        self._is_new = True


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    direction: _Direction,
    delay: float,
    tell: Callable[[bytes], None],
) -> None:
    """Everything from ``reader`` to ``writer``, its end included."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)
    async with asyncio.TaskGroup() as group:
        group.create_task(_deliver(under_way, writer))
        while piece := await reader.read(_PIECE):
            tell(piece)
            left = direction.leave(len(piece), time.monotonic())
            await _wait_until(left - _AHEAD)
            await under_way.put((left + delay, piece))
        await under_way.put((time.monotonic() + delay, b""))


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    while True:
        arrival, piece = await under_way.get()
        await _wait_until(arrival)
        if not piece:
            writer.write_eof()
            return
        writer.write(piece)
        await writer.drain()


async def _wait_until(moment: float) -> None:
    # Also when it is past: other connections get their turn.
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
