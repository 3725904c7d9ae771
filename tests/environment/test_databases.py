"""The databases of an environment: their longest value, and trees that lead in circles."""

import random
import struct
import subprocess
from pathlib import Path

import lmdb
import pytest

from archiver.buffers import Buffer
from archiver.environment import databases
from archiver.environment.databases import find_trees, list_databases, longest_value
from archiver.environment.meta import Meta, read_meta
from archiver.environment.snapshot import pin
from archiver.errors import FormatError
from tests.environment.live import make_environment

PAGE = 4096


def longest_in(directory: Path) -> int:
    """The longest value, in pages."""
    data = directory / "data.mdb"
    with (
        lmdb.open(str(directory), readonly=True, lock=False, max_dbs=64, map_size=0, lib_version=0) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        trees = find_trees(environment, transaction, read_meta(data).main, data)
        return longest_value(environment, transaction, trees, PAGE, data)


def write(directory: Path, name: bytes | None, sizes: list[int], **kind: bool) -> Path:
    """Values of ``sizes`` bytes, in this order of their keys."""
    with lmdb.open(str(directory), map_size=1 << 30, max_dbs=4, sync=False, lib_version=0) as environment:
        database = None if name is None else environment.open_db(name, None, **kind)
        with environment.begin(write=True) as transaction:
            for number, size in enumerate(sizes):
                transaction.put(struct.pack("=Q", number), b"v" * size, db=database)
    return directory


@pytest.mark.parametrize(("size", "pages"), [(3 * PAGE - 16, 3), (3 * PAGE - 15, 4), (2040, 1), (100, 0)])
@pytest.mark.parametrize("name", [None, b"index"])
def test_one_value(tmp_path: Path, name: bytes | None, size: int, pages: int) -> None:
    assert longest_in(write(tmp_path, name, [size])) == pages


@pytest.mark.parametrize("kind", ["plain", "reverse_key", "integerkey"])
def test_the_longest_among_many_of_every_database(tmp_path: Path, kind: str) -> None:
    sizes = [*[3000] * 2000, 50 * PAGE, *[10] * 5000]
    random.Random(1).shuffle(sizes)
    kinds = {} if kind == "plain" else {kind: True}
    write(tmp_path, None, [5 * PAGE])
    write(tmp_path, b"many", sizes, **kinds)
    assert longest_in(tmp_path) == 51
    write(tmp_path, b"small", [30 * PAGE, 20 * PAGE])
    assert longest_in(tmp_path) == 51
    write(tmp_path, b"another", [70 * PAGE])
    assert longest_in(tmp_path) == 71


def test_a_large_table_counts_with_its_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, b"many", [*[2 * PAGE] * 999, 500 * PAGE])
    assert longest_in(tmp_path) == 501
    monkeypatch.setattr(databases, "_SEARCHED", PAGE)
    # 999 of three pages and one of 501.
    assert longest_in(tmp_path) == 4


def test_a_main_database_whose_keys_are_in_another_order(tmp_path: Path) -> None:
    # py-lmdb cannot give the main database flags; LMDB's own loader does.
    header = "VERSION=3\nformat=print\ntype=btree\nreversekey=1\nHEADER=END\n"
    records = "".join(f" {key}\n {'v' * 5000}\n" for key in ("za", "yb", "xc"))
    subprocess.run(["mdb_load", str(tmp_path)], input=f"{header}{records}DATA=END\n", text=True, check=True)
    assert longest_in(tmp_path) == 2


def test_the_pinned_environment_tells_bytes(tmp_path: Path) -> None:
    make_environment(tmp_path, entries=50, value_size=9000)
    assert longest_in(tmp_path) == 3


def branches(content: Buffer, page: int) -> list[int]:
    """The positions of the nodes of a branch page."""
    flags, lower = struct.unpack_from("=HH", content, page * PAGE + 10)
    assert flags == 0x01
    return [page * PAGE + offset for offset in struct.unpack_from(f"={(lower - 16) // 2}H", content, page * PAGE + 16)]


def lead_in_circles(data: Path, meta: Meta, root: int) -> None:
    """Let all children of ``root`` be the first one."""
    content = bytearray(data.read_bytes())
    first, *others = branches(content, root)
    for node in others:
        content[node : node + 4] = content[first : first + 4]
    data.write_bytes(content)
    assert read_meta(data) == meta


def test_a_main_tree_that_leads_to_a_record_twice(tmp_path: Path) -> None:
    data = write(tmp_path, None, [40] * 2000) / "data.mdb"
    meta = read_meta(data)
    lead_in_circles(data, meta, meta.main.root)
    with (
        lmdb.open(str(tmp_path), readonly=True, lock=False, map_size=0, lib_version=0) as environment,
        environment.begin(buffers=True) as transaction,
        pytest.raises(FormatError, match="is corrupt: the keys of a database are out of order"),
    ):
        list_databases(environment, transaction, meta.main, data)
    with pytest.raises(FormatError, match="out of order"), pin(tmp_path, name="x"):
        pass


def test_a_named_tree_that_leads_to_a_record_twice(tmp_path: Path) -> None:
    data = write(tmp_path, b"many", [3000] * 2000) / "data.mdb"
    meta = read_meta(data)
    with pin(tmp_path, name="x") as snapshot:
        assert [database.entries for database in snapshot.databases] == [1, 2000]
    with (
        lmdb.open(str(tmp_path), readonly=True, lock=False, map_size=0, max_dbs=2, lib_version=0) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        root = find_trees(environment, transaction, meta.main, data)[b"many"].root
    lead_in_circles(data, meta, root)
    with pytest.raises(FormatError, match="out of order"):
        longest_in(tmp_path)
