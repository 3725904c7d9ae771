"""X25519 recipients and identities: wrapping, strict stanzas, and secrets that stay out of sight."""

import hashlib
import os
import subprocess

import pyrage  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from archiver.crypto import bech32
from archiver.crypto.header import Stanza, derive_key, encode_base64
from archiver.crypto.recipients import vault_id
from archiver.crypto.x25519 import X25519Identity, X25519Recipient
from archiver.errors import FormatError, UsageError

FILE_KEY = bytes(range(16))
SECRET = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
PUBLIC = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 19 - 1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 19 + 1).to_bytes(32, "little"),
]


def test_the_keys_of_the_specification() -> None:
    identity = X25519Identity.parse(SECRET)
    assert str(identity.recipient) == PUBLIC
    assert identity.encode() == SECRET
    assert X25519Recipient.parse(PUBLIC) == identity.recipient


def test_the_stock_tools_agree_on_a_new_key() -> None:
    identity = X25519Identity.generate()
    told = subprocess.run(["age-keygen", "-y"], input=identity.encode(), capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(identity.recipient)
    assert str(pyrage.x25519.Identity.from_str(identity.encode()).to_public()) == str(identity.recipient)


def test_new_identities_differ() -> None:
    assert X25519Identity.generate().encode() != X25519Identity.generate().encode()


def test_unwraps_what_it_wrapped_and_nothing_else() -> None:
    identity = X25519Identity.generate()
    stanza = identity.recipient.wrap(FILE_KEY)
    assert identity.unwrap(stanza) == FILE_KEY
    assert X25519Identity.generate().unwrap(stanza) is None


def test_every_wrap_uses_a_new_ephemeral_key() -> None:
    recipient = X25519Recipient.parse(PUBLIC)
    assert recipient.wrap(FILE_KEY).args != recipient.wrap(FILE_KEY).args


def test_ignores_other_kinds_however_they_look() -> None:
    identity = X25519Identity.generate()
    for kind in ("x25519", "X25519-grease", "scrypt", "mlkem768x25519"):
        assert identity.unwrap(Stanza(kind, ("a", "b", "c"), b"")) is None


def with_args(*args: str) -> Stanza:
    return Stanza("X25519", args, bytes(32))


SHARE = encode_base64(b"\x09" + bytes(31))


@pytest.mark.parametrize(
    ("stanza", "reason"),
    [
        (with_args(), "expected 1 argument, got 0"),
        (with_args(SHARE, "extra"), "expected 1 argument, got 2"),
        (with_args(SHARE + "="), "unexpected character"),
        (with_args(SHARE[:-1] + "B"), "not the canonical"),
        (with_args(encode_base64(bytes(31))), "32 bytes, got 31"),
        (with_args(encode_base64(bytes(33))), "32 bytes, got 33"),
        (Stanza("X25519", (SHARE,), bytes(31)), "32 bytes, got 31"),
        (Stanza("X25519", (SHARE,), bytes(33)), "32 bytes, got 33"),
        (Stanza("X25519", (SHARE,), b""), "32 bytes, got 0"),
    ],
)
def test_refuses_malformed_stanzas(stanza: Stanza, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        X25519Identity.generate().unwrap(stanza)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_refuses_a_shared_secret_of_zeros(point: bytes) -> None:
    identity = X25519Identity.generate()
    wrap_key = derive_key(bytes(32), salt=point + identity.recipient.key, info=b"age-encryption.org/v1/X25519")
    body = ChaCha20Poly1305(wrap_key).encrypt(bytes(12), FILE_KEY, None)
    with pytest.raises(FormatError, match="low order"):
        identity.unwrap(Stanza("X25519", (encode_base64(point),), body))
    with pytest.raises(UsageError, match="low order"):
        X25519Recipient(point).wrap(FILE_KEY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no separator"),
        (PUBLIC.upper(), "start with age1"),
        (PUBLIC + " ", "unexpected character"),
        (PUBLIC[:-1], "wrong checksum"),
        (SECRET, "not an X25519 recipient"),
        (bech32.encode("age", bytes(31)), "32 bytes, got 31"),
        (bech32.encode("age", bytes(33)), "32 bytes, got 33"),
        (bech32.encode("age1pq", bytes(32)), "start with age1"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", "no separator|mixed case"),
    ],
)
def test_refuses_malformed_recipients(text: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        X25519Recipient.parse(text)


@pytest.mark.parametrize("text", [SECRET.lower(), SECRET[:-1], SECRET[:-1] + "Q", PUBLIC, SECRET + "\n"])
def test_refuses_malformed_identities_without_showing_them(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        X25519Identity.parse(text)
    assert "gfpyy" not in caught.value.message.lower()


def test_no_rendering_shows_the_secret() -> None:
    identity = X25519Identity.parse(SECRET)
    for shown in (repr(identity), str(identity), f"{identity}", f"{[identity]}", f"{identity!a}"):
        assert PUBLIC in shown
        assert "SECRET-KEY" not in shown
        assert "42" * 8 not in shown


def test_vault_id_is_what_sha256sum_prints() -> None:
    told = subprocess.run(
        ["sha256sum"], input=PUBLIC.encode(), capture_output=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert vault_id(PUBLIC) == told.stdout.decode()[:16] == hashlib.sha256(PUBLIC.encode()).hexdigest()[:16]
