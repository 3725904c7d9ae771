"""The free list, and the line between a sound file that is short and one that was cut."""

import os
import random
import struct
from pathlib import Path

import lmdb
import pytest

from archiver.environment.freelist import _FreeList, check_not_truncated
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


def test_a_long_free_list_on_overflow_pages_and_branches(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 28, max_dbs=1, sync=False, lib_version=0) as environment:
        database = environment.open_db(b"x")
        with environment.begin(write=True, db=database) as transaction:
            for number in range(12_000):
                transaction.put(struct.pack("=Q", number), b"v" * 5000)
        with environment.begin() as reader:
            assert reader.id() > 0
            # The reader keeps the pages that each transaction frees apart from the next one's.
            for start in range(0, 12_000, 40):
                with environment.begin(write=True, db=database) as transaction:
                    for number in range(start, start + 40):
                        transaction.delete(struct.pack("=Q", number))
    data = tmp_path / "data.mdb"
    meta = read_meta(data)
    assert meta.free_list.branch_pages
    free = free_pages(data)
    with pin(tmp_path, name="x") as snapshot:
        assert len(free) + meta.free_list.pages + snapshot.used_pages == meta.last_page + 1


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused_before_lmdb_maps_it(tmp_path: Path, part: float) -> None:
    directory = make_environment(tmp_path / "environment", entries=2000)
    data = directory / "data.mdb"
    os.truncate(data, int(data.stat().st_size * part))
    with pytest.raises(FormatError, match="is truncated: expected up to") as refusal, pin(directory, name="x"):
        pass
    assert "full disk" in (refusal.value.hint or "")
    # LMDB itself has no objection.
    with lmdb.open(str(directory), readonly=True, lock=False, lib_version=0) as environment:
        assert environment.stat()["entries"] > 0


def test_a_corrupt_free_list_is_a_format_error_whatever_is_wrong(tmp_path: Path) -> None:
    data = churn(tmp_path / "environment", 2)
    meta = read_meta(data)
    sound = data.read_bytes()
    root = meta.free_list.root * PAGE
    free = free_pages(data)
    chance = random.Random(3)
    refused = 0
    for _ in range(400):
        broken = bytearray(sound)
        position = root + chance.randrange(PAGE)
        broken[position] ^= 1 << chance.randrange(8)
        data.write_bytes(broken)
        try:
            refused += free_pages(data) != free
        except FormatError:
            refused += 1
    assert refused > 20
