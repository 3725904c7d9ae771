"""The stream of a compact copy: its buffers, its ends, and that it leaves nothing behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import lmdb
import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.pinning import pinned
from archiver.environment.snapshot import Snapshot, pin
from archiver.errors import FormatError, SnapshotChangedError, SourceError
from tests.environment.damage import crash_lmdb
from tests.environment.live import locker, make_environment, writer
from tests.environment.traces import nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.waiting import wait_until

PAGE = 4096


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment", entries=4000, value_size=300)


@pytest.mark.parametrize("size", [1000, PAGE, 2 * PAGE, 2 * PAGE + 1, 1 << 20, 16 << 20])
def test_buffers_are_full_and_new(directory: Path, size: int) -> None:
    with pin(directory, name="x") as snapshot:
        buffers = list(copy_stream(snapshot, size))
    assert all(len(buffer) == size for buffer in buffers[:-1])
    assert 0 < len(buffers[-1]) <= size
    assert sum(map(len, buffers)) == snapshot.estimated_copy_size
    with pin(directory, name="x") as again:
        assert b"".join(buffers) == b"".join(copy_stream(again, 1 << 20))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closed_early(directory: Path, taken: int) -> None:
    with pin(directory, name="x") as snapshot:
        stream = copy_stream(snapshot, 64 * 1024)
        for _ in range(taken):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        snapshot.release()
        assert snapshot.helper._process.poll() is not None
        snapshot.release()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_consumer_that_fails(directory: Path, error: type[BaseException]) -> None:
    def consume(snapshot: Snapshot) -> None:
        for number, _ in enumerate(copy_stream(snapshot, 64 * 1024)):
            if number == 2:
                raise error

    with pytest.raises(error), pin(directory, name="x") as snapshot:
        consume(snapshot)


def test_a_snapshot_is_copied_once(directory: Path) -> None:
    with pin(directory, name="x") as snapshot:
        list(copy_stream(snapshot, 1 << 20))
        with pytest.raises(AssertionError, match="copied once"):
            next(copy_stream(snapshot, 1 << 20))
    with pytest.raises(AssertionError, match="not after it was released"):
        next(copy_stream(snapshot, 1 << 20))


def test_the_pin_ends_with_the_reading_whenever_the_last_buffer_is_taken(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    with (
        HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=500, index_size=50_000),
        pin(directory, name="x") as snapshot,
    ):
        assert len(pins(directory)) == 1
        first_size = snapshot.estimated_copy_size // 2 + PAGE
        stream = copy_stream(snapshot, first_size)
        next(stream)
        # What is left fits into the pipe.
        wait_until(lambda: not pins(directory))
        assert snapshot.helper._process.poll() is None
        assert sum(map(len, stream)) == snapshot.estimated_copy_size - first_size


def test_leaked_pages_are_named_as_such(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    for number in range(2):
        start = number * PAGE + 136
        last = int.from_bytes(content[start : start + 8], sys.byteorder)
        content[start : start + 8] = (last + 1).to_bytes(8, sys.byteorder)
    data.write_bytes(content + bytes(2 * PAGE))
    with (
        pin(directory, name="x") as snapshot,
        pytest.raises(SourceError, match="neither in use nor free") as refusal,
    ):
        list(copy_stream(snapshot, 1 << 20))
    assert "mdb_dump" in (refusal.value.hint or "")


def test_corruption_deep_in_the_tree_is_a_typed_error(directory: Path) -> None:
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    with pin(directory, name="x") as snapshot:
        root = snapshot.meta.main.root
    for start in range(2 * PAGE, len(content), PAGE):
        if start != root * PAGE:
            # The page type: a page that is neither branch nor leaf cannot be walked.
            content[start + 10 : start + 12] = b"\0\0"
    data.write_bytes(content)
    with pytest.raises(FormatError, match="is corrupt"), pin(directory, name="x") as snapshot:
        list(copy_stream(snapshot, 1 << 20))


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_tree_that_never_ends_is_cut_off(tmp_path: Path, size: int) -> None:
    data = make_bomb(tmp_path)
    copied = 0

    def consume(snapshot: Snapshot) -> None:
        nonlocal copied
        for buffer in copy_stream(snapshot, size):
            copied += len(buffer)

    with (
        pytest.raises(FormatError, match=r"is corrupt: expected a copy of at most \d+ bytes, got more"),
        pin(tmp_path, name="x") as snapshot,
    ):
        consume(snapshot)
    assert data.stat().st_size - size < copied <= data.stat().st_size


def test_a_copy_that_grew_because_somebody_wrote_is_not_called_damage(tmp_path: Path) -> None:
    make_bomb(tmp_path)
    with (
        pin(tmp_path, name="x") as snapshot,
        locker(tmp_path, "shared"),
        pytest.raises(SnapshotChangedError, match="was opened by another process"),
    ):
        list(copy_stream(snapshot, 1 << 20))


def make_bomb(directory: Path) -> Path:
    """A data file in which each of many keys leads to the one long value: a copy would have hundreds of times."""
    with (
        lmdb.open(str(directory), map_size=1 << 26, lib_version=0) as environment,
        environment.begin(write=True) as transaction,
    ):
        for number in range(500):
            transaction.put(b"%08d" % number, bytes(3000))
        transaction.put(b"long", bytes(4 << 20))
    data = directory / "data.mdb"
    content = bytearray(data.read_bytes())
    long_node = content.index(b"long") - 8
    for number in range(500):
        node = content.rindex(b"%08d" % number) - 8
        content[node + 16 : node + 24] = content[long_node + 12 : long_node + 20]
    data.write_bytes(content)
    return data


@pytest.mark.parametrize("live", [False, True])
def test_damage_that_kills_lmdb_is_a_typed_error(directory: Path, live: bool) -> None:
    with ExitStack() as resources:
        if live:
            resources.enter_context(writer(directory))
        crash_lmdb(directory / "data.mdb")
        check_crash(directory, "locked" if live else "cold")


def check_crash(directory: Path, method: str) -> None:
    with (
        pytest.raises(FormatError, match=r"environment is corrupt.* LMDB was ended by SIG(BUS|SEGV)$") as refusal,
        pin(directory, name="x") as snapshot,
    ):
        assert snapshot.method == method
        list(copy_stream(snapshot, 1 << 20))
    assert "restore this environment" in (refusal.value.hint or "")


def test_anonymous_memory_stays_flat(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment", entries=6000, value_size=3000)
    assert (directory / "data.mdb").stat().st_size > 80 << 20
    program = (
        "import os, sys; from pathlib import Path\n"
        "from archiver.environment.copying import copy_stream\n"
        "from archiver.environment.snapshot import pin\n"
        "from tests.environment.traces import children\n"
        "def anonymous(pid): return int(open(f'/proc/{pid}/status').read().split('RssAnon:')[1].split()[0])\n"
        "def both(): return sum(map(anonymous, [os.getpid(), *children()]))\n"
        "with pin(Path(sys.argv[1]), name='x') as snapshot:\n"
        "    assert len(children()) == 1\n"
        "    before = peak = both()\n"
        "    for buffer in copy_stream(snapshot, 4 << 20): peak = max(peak, both())\n"
        "print(peak - before)"
    )
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-c", program, str(directory)]
    answer = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 20 * 1024


def test_a_write_error_of_the_system_is_a_source_error(directory: Path) -> None:
    read_only = os.open("/dev/null", os.O_RDONLY)
    try:
        with (
            pinned(directory, None) as environment,
            pytest.raises(SourceError, match=r"cannot read .*: .*Bad file descriptor"),
        ):
            environment.copy_to(read_only)
    finally:
        os.close(read_only)


def test_of_what_the_lmdb_in_the_wheel_cannot_copy_it_is_said_that_it_may_be_sound(tmp_path: Path) -> None:
    """mdb_env_cwalk of LMDB 0.9.36 takes the pages of duplicates of one size for others; stock mdb_copy 0.9.24 copies
    this file. When this fails, the wheel has a version that can: remove what tells of it."""
    numbers = Random(4)
    with lmdb.open(str(tmp_path), map_size=1 << 27, max_dbs=1, lib_version=0) as environment:
        database = environment.open_db(b"fixed", dupsort=True, dupfixed=True)
        with environment.begin(write=True, db=database) as transaction:
            for _ in range(12_000):
                transaction.put(b"%03d" % numbers.randrange(30), numbers.randbytes(8))
    with pin(tmp_path, name="x") as snapshot, pytest.raises(FormatError, match="LMDB was ended by") as caught:
        for _ in copy_stream(snapshot, 1 << 20):
            pass
    assert "DUPFIXED" in (caught.value.hint or "")
