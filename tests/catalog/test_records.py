"""Records: what is written can be read, and nothing else is accepted."""

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.catalog.records import (
    CONTENTS,
    MAX_PATH,
    OBJECTS,
    PLACEMENT,
    DirectoryRecord,
    Extent,
    FileRecord,
    HardLinkRecord,
    ObjectRecord,
    SymlinkRecord,
    check_extents,
    check_relative,
    decode_text,
    encode_text,
)
from archiver.errors import FormatError

HASH = "0" * 64
OBJECT = "0123456789abcdef" * 2
FILE: dict[str, object] = {
    "type": "file",
    "path": "a/b.jpg",
    "mode": 0o644,
    "mtime_ns": 1,
    "uid": 0,
    "gid": 0,
    "size": 10,
    "blake3": HASH,
    "extents": [{"offset": 0, "length": 10, "object": OBJECT, "object_offset": 0}],
}
ENVIRONMENT: dict[str, object] = {
    "type": "environment",
    "name": "vector",
    "method": "locked",
    "pinned": "2026-11-22T02:00:00Z",
    "txnid": 7,
    "page_size": 4096,
    "map_size": 2**40,
    "layout": "compact",
    "mode": 0o600,
    "uid": 1,
    "gid": 1,
    "size": 10,
    "blake3": HASH,
    "databases": [{"entries": 3}, {"name_b64": "/w==", "entries": 0, "flags": ["dupsort"]}],
    "extents": FILE["extents"],
}
OBJECT_LINE: dict[str, object] = {
    "id": OBJECT,
    "kind": "mdb",
    "stored_size": 10,
    "plaintext_size": 10,
    "blake3": HASH,
    "vault": "0" * 16,
}


def decode(fields: dict[str, object]) -> object:
    return CONTENTS.decode(json.dumps(fields).encode())


def test_good_records_are_read() -> None:
    assert isinstance(decode(FILE), FileRecord)
    assert msgspec.to_builtins(decode(ENVIRONMENT))["databases"][1]["name_b64"] == "/w=="
    assert isinstance(OBJECTS.decode(json.dumps(OBJECT_LINE).encode()), ObjectRecord)


@given(st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw))
def test_any_name_survives_the_way_to_a_line_and_back(raw: bytes) -> None:
    path = b"media/" + raw.replace(b"/", b"_") + b"x"
    text, encoded = encode_text(path)
    directory = DirectoryRecord(path=text, path_b64=encoded, mode=0o755, mtime_ns=-1, uid=0, gid=0)
    line = msgspec.json.encode(directory)
    assert b"\n" not in line
    read = CONTENTS.decode(line)
    assert read == directory
    assert isinstance(read, DirectoryRecord)
    assert read.path_bytes == path


@given(st.binary(max_size=100))
def test_text_and_base64_are_inverse(raw: bytes) -> None:
    text, encoded = encode_text(raw)
    assert decode_text(text, encoded) == raw
    assert (text is None) != (encoded is None)


@pytest.mark.parametrize(
    ("text", "encoded", "message"),
    [
        ("a", "YQ==", "got both or neither"),
        (None, None, "got both or neither"),
        (None, "YQ", "invalid base64"),
        (None, "Y Q==", "invalid base64"),
        (None, "YQ==\n", "invalid base64"),
        (None, "ä===", "invalid base64"),
        ("\ud800", None, "not valid Unicode"),
    ],
)
def test_texts_that_are_refused(text: str | None, encoded: str | None, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_text(text, encoded)


UNSAFE = [b"", b"/", b"/etc/passwd", b"..", b"../x", b"a/../b", b"a/..", b"a//b", b"a/", b"./a", b"a/./b", b"a\0b"]
UNSAFE += [b"x" * (MAX_PATH + 1), b"a/" * (MAX_PATH // 2) + b"ab"]
SAFE = [b".", b"a", b"...", b"..a", b"a/b", b"a/.b", b"a\\..\\b", b"\xff", b" ", b"a\nb", b"-rf", b"x" * MAX_PATH]


@pytest.mark.parametrize("path", UNSAFE)
def test_paths_that_leave_the_directory_are_refused_wherever_they_stand(path: bytes) -> None:
    with pytest.raises(FormatError, match="unsafe path"):
        check_relative(path)
    encoded = base64.b64encode(path).decode()
    hostile = {key: value for key, value in FILE.items() if key != "path"} | {"path_b64": encoded}
    link: dict[str, object] = {"type": "hardlink", "path": "a", "target_b64": encoded}
    for fields in (hostile, link):
        with pytest.raises(FormatError, match="unsafe path"):
            decode(fields)


@pytest.mark.parametrize("path", SAFE)
def test_paths_that_are_fine(path: bytes) -> None:
    check_relative(path)


def test_a_symlinks_target_is_text_that_nobody_follows() -> None:
    record = decode(
        {"type": "symlink", "path": "a", "mode": 511, "mtime_ns": 0, "uid": 0, "gid": 0, "target": "../../etc/passwd"}
    )
    assert isinstance(record, SymlinkRecord)
    assert record.target_bytes == b"../../etc/passwd"


@pytest.mark.parametrize(
    "target", [{}, {"target": ""}, {"target": "a\0b"}, {"target": "a", "target_b64": "YQ=="}, {"target_b64": "ä"}]
)
def test_targets_that_no_symlink_has_are_refused(target: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        decode({"type": "symlink", "path": "a", "mode": 511, "mtime_ns": 0, "uid": 0, "gid": 0, **target})


@pytest.mark.parametrize("name", [{"name": "a", "name_b64": "YQ=="}, {"name_b64": "?"}])
def test_a_database_has_one_valid_name_or_none(name: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        decode({**ENVIRONMENT, "databases": [{"entries": 1, **name}]})


def test_a_hard_link_names_its_target() -> None:
    record = decode({"type": "hardlink", "path": "b", "target": "a"})
    assert isinstance(record, HardLinkRecord)
    assert (record.path_bytes, record.target_bytes) == (b"b", b"a")


def extents(*stretches: tuple[int, int]) -> list[Extent]:
    return [Extent(offset=offset, length=length, object=OBJECT, object_offset=0) for offset, length in stretches]


@pytest.mark.parametrize(
    "stretches",
    [
        [(0, 11)],
        [(10, 1)],
        [(0, 5), (4, 2)],
        [(5, 5), (0, 5)],
        [(0, 5), (0, 5)],
        [(2**63 - 1, 2**63 - 1)],
        [(0, 2**63 - 1)],
    ],
)
def test_extents_that_overlap_or_exceed_are_refused(stretches: list[tuple[int, int]]) -> None:
    with pytest.raises(FormatError, match="overlap or exceed"):
        check_extents(extents(*stretches), 10, b"a")
    listed = [msgspec.to_builtins(extent) for extent in extents(*stretches)]
    for record in (FILE, ENVIRONMENT):
        with pytest.raises(FormatError, match="overlap or exceed"):
            decode({**record, "extents": listed})


def test_extents_with_holes_are_fine() -> None:
    check_extents(extents(), 10, b"a")
    check_extents(extents((0, 1), (1, 1), (5, 5)), 10, b"a")


BAD_FILE: dict[str, list[object]] = {
    "size": [-1, 2**63, 10**400, 1.5, True, "1", None],
    "mode": [-1, 0o10000, "rw"],
    "mtime_ns": [2**63, -(2**63) - 1],
    "blake3": ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n", "\N{ARABIC-INDIC DIGIT ZERO}" * 64],
    "type": ["device", "", None, 1],
    "extents": [None, [[]], [{}], [{"offset": 0}]],
    "surprise": [1],
}
BAD_ENVIRONMENT: dict[str, list[object]] = {
    "name": ["", "..", "a/b", "vector\n", "Vector", "a" * 64],
    "page_size": [0, 255, 65537],
    "method": ["hope", "none"],
    "layout": ["image", ""],
    "pinned": ["yesterday", 5],
    "databases": [[{"entries": 1, "flags": ["create"]}]],
    "surprise": [1],
}


@pytest.mark.parametrize(
    ("good", "field", "value"),
    [
        *((FILE, field, value) for field in BAD_FILE for value in BAD_FILE[field]),
        *((ENVIRONMENT, field, value) for field in BAD_ENVIRONMENT for value in BAD_ENVIRONMENT[field]),
    ],
)
def test_fields_out_of_their_range_are_refused(good: dict[str, object], field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode({**good, field: value})


@pytest.mark.parametrize("field", ["path", "size", "blake3", "mode", "mtime_ns", "type"])
def test_fields_that_are_missing_are_noticed(field: str) -> None:
    with pytest.raises((msgspec.ValidationError, FormatError)):
        decode({key: value for key, value in FILE.items() if key != field})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "0" * 31),
        ("id", OBJECT + "\n"),
        ("id", "../" + OBJECT[3:]),
        ("kind", "contents"),
        ("stored_size", -1),
        ("plaintext_size", 2**63),
        ("vault", "0" * 17),
        ("vault", "0" * 16 + "\n"),
        ("name", "secret.jpg"),
    ],
)
def test_object_lines_that_are_refused(field: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        OBJECTS.decode(json.dumps({**OBJECT_LINE, field: value}).encode())


@pytest.mark.parametrize("line", [b"{}", b"[]", b"null", b'{"id":1,"key":"a"}', b'{"id":"x","key":"a"}'])
def test_placement_lines_that_are_refused(line: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        PLACEMENT.decode(line)


def test_extremes_that_are_allowed() -> None:
    for fields in ({"size": 2**63 - 1}, {"mtime_ns": -(2**63)}, {"mtime_ns": 2**63 - 1}, {"uid": 2**32 - 1}):
        decode({**FILE, **fields})
