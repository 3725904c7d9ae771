"""``python -m benchmarks.link_check``: how exact the simulated line is, and what it costs."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.link import Line, link

_PIECE = 1 << 20


@contextmanager
def sink() -> Iterator[int]:
    """The port of a server that takes each connection to its end, and then answers with one byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(16) as pool:
        accepting = threading.Thread(target=_accept, args=(listener, pool))
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def _accept(listener: socket.socket, pool: ThreadPoolExecutor) -> None:
    with contextlib.suppress(OSError):
        while True:
            pool.submit(_take, listener.accept()[0])


def _take(connection: socket.socket) -> None:
    with connection:
        while connection.recv(_PIECE):
            pass
        connection.sendall(b".")


def send(port: int, size: int) -> None:
    """Send ``size`` bytes over a connection of their own and wait for the answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        piece = bytes(_PIECE)
        while size:
            connection.sendall(piece[:size])
            size -= min(size, _PIECE)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b".":
            raise ConnectionError(f"no answer from port {port}")


def seconds(port: int, size: int, connections: int) -> float:
    """How long ``size`` bytes take, shared by so many connections at once."""
    with ThreadPoolExecutor(connections) as pool:
        began = time.monotonic()
        for sent in [pool.submit(send, port, size // connections) for _ in range(connections)]:
            sent.result()
        return time.monotonic() - began


def main(line: Line, size: int) -> None:
    """Carry ``size`` bytes over one and over more connections, and a byte for the round trip; print what came of it."""
    with sink() as server, link(server, line) as running:
        print(f"one byte, its connection included: {seconds(running.port, 1, 1) * 1e3:.1f} ms")
        for connections in (1, 4, 10):
            worked = time.process_time()
            # One round trip is for the handshake, one for the way there of the last byte and of the answer back.
            needed = seconds(running.port, size, connections) - 2 * line.round_trip
            worked = time.process_time() - worked
            share = size / needed / line.rate
            print(f"{connections} connections: {share:.2%} of the rate, {worked / needed:.0%} of a CPU")


if __name__ == "__main__":
    main(Line(rate=25e6, round_trip=0.04), 100_000_000)
