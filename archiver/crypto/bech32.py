"""Bech32 text encoding of keys, as age uses it.

Source: BIP-173 (https://github.com/bitcoin/bips/blob/master/bip-0173.mediawiki), without its limit of 90 characters,
as the age specification says (https://c2sp.org/age). Error messages never show the text: it may be a secret.
"""

from collections.abc import Iterable

from archiver.errors import FormatError

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6


def encode(hrp: str, data: bytes) -> str:
    """The Bech32 text of ``data`` under the prefix ``hrp``, in the letter case of ``hrp``.

    Raises ``FormatError`` when ``hrp`` is empty, has mixed case or holds anything but visible ASCII.
    """
    _check_prefix(hrp)
    lower = hrp.lower()
    values = _to_five_bits(data)
    body = "".join(_ALPHABET[value] for value in values + _checksum(lower, values))
    text = f"{lower}1{body}"
    return text if hrp == lower else text.upper()


def decode(text: str) -> tuple[str, bytes]:
    """The prefix, in the letter case of ``text``, and the data of a Bech32 text.

    Raises ``FormatError`` for mixed case, a character outside the alphabet, a missing or malformed prefix, a wrong
    checksum, and padding that is longer than needed or not zero: every text has one value and the reverse.
    """
    hrp, separator, body = text.rpartition("1")
    if not separator:
        raise FormatError("invalid bech32: no separator")
    if text != text.lower() and text != text.upper():
        raise FormatError("invalid bech32: mixed case")
    _check_prefix(hrp)
    # The Kelvin sign is an upper-case letter whose lower case is a plain k.
    if not body.isascii():
        raise FormatError("invalid bech32: unexpected character")
    try:
        values = [_VALUES[character] for character in body.lower()]
    except KeyError:
        raise FormatError("invalid bech32: unexpected character") from None
    if len(values) < _CHECKSUM_LENGTH or _polymod([*_expand(hrp.lower()), *values]) != 1:
        raise FormatError("invalid bech32: wrong checksum, so a character is missing or mistyped")
    return hrp, _to_bytes(values[:-_CHECKSUM_LENGTH])


def _check_prefix(hrp: str) -> None:
    if not hrp or not all("!" <= character <= "~" for character in hrp):
        raise FormatError("invalid bech32: malformed prefix")
    if hrp != hrp.lower() and hrp != hrp.upper():
        raise FormatError("invalid bech32: mixed case")


def _polymod(values: Iterable[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expand(hrp: str) -> list[int]:
    return [ord(character) >> 5 for character in hrp] + [0] + [ord(character) & 31 for character in hrp]


def _checksum(hrp: str, values: list[int]) -> list[int]:
    remainder = _polymod([*_expand(hrp), *values, *bytes(_CHECKSUM_LENGTH)]) ^ 1
    return [remainder >> shift & 31 for shift in range(25, -1, -5)]


def _to_five_bits(data: bytes) -> list[int]:
    padding = -len(data) * 8 % 5
    number = int.from_bytes(data, "big") << padding
    count = (len(data) * 8 + padding) // 5
    return [number >> 5 * (count - 1 - index) & 31 for index in range(count)]


def _to_bytes(values: list[int]) -> bytes:
    number = 0
    for value in values:
        number = number << 5 | value
    size, padding = divmod(len(values) * 5, 8)
    if padding > 4 or number & ((1 << padding) - 1):
        raise FormatError("invalid bech32: malformed padding")
    return (number >> padding).to_bytes(size, "big")
