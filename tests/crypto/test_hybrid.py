"""Post-quantum recipients and identities: both halves count, strict stanzas, and secrets that stay out of sight."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.crypto import bech32
from archiver.crypto.header import Stanza, decode_base64, encode_base64
from archiver.crypto.hybrid import HybridIdentity, HybridRecipient
from archiver.errors import ArchiverError, FormatError, UsageError
from tests.crypto.test_x25519 import LOW_ORDER

FILE_KEY = bytes(range(16))
SEED = b"\x42" * 32
IDENTITY = HybridIdentity(SEED)
MLKEM_KEY, X25519_KEY = IDENTITY.recipient.key[:1184], IDENTITY.recipient.key[1184:]
PUBLIC, SECRET = str(IDENTITY.recipient), IDENTITY.encode()
STANZA = IDENTITY.recipient.wrap(FILE_KEY)
SHARE = decode_base64(STANZA.args[0].encode())


def with_share(share: bytes, body: bytes = STANZA.body) -> Stanza:
    return Stanza(STANZA.kind, (encode_base64(share),), body)


def with_args(*args: str) -> Stanza:
    return Stanza(STANZA.kind, args, STANZA.body)


def test_unwraps_what_it_wrapped_and_nothing_else() -> None:
    assert IDENTITY.unwrap(STANZA) == FILE_KEY
    assert HybridIdentity.generate().unwrap(STANZA) is None


def test_every_wrap_is_new() -> None:
    again = IDENTITY.recipient.wrap(FILE_KEY)
    assert again.args != STANZA.args
    assert again.body != STANZA.body


def test_new_identities_differ() -> None:
    assert HybridIdentity.generate().encode() != HybridIdentity.generate().encode()


def test_the_sizes_of_the_specification() -> None:
    assert (len(IDENTITY.recipient.key), len(SHARE), len(STANZA.body)) == (1216, 1120, 32)
    assert STANZA.kind == "mlkem768x25519"


def test_either_half_alone_opens_nothing() -> None:
    other = HybridIdentity.generate().recipient.key
    for mixed in (MLKEM_KEY + other[1184:], other[:1184] + X25519_KEY):
        assert IDENTITY.unwrap(HybridRecipient(mixed).wrap(FILE_KEY)) is None
    others = decode_base64(HybridRecipient(other).wrap(FILE_KEY).args[0].encode())
    assert IDENTITY.unwrap(with_share(SHARE[:1088] + others[1088:])) is None
    assert IDENTITY.unwrap(with_share(others[:1088] + SHARE[1088:])) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, (len(SHARE) + len(STANZA.body)) * 8 - 1))
def test_no_flipped_bit_opens(bit: int) -> None:
    damaged = bytearray(SHARE + STANZA.body)
    damaged[bit // 8] ^= 1 << bit % 8
    flipped = with_share(bytes(damaged[: len(SHARE)]), bytes(damaged[len(SHARE) :]))
    # X25519 ignores the highest bit of a share, the key schedule does not.
    assert IDENTITY.unwrap(flipped) is None


def test_ignores_other_kinds_however_they_look() -> None:
    for kind in ("MLKEM768X25519", "mlkem768x25519-grease", "scrypt", "X25519"):
        assert IDENTITY.unwrap(Stanza(kind, ("a", "b", "c"), b"")) is None


@pytest.mark.parametrize(
    ("stanza", "reason"),
    [
        (with_args(), "expected 1 argument, got 0"),
        (with_args(*STANZA.args, "extra"), "expected 1 argument, got 2"),
        (with_args(STANZA.args[0] + "="), "unexpected character"),
        (with_args(STANZA.args[0][:-1] + "B"), "not the canonical"),
        (with_share(SHARE[:-1]), "a share of 1120 bytes, got 1119"),
        (with_share(SHARE + b"\0"), "a share of 1120 bytes, got 1121"),
        (with_share(SHARE[-32:]), "a share of 1120 bytes, got 32"),
        (with_share(b""), "impossible|a share of 1120 bytes, got 0"),
        (with_share(SHARE, STANZA.body[:-1]), "a body of 32 bytes, got 31"),
        (with_share(SHARE, STANZA.body + b"\0"), "a body of 32 bytes, got 33"),
    ],
)
def test_refuses_malformed_stanzas(stanza: Stanza, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        IDENTITY.unwrap(stanza)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_refuses_a_point_of_low_order(point: bytes) -> None:
    with pytest.raises(FormatError, match="low order"):
        IDENTITY.unwrap(with_share(SHARE[:1088] + point))
    with pytest.raises(UsageError, match="no valid key"):
        HybridRecipient(MLKEM_KEY + point).wrap(FILE_KEY)


@pytest.mark.parametrize(
    "key",
    [
        # A coefficient of 12 bits must be less than 3329.
        b"\xff\xff" + MLKEM_KEY[2:] + X25519_KEY,
        MLKEM_KEY[:1150] + b"\xff\xff" + MLKEM_KEY[1152:] + X25519_KEY,
        MLKEM_KEY[1:] + X25519_KEY,
        MLKEM_KEY + X25519_KEY + b"\0",
        X25519_KEY,
        b"",
    ],
    ids=["first", "last", "short", "long", "x25519", "empty"],
)
def test_refuses_to_wrap_to_what_is_no_key(key: bytes) -> None:
    with pytest.raises(UsageError, match=r"the recipient age1pq1\w*… cannot be used"):
        HybridRecipient(key).wrap(FILE_KEY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no separator"),
        (PUBLIC.upper(), "not a post-quantum recipient: expected it to start with age1pq1"),
        (PUBLIC + " ", "unexpected character"),
        (PUBLIC[:-1], "wrong checksum"),
        (SECRET, "not a post-quantum recipient"),
        (bech32.encode("age1pq", IDENTITY.recipient.key[1:]), "1216 bytes, got 1215"),
        (bech32.encode("age1pq", IDENTITY.recipient.key + b"\0"), "1216 bytes, got 1217"),
        (bech32.encode("age1pq", X25519_KEY), "1216 bytes, got 32"),
        (bech32.encode("age", IDENTITY.recipient.key), "start with age1pq1"),
    ],
)
def test_refuses_malformed_recipients(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        HybridRecipient.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        SECRET.lower(),
        SECRET[:-1],
        SECRET[:-1] + ("Q" if SECRET[-1] != "Q" else "P"),
        SECRET + "\n",
        PUBLIC,
        bech32.encode("AGE-SECRET-KEY-", SEED),
        bech32.encode("AGE-SECRET-KEY-PQ-", SEED[1:]),
        bech32.encode("AGE-SECRET-KEY-PQ-", SEED * 2),
    ],
)
def test_refuses_malformed_identities_without_showing_them(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        HybridIdentity.parse(text)
    assert "gfpyy" not in caught.value.message.lower()


def test_no_rendering_shows_the_secret() -> None:
    assert "GFPYYSJZGFPYYSJZ" in SECRET
    for shown in (repr(IDENTITY), str(IDENTITY), f"{IDENTITY}", f"{[IDENTITY]}", f"{IDENTITY!a}"):
        assert PUBLIC[:20] in shown
        assert "gfpyysjz" not in shown.lower()
        assert "SECRET-KEY" not in shown
        assert "42" * 8 not in shown


def test_a_failing_wrap_shows_no_more_than_the_beginning_of_the_recipient() -> None:
    with pytest.raises(ArchiverError) as caught:
        HybridRecipient(MLKEM_KEY + bytes(32)).wrap(FILE_KEY)
    assert len(caught.value.message) < 100
    assert len(repr(IDENTITY.recipient)) < 100
