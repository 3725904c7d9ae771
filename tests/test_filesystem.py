"""What reading and restoring share: reaching paths without following links, and reading whole files and regions."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.filesystem import READ_SIZE, Beneath, advise, read_region


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/b/file").write_bytes(b"content")
    (tmp_path / "tree/top").write_bytes(b"top")
    (tmp_path / "tree/a/link").symlink_to("/no/where")
    (tmp_path / "tree/out").symlink_to(tmp_path / "outside")
    return tmp_path / "tree"


def read(beneath: Beneath, path: bytes) -> bytes:
    descriptor = beneath.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_paths_are_reached_in_any_order(root: Path) -> None:
    with Beneath(root) as beneath:
        for path, content in [(b"a/b/file", b"content"), (b"top", b"top"), (b"a/b/file", b"content")]:
            assert read(beneath, path) == content
            assert beneath.status(path).st_size == len(content)
        assert beneath.target(b"a/link") == b"/no/where"
        assert beneath.status(b"a/link").st_size == len("/no/where")


@pytest.mark.parametrize(
    "reach", [Beneath.status, Beneath.target, lambda beneath, path: beneath.open(path, os.O_RDONLY)]
)
def test_no_link_is_followed_on_the_way(root: Path, reach: Callable[[Beneath, bytes], object]) -> None:
    with Beneath(root) as beneath:
        with pytest.raises(NotADirectoryError):
            reach(beneath, b"out/secret")
        assert read(beneath, b"top") == b"top"


def test_no_link_is_opened(root: Path) -> None:
    (root / "direct").symlink_to(root / "top")
    with Beneath(root) as beneath, pytest.raises(OSError, match="symbolic links"):
        beneath.open(b"direct", os.O_RDONLY)


def test_nothing_stays_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Beneath(root) as beneath:
        beneath.status(b"a/b/file")
        with pytest.raises(FileNotFoundError):
            beneath.status(b"a/missing/file")
        with pytest.raises(FileNotFoundError):
            beneath.open(b"a/b/missing", os.O_RDONLY)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("length", [0, 1, READ_SIZE - 1, READ_SIZE, READ_SIZE + 1, 2 * READ_SIZE, 3 * READ_SIZE])
@pytest.mark.parametrize("offset", [0, 1, READ_SIZE])
def test_a_region_comes_in_buffers_of_one_frame(tmp_path: Path, offset: int, length: int) -> None:
    path = tmp_path / "file"
    content = os.urandom(2 * READ_SIZE + 7)
    path.write_bytes(content)
    with path.open("rb") as file:
        buffers = list(read_region(file.fileno(), offset, length))
    assert b"".join(buffers) == content[offset : offset + length]
    assert all(len(buffer) == READ_SIZE for buffer in buffers[:-1])


def test_advice_that_is_not_taken_is_no_error() -> None:
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            os.posix_fadvise(read_end, 0, 10, os.POSIX_FADV_WILLNEED)
        advise(read_end, 10, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(read_end)
        os.close(write_end)
