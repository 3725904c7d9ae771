"""HTTP/1.1 messages as a proxy needs them: heads that pass unchanged, bodies in pieces. Standard library only."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

PIECE = 65536
NO_BODY_STATUS = {204, 304}


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or an answer."""

    raw: bytes
    """All of it, the empty line at its end included."""
    words: tuple[str, str, str]
    """The first line: method, target and version, or version, status and reason."""
    fields: Mapping[str, str]
    """By name in lower case."""

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.words[1])

    @property
    def closes(self) -> bool:
        """Whether its sender closes the connection after this message."""
        return self.fields.get("connection", "").lower() == "close" or "HTTP/1.0" in self.words


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None when the other side closed the connection before it."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = raw.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = [*first.split(" ", 2), ""]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Head(raw, (words[0], words[1], words[2]), fields)


class Body:
    """The body that follows a head, taken off the wire piece by piece and put back onto it framed as it was."""

    def __init__(self, reader: asyncio.StreamReader, head: Head, *, length: int | None) -> None:
        self._reader = reader
        self.chunked = length is None and head.fields.get("transfer-encoding", "").lower() == "chunked"
        self.length = None if self.chunked else length
        """Bytes, where it is known in advance."""
        self._end = b""

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection marks its end."""
        return self.length is None and not self.chunked

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its bytes; raises ``IncompleteReadError`` when the connection ends before it does."""
        if self.chunked:
            async for piece in self._chunks():
                yield piece
        elif self.length is not None:
            async for piece in self._exactly(self.length):
                yield piece
        else:
            while piece := await self._reader.read(PIECE):
                yield piece

    def framed(self, piece: bytes) -> bytes:
        """A piece, or some of it, as it is sent on."""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece

    @property
    def end(self) -> bytes:
        """What is sent on after the last piece, trailers included."""
        return self._end

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\n")).split(b";")[0], 16):
            async for piece in self._exactly(size):
                yield piece
            await self._reader.readexactly(2)
        self._end = b"0\r\n"
        while not self._end.endswith(b"\r\n\r\n"):
            self._end += await self._reader.readuntil(b"\n")

    async def _exactly(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await self._reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


def request_body(reader: asyncio.StreamReader, head: Head) -> Body:
    """The body of a request; of no bytes where the head announces none."""
    chunked = "transfer-encoding" in head.fields
    return Body(reader, head, length=None if chunked else int(head.fields.get("content-length", 0)))


def answer_body(reader: asyncio.StreamReader, head: Head, method: str) -> Body:
    """The body of an answer to a request of ``method``."""
    if method == "HEAD" or head.status in NO_BODY_STATUS:
        return Body(reader, head, length=0)
    announced = head.fields.get("content-length")
    chunked = "transfer-encoding" in head.fields
    return Body(reader, head, length=None if chunked or announced is None else int(announced))
