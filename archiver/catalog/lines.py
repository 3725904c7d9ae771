"""Records to JSON lines and back, streaming both ways."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from archiver.buffers import Buffer
from archiver.errors import FormatError

MAX_LINE = 16 * 1024 * 1024
"""The longest line that a reader accepts, in bytes: an environment of 100 TB in objects of 1 GiB fits."""
_BATCH = 1024 * 1024

R = TypeVar("R")


def encode_lines(records: Iterable[msgspec.Struct]) -> Iterator[bytes]:
    """One JSON object and a newline per record, in buffers of about 1 MiB."""
    encoder = msgspec.json.Encoder()
    batch = bytearray()
    for record in records:
        batch += encoder.encode(record)
        batch += b"\n"
        if len(batch) >= _BATCH:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def decode_lines(buffers: Iterable[Buffer], decoder: msgspec.json.Decoder[R], what: str) -> Iterator[R]:
    """The records that ``decoder`` accepts, one a line; ``what`` names the list in errors.

    Raises ``FormatError`` for a line that is no such record, is too long, or has no newline at its end.
    """
    number = 0
    pending = b""
    for buffer in buffers:
        *lines, pending = (pending + bytes(buffer)).split(b"\n")
        for line in lines:
            number += 1
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise FormatError(f"{what}, line {number}: {error}") from None
            except FormatError as error:
                raise FormatError(f"{what}, line {number}: {error.message}") from None
        if len(pending) > MAX_LINE:
            raise FormatError(f"{what}, line {number + 1}: longer than {MAX_LINE} bytes")
    if pending:
        raise FormatError(f"{what} ends in the middle of line {number + 1}: it was cut off")
