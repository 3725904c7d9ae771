"""``terms.json``: its exact bytes, what it promises, and what a reader refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.catalog.manifest import Manifest, decode_manifest
from archiver.catalog.terms import MAX_TERMS, Terms, decode_terms, encode_terms
from archiver.errors import FormatError

MANIFEST = decode_manifest((Path(__file__).parent.parent / "vectors" / "manifest.json").read_bytes(), "the vector")


def test_the_bytes_are_those_of_the_format() -> None:
    assert encode_terms(Terms(version=1, keep_days=400, lease_days=35)) == (
        b'{"version":1,"keep_days":400,"lease_days":35}\n'
    )
    assert encode_terms(Terms(version=1, keep_days=None, lease_days=None)) == (
        b'{"version":1,"keep_days":null,"lease_days":null}\n'
    )


@given(st.none() | st.tuples(st.integers(1, 36500), st.integers(1, 36500)))
def test_what_is_stored_is_read_back(days: tuple[int, int] | None) -> None:
    keep, lease = days or (None, None)
    terms = Terms(version=1, keep_days=keep, lease_days=lease)

    data = encode_terms(terms)

    assert decode_terms(data, "terms.json") == terms
    assert len(data) <= MAX_TERMS
    promise = terms.promise(MANIFEST)
    assert promise == (None if keep is None else MANIFEST.started + timedelta(days=keep))


def test_a_promise_beyond_the_calendar_is_for_ever() -> None:
    late = _started(datetime(9998, 1, 1, tzinfo=UTC))

    assert Terms(version=1, keep_days=400, lease_days=7).promise(late) == datetime(9999, 2, 5, tzinfo=UTC)
    assert Terms(version=1, keep_days=36500, lease_days=7).promise(late) is None


def test_a_promise_is_told_in_utc() -> None:
    """What is late on the last day in the west is beyond the calendar in UTC."""
    edge = _started(datetime.fromisoformat("9998-12-31T13:00:00-12:00"))

    assert Terms(version=1, keep_days=365, lease_days=7).promise(edge) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"version":1,"keep_days":400}',
        '{"version":2,"keep_days":400,"lease_days":35}',
        '{"version":1,"keep_days":0,"lease_days":35}',
        '{"version":1,"keep_days":36501,"lease_days":35}',
        '{"version":1,"keep_days":400,"lease_days":0}',
        '{"version":1,"keep_days":1.5,"lease_days":35}',
        '{"version":1,"keep_days":"400","lease_days":35}',
        '{"version":1,"keep_days":true,"lease_days":35}',
        '{"version":1,"keep_days":null,"lease_days":35}',
        '{"version":1,"keep_days":400,"lease_days":null}',
        '{"version":1,"keep_days":400,"lease_days":35,"more":1}',
        '{"version":1,"keep_days":400,"lease_days":35}}',
        "[" * 900,
        "\xff",
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"^x/terms.json: "):
        decode_terms(text.encode("latin-1"), "x/terms.json")


def _started(moment: datetime) -> Manifest:
    return msgspec.structs.replace(MANIFEST, started=moment, keep_days=1)
