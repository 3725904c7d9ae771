"""Meta pages: what is read from them, and which file is refused with which words."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.environment.meta import META_SIZE, newest, opening_hint, parse_meta, read_meta, read_metas
from archiver.errors import FormatError, NotFoundError
from tests.environment.live import make_environment
from tests.waiting import PATIENCE

PAGE = 4096


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment", entries=20) / "data.mdb"


def patch(data: Path, offset: int, replacement: bytes) -> None:
    with data.open("r+b") as file:
        file.seek(offset)
        file.write(replacement)


def word(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, sys.byteorder)


def test_agrees_with_lmdb(data: Path) -> None:
    meta = read_meta(data)
    with lmdb.open(str(data), subdir=False, readonly=True, lock=False, map_size=0, lib_version=0) as environment:
        info, status = environment.info(), environment.stat()
    assert (meta.txnid, meta.last_page, meta.map_size) == (info["last_txnid"], info["last_pgno"], info["map_size"])
    assert (meta.page_size, meta.main.entries, meta.main.depth) == (PAGE, status["entries"], status["depth"])
    assert meta.size == data.stat().st_size


def test_the_newest_of_both_commits_counts(data: Path) -> None:
    even, odd = read_metas(data)
    assert (even.txnid % 2, odd.txnid % 2, abs(even.txnid - odd.txnid)) == (0, 1, 1)
    assert newest((even, odd)).txnid == max(even.txnid, odd.txnid)
    assert newest((even, even)) is even


@pytest.mark.parametrize("size", [0, 1, 16, 151, 152, PAGE, PAGE + 100])
def test_a_file_cut_within_its_meta_pages(data: Path, size: int) -> None:
    with data.open("r+b") as file:
        file.truncate(size)
    with pytest.raises(FormatError, match=r"empty|truncated") as refusal:
        read_meta(data)
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (16, b"SQLi", "not an LMDB data file: LMDB's magic number is missing at byte 16"),
        (16, word(0xBEEFC0DE)[::-1], "other byte order"),
        (PAGE + 16, b"SQLi", "meta page 1 of .* is corrupt: LMDB's magic"),
        (20, word(999), "data version 999, expected 1"),
        (10, word(2, 2), "meta page 0 .* flags 0x2,"),
        (40, word(5000), "page size 5000"),
        (40, word(128), "page size 128"),
        (40, word(0), "page size 0"),
        (40, word(1 << 16), "page size 65536"),
        (PAGE + 40, word(8192), "disagree on the page size: 4096 and 8192"),
        (136, word(0, 8), "last page 0"),
    ],
)
def test_a_corrupt_meta_page(data: Path, offset: int, replacement: bytes, message: str) -> None:
    patch(data, offset, replacement)
    with pytest.raises(FormatError, match=message):
        read_meta(data)


def test_lmdb_1_0_is_recognised(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lib_version=1) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    with pytest.raises(FormatError, match=r"format of LMDB 1\.0 \(data version 3\)"):
        read_meta(tmp_path / "data.mdb")


def test_a_32_bit_file_is_recognised(data: Path) -> None:
    data.write_bytes(data.read_bytes()[4:])
    with pytest.raises(FormatError, match="32-bit LMDB"):
        read_meta(data)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").mkdir()
    with pytest.raises(FormatError, match="not a regular file"):
        read_meta(tmp_path / "data.mdb")
    with pytest.raises(NotFoundError, match=r"no LMDB environment at .*: data.mdb does not exist"):
        read_meta(tmp_path / "data.mdb" / "data.mdb")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_could_be_waited_for_for_ever_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "data.mdb")
    program = (
        "import sys; from pathlib import Path; from archiver.environment.meta import read_meta\n"
        "try: read_meta(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data.mdb")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == f"FormatError {tmp_path / 'data.mdb'} is not a regular file\n"


@given(st.binary(max_size=2 * META_SIZE))
def test_no_bytes_get_past_as_anything_but_a_format_error(page: bytes) -> None:
    with pytest.raises(FormatError):
        parse_meta(page, Path("data.mdb"), 0)


def test_the_stock_tool_reads_the_same(data: Path) -> None:
    listing = subprocess.run(["mdb_stat", "-e", str(data.parent)], capture_output=True, text=True, check=True).stdout
    meta = read_meta(data)
    for line in (f"Map size: {meta.map_size}", f"Number of pages used: {meta.last_page + 1}", f"ID: {meta.txnid}"):
        assert line in listing


def test_who_may_open_a_file_of_the_server(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    data = tmp_path / "data.mdb"
    data.touch()
    refused = PermissionError(errno.EACCES, "Permission denied")
    assert opening_hint(refused, data) == "Run archiver as root."
    os.chown(data, 1000, 1000)
    assert opening_hint(refused, data) == "Run archiver as the server's user (uid 1000) or as root."
    assert opening_hint(refused, tmp_path / "hidden") == "Run archiver as the server's user or as root."
    assert opening_hint(OSError(errno.EIO, "Input/output error"), data) is None
