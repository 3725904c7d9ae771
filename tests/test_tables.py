"""Sizes as the configuration and the command line write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.tables import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("500K", 512_000),
        ("500k", 512_000),
        ("20M", 20_971_520),
        ("8G", 8_589_934_592),
        ("1T", 1_099_511_627_776),
        ("007", 7),
    ],
)
def test_a_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "", "K", "-1", "+1", "1.5M", "1 M", " 1", "1\n", "1MB", "1MiB", "1P", "0x10", "1_000", "9" * 20,
        "\N{ARABIC-INDIC DIGIT ONE}", "1\N{KELVIN SIGN}",
    ],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"expected a size such as 500K, 20M or 8G, got {text!r}")):
        parse_size(text)


@given(st.integers(0, 2**62))
def test_a_size_is_written_so_that_it_is_read_back(size: int) -> None:
    assert parse_size(size_text(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1536"), (1 << 16, "64K"), (3 << 50, "3072T")]
)
def test_a_size_is_written_short(size: int, text: str) -> None:
    assert size_text(size) == text
