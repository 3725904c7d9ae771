"""Time passes in a SeaweedFS: what it holds gets older, and its lifecycle rules run when they are told to.

As a program it is the part that needs grpcio, in an environment of its own: it makes entries older, on request.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.installation import ensure_environment
from tests.servers.process import REPOSITORY, S3Server, ServerError
from tests.servers.seaweed import FILER, GRPC_SHADOW, install

REQUIREMENTS = ("grpcio==1.76.0",)
_MASTER = 1
"""How far above the port of S3 the master's is."""
_SHELL_SECONDS = 240
_RULES_SECONDS = 120
"""How long its rules may take: they end as soon as everything has been looked at, and say nothing of what they did not
get to."""
_ALL_CHANGES = 1_000_000_000
_DAY = 86_400
_UPLOADS = ".uploads"
_VERSIONS = ".versions"


def install_client() -> Path:
    """The ``bin`` directory of the environment that holds grpcio; made once."""
    return ensure_environment("grpc-venv", REQUIREMENTS)


@dataclass(frozen=True, slots=True)
class Time:
    """That of one bucket."""

    _bucket: str
    _port: int
    _ager: "subprocess.Popen[str]"

    def pass_days(self, days: int) -> int:
        """Make everything in the bucket so many days older; how many entries that were."""
        assert self._ager.stdin is not None
        assert self._ager.stdout is not None
        self._ager.stdin.write(json.dumps({"bucket": self._bucket, "days": days}) + "\n")
        self._ager.stdin.flush()
        answer = self._ager.stdout.readline()
        if not answer:
            raise ServerError("what makes entries of SeaweedFS older has failed; its errors are on standard error")
        return int(json.loads(answer))

    def run_rules(self) -> None:
        """Let the rules act on what is due."""
        gateway = f"127.0.0.1:{self._port + GRPC_SHADOW}"
        # It reads the filer's log of changes, from where it stopped: by default after a thousand of them.
        limits = f"-runtime {_RULES_SECONDS}s -events {_ALL_CHANGES}"
        command = f"s3.lifecycle.run-shard -shards 0-15 -s3 {gateway} {limits}\n"
        weed = [str(install() / "weed"), "shell", f"-master=127.0.0.1:{self._port + _MASTER}"]
        done = subprocess.run(
            weed, input=command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SHELL_SECONDS
        )
        if done.returncode or re.search(r"(?m)^error: ", done.stdout):
            raise ServerError(f"SeaweedFS could not run its rules:\n{done.stdout[-2000:]}")


@contextmanager
def time_of(server: S3Server, bucket: str) -> Iterator[Time]:
    """The time of ``bucket`` in the running SeaweedFS ``server``."""
    port = urlsplit(server.endpoint).port or 0
    python = str(install_client() / "python")
    command = [python, "-m", "tests.servers.seaweed_lifecycle", str(port + FILER + GRPC_SHADOW)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ager:
        try:
            yield Time(bucket, port, ager)
        finally:
            assert ager.stdin is not None
            ager.stdin.close()


def main(port: int) -> None:
    """Answer each line ``{"bucket": NAME, "days": NUMBER}`` with the number of entries that were made older."""
    import grpc  # type: ignore[import-not-found,import-untyped,unused-ignore]

    def same(message: bytes) -> bytes:
        return message

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        lister = channel.unary_stream("/filer_pb.SeaweedFiler/ListEntries", same, same)
        update = channel.unary_unary("/filer_pb.SeaweedFiler/UpdateEntry", same, same)

        def entries(directory: str) -> list[bytes]:
            request = _field(1, directory.encode()) + _field(5, 1_000_000)
            return [_first(response, 1) for response in lister(request)]

        def replace(directory: str, entry: bytes) -> None:
            update(_field(1, directory.encode()) + _field(2, entry))

        for line in sys.stdin:
            request = json.loads(line)
            count = _age(f"/buckets/{request['bucket']}", request["days"] * _DAY, entries, replace)
            sys.stdout.write(f"{count}\n")
            sys.stdout.flush()


def _age(
    directory: str, seconds: int, entries: Callable[[str], list[bytes]], replace: Callable[[str, bytes], None]
) -> int:
    """Everything below ``directory``: files, and the directories that stand for uploads and versions."""
    count = 0
    for entry in entries(directory):
        name = _first(entry, 1).decode()
        is_directory = any(number == 2 and value for number, value in _fields(entry))
        if is_directory:
            count += _age(f"{directory}/{name}", seconds, entries, replace)
        if not is_directory or _UPLOADS in directory or name.endswith(_VERSIONS):
            replace(directory, aged(entry, seconds))
            count += 1
    return count


def aged(entry: bytes, seconds: int) -> bytes:
    """The filer's ``Entry`` (weed/pb/filer.proto), made and changed so much earlier."""
    return b"".join(
        _field(number, _aged_attributes(value, seconds) if number == 4 and isinstance(value, bytes) else value)
        for number, value in _fields(entry)
    )


def _aged_attributes(attributes: bytes, seconds: int) -> bytes:
    """The same for its ``FuseAttributes``, where mtime is 2 and crtime is 6."""
    return b"".join(
        _field(number, value - seconds if number in (2, 6) and isinstance(value, int) else value)
        for number, value in _fields(attributes)
    )


def _first(message: bytes, wanted: int) -> bytes:
    return next((value for number, value in _fields(message) if number == wanted and isinstance(value, bytes)), b"")


def _fields(message: bytes) -> Iterator[tuple[int, "_Value"]]:
    """Number and value of each field of a message of Protocol Buffers."""
    position = 0
    while position < len(message):
        tag, position = _read_number(message, position)
        value: _Value
        match tag & 7:
            case 0:
                value, position = _read_number(message, position)
            case 2:
                length, position = _read_number(message, position)
                value, position = message[position : position + length], position + length
            case 1 | 5 as kind:
                width = 8 if kind == 1 else 4
                value, position = _Fixed(message[position : position + width]), position + width
            case kind:
                raise ValueError(f"unknown wire type {kind}")
        yield tag >> 3, value


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A value of four or eight bytes."""

    data: bytes


_Value = int | bytes | _Fixed


def _field(number: int, value: _Value) -> bytes:
    match value:
        case int():
            return _number(number << 3) + _number(value)
        case _Fixed(data):
            return _number(number << 3 | (1 if len(data) == 8 else 5)) + data
        case bytes():
            return _number(number << 3 | 2) + _number(len(value)) + value


def _read_number(message: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _number(value: int) -> bytes:
    value &= (1 << 64) - 1
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


if __name__ == "__main__":
    main(int(sys.argv[1]))
