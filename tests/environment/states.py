"""Environments in states that doctor tells apart: read by another process, without duplicates, with a leaked page."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from tests.servers.process import REPOSITORY

PINNING = """
import sys
from pathlib import Path
from archiver.environment.reader import registered
with registered(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""
READING = """
import sys, lmdb
with lmdb.open(sys.argv[1], readonly=True, lib_version=0) as environment, environment.begin():
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def reader_process(program: str, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that reads ``directory``, by one of archiver's pins or through LMDB; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def leak_a_page(directory: Path) -> None:
    """Let the environment believe that it has one page more."""
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    for number in range(2):
        start = number * 4096 + 136
        last = int.from_bytes(content[start : start + 8], sys.byteorder)
        content[start : start + 8] = (last + 1).to_bytes(8, sys.byteorder)
    data.write_bytes(content + bytes(2 * 4096))


def make_plain_environment(directory: Path) -> Path:
    """One without duplicates, as Ucotron's are."""
    with lmdb.open(str(directory), map_size=1 << 26, lib_version=0) as environment:
        for number in range(20):
            with environment.begin(write=True) as transaction:
                transaction.put(b"%d" % (number % 7), b"%0*d" % (2000, number))
    return directory
