"""The stream of a compact copy: its buffers, its ends, and that it leaves nothing behind."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import Snapshot, pin
from archiver.errors import FormatError, SourceError
from tests.environment.live import make_environment, open_descriptors

PAGE = 4096


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Snapshot]:
    with pin(make_environment(tmp_path / "environment", entries=4000, value_size=300), name="x") as pinned:
        yield pinned


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [1000, PAGE, 2 * PAGE, 2 * PAGE + 1, 1 << 20, 16 << 20])
def test_buffers_are_full_and_new(snapshot: Snapshot, size: int) -> None:
    descriptors = open_descriptors()
    buffers = list(copy_stream(snapshot, size))
    assert all(len(buffer) == size for buffer in buffers[:-1])
    assert 0 < len(buffers[-1]) <= size
    assert sum(map(len, buffers)) == snapshot.estimated_copy_size
    assert b"".join(buffers) == b"".join(copy_stream(snapshot, 1 << 20))
    assert open_descriptors() == descriptors


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closed_early(snapshot: Snapshot, taken: int) -> None:
    descriptors = open_descriptors()
    stream = copy_stream(snapshot, 64 * 1024)
    for _ in range(taken):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert open_descriptors() == descriptors
    assert threading.active_count() == 1 or "archiver-copy" not in {thread.name for thread in threading.enumerate()}
    assert len(b"".join(copy_stream(snapshot, 1 << 20))) == snapshot.estimated_copy_size


def test_a_consumer_that_fails(snapshot: Snapshot) -> None:
    descriptors = open_descriptors()

    def consume() -> None:
        for number, _ in enumerate(copy_stream(snapshot, 64 * 1024)):
            if number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert open_descriptors() == descriptors


def test_leaked_pages_are_named_as_such(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    for number in range(2):
        start = number * PAGE + 136
        last = int.from_bytes(content[start : start + 8], sys.byteorder)
        content[start : start + 8] = (last + 1).to_bytes(8, sys.byteorder)
    data.write_bytes(content + bytes(2 * PAGE))
    descriptors = open_descriptors()
    with (
        pin(directory, name="x") as snapshot,
        pytest.raises(SourceError, match="neither in use nor free") as refusal,
    ):
        list(copy_stream(snapshot, 1 << 20))
    assert "mdb_dump" in (refusal.value.hint or "")
    assert open_descriptors() == descriptors


def test_corruption_deep_in_the_tree_is_a_typed_error(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment", entries=4000)
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    with pin(directory, name="x") as snapshot:
        root = snapshot.meta.main.root
    for start in range(2 * PAGE, len(content), PAGE):
        if start != root * PAGE:
            # The page type: a page that is neither branch nor leaf cannot be walked.
            content[start + 10 : start + 12] = b"\0\0"
    data.write_bytes(content)
    with pin(directory, name="x") as snapshot, pytest.raises((FormatError, SourceError)):
        list(copy_stream(snapshot, 1 << 20))


def test_anonymous_memory_stays_flat(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment", entries=6000, value_size=3000)
    assert (directory / "data.mdb").stat().st_size > 80 << 20
    program = (
        "import sys; from pathlib import Path\n"
        "from archiver.environment.copying import copy_stream\n"
        "from archiver.environment.snapshot import pin\n"
        "def anonymous(): return int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0])\n"
        "with pin(Path(sys.argv[1]), name='x') as snapshot:\n"
        "    before = peak = anonymous()\n"
        "    for buffer in copy_stream(snapshot, 4 << 20): peak = max(peak, anonymous())\n"
        "print(peak - before)"
    )
    answer = subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 20 * 1024


def test_a_write_error_of_the_system_is_a_source_error(snapshot: Snapshot) -> None:
    read_only = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(SourceError, match=r"cannot read .*: .*Bad file descriptor"):
            snapshot.copy_to(read_only)
    finally:
        os.close(read_only)
