"""Which of several names of an unchanged file comes first; what a record of the state must be."""

import msgspec
import pytest
from msgspec.structs import replace

from archiver.catalog.records import Extent
from archiver.errors import FormatError
from archiver.operations import remembered
from archiver.operations.recognition import Unchanged, first_names
from archiver.operations.remembered import RememberedFile
from archiver.operations.remembered import remembered as remember
from archiver.sources.entries import Attributes, FileEntry, Found

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
FILE = FileEntry(b"name", Attributes(0o644, NOW - 10 * SECOND, 0, 0), 5, (1, 7), 2, NOW - 10 * SECOND)
EXTENT = Extent(offset=0, length=5, object="0" * 32, object_offset=1536)
HASH = "ab" * 32


def known(file: FileEntry = FILE, began: int | None = NOW) -> RememberedFile:
    found = remember(file, HASH, [EXTENT], began)
    assert found is not None
    return found


def test_the_first_name_decides_whether_the_file_is_read() -> None:
    other = replace(FILE, identity=(1, 8))
    single = replace(FILE, identity=(1, 9), links=1)

    def unchanged(file: FileEntry, path: bytes) -> Unchanged:
        return Unchanged(replace(file, path=path), known(), [])

    entries: list[Found | Unchanged] = [
        unchanged(FILE, b"a"),
        replace(other, path=b"b"),
        unchanged(other, b"c"),
        unchanged(FILE, b"d"),
        unchanged(single, b"e"),
    ]
    assert [entry.path for entry in first_names(entries)] == [b"a"]


def test_a_file_matches_what_is_remembered_until_anything_differs() -> None:
    file = known()
    assert file.matches(FILE)
    assert file.matches(replace(FILE, path=b"other", attributes=replace(FILE.attributes, mode=0, uid=5), links=1))
    for changed in (
        replace(FILE, size=6),
        replace(FILE, identity=(1, 8)),
        replace(FILE, ctime_ns=FILE.ctime_ns + 1),
        replace(FILE, attributes=replace(FILE.attributes, mtime_ns=0)),
    ):
        assert not file.matches(changed)


@pytest.mark.parametrize(
    ("age", "recognised"), [(2 * SECOND + 1, True), (2 * SECOND, False), (0, False), (-3600 * SECOND, False)]
)
def test_what_was_changed_just_before_is_not_recognised_by_its_times(age: int, *, recognised: bool) -> None:
    assert known(replace(FILE, ctime_ns=NOW - age)).matches(replace(FILE, ctime_ns=NOW - age)) == recognised
    late = replace(FILE, attributes=replace(FILE.attributes, mtime_ns=NOW - age))
    assert known(late).matches(late) == recognised


def test_what_changed_meanwhile_or_has_no_time_of_change_is_not_recognised() -> None:
    assert not known(began=None).matches(FILE)
    without = replace(FILE, ctime_ns=0)
    assert not known(without).matches(without)
    assert remember(replace(FILE, ctime_ns=2**63), HASH, [EXTENT], NOW) is None


def test_records_are_validated() -> None:
    data = msgspec.msgpack.encode(known())
    assert remembered._decoded_file(data) == known()
    assert known().extents == [EXTENT]
    assert known().blake3 == HASH
    fields = msgspec.msgpack.decode(data)
    for number, value in ((0, -1), (0, 4), (1, "text"), (4, b"short"), (5, [[0, 0, b"o" * 16, 0]]), (6, "yes")):
        wrong = [*fields[:number], value, *fields[number + 1 :]]
        with pytest.raises((msgspec.ValidationError, FormatError)):
            remembered._decoded_file(msgspec.msgpack.encode(wrong))
    with pytest.raises(msgspec.ValidationError):
        remembered._decoded_file(msgspec.msgpack.encode([*fields, 1]))
