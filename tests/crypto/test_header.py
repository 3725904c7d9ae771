"""The age header: one encoding of every header, the grammar's every deviation refused, bounded reading."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.crypto.header import (
    MAX_HEADER,
    Header,
    IncompleteHeaderError,
    Stanza,
    decode_base64,
    derive_key,
    encode_base64,
    encode_header,
    parse_header,
)
from archiver.errors import ArchiverError, DecryptionError, FormatError, UsageError

FILE_KEY = bytes(range(16))
ARGUMENT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
STANZAS = st.lists(
    st.builds(
        Stanza,
        ARGUMENT.filter(lambda kind: kind != "scrypt"),
        st.lists(ARGUMENT, max_size=3).map(tuple),
        st.binary(max_size=150),
    ),
    min_size=1,
    max_size=4,
)
MAC_LINE = b"--- " + encode_base64(bytes(32)).encode() + b"\n"
BODY_48 = encode_base64(bytes(48)).encode()


def version_and(*lines: bytes) -> bytes:
    return b"age-encryption.org/v1\n" + b"".join(lines)


@given(STANZAS, st.binary(max_size=40))
def test_parse_inverts_encode_whatever_follows(stanzas: list[Stanza], rest: bytes) -> None:
    encoded = encode_header(stanzas, FILE_KEY)
    header, length = parse_header(encoded + rest)
    assert length == len(encoded)
    assert list(header.stanzas) == stanzas
    header.authenticate(FILE_KEY)
    assert encode_header(header.stanzas, FILE_KEY) == encoded


@pytest.mark.parametrize("size", [0, 1, 47, 48, 49, 96, 1120])
def test_a_body_ends_with_a_short_line(size: int) -> None:
    lines = Stanza("x", (), bytes(size)).encode().split(b"\n")
    assert [len(line) for line in lines[1:-2]] == [64] * (len(lines) - 3)
    assert len(lines[-2]) < 64
    assert lines[-1] == b""


def test_the_mac_is_what_the_specification_says() -> None:
    encoded = encode_header([Stanza("x", ("y",), b"z")], FILE_KEY)
    covered = version_and(b"-> x y\n", b"eg\n", b"---")
    mac = hmac.digest(derive_key(FILE_KEY, salt=b"", info=b"header"), covered, "sha256")
    assert encoded == covered + b" " + encode_base64(mac).encode() + b"\n"


def test_derives_the_first_vector_of_rfc_5869() -> None:
    derived = derive_key(b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)))
    assert derived.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"


@given(STANZAS)
def test_every_proper_prefix_needs_more_bytes(stanzas: list[Stanza]) -> None:
    encoded = encode_header(stanzas, FILE_KEY)
    for length in range(len(encoded)):
        with pytest.raises(IncompleteHeaderError):
            parse_header(encoded[:length])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"age-encryption.org/v2\n", "not an age v1 file", id="other version"),
        pytest.param(b"age-encryption.org/v1\r\n", "not an age v1 file", id="crlf after the version"),
        pytest.param(b"age-encryption.org/v1 \n", "not an age v1 file", id="space after the version"),
        pytest.param(b"\nage-encryption.org/v1\n", "not an age v1 file", id="leading line"),
        pytest.param(b"-----BEGIN AGE ENCRYPTED FILE-----\n", "not an age v1 file", id="armor"),
        pytest.param(version_and(MAC_LINE), "no recipient stanza", id="no stanza"),
        pytest.param(version_and(b"\n", MAC_LINE), "expected a recipient stanza", id="empty line"),
        pytest.param(version_and(b"->\n", b"\n", MAC_LINE), "expected a recipient stanza", id="no arguments"),
        pytest.param(version_and(b"-> \n", b"\n", MAC_LINE), "visible ascii", id="empty argument"),
        pytest.param(version_and(b"->x\n", b"\n", MAC_LINE), "expected a recipient stanza", id="no space"),
        pytest.param(version_and(b"=> x\n", b"\n", MAC_LINE), "expected a recipient stanza", id="bad start"),
        pytest.param(version_and(b"->  x\n", b"\n", MAC_LINE), "visible ascii", id="two spaces at the start"),
        pytest.param(version_and(b"-> x  y\n", b"\n", MAC_LINE), "visible ascii", id="two spaces between"),
        pytest.param(version_and(b"-> x \n", b"\n", MAC_LINE), "visible ascii", id="space at the end"),
        pytest.param(version_and(b"-> x\r\n", b"\n", MAC_LINE), "visible ascii", id="crlf after arguments"),
        pytest.param(version_and(b"-> x\ty\n", b"\n", MAC_LINE), "visible ascii", id="tab"),
        pytest.param(version_and(b"-> \xc3\xa4\n", b"\n", MAC_LINE), "visible ascii", id="not ascii"),
        pytest.param(version_and(b"-> x\n", b"\r\n", MAC_LINE), "unexpected character", id="crlf after the body"),
        pytest.param(version_and(b"-> x\n", b"AA==\n", MAC_LINE), "unexpected character", id="padding"),
        pytest.param(version_and(b"-> x\n", b"AA \n", MAC_LINE), "unexpected character", id="space after the body"),
        pytest.param(version_and(b"-> x\n", b"A-\n", MAC_LINE), "unexpected character", id="url alphabet"),
        pytest.param(version_and(b"-> x\n", b"AB\n", MAC_LINE), "not the canonical", id="not canonical"),
        pytest.param(version_and(b"-> x\n", b"AAB\n", MAC_LINE), "not the canonical", id="not canonical, two bytes"),
        pytest.param(version_and(b"-> x\n", b"A\n", MAC_LINE), "impossible length", id="one character"),
        pytest.param(version_and(b"-> x\n", MAC_LINE), "unexpected character", id="no body"),
        pytest.param(version_and(b"-> x\n", BODY_48 + b"\n", MAC_LINE), "unexpected character", id="no short line"),
        pytest.param(version_and(b"-> x\n", BODY_48 + b"AAAA\n", MAC_LINE), "at most 64", id="long line"),
        pytest.param(
            version_and(b"-> x\n", b"AAAA\n", b"AAAA\n", MAC_LINE), "expected a recipient", id="two short lines"
        ),
        pytest.param(
            version_and(b"-> x\n", b"\n", b"\n", MAC_LINE), "expected a recipient", id="empty line after body"
        ),
        pytest.param(version_and(b"-> x\n\n", b"---\n"), "expected a recipient stanza or the mac", id="no mac"),
        pytest.param(version_and(b"-> x\n\n", b"---" + MAC_LINE[4:]), "expected a recipient", id="no space before mac"),
        pytest.param(
            version_and(b"-> x\n\n", b"---  " + MAC_LINE[4:]), "unexpected character", id="two spaces before mac"
        ),
        pytest.param(version_and(b"-> x\n\n", MAC_LINE[:-1] + b" \n"), "unexpected character", id="space after mac"),
        pytest.param(version_and(b"-> x\n\n", MAC_LINE[:-1] + b"\r\n"), "unexpected character", id="crlf after mac"),
        pytest.param(version_and(b"-> x\n\n", MAC_LINE[:-1] + b"=\n"), "unexpected character", id="padded mac"),
        pytest.param(version_and(b"-> x\n\n", MAC_LINE[:-2] + b"B\n"), "not the canonical", id="mac not canonical"),
        pytest.param(version_and(b"-> x\n\n", b"--- AAAA\n"), "mac of 32 bytes, got 3", id="short mac"),
        pytest.param(
            version_and(b"-> scrypt a 1\n\n", b"-> x\n\n", MAC_LINE), "beside others", id="scrypt and another"
        ),
        pytest.param(version_and(b"-> scrypt a 1\n\n" * 2, MAC_LINE), "beside others", id="scrypt twice"),
    ],
)
def test_refuses_every_deviation(data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        parse_header(data)
    assert not isinstance(caught.value, IncompleteHeaderError)


@pytest.mark.parametrize("tail", [b"", b"\n" + MAC_LINE])
def test_a_header_beyond_the_limit_is_refused_not_awaited(tail: bytes) -> None:
    endless = version_and(b"-> " + b"x" * MAX_HEADER, tail)
    with pytest.raises(FormatError, match="longer than 65536") as caught:
        parse_header(endless)
    assert not isinstance(caught.value, IncompleteHeaderError)
    with pytest.raises(IncompleteHeaderError):
        parse_header(endless[: MAX_HEADER - 1])


def test_the_largest_header_is_read_back_and_a_larger_one_is_not_written() -> None:
    filler = len(encode_header([Stanza("x", ("y",), b"")], FILE_KEY)) - 1
    largest = encode_header([Stanza("x", ("y" * (MAX_HEADER - filler),), b"")], FILE_KEY)
    assert len(largest) == MAX_HEADER
    assert parse_header(largest)[1] == MAX_HEADER
    with pytest.raises(UsageError, match="expected at most 65536"):
        encode_header([Stanza("x", ("y" * (MAX_HEADER - filler + 1),), b"")], FILE_KEY)


def test_refuses_to_encode_without_recipients() -> None:
    with pytest.raises(UsageError, match="at least one recipient"):
        encode_header([], FILE_KEY)


@pytest.mark.parametrize(
    ("kind", "args"), [("", ()), ("a b", ()), ("x", ("",)), ("x", ("a b",)), ("x", ("ä",)), ("x\n", ())]
)
def test_refuses_to_encode_a_malformed_stanza(kind: str, args: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match="visible ascii"):
        Stanza(kind, args, b"").encode()


def test_a_header_of_another_file_key_is_refused() -> None:
    header, _ = parse_header(encode_header([Stanza("x", (), b"")], FILE_KEY))
    with pytest.raises(DecryptionError, match="mac does not match"):
        header.authenticate(bytes(16))
    with pytest.raises(DecryptionError, match="mac does not match"):
        Header((*header.stanzas, Stanza("y", (), b"")), header.mac).authenticate(FILE_KEY)


@given(st.binary(max_size=64))
def test_base64_has_one_encoding(raw: bytes) -> None:
    assert decode_base64(encode_base64(raw).encode()) == raw


@given(st.binary(max_size=12))
def test_any_base64_is_canonical_or_refused(text: bytes) -> None:
    try:
        raw = decode_base64(text)
    except FormatError:
        return
    assert encode_base64(raw).encode() == text


@given(st.binary(max_size=200))
def test_hostile_lines_are_refused_with_our_errors(noise: bytes) -> None:
    with pytest.raises(ArchiverError):
        parse_header(version_and(b"-> x\n", noise, b"\n"))
