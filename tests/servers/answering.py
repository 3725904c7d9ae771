"""An HTTP server that gives whatever answers a function makes: for what no real server gives on demand."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers.tls import Certificate


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it came."""

    method: str
    target: str
    fields: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    body: bytes = b""
    status: int = 200
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnsweringServer:
    """A running server and what it was asked so far."""

    endpoint: str
    questions: list[Question]


@contextmanager
def answering(
    answer: Callable[[Question], Answer], certificate: Certificate | None = None
) -> Iterator[AnsweringServer]:
    """A server on a free port of 127.0.0.1 until the end of the block; over TLS where it has a certificate.

    ``answer`` is called in several threads. Every connection ends with its answer.
    """
    questions: list[Question] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __getattr__(self, name: str) -> Any:
            # The base class looks for a method per verb: do_GET, do_PUT and so on.
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def _answer(self) -> None:
            fields = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(fields.get("content-length", 0)))
            question = Question(self.command, self.path, fields, body)
            questions.append(question)
            given = answer(question)
            self.send_response(given.status)
            for name, value in {"Content-Length": str(len(given.body)), "Connection": "close", **given.fields}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(given.body)

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it so
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        server.wrap(certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="answering server")
    thread.start()
    scheme = "http" if certificate is None else "https"
    try:
        yield AnsweringServer(f"{scheme}://127.0.0.1:{server.server_port}", questions)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    # The threads are joined when the server is closed.
    daemon_threads = False

    def wrap(self, certificate: Certificate) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.chain, certificate.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or that does not trust the certificate, is no news."""
