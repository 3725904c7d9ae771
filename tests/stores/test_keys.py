"""Which keys and prefixes are allowed."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.stores.keys import check_directory, check_key, check_prefix, is_segment, next_segment

ALPHABET = string.ascii_letters + string.digits + "._-"
segments = st.text(ALPHABET, min_size=1, max_size=255).filter(lambda name: name not in (".", ".."))
keys = st.lists(segments, min_size=1, max_size=5).map("/".join)


@given(keys)
def test_keys_of_allowed_segments_pass(key: str) -> None:
    check_key(key)


@given(keys, st.data())
def test_every_start_of_a_key_is_a_prefix(key: str, data: st.DataObject) -> None:
    check_prefix(key[: data.draw(st.integers(0, len(key)))])


@given(st.text(max_size=20))
def test_whatever_passes_has_allowed_segments_only(text: str) -> None:
    allowed = all(
        segment and set(segment) <= set(ALPHABET) and segment not in (".", "..") for segment in text.split("/")
    )
    try:
        check_key(text)
    except UsageError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n", "é", "a" * 256, "~a", "a b", "\0"])
def test_what_is_no_segment(name: str) -> None:
    assert not is_segment(name)


@pytest.mark.parametrize("prefix", ["/", "a//", "../a", "./", "a b", "a/\n"])
def test_malformed_prefixes(prefix: str) -> None:
    with pytest.raises(UsageError, match="malformed prefix"):
        check_prefix(prefix)


def test_a_directory_ends_with_a_slash() -> None:
    check_directory("")
    check_directory("a/")
    with pytest.raises(UsageError, match="does not end with"):
        check_directory("a")


def test_next_segment() -> None:
    assert next_segment("a/b/c", "a/") == "b"
    assert next_segment("a/b", "") == "a"
    assert next_segment("a", "") == "a"
