"""The manifest: its exact bytes, and what a reader refuses."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.catalog.manifest import (
    Digest,
    Manifest,
    Previous,
    Totals,
    Vault,
    decode_manifest,
    encode_manifest,
)
from archiver.crypto.minisign import SigningKey
from archiver.errors import FormatError

# A vector is never edited after a release: a difference means that old signatures would no longer be reproduced.
VECTOR = Path(__file__).parent.parent / "vectors" / "manifest.json"
MANIFEST = Manifest(
    version=1,
    backup="20261122T020000Z-3f9c2a",
    source="ucotron-prod",
    started=datetime(2026, 11, 22, 2, 0, 0, tzinfo=UTC),
    finished=datetime(2026, 11, 22, 2, 3, 4, 500_000, tzinfo=UTC),
    keep_days=35,
    lease_days=7,
    consistency="locked",
    totals=Totals(environments=2, files=300, plaintext_bytes=2**40, objects=7, stored_bytes=2**39, warnings=1),
    sequence=12,
    previous=Previous(
        backup="20261121T020000Z-aabbcc",
        blake3="ab" * 32,
        promised_until=datetime(2026, 12, 26, 2, 0, 0, tzinfo=UTC),
    ),
    signer="0123456789ABCDEF",
    contents=Digest(stored_size=1000, blake3="01" * 32),
    objects=Digest(stored_size=500, blake3="23" * 32),
    vaults=[Vault(id="0011223344556677", recipient="age1" + "q" * 58)],
)
GOOD = json.loads(VECTOR.read_bytes())


def decode(**changes: object) -> Manifest:
    return decode_manifest(json.dumps({**GOOD, **changes}).encode(), "the manifest")


def test_the_bytes_are_those_of_the_vector() -> None:
    assert encode_manifest(MANIFEST) == VECTOR.read_bytes()
    assert decode_manifest(VECTOR.read_bytes(), "the vector") == MANIFEST


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis
    st.integers(0, 2**63 - 1),
    st.integers(1, 2**53),
    st.none() | st.just(MANIFEST.previous),
)
def test_round_trip(moment: datetime, size: int, sequence: int, previous: Previous | None) -> None:
    fields = {name: getattr(MANIFEST, name) for name in MANIFEST.__struct_fields__}
    totals = Totals(environments=size, files=size, plaintext_bytes=size, objects=size, stored_bytes=size, warnings=size)
    manifest = Manifest(**{**fields, "started": moment, "totals": totals, "sequence": sequence, "previous": previous})
    assert decode_manifest(encode_manifest(manifest), "it") == manifest


def test_the_number_of_every_signing_key_is_accepted() -> None:
    """minisign prints no leading zeros, so one key in sixteen has a shorter number."""
    key = SigningKey(bytes([1, 2, 3, 4, 5, 6, 7, 8]), bytes(32))
    assert key.verify_key.key_id == "807060504030201"
    assert decode(signer=key.verify_key.key_id).signer == "807060504030201"


@pytest.mark.parametrize("version", [2, 10, 999_999_999])
@pytest.mark.parametrize("layout", ['{"version":%d}', '{"version" : %d, "x": {}}', '{"x": [1, {}],\n"version":\n%d}'])
def test_a_newer_version_is_said_to_be_newer_whatever_else_it_holds(version: int, layout: str) -> None:
    with pytest.raises(FormatError, match=f"has format version {version}, this archiver reads up to 1") as caught:
        decode_manifest((layout % version).encode(), "the manifest")
    assert caught.value.hint == "Install a newer archiver."


REFUSED: dict[str, list[object]] = {
    "version": [0, -1, "1", None, 1.5, True],
    "backup": ["", "latest", GOOD["backup"] + "\n", "20261322T020000Z-3f9c2a"],
    "source": ["", "../x", "a\n", "A"],
    "started": ["2026-11-22T02:00:00", "2026-11-22", "", 0, "9999-12-31T00:00:00Z", "0001-01-01T00:00:00+00:01"],
    "finished": [
        "2026-11-22T02:00:00",
        None,
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
    ],
    "keep_days": [0, -1, 36501, 10**400, "35", True],
    "lease_days": [0, 36501],
    "consistency": ["perfect", "", None],
    "sequence": [0, -1, 2**53 + 1, 10**400],
    "signer": ["", "0123456789abcdef", "0" * 17, "A\n"],
    "vaults": [[], None, [{}], GOOD["vaults"] * 1001],
    "contents": [{}, None, {"stored_size": 1, "blake3": "x"}],
    "objects": [{**GOOD["objects"], "extra": 1}],
    "totals": [{**GOOD["totals"], "files": -1}],
    "previous": [
        {**GOOD["previous"], "backup": "../../x"},
        {**GOOD["previous"], "blake3": ""},
        {**GOOD["previous"], "promised_until": "2026-12-26T02:00:00"},
        {**GOOD["previous"], "promised_until": None},
        {**GOOD["previous"], "promised_until": "9999-12-31T23:59:59-00:01"},
        {**GOOD["previous"], "surprise": 1},
        {"backup": GOOD["previous"]["backup"], "blake3": GOOD["previous"]["blake3"]},
    ],
    "surprise": [1],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in REFUSED for value in REFUSED[field]])
def test_what_is_refused(field: str, value: object) -> None:
    with pytest.raises(FormatError, match=r"^the manifest"):
        decode(**{field: value})


@pytest.mark.parametrize("field", sorted(GOOD))
def test_every_field_is_needed(field: str) -> None:
    with pytest.raises(FormatError, match="the manifest"):
        decode_manifest(
            json.dumps({key: value for key, value in GOOD.items() if key != field}).encode(), "the manifest"
        )


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"source":"\xff"}', b"[" * 100_000, VECTOR.read_bytes() * 2]
)
def test_what_is_no_manifest_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=re.escape("the manifest: ")):
        decode_manifest(data, "the manifest")


def test_deep_nesting_is_no_crash() -> None:
    for data in (b'{"extra":' + b"[" * 100_000, b'{"vaults":' + b"[" * 100_000 + b"]" * 100_000 + b"}"):
        with pytest.raises(FormatError, match="the manifest"):
            decode_manifest(data, "the manifest")


@pytest.mark.parametrize("size", range(0, len(VECTOR.read_bytes()) - 1, 7))
def test_truncations_are_refused(size: int) -> None:
    with pytest.raises(FormatError):
        decode_manifest(VECTOR.read_bytes()[:size], "the manifest")


def test_the_promise_counts_from_the_start_in_any_time_zone() -> None:
    assert MANIFEST.promised_until == datetime(2026, 12, 27, 2, 0, 0, tzinfo=UTC)
    assert decode(started="2026-11-22T04:00:00+02:00").promised_until == MANIFEST.promised_until
    assert decode(started="0001-01-02T00:00:00+23:59").promised_until < MANIFEST.promised_until
