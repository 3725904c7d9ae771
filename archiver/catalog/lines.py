"""Records to JSON lines and back, streaming both ways."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec

from archiver.buffers import Buffer
from archiver.errors import FormatError

MAX_LINE = 16 * 1024 * 1024
"""The longest line that a reader accepts, in bytes: an environment of 100 TB in objects of 1 GiB fits."""
_BATCH = 1024 * 1024
_RECORDS = 256
"""How many records are encoded and read back at once, because each call costs more than a record."""

R = TypeVar("R")


def encode_lines(records: Iterable[R], decoder: msgspec.json.Decoder[R]) -> Iterator[bytes]:
    """One JSON object and a newline per record, in buffers of about 1 MiB.

    Each line is read back: a record that ``decoder`` would refuse on the day of a restore raises ``FormatError`` now.
    """
    encoder = msgspec.json.Encoder()
    source = iter(records)
    batch = bytearray()
    while some := list(islice(source, _RECORDS)):
        batch += _encode(some, encoder, decoder)
        if len(batch) >= _BATCH:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def _encode(records: list[R], encoder: msgspec.json.Encoder, decoder: msgspec.json.Decoder[R]) -> bytes:
    try:
        lines = encoder.encode_lines(records)
        if len(lines) <= MAX_LINE:
            decoder.decode_lines(lines)
            return lines
    except (msgspec.MsgspecError, FormatError, UnicodeError, RecursionError):
        pass
    # One by one: it may be that one of them is too long, or not to be stored, and which one is to be told.
    return b"".join(_encode_one(record, encoder, decoder) for record in records)


def _encode_one(record: R, encoder: msgspec.json.Encoder, decoder: msgspec.json.Decoder[R]) -> bytes:
    try:
        line = encoder.encode(record)
        _decode(line, decoder)
    except (FormatError, UnicodeEncodeError) as error:
        raise FormatError(f"a record cannot be stored: {error}: {str(record)[:200]!r}") from None
    return line + b"\n"


def decode_lines(buffers: Iterable[Buffer], decoder: msgspec.json.Decoder[R], what: str) -> Iterator[R]:
    """The records that ``decoder`` accepts, one a line; ``what`` names the list in errors.

    Raises ``FormatError`` for a line that is no such record, is too long, or has no newline at its end.
    """
    number = 1
    pending = bytearray()
    for buffer in buffers:
        first, *others = bytes(buffer).split(b"\n")
        pending += first
        for following in others:
            try:
                record = _decode(pending, decoder)
            except FormatError as error:
                raise FormatError(f"{what}, line {number}: {error.message}") from None
            yield record
            number += 1
            pending = bytearray(following)
        if len(pending) > MAX_LINE:
            raise FormatError(f"{what}, line {number}: longer than {MAX_LINE} bytes")
    if pending:
        raise FormatError(f"{what} ends in the middle of line {number}: it was cut off")


def _decode(line: Buffer, decoder: msgspec.json.Decoder[R]) -> R:
    if len(line) > MAX_LINE:
        raise FormatError(f"longer than {MAX_LINE} bytes")
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(str(error)) from None
