"""A forward proxy, as companies put one between their hosts and the world. Standard library only."""

import base64
import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit

_PIECE = 65536
_REFUSAL = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}"
_CHALLENGE = 'Proxy-Authenticate: Basic realm="proxy"\r\n'
_PAGE = "<html><body>Who are you?</body></html>"
_OWN = (".localhost", ".localhost.localstack.cloud")
"""Ends of names that mean this host, also where no DNS says so."""


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """A running proxy and what went through it."""

    port: int
    forwarded: list[str] = field(default_factory=list)
    """URLs of requests in absolute form."""
    tunnelled: list[str] = field(default_factory=list)
    """``host:port`` of each CONNECT."""
    refused: list[str] = field(default_factory=list)
    """Methods of the requests that were answered 407."""

    def url(self, credentials: str = "") -> str:
        """What HTTP_PROXY is set to; ``credentials`` as ``user:password``."""
        return f"http://{credentials}{'@' if credentials else ''}127.0.0.1:{self.port}"


@contextmanager
def forward_proxy(credentials: str | None = None) -> Iterator[ForwardProxy]:
    """A proxy on a free port of 127.0.0.1 until the end of the block; for those with ``credentials`` alone, if given.

    One connection carries one request: the proxy tells the server that it is the last one.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.proxy = ForwardProxy(server.server_address[1])
        server.authorization = credentials and f"Basic {base64.b64encode(credentials.encode()).decode()}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="forward proxy")
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join()
            server.end_tunnels()


class _Server(ThreadingTCPServer):
    proxy: ForwardProxy
    authorization: str | None

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.tunnels: set[socket.socket] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client or a server that went away is no news."""

    def end_tunnels(self) -> None:
        """The threads are joined when the server is closed: a client must not keep them."""
        for tunnel in list(self.tunnels):
            with contextlib.suppress(OSError):
                tunnel.shutdown(socket.SHUT_RDWR)


class _Handler(StreamRequestHandler):
    # What follows the head belongs to the tunnel: no byte of it may be read ahead.
    rbufsize = 0

    def __init__(self, request: socket.socket, client_address: object, server: BaseServer) -> None:
        assert isinstance(server, _Server)
        self._server = server
        super().__init__(request, client_address, server)

    def handle(self) -> None:
        method, target, version = self._line().split(" ")
        lines = list(iter(self._line, ""))
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        proxy = self._server.proxy
        if self._server.authorization not in (None, fields.get("proxy-authorization")):
            proxy.refused.append(method)
            page = "" if method == "HEAD" else _PAGE
            self.wfile.write(_REFUSAL.format(len(page), _CHALLENGE, page).encode())
        elif method == "CONNECT":
            proxy.tunnelled.append(target)
            self._join(target, b"", b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            proxy.forwarded.append(target)
            parts = urlsplit(target)
            local = parts._replace(scheme="", netloc="").geturl()
            kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
            head = "\r\n".join((f"{method} {local} {version}", *kept, "Connection: close", "", ""))
            self._join(parts.netloc, head.encode("latin-1"), b"")

    def _line(self) -> str:
        return self.rfile.readline().decode("latin-1").removesuffix("\r\n")

    def _join(self, address: str, request: bytes, answer: bytes) -> None:
        """Pass on what comes from either side, until one of them has ended."""
        host, _, port = address.rpartition(":")
        if host.endswith(_OWN):
            host = "127.0.0.1"
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))) as server:
            self._server.tunnels.add(server)
            server.sendall(request)
            self.wfile.write(answer)
            other = {server: self.connection, self.connection: server}
            with selectors.DefaultSelector() as selector:
                for side in other:
                    selector.register(side, selectors.EVENT_READ)
                while True:
                    for key, _ in selector.select():
                        side = key.fileobj
                        assert isinstance(side, socket.socket)
                        piece = side.recv(_PIECE)
                        if not piece:
                            return
                        other[side].sendall(piece)
