"""What a helper and its parent say to each other: unchanged by the way, and validated."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.environment.databases import Database
from archiver.environment.messages import (
    COPY,
    Copied,
    Declared,
    Failed,
    Pinned,
    PinRequest,
    Reply,
    decode_reply,
    decode_request,
    encode,
)
from archiver.environment.meta import Meta, Tree
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import (
    ArchiverError,
    BusyError,
    FormatError,
    NotFoundError,
    PinGivenUpError,
    SnapshotChangedError,
    SourceError,
)

_TREE = Tree(4096, 0x04, 3, 5, 7, 11, 2**64 - 1, 2**63)
PINNED = Pinned(
    "locked",
    datetime(2026, 11, 22, 2, 0, 0, 123456, UTC),
    Meta(4096, 1 << 40, 2**40, 2**64 - 1, _TREE, _TREE),
    (Database(None, ("dupsort", "reversedup"), 3), Database(b'\xff\0\n"', (), 2**63)),
    2**40,
)


@pytest.mark.parametrize("directory", [b"/data", b'/caf\xe9 \xff\n"\\', b""])
@pytest.mark.parametrize("declared", [None, "frozen", "external"])
def test_a_request_arrives_as_it_was_sent(directory: bytes, declared: Declared | None) -> None:
    request = PinRequest(directory, declared, 0.15, 3600, 1 << 40)
    line = encode(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request
    assert line != COPY


@pytest.mark.parametrize("reply", [PINNED, Copied(), Failed("BusyError", b"/caf\xe9\n", b"")])
def test_a_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    line = encode(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


@pytest.mark.parametrize(
    "kind", [BusyError, FormatError, NotFoundError, PinGivenUpError, SnapshotChangedError, SourceError]
)
@pytest.mark.parametrize("hint", [None, "Look at caf\udce9."])
def test_an_error_is_raised_as_what_it_was(kind: type[ArchiverError], hint: str | None) -> None:
    path = Path(os.fsdecode(b"/caf\xe9 \xff"))
    reply = decode_reply(encode(Failed.of(kind(f"{path} is bad", hint=hint))))
    assert isinstance(reply, Failed)
    error = reply.error
    assert type(error) is kind
    assert (error.message, error.hint, error.exit_code) == (f"{path} is bad", hint, kind.exit_code)


def test_an_error_that_only_the_helper_knows_becomes_the_nearest() -> None:
    assert type(Failed.of(LockFileChangedError("x")).error) is SourceError


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"Segmentation fault\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"type": "Unknown"}\n',
        b'{"type": "Failed", "kind": "OSError", "message": "", "hint": ""}\n',
        b'{"type": "Failed", "kind": "BusyError", "message": "not base64!", "hint": ""}\n',
        encode(PINNED).replace(b'"locked"', b'"unlocked"'),
        encode(PINNED).replace(b'"dupsort"', b'"magic"'),
        encode(PINNED)[:-20] + b"\n",
        encode(PinRequest(b"/", None, 0, 0)),
    ],
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError, match="a helper process wrote what is no reply"):
        decode_reply(line)
