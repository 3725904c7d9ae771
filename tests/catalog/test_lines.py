"""Lines: any cut of the stream gives the same records, and errors say which line."""

import itertools
import json
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from archiver.catalog import lines
from archiver.catalog.lines import decode_lines, encode_lines
from archiver.catalog.records import (
    CONTENTS,
    PLACEMENT,
    HardLinkRecord,
    HeaderRecord,
    PlacementRecord,
    WarningRecord,
)
from archiver.errors import FormatError

IDS = [f"{number:032x}" for number in range(20)]
RECORDS = [PlacementRecord(id=identifier, key="k" * position) for position, identifier in enumerate(IDS)]
ENCODED = b"".join(encode_lines(RECORDS, PLACEMENT))


def read(*buffers: bytes) -> list[PlacementRecord]:
    return list(decode_lines(buffers, PLACEMENT, "the list"))


def test_one_object_and_a_line_feed_per_record() -> None:
    assert ENCODED.endswith(b"\n")
    assert [json.loads(line)["id"] for line in ENCODED.splitlines()] == IDS


def test_no_records_are_no_bytes_and_back() -> None:
    assert list(encode_lines([], PLACEMENT)) == []
    assert read() == read(b"") == []


@given(st.lists(st.integers(0, len(ENCODED)), max_size=12))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(ENCODED)]
    assert read(*(ENCODED[start:end] for start, end in itertools.pairwise(bounds))) == RECORDS


def test_every_byte_for_itself() -> None:
    assert read(*(bytes([byte]) for byte in ENCODED)) == RECORDS


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(max_size=50), st.text(max_size=50)), max_size=20), st.integers(1, 64))
def test_any_text_survives(texts: list[tuple[str, str]], step: int) -> None:
    records = [WarningRecord(path=path, reason=reason) for path, reason in texts]
    encoded = b"".join(encode_lines(records, CONTENTS))
    pieces = (encoded[start : start + step] for start in range(0, len(encoded), step))
    assert list(decode_lines(pieces, CONTENTS, "the list")) == records


def test_every_truncation_loses_whole_records_or_is_refused() -> None:
    """A cut at a line's end cannot be seen here: the list's hash in the manifest is there for that."""
    ends = {0} | {match.end() for match in re.finditer(b"\n", ENCODED)}
    for size in range(len(ENCODED)):
        if size in ends:
            assert read(ENCODED[:size]) == RECORDS[: ENCODED[:size].count(b"\n")]
        else:
            with pytest.raises(FormatError, match=r"the list ends in the middle of line \d+: it was cut off"):
                read(ENCODED[:size])


GOOD = b'{"id":"' + b"0" * 32 + b'","key":"k"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"id":"' + b"0" * 32 + b'","key":1}', "Expected `str`, got `int`"),
        (b'{"id":"x","key":"k"}', "matching regex"),
        (GOOD[:-1] + b',"extra":1}', "unknown field"),
        (GOOD + GOOD, "trailing characters"),
        (GOOD.replace(b'"k"', b'"\xff"'), "utf-8"),
        (GOOD.replace(b'"k"', b'"\xed\xa0\x80"'), "utf-8"),
        (GOOD.replace(b'"k"', b'"\\ud800abcdef"'), "surrogate"),
        (b'{"extra":' + b"[" * 100_000, ""),
        (b"[" * 100_000, ""),
    ],
)
def test_a_bad_line_is_named_by_its_number(line: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(GOOD + b"\n" + GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    assert caught.value.message.startswith("the list, line 3: ")
    assert message in caught.value.message


def test_records_before_a_bad_line_are_given_first() -> None:
    records = decode_lines([GOOD + b"\nnull\n"], PLACEMENT, "the list")
    assert next(records).key == "k"
    with pytest.raises(FormatError, match="line 2"):
        next(records)


def test_a_record_that_checks_itself_names_the_line_too() -> None:
    with pytest.raises(FormatError, match="the list, line 1: unsafe path"):
        list(decode_lines([b'{"type":"hardlink","path":"../x","target":"a"}\n'], CONTENTS, "the list"))


def test_nesting_behind_an_unknown_tag_is_no_crash() -> None:
    line = b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b',"type":"header"}\n'
    with pytest.raises(FormatError, match="line 1"):
        list(decode_lines([line], CONTENTS, "the list"))


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_line_that_is_too_long_is_refused_however_it_arrives(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", len(GOOD))
    assert len(read(GOOD + b"\n")) == 1
    longer = GOOD.replace(b'"k"', b'"kk"') + b"\n"
    with pytest.raises(FormatError, match=f"line 2: longer than {len(GOOD)} bytes"):
        data = GOOD + b"\n" + longer
        read(*(data[start : start + step] for start in range(0, len(data), step)))


def test_an_endless_line_is_refused_before_it_fills_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 10_000)
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 100

    with pytest.raises(FormatError, match="line 1: longer than"):
        list(decode_lines(endless(), PLACEMENT, "the list"))
    assert taken == 101


@pytest.mark.parametrize(
    "record",
    [
        HeaderRecord(backup="b", source="Not A Name"),
        WarningRecord(path="a", reason="\udcff"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(record: HeaderRecord | WarningRecord) -> None:
    """Else the backup would succeed and its restore fail."""
    with pytest.raises(FormatError, match="a record cannot be stored"):
        list(encode_lines([record], CONTENTS))


@pytest.mark.parametrize("position", [0, 1, 255, 256, 700])
@pytest.mark.parametrize("reason", ["\udcff", "r" * 2000])
def test_one_among_many_that_could_not_be_read_back_is_told(
    position: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    records = [WarningRecord(path=str(number), reason="") for number in range(701)]
    records[position] = WarningRecord(path="the bad one", reason=reason)
    with pytest.raises(FormatError, match=r"a record cannot be stored: .*the bad one"):
        list(encode_lines(records, CONTENTS))


def test_what_its_own_checks_refuse_is_not_written() -> None:
    """The decoder's checks are those of a reader: also what is more than a field's type."""
    record = HardLinkRecord(path="a", target="b")
    structs.force_setattr(record, "target", "../b")
    with pytest.raises(FormatError, match="a record cannot be stored: unsafe path"):
        list(encode_lines([record], CONTENTS))


def test_lines_that_are_long_only_together_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    records = [WarningRecord(path=str(number), reason="r" * 900) for number in range(300)]
    assert list(decode_lines(encode_lines(records, CONTENTS), CONTENTS, "the list")) == records


def test_a_line_that_no_reader_takes_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    with pytest.raises(FormatError, match="longer than 100 bytes"):
        list(encode_lines([WarningRecord(path="a" * 200, reason="")], CONTENTS))


def test_many_records_come_in_buffers_of_bounded_size() -> None:
    buffers = list(encode_lines((WarningRecord(path="p" * 100, reason="") for _ in range(30_000)), CONTENTS))
    assert len(buffers) > 2
    assert all(len(buffer) < 1_100_000 for buffer in buffers)
    assert sum(buffer.count(b"\n") for buffer in buffers) == 30_000
