"""The free list: what may be reused under a pin, and the line between a sound short file and one that was cut."""

import os
import random
import re
import shutil
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lmdb
import pytest
from msgspec.structs import replace

from archiver.environment.freelist import _FreeList, check_not_truncated, reusable_pages
from archiver.environment.meta import read_meta
from archiver.environment.snapshot import pin
from archiver.environment.verification import verify_structure
from archiver.errors import FormatError
from tests.environment.live import make_environment

PAGE = 4096


def churn(directory: Path, seed: int) -> Path:
    """Insert and delete within transactions: some leave free pages at the end of the file unwritten."""
    chance = random.Random(seed)
    with lmdb.open(str(directory), map_size=1 << 27, max_dbs=1, sync=False, lib_version=0) as environment:
        database = environment.open_db(b"x")
        for _ in range(chance.randint(2, 6)):
            with environment.begin(write=True, db=database) as transaction:
                keys = [chance.randbytes(8) for _ in range(chance.randint(1, 300))]
                for key in keys:
                    transaction.put(key, b"v" * chance.choice((10, 500, 1500, 9000)))
                for key in keys[chance.randint(0, len(keys)) :]:
                    transaction.delete(key)
    return directory / "data.mdb"


def free_pages(data: Path) -> list[int]:
    with data.open("rb") as file:
        return sorted(_FreeList(file.fileno(), data, read_meta(data)).pages())


def test_sound_files_shorter_than_their_last_page_pass(tmp_path: Path) -> None:
    short = 0
    for seed in range(60):
        data = churn(tmp_path / str(seed), seed)
        meta = read_meta(data)
        short += data.stat().st_size < meta.size
        verify_structure(data)
        check_not_truncated(data, meta)
    assert short > 5


def test_every_page_is_in_use_or_free(tmp_path: Path) -> None:
    data = churn(tmp_path / "environment", 1)
    meta = read_meta(data)
    free = free_pages(data)
    assert len(set(free)) == len(free)
    with pin(data.parent, name="x") as snapshot:
        assert len(free) + meta.free_list.pages + snapshot.used_pages == meta.last_page + 1


@pytest.fixture(scope="module")
def long_free_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data file, to be copied only: its free list has branch pages and entries on overflow pages."""
    directory = tmp_path_factory.mktemp("long")
    with lmdb.open(str(directory), map_size=1 << 28, max_dbs=1, sync=False, lib_version=0) as environment:
        database = environment.open_db(b"x")
        with environment.begin(write=True, db=database) as transaction:
            for number in range(5000):
                transaction.put(struct.pack("=Q", number), b"v" * 3000)
        with environment.begin() as reader:
            assert reader.id() > 0
            # The reader keeps the pages that each transaction frees apart from the next one's.
            start = 0
            while start < 5000:
                count = 1000 if start in (0, 4000) else 40
                with environment.begin(write=True, db=database) as transaction:
                    for number in range(start, start + count):
                        transaction.delete(struct.pack("=Q", number))
                start += count
    return directory / "data.mdb"


@pytest.fixture
def data(long_free_list: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(long_free_list, tmp_path))


def freed_by(directory: Path) -> dict[int, int]:
    """The number of pages under each key of the free list, as LMDB's own mdb_stat tells."""
    answer = subprocess.run(["mdb_stat", "-ff", str(directory)], capture_output=True, text=True, check=True).stdout
    return {int(key): int(pages) for key, pages in re.findall(r"Transaction (\d+), (\d+) pages", answer)}


def test_a_long_free_list_on_overflow_pages_and_branches(data: Path) -> None:
    meta = read_meta(data)
    assert meta.free_list.branch_pages
    assert meta.free_list.overflow_pages
    free = free_pages(data)
    with pin(data.parent, name="x") as snapshot:
        assert len(free) + meta.free_list.pages + snapshot.used_pages == meta.last_page + 1


def test_only_what_earlier_transactions_freed_may_be_reused(data: Path) -> None:
    meta = read_meta(data)
    freed = freed_by(data.parent)
    assert len(freed) == meta.free_list.entries
    assert max(freed.values()) >= 1000
    for before in range(meta.txnid + 2):
        expected = sum(pages for key, pages in freed.items() if key < before)
        assert reusable_pages(data, meta, before) == expected
    assert reusable_pages(data, meta, 2**64 - 1) == len(free_pages(data))


def test_an_empty_free_list_offers_nothing(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), lib_version=0) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    data = tmp_path / "data.mdb"
    assert reusable_pages(data, read_meta(data), 2**64 - 1) == 0


@dataclass(frozen=True)
class Places:
    """Positions in a data file: of the free list's root, its last child's node, two long entries' nodes, a page."""

    root: int
    last_child: int
    entry: int
    next_entry: int
    overflow: int
    count: int
    """Of the pages in the long entry."""
    file_pages: int


def places(data: Path) -> Places:
    content = data.read_bytes()

    def nodes(position: int) -> list[int]:
        (lower,) = struct.unpack_from("=H", content, position + 12)
        offsets = struct.unpack_from(f"={(lower - 16) // 2}H", content, position + 16)
        return [position + offset for offset in offsets]

    def child(node: int) -> int:
        low, middle = struct.unpack_from("=HH", content, node)
        return int(low | middle << 16) * PAGE

    meta = read_meta(data)
    assert meta.free_list.depth == 2
    root = meta.free_list.root * PAGE
    children = nodes(root)
    entry, next_entry, *_ = (node for at in children for node in nodes(child(at)) if content[node + 4] == 1)
    (overflow,) = struct.unpack_from("=Q", content, entry + 16)
    (count,) = struct.unpack_from("=Q", content, overflow * PAGE + 16)
    return Places(root, children[-1], entry, next_entry, overflow * PAGE, count, len(content) // PAGE)


def overwrite(data: Path, position: int, replacement: bytes) -> None:
    with data.open("r+b") as file:
        file.seek(position)
        file.write(replacement)


def test_what_is_too_young_is_not_read(data: Path) -> None:
    meta = read_meta(data)
    before = min(freed_by(data.parent)) + 20
    expected = reusable_pages(data, meta, before)
    overwrite(data, places(data).last_child, b"\1\0\0\0\0\0")
    assert reusable_pages(data, meta, before) == expected
    with pytest.raises(FormatError, match="is corrupt"):
        reusable_pages(data, meta, meta.txnid)


DAMAGES: dict[str, Callable[[Places], tuple[int, bytes]]] = {
    "the root leads to itself": lambda at: (at.last_child, struct.pack("=IH", at.root // PAGE, 0)),
    "the root is of no kind": lambda at: (at.root + 10, struct.pack("=H", 0x04)),
    "the root is another page": lambda at: (at.root, struct.pack("=Q", at.root // PAGE + 1)),
    "the root has nodes beyond its end": lambda at: (at.root + 12, struct.pack("=H", 0xFFFE)),
    "the root has nodes in its header": lambda at: (at.root + 12, struct.pack("=H", 14)),
    "a node lies across the end": lambda at: (at.entry // PAGE * PAGE + 16, struct.pack("=H", PAGE - 9)),
    "a key is greater than the next": lambda at: (at.entry + 8, struct.pack("=Q", 60)),
    "a key is short": lambda at: (at.entry + 6, struct.pack("=H", 4)),
    "a list is no whole number of words": lambda at: (at.entry, struct.pack("=H", 8001)),
    "a list is a short value": lambda at: (at.entry + 4, struct.pack("=H", 0)),
    "a list lies in a meta page": lambda at: (at.entry + 16, struct.pack("=Q", 1)),
    "a list ends after the last page": lambda at: (at.entry + 16, struct.pack("=Q", at.file_pages - 1)),
    "a list is longer than its pages": lambda at: (at.overflow + 16, struct.pack("=Q", at.count + 1)),
    "a list's page is another page": lambda at: (at.overflow, struct.pack("=Q", 7)),
    "a list's page is a leaf": lambda at: (at.overflow + 10, struct.pack("=H", 0x02)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_a_free_list_is_told(data: Path, damage: str) -> None:
    meta = read_meta(data)
    overwrite(data, *DAMAGES[damage](places(data)))
    with pytest.raises(FormatError, match="is corrupt"):
        reusable_pages(data, meta, meta.txnid)
    with pytest.raises(FormatError, match="is corrupt"):
        free_pages(data)


@pytest.mark.parametrize("number", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_list_of_what_are_no_free_pages_is_told(data: Path, number: int) -> None:
    overwrite(data, places(data).overflow + 16 + 8 * 500, struct.pack("=Q", number))
    with pytest.raises(FormatError, match="is corrupt"):
        free_pages(data)


def test_more_free_pages_than_there_are_pages_are_told(data: Path) -> None:
    meta = read_meta(data)
    at = places(data)
    surplus = meta.last_page - reusable_pages(data, meta, meta.txnid)
    for added, is_too_many in ((surplus - 1, False), (surplus, True)):
        count = at.count + added
        overwrite(data, at.entry, struct.pack("=HH", 8 * (count + 1), 0))
        overwrite(data, at.overflow + 16, struct.pack("=Q", count))
        if is_too_many:
            with pytest.raises(FormatError, match="is corrupt"):
                reusable_pages(data, meta, meta.txnid)
        else:
            assert reusable_pages(data, meta, meta.txnid) == meta.last_page - 1


def test_two_entries_with_one_list_are_told(data: Path) -> None:
    at = places(data)
    overwrite(data, at.next_entry + 16, struct.pack("=Q", at.overflow // PAGE))
    with pytest.raises(FormatError, match="is corrupt"):
        free_pages(data)


def test_counts_that_a_file_invents_cost_nothing(data: Path) -> None:
    """Trees of 2^40 pages, a list of 4 GiB over a hole in the file, a page far beyond its end: none is believed."""
    meta = read_meta(data)
    at = places(data)
    boundless = replace(meta.free_list, branch_pages=1 << 40, leaf_pages=1 << 40)
    huge = replace(meta, last_page=1 << 62, free_list=boundless)
    overwrite(data, at.entry, struct.pack("=HH", 0xFFF8, 0xFFFF))
    overwrite(data, at.overflow + 16, struct.pack("=Q", (1 << 29) - 2))
    os.truncate(data, 8 << 30)
    tracemalloc.start()
    with pytest.raises(FormatError, match="is corrupt"):
        check_not_truncated(data, huge)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    # A page whose position no file can have.
    overwrite(data, at.entry + 16, struct.pack("=Q", 1 << 61))
    with pytest.raises(FormatError, match="is truncated"):
        reusable_pages(data, huge, 2**64 - 1)
    overwrite(data, at.last_child, struct.pack("=IH", at.root // PAGE, 0))
    with pytest.raises(FormatError, match="is corrupt"):
        reusable_pages(data, huge, 2**64 - 1)


def test_a_free_list_that_was_cut_off_is_told(data: Path) -> None:
    meta = read_meta(data)
    os.truncate(data, places(data).root + 100)
    with pytest.raises(FormatError, match="is truncated"):
        reusable_pages(data, meta, meta.txnid)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused_before_lmdb_maps_it(tmp_path: Path, part: float) -> None:
    directory = make_environment(tmp_path / "environment", entries=2000)
    data = directory / "data.mdb"
    os.truncate(data, int(data.stat().st_size * part))
    with pytest.raises(FormatError, match="is truncated: expected up to"), pin(directory, name="x"):
        pass
    # LMDB itself has no objection.
    with lmdb.open(str(directory), readonly=True, lock=False, lib_version=0) as environment:
        assert environment.stat()["entries"] > 0


def test_a_corrupt_free_list_is_a_format_error_whatever_is_wrong(tmp_path: Path) -> None:
    data = churn(tmp_path / "environment", 2)
    meta = read_meta(data)
    sound = data.read_bytes()
    root = meta.free_list.root * PAGE
    free, reusable = free_pages(data), reusable_pages(data, meta, meta.txnid)
    chance = random.Random(3)
    refused = 0
    for _ in range(400):
        broken = bytearray(sound)
        position = root + chance.randrange(PAGE)
        broken[position] ^= 1 << chance.randrange(8)
        data.write_bytes(broken)
        try:
            refused += free_pages(data) != free or reusable_pages(data, meta, meta.txnid) != reusable
        except FormatError:
            refused += 1
    assert refused > 20
