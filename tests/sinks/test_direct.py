"""Direct writes: whole pages only, the same bytes whichever way they go, and no failure without them."""

import ctypes
import errno
import mmap
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import TargetError
from archiver.sinks import direct
from archiver.sinks.direct import DirectFile, whole_pages
from archiver.sinks.files import StagedFile
from tests.environment.live import open_descriptors

KIB = 1024
MIB = 1024 * KIB


class Kernel:
    """The real system calls, which notes the direct ones and lets chosen ones fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.descriptors: list[int] = []
        self.opened = 0
        self.written: list[tuple[int, int]] = []
        self.fail_open: OSError | None = None
        self.fail_write: Callable[[int], OSError | None] = lambda _: None
        self.shorten: int | None = None
        self._open, self._pwrite = os.open, os.pwrite
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if not flags & os.O_DIRECT:
            return self._open(path, flags, mode, dir_fd=dir_fd)
        self.opened += 1
        if self.fail_open:
            raise self.fail_open
        self.descriptors.append(self._open(path, flags, mode, dir_fd=dir_fd))
        return self.descriptors[-1]

    def pwrite(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        if descriptor not in self.descriptors:
            return self._pwrite(descriptor, buffer, offset)
        error = self.fail_write(len(self.written))
        self.written.append((offset, len(buffer)))
        if error is not None:
            raise error
        return self._pwrite(descriptor, buffer[: self.shorten], offset)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT))
    except OSError:
        pytest.skip("this file system has no direct writes")
    return Kernel(monkeypatch)


def written(path: Path, pieces: list[tuple[int, bytes]], size: int, threads: int = 1) -> bytes:
    """What is in a staged file after ``pieces`` were written to it."""
    before = open_descriptors()
    with StagedFile(path, size) as file, ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(file.write_at, *piece) for piece in pieces]:
            done.result()
    assert open_descriptors() == before
    return path.read_bytes()


@given(st.integers(0, 1 << 34), st.integers(0, 16 * MIB))
def test_whole_pages(offset: int, length: int) -> None:
    start, end = whole_pages(offset, length)
    assert 0 <= start <= end <= length
    if end:
        assert (offset + start) % 4096 == (offset + end) % 4096 == 0
        assert start < direct._ALIGNMENT
        assert length - end < direct._ALIGNMENT
        assert end - start >= direct._WORTHWHILE
    else:
        assert length < direct._WORTHWHILE + 2 * direct._ALIGNMENT


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 4 * MIB, [(0, 4 * MIB)]),
        (0, 9 * MIB, [(0, 4 * MIB), (4 * MIB, 4 * MIB), (8 * MIB, MIB)]),
        (100, MIB, [(direct._ALIGNMENT, MIB - direct._ALIGNMENT)]),
        (0, MIB + 1, [(0, MIB)]),
        (0, direct._WORTHWHILE - 1, []),
        (0, 1, []),
    ],
)
def test_large_stretches_go_past_the_page_cache(
    tmp_path: Path, kernel: Kernel, offset: int, length: int, expected: list[tuple[int, int]]
) -> None:
    content = random.Random(1).randbytes(length)
    assert written(tmp_path / "file", [(offset, content)], offset + length) == bytes(offset) + content
    assert kernel.written == expected
    assert kernel.opened == bool(expected)


def test_pieces_that_meet_anywhere_from_several_threads(tmp_path: Path, kernel: Kernel) -> None:
    chance = random.Random(2)
    content = bytearray(chance.randbytes(40 * MIB))
    for _ in range(20):
        start, length = chance.randrange(len(content) - MIB), chance.randrange(MIB)
        content[start : start + length] = bytes(length)
    size = len(content)
    cuts = sorted({0, size, *(chance.randrange(size) for _ in range(40)), *range(0, size, 4 * MIB)})
    pieces = [(start, bytes(content[start:end])) for start, end in pairwise(cuts)]
    chance.shuffle(pieces)
    assert written(tmp_path / "file", pieces, size, threads=4) == content
    assert sum(length for _, length in kernel.written) > size // 2


def test_holes_stay_holes_between_direct_writes(tmp_path: Path, kernel: Kernel) -> None:
    content = bytes(MIB) + b"x" * MIB + bytes(2 * MIB) + b"y" * MIB
    assert written(tmp_path / "file", [(0, content)], len(content) + MIB) == content + bytes(MIB)
    assert kernel.written == [(MIB, MIB), (4 * MIB, MIB)]
    assert (tmp_path / "file").stat().st_blocks * 512 <= 2 * MIB + 64 * KIB


def test_what_is_read_back_is_what_was_written(tmp_path: Path, kernel: Kernel) -> None:
    content = random.Random(3).randbytes(2 * MIB + 5)
    with StagedFile(tmp_path / "file", len(content)) as file:
        file.write_at(MIB + 7, content[MIB + 7 :])
        file.write_at(0, content[: MIB + 7])
        file.finish(blake3(content).hexdigest())
    assert len(kernel.written) == 2


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_refuses_the_first_write_is_asked_once(tmp_path: Path, kernel: Kernel, code: int) -> None:
    kernel.fail_write = lambda _: OSError(code, os.strerror(code))
    content = random.Random(4).randbytes(12 * MIB)
    pieces = [(start, content[start : start + 4 * MIB]) for start in range(0, len(content), 4 * MIB)]
    assert written(tmp_path / "file", pieces, len(content)) == content
    assert kernel.written == [(0, 4 * MIB)]


def test_a_file_system_that_refuses_to_open_is_asked_once(tmp_path: Path, kernel: Kernel) -> None:
    kernel.fail_open = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    content = random.Random(5).randbytes(2 * MIB)
    assert written(tmp_path / "file", [(MIB, content[MIB:]), (0, content[:MIB])], len(content)) == content
    assert (kernel.opened, kernel.written) == (1, [])


def test_what_a_refusal_in_the_middle_leaves_is_written_the_usual_way(tmp_path: Path, kernel: Kernel) -> None:
    kernel.fail_write = lambda count: OSError(errno.EINVAL, "no") if count else None
    content = random.Random(6).randbytes(9 * MIB)
    assert written(tmp_path / "file", [(0, content)], len(content)) == content
    assert kernel.written == [(0, 4 * MIB), (4 * MIB, 4 * MIB)]


def test_short_writes_are_continued(tmp_path: Path, kernel: Kernel) -> None:
    kernel.shorten = 256 * KIB
    content = random.Random(7).randbytes(MIB)
    assert written(tmp_path / "file", [(0, content)], len(content)) == content
    assert len(kernel.written) == 4


def test_a_full_disk_is_no_reason_to_try_another_way(tmp_path: Path, kernel: Kernel) -> None:
    kernel.fail_write = lambda _: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        StagedFile(tmp_path / "file", MIB) as file,
        pytest.raises(TargetError, match="file: cannot be written: no space left on device"),
    ):
        file.write_at(0, b"x" * MIB)
    assert len(kernel.written) == 1


def test_nothing_is_left_in_the_page_cache(tmp_path: Path, kernel: Kernel) -> None:
    content = random.Random(8).randbytes(8 * MIB)
    with (tmp_path / "file").open("w+b") as usual:
        file = DirectFile(usual.fileno(), len(content))
        assert file.write(memoryview(content), 0) == len(content)
        file.close()
        assert len(kernel.written) == 2
        assert resident(usual.fileno(), len(content)) == 0
        assert usual.read() == content
        assert resident(usual.fileno(), len(content)) > 0


def resident(descriptor: int, size: int) -> int:
    """How many pages of a file are in the page cache; ``mincore`` of a map of it."""
    library = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(descriptor, size) as pages:
        residency = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert library.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), residency) == 0, ctypes.get_errno()
        return sum(byte & 1 for byte in residency)
