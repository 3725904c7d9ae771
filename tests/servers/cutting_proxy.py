"""A TCP proxy that breaks connections: after so many bytes of an answer it closes both ends. Standard library only."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

HEADERS_ONLY = -1
"""The cut that comes right after an answer's headers."""


class CuttingProxy:
    """Relays to one server. ``cuts`` are the sizes, one per connection and in order, of the answers that break."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.broken = 0

    def serve(self) -> None:
        """Relay until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            limit = self._cuts.pop(0) if self._cuts else None
            server = socket.create_connection(self._target)
            for source, sink, count in ((client, server, None), (server, client, limit)):
                threading.Thread(target=self._relay, args=(source, sink, count), daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake a thread that waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while left != 0 and (data := source.recv(65536)):
                if left == HEADERS_ONLY and b"\r\n\r\n" in data:
                    data, left = data[: data.index(b"\r\n\r\n") + 4], 0
                elif left is not None and left > 0:
                    data = data[:left]
                    left -= len(data)
                sink.sendall(data)
        if left == 0:
            self.broken += 1
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextmanager
def cutting_proxy(target: str, cuts: list[int]) -> Iterator[CuttingProxy]:
    """A proxy to the server at the URL ``target``, until the end of the block."""
    proxy = CuttingProxy(target, cuts)
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
