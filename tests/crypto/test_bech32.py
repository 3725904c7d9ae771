"""Bech32: the vectors of BIP-173, and that every text has one value and the reverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.crypto import bech32
from archiver.errors import FormatError

PREFIXES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.lower)


@pytest.mark.parametrize(
    ("text", "hrp", "data"),
    [
        ("A12UEL5L", "A", b""),
        ("an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs", None, b""),
        (
            "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
            "abcdef",
            bytes.fromhex("00443214c74254b635cf84653a56d7c675be77df"),
        ),
        ("?1ezyfcl", "?", b""),
    ],
)
def test_decodes_the_vectors_of_bip_173(text: str, hrp: str | None, data: bytes) -> None:
    assert bech32.decode(text) == (hrp or text[: text.rindex("1")], data)
    assert bech32.encode(*bech32.decode(text)) == text


def test_encodes_the_keys_of_the_age_specification() -> None:
    secret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
    assert bech32.encode("AGE-SECRET-KEY-", b"\x42" * 32) == secret
    assert bech32.decode(secret) == ("AGE-SECRET-KEY-", b"\x42" * 32)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no separator"),
        ("pzry9x0s0muk", "no separator"),
        ("1pzry9x0s0muk", "malformed prefix"),
        ("\x201nwldj5", "malformed prefix"),
        ("\x7f1axkwrx", "malformed prefix"),
        ("\x801eym55h", "malformed prefix"),
        ("x1b4n0q5v", "unexpected character"),
        ("li1dgmt3", "wrong checksum"),
        ("de1lg7wt\xff", "unexpected character"),
        ("A1G7SGD8", "wrong checksum"),
        ("10a06t8", "malformed prefix"),
        ("1qzzfhee", "malformed prefix"),
        ("A12uEL5L", "mixed case"),
        ("a12UEL5L", "mixed case"),
    ],
)
def test_refuses_what_bip_173_says_is_invalid(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        bech32.decode(text)


def test_refuses_letters_whose_lower_case_is_in_the_alphabet() -> None:
    text = bech32.encode("AGE", bytes(range(40)))
    assert "K" in text
    with pytest.raises(FormatError, match="unexpected character"):
        bech32.decode(text.replace("K", "\N{KELVIN SIGN}", 1))


@pytest.mark.parametrize("values", [[0], [31, 31, 31], [1, 1], [0, 1], [0, 0, 0]])
def test_refuses_padding_that_is_too_long_or_not_zero(values: list[int]) -> None:
    checksum = bech32._checksum("age", values)
    text = "age1" + "".join(bech32._ALPHABET[value] for value in values + checksum)
    with pytest.raises(FormatError, match="padding"):
        bech32.decode(text)


@pytest.mark.parametrize("hrp", ["", "aB", "a b", "ä"])
def test_refuses_to_encode_under_a_malformed_prefix(hrp: str) -> None:
    with pytest.raises(FormatError, match=r"prefix|mixed case"):
        bech32.encode(hrp, b"x")


@given(PREFIXES, st.binary(max_size=200), st.booleans())
def test_decode_inverts_encode(hrp: str, data: bytes, upper: bool) -> None:
    hrp = hrp.upper() if upper else hrp
    text = bech32.encode(hrp, data)
    decoded = bech32.decode(text)
    # A prefix without letters has no case of its own: its text is lower case.
    assert (decoded[0].lower(), decoded[1]) == (hrp.lower(), data)
    assert bech32.encode(*decoded) == text


@given(st.text(max_size=60))
def test_any_text_decodes_canonically_or_is_refused(text: str) -> None:
    try:
        decoded = bech32.decode(text)
    except FormatError:
        return
    assert bech32.encode(*decoded) == text


@given(st.binary(min_size=1, max_size=40), st.data())
def test_one_wrong_character_never_passes(payload: bytes, data: st.DataObject) -> None:
    text = bech32.encode("age", payload)
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != text[position]))
    with pytest.raises(FormatError):
        bech32.decode(text[:position] + character + text[position + 1 :])
