"""The spool: order, bounds of memory and disk, full disks, and an end to everybody who waits."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import IntegrityError, StorageError
from archiver.parallel import FeedAbortedError
from archiver.stores.spool import Spool, SpoolQueue
from archiver.stores.spool_file import SpoolFile
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE, wait_until

PART = 4096


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def small_spool(directory: Path, *, memory: int = 2 * PART, disk: int = 4 * PART) -> Spool:
    return Spool(directory, part_size=PART, limit=disk, memory=memory)


def parts(count: int, *, size: int = PART) -> list[bytes]:
    return [Random(number).randbytes(size) for number in range(count)]


def beside(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def open_files(directory: Path) -> list[int]:
    """The descriptors of this process on nameless files in ``directory``."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/") and target.endswith("(deleted)"):
            found.append(int(name))
    return found


def test_parts_come_in_order_from_memory_and_from_disk(tmp_path: Path) -> None:
    data = [*parts(6), b"the last one is short"]
    with small_spool(tmp_path, disk=8 * PART) as spool:
        queue = spool.queue()
        for part in data:
            queue.put(part)
        (descriptor,) = open_files(tmp_path)
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        assert os.fstat(descriptor).st_nlink == 0
        queue.end()
        assert [bytes(part) for part in queue] == data
        assert queue.drained
        # What was read is given back.
        assert os.fstat(descriptor).st_size == 0
        assert spool.waiting == 0
    assert open_files(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_what_fits_in_memory_touches_no_disk(tmp_path: Path) -> None:
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        for part in parts(2):
            queue.put(part)
        assert open_files(tmp_path) == []
        assert spool.waiting == 2 * PART


def test_small_parts_share_the_room_of_a_large_one(tmp_path: Path) -> None:
    with small_spool(tmp_path, disk=0) as spool:
        queue = spool.queue()
        for part in parts(2 * PART // 16, size=16):
            queue.put(part)
        assert spool.waiting == 2 * PART


def test_a_part_passes_even_if_it_is_larger_than_all_memory(tmp_path: Path) -> None:
    with small_spool(tmp_path, memory=1, disk=0) as spool:
        queue = spool.queue()
        for data in parts(3):
            queue.put(data)
            assert next(queue) == data


def test_a_part_that_is_larger_than_a_slot_waits_for_memory(tmp_path: Path) -> None:
    large = Random(1).randbytes(PART + 1)
    with small_spool(tmp_path, memory=PART) as spool:
        queue = spool.queue()
        queue.put(b"in the way")
        producer = beside(lambda: queue.put(large))
        time.sleep(0.05)
        assert producer.is_alive()
        assert next(queue) == b"in the way"
        assert next(queue) == large
        producer.join()


def test_who_puts_more_than_there_is_room_for_waits_until_something_is_taken(tmp_path: Path) -> None:
    data = parts(7)
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        for part in data[:6]:
            queue.put(part)
        producer = beside(lambda: queue.put(data[6]))
        time.sleep(0.05)
        assert producer.is_alive()
        assert spool.waiting == 6 * PART
        assert next(queue) == data[0]
        producer.join()
        queue.end()
        assert [bytes(part) for part in queue] == data[1:]


def test_nobody_gets_a_part_before_the_queues_before_are_drained(tmp_path: Path) -> None:
    """Each consumer that had one in its hands while its store is busy would be a part's memory."""
    got: list[bytes] = []
    with small_spool(tmp_path) as spool:
        first = spool.queue()
        first.put(b"first")
        first.end()
        second = spool.queue()
        second.put(b"second")
        second.end()
        consumer = beside(lambda: got.extend(bytes(part) for part in second))
        time.sleep(0.05)
        assert got == []
        assert next(first) == b"first"
        time.sleep(0.05)
        assert got == []
        assert next(first, None) is None
        consumer.join(PATIENCE)
        assert got == [b"second"]
        # Asked again, they say the same.
        assert [next(first, None), next(second, None)] == [None, None]


def test_an_empty_queue_ends(tmp_path: Path) -> None:
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        queue.end()
        assert list(queue) == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    memory=st.integers(0, 3 * PART),
    slots=st.integers(0, 5),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4),
)
def test_any_schedule_of_producers_and_consumers_delivers_everything_within_bounds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, memory: int, slots: int, counts: list[int]
) -> None:
    chance = Random(seed)
    data = [[chance.randbytes(chance.choice([1, 7, PART - 1, PART])) for _ in range(count)] for count in counts]
    most = 0
    with small_spool(tmp_path_factory.mktemp("spool"), memory=memory, disk=slots * PART) as spool:
        queues: SimpleQueue[SpoolQueue] = SimpleQueue()

        def produce() -> None:
            nonlocal most
            for sent in data:
                queue = spool.queue()
                queues.put(queue)
                for part in sent:
                    time.sleep(chance.choice([0, 0, 0.001]))
                    queue.put(part)
                    most = max(most, spool.waiting)
                queue.end()

        def consume(queue: SpoolQueue, received: list[bytes], pause: Random) -> None:
            for part in queue:
                time.sleep(pause.choice([0, 0, 0.001]))
                received.append(bytes(part))

        received: list[list[bytes]] = [[] for _ in data]
        threads = [beside(produce)]
        for number, got in enumerate(received):
            threads.append(beside(partial(consume, queues.get(timeout=PATIENCE), got, Random(seed + number))))
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert received == data
        assert spool.waiting == 0
    assert most <= max(memory, PART) + slots * PART


def test_a_failed_spool_ends_everybody_who_waits(tmp_path: Path) -> None:
    error = StorageError("the network is gone")
    ends: list[BaseException] = []

    def noted(action: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                action()
            except (StorageError, FeedAbortedError) as caught:
                ends.append(caught)

        return run

    with small_spool(tmp_path, disk=0) as spool:
        full, later = spool.queue(), spool.queue()
        for part in parts(2):
            full.put(part)
        threads = [beside(noted(lambda: full.put(b"more"))), beside(noted(lambda: next(later)))]
        time.sleep(0.05)
        assert ends == []
        spool.fail(error)
        spool.fail(StorageError("a later one"))
        for thread in threads:
            thread.join(PATIENCE)
        assert {type(end) for end in ends} == {StorageError, FeedAbortedError}
        assert error in ends
        # What is there is not all, and must not look so.
        full.end()
        with pytest.raises(FeedAbortedError):
            next(full)
        with pytest.raises(StorageError, match="the network is gone"):
            spool.queue().put(b"x")


def test_a_queue_that_is_given_up_takes_nobody_with_it(tmp_path: Path) -> None:
    data = parts(6)
    with small_spool(tmp_path) as spool:
        bad = spool.queue()
        for part in data:
            bad.put(part)
        assert next(bad) == data[0]
        bad.fail()
        with pytest.raises(FeedAbortedError):
            next(bad)
        assert bad.failed
        assert not bad.drained
        # Its places are free again.
        assert spool.waiting == 0
        good = spool.queue()
        for part in data:
            good.put(part)
        good.end()
        assert [bytes(part) for part in good] == data


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_no_more_means_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    refused = 0
    write = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal refused
        # Half of the part fits.
        if offset % PART == 0 and refused < 3:
            return write(descriptor, data[: PART // 2], offset)
        if refused < 3:
            refused += 1
            raise OSError(code, os.strerror(code))
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    data = parts(12)
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        queue.put(data[0])
        queue.put(data[1])
        assert not queue.drained

        def produce() -> None:
            for part in data[2:]:
                queue.put(part)
            queue.end()

        producer = beside(produce)
        wait_until(lambda: refused == 1)
        time.sleep(0.05)
        # It does not try again and again while nothing has changed.
        assert refused == 1
        assert spool.waiting == 2 * PART
        assert [bytes(part) for part in queue] == data
        producer.join()
    assert refused == 3


def test_a_directory_that_takes_no_file_leaves_memory(tmp_path: Path) -> None:
    data = parts(4)
    with small_spool(tmp_path / "missing") as spool:
        queue = spool.queue()

        def produce() -> None:
            for part in data:
                queue.put(part)
            queue.end()

        producer = beside(produce)
        wait_until(lambda: spool.waiting == 2 * PART)
        time.sleep(0.02)
        assert spool.waiting == 2 * PART
        assert [bytes(part) for part in queue] == data
        producer.join()


def test_a_real_full_disk_means_to_wait(tmp_path: Path) -> None:
    """By the limit of a file's size: the kernel writes what fits, then refuses."""
    code = f"""
import resource, signal, sys, threading
from pathlib import Path
from archiver.stores.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({2 * PART + PART // 2},) * 2)
data = [bytes([number]) * {PART} for number in range(20)]
with Spool(Path(sys.argv[1]), part_size={PART}, limit={100 * PART}, memory={PART}) as spool:
    queue = spool.queue()
    most = 0
    def produce():
        global most
        for part in data:
            queue.put(part)
            most = max(most, spool.waiting)
        queue.end()
    producer = threading.Thread(target=produce)
    producer.start()
    while spool.waiting < {3 * PART}:
        pass
    assert [bytes(part) for part in queue] == data
    producer.join()
assert most == {3 * PART}, most
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["altered", "cut off"])
def test_what_the_disk_gives_back_is_checked(tmp_path: Path, kind: str) -> None:
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        for part in parts(3):
            queue.put(part)
        (descriptor,) = open_files(tmp_path)
        if kind == "altered":
            os.pwrite(descriptor, bytes([os.pread(descriptor, 1, 100)[0] ^ 1]), 100)
        else:
            os.ftruncate(descriptor, PART - 1)
        next(queue)
        next(queue)
        with pytest.raises(IntegrityError, match="not what was written there"):
            next(queue)


def test_a_disk_that_cannot_be_read_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", preadv)
    with small_spool(tmp_path, memory=0) as spool:
        queue = spool.queue()
        queue.put(b"in memory")
        queue.put(b"on disk")
        assert next(queue) == b"in memory"
        with pytest.raises(StorageError, match=r"cannot read back what waited in .*: input/output error"):
            next(queue)


class Disk:
    """What statvfs says of a file system on which ``file`` alone grows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, total: int, others: int) -> None:
        self.taken = 0
        self._total = total
        self._others = others
        monkeypatch.setattr(os, "fstatvfs", self._status)

    def _status(self, _: int) -> os.statvfs_result:
        free = self._total - self._others - self.taken
        return os.statvfs_result((PART, PART, self._total, free, free, 0, 0, 0, 0, 255))


@pytest.mark.parametrize(
    ("total", "others", "reserve", "expected"),
    [(100, 0, 0.0, 50), (100, 60, 0.0, 20), (100, 60, 0.3, 10), (100, 75, 0.3, 0), (100, 100, 0.0, 0)],
)
def test_half_of_the_free_disk_and_the_reserve_stay_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, others: int, reserve: float, expected: int
) -> None:
    disk = Disk(monkeypatch, total=total, others=others)
    file = SpoolFile(tmp_path, slot_size=PART, limit=1000 * PART, reserve=reserve)
    while file.take(PART) is not None:
        disk.taken += 1
    file.close()
    assert disk.taken == expected


def test_slots_are_used_again_the_lowest_first(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path, slot_size=PART, limit=4 * PART + 1, reserve=0.0)
    assert [file.take(PART) for _ in range(5)] == [0, 1, 2, 3, None]
    for number in (2, 0, 3):
        file.free(number)
    assert [file.take(1) for _ in range(4)] == [0, 2, 3, None]
    file.close()


def test_a_file_system_without_nameless_files_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    data = parts(6)
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        for part in data:
            queue.put(part)
        assert list(tmp_path.iterdir()) == []
        (descriptor,) = open_files(tmp_path)
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        queue.end()
        assert [bytes(part) for part in queue] == data


def test_nothing_is_left_on_disk_by_a_kill(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from archiver.stores.spool import Spool
with Spool(Path(sys.argv[1]), part_size={PART}, limit={8 * PART}, memory=0) as spool:
    queue = spool.queue()
    for _ in range(8):
        queue.put(bytes({PART}))
    assert any(os.readlink(f"/proc/self/fd/{{name}}").startswith(sys.argv[1]) for name in ("3", "4", "5"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_taken_part_is_held_by_nobody_here(tmp_path: Path) -> None:
    """A part of 16 MiB that a queue kept for the next round would be that much memory for each open object."""
    with small_spool(tmp_path) as spool:
        queue = spool.queue()
        queue.put(bytearray(PART))
        part = next(queue)
        assert sys.getrefcount(part) == 2
