"""Large files: holes, objects, and files that change or fail while they are read."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from archiver.catalog.records import Extent, FileRecord
from archiver.filesystem import data_regions
from archiver.sources.entries import UnreadableError
from archiver.sources.files import LargeFile, cut
from archiver.sources.media import MediaTree

MIB = 1024 * 1024


def store(root: Path, name: str, limit: int) -> tuple[FileRecord, dict[str, bytes], bool]:
    """Read a file to the end as a backup does: its record, its objects, and whether it changed."""
    objects: dict[str, bytes] = {}
    extents: list[Extent] = []
    with MediaTree(root) as tree, LargeFile(tree, name.encode()) as file:
        for piece in file.pieces(limit):
            object_id = f"{len(objects):032x}"
            objects[object_id] = b"".join(piece.buffers())
            extents += piece.extents(object_id)
        return file.record(extents), objects, file.changed


def assembled(record: FileRecord, objects: dict[str, bytes]) -> bytes:
    content = bytearray(record.size)
    for extent in record.extents:
        data = objects[extent.object][extent.object_offset : extent.object_offset + extent.length]
        assert len(data) == extent.length
        content[extent.offset : extent.offset + extent.length] = data
    return bytes(content)


regions = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), max_size=20).map(
    lambda gaps: [(sum(g + n for g, n in gaps[:index]) + gap, length) for index, (gap, length) in enumerate(gaps)]
)


@given(regions, st.integers(1, 60))
def test_cut_keeps_every_byte_in_order_within_the_limit(stretches: list[tuple[int, int]], limit: int) -> None:
    groups = cut(stretches, limit)
    wanted = [position for offset, length in stretches for position in range(offset, offset + length)]
    assert [p for group in groups for offset, length in group for p in range(offset, offset + length)] == wanted
    for group in groups:
        assert 1 <= sum(length for _, length in group) <= limit
        assert len(group) == 1 or all(region in stretches for region in group)
    for first, second in pairwise(groups):
        whole = all(region in stretches for region in [*first, *second])
        assert not whole or sum(length for _, length in [*first, second[0]]) > limit


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB])
@pytest.mark.parametrize("limit", [MIB, MIB + 7, 10 * MIB])
def test_dense_files_of_boundary_sizes(tmp_path: Path, size: int, limit: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    record, objects, changed = store(tmp_path, "file", limit)
    assert assembled(record, objects) == content
    assert record.blake3 == blake3(content).hexdigest()
    assert len(objects) == -(-size // limit)
    assert not changed


def test_holes_are_not_read_but_hashed(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(20 * MIB)
        for offset in (3 * MIB, 3 * MIB + 256 * 1024, 10 * MIB):
            file.seek(offset)
            file.write(b"data" * 1024)
    record, objects, _ = store(tmp_path, "file", 64 * MIB)
    content = (tmp_path / "file").read_bytes()
    assert record.blake3 == blake3(content).hexdigest()
    assert assembled(record, objects) == content
    assert [(e.offset, e.length) for e in record.extents] == [(3 * MIB, 256 * 1024 + 4096), (10 * MIB, 4096)]
    assert len(objects) == 1


def test_a_file_riddled_with_holes_has_a_bounded_number_of_regions(tmp_path: Path) -> None:
    size = 64 * 1024 * MIB
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)
        for number in range(40):
            file.seek(number * 2 * MIB)
            file.write(b"x")
        file.flush()
        found = data_regions(file.fileno(), size)
    assert found == [(0, 78 * MIB + 4096)]


def test_a_file_of_one_hole_has_no_objects(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(5 * MIB)
    record, objects, _ = store(tmp_path, "file", MIB)
    assert (record.size, record.extents, objects) == (5 * MIB, [], {})
    assert record.blake3 == blake3(bytes(5 * MIB)).hexdigest()


def test_a_file_that_shrinks_ends_with_what_was_read(tmp_path: Path) -> None:
    content = os.urandom(16 * MIB)
    path = tmp_path / "file"
    path.write_bytes(content)
    with MediaTree(tmp_path) as tree, LargeFile(tree, b"file") as file:
        pieces = file.pieces(8 * MIB)
        piece = next(pieces)
        buffers = piece.buffers()
        data = bytes(next(buffers))
        os.truncate(path, 4 * MIB + 5)
        data += b"".join(buffers)
        # Grown again: what is behind the cut is another state of the file and no part of this record.
        os.truncate(path, 16 * MIB)
        assert list(pieces) == []
        record = file.record(piece.extents("0" * 32))
        assert file.changed
    assert data == content[: 4 * MIB + 5]
    assert record.size == 4 * MIB + 5
    assert record.blake3 == blake3(data).hexdigest()


def test_a_file_that_grows_is_stored_as_long_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    with MediaTree(tmp_path) as tree, LargeFile(tree, b"file") as file:
        with path.open("ab") as appended:
            appended.write(b"b")
        (piece,) = file.pieces(MIB)
        assert b"".join(piece.buffers()) == b"a" * 100
        assert file.changed
        assert file.record(piece.extents("0" * 32)).size == 100


def test_reading_out_of_order_is_our_own_bug(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 100)
    with MediaTree(tmp_path) as tree, LargeFile(tree, b"file") as file:
        (piece,) = file.pieces(MIB)
        list(piece.buffers())
        with pytest.raises(ValueError, match="read already"):
            list(piece.buffers())


def test_what_cannot_be_opened_or_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "file").write_bytes(b"a" * 100)
    with MediaTree(tmp_path) as tree:
        with pytest.raises(UnreadableError, match="missing: vanished while the tree was read"):
            LargeFile(tree, b"missing")
        with LargeFile(tree, b"file") as file:
            monkeypatch.setattr(os, "pread", broken)
            with pytest.raises(UnreadableError, match="file: cannot be read: input/output error") as caught:
                b"".join(next(file.pieces(MIB)).buffers())
    assert caught.value.skipped.path == b"file"


def test_the_system_is_told_that_a_file_is_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, start, size, advice: advised.append((start, size, advice)))
    content = os.urandom(5 * MIB)
    (tmp_path / "file").write_bytes(content)
    record, objects, _ = store(tmp_path, "file", 8 * MIB)
    assert assembled(record, objects) == content
    assert advised == [(0, 5 * MIB, os.POSIX_FADV_SEQUENTIAL)]
