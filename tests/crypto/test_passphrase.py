"""Passphrases: stretched with scrypt as the specification says, bounded in what a file can make them cost."""

import hashlib
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.crypto import passphrase
from archiver.crypto.header import Stanza, decode_base64, encode_base64
from archiver.crypto.passphrase import (
    MAX_WORK_FACTOR,
    MIN_PASSPHRASE,
    PassphraseIdentity,
    PassphraseRecipient,
)
from archiver.errors import FormatError, UsageError

FILE_KEY = bytes(range(16))
SECRET = "correct horse battery"
IDENTITY = PassphraseIdentity(SECRET)
CHEAP = 2
SALT = encode_base64(bytes(16))


@pytest.fixture
def _no_stretching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a passphrase is stretched at all."""

    def refuse(*args: object) -> bytes:
        raise AssertionError(f"stretched: {args[2:]}")

    monkeypatch.setattr(passphrase, "_stretch", refuse)


# Without control characters: scrypt, through HMAC, takes a passphrase for the same as that with zero bytes behind it.
@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=MIN_PASSPHRASE, max_size=60))
def test_opens_what_it_wrapped_and_nothing_else(secret: str) -> None:
    stanza = PassphraseRecipient(secret, CHEAP).wrap(FILE_KEY)
    assert PassphraseIdentity(secret).unwrap(stanza) == FILE_KEY
    for other in (secret + " ", secret[:-1], secret.swapcase() + "x", ""):
        assert PassphraseIdentity(other).unwrap(stanza) is None


def test_every_wrap_has_a_new_salt() -> None:
    recipient = PassphraseRecipient(SECRET, CHEAP)
    assert recipient.wrap(FILE_KEY).args[0] != recipient.wrap(FILE_KEY).args[0]


def test_the_construction_of_the_specification() -> None:
    stanza = PassphraseRecipient("größer als zwölf", 10).wrap(FILE_KEY)
    assert (stanza.kind, stanza.args[1]) == ("scrypt", "10")
    salt = b"age-encryption.org/v1/scrypt" + decode_base64(stanza.args[0].encode())
    assert len(salt) == 28 + 16
    key = hashlib.scrypt("größer als zwölf".encode(), salt=salt, n=1 << 10, r=8, p=1, dklen=32)
    assert ChaCha20Poly1305(key).decrypt(bytes(12), stanza.body, None) == FILE_KEY


def test_writes_with_the_work_factor_of_age(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrase, "_stretch", lambda *_: bytes(32))
    assert PassphraseRecipient(SECRET).wrap(FILE_KEY).args[1] == "18"


@pytest.mark.usefixtures("_no_stretching")
@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        ("21", "'21'"),
        ("22", "'22'"),
        ("63", "'63'"),
        ("64", "'64'"),
        ("99", "'99'"),
        ("100", "'100'"),
        ("1" * 5000, f"'{'1' * 20}'"),
        ("0", "'0'"),
        ("010", "'010'"),
        ("+10", r"'\+10'"),
        ("-1", "'-1'"),
        ("0x10", "'0x10'"),
        ("1e1", "'1e1'"),
        ("ten", "'ten'"),
        ("\u0661\u0660", "'"),
    ],
)
def test_refuses_a_work_factor_before_it_costs_anything(cost: str, shown: str) -> None:
    with pytest.raises(FormatError, match=rf"expected a work factor from 1 to 20, got {shown}"):
        IDENTITY.unwrap(Stanza("scrypt", (SALT, cost), bytes(32)))


@pytest.mark.parametrize("cost", [1, 9, 18, MAX_WORK_FACTOR])
def test_takes_every_work_factor_up_to_the_limit(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def stretch(secret: bytes, salt: bytes, work_factor: int) -> bytes:
        asked.append(work_factor)
        return bytes(32)

    monkeypatch.setattr(passphrase, "_stretch", stretch)
    body = ChaCha20Poly1305(bytes(32)).encrypt(bytes(12), FILE_KEY, None)
    assert IDENTITY.unwrap(Stanza("scrypt", (SALT, str(cost)), body)) == FILE_KEY
    assert asked == [cost]


@pytest.mark.usefixtures("_no_stretching")
@pytest.mark.parametrize(
    ("args", "body", "reason"),
    [
        ((), bytes(32), "expected 2 arguments, got 0"),
        ((SALT,), bytes(32), "expected 2 arguments, got 1"),
        ((SALT, "10", "10"), bytes(32), "expected 2 arguments, got 3"),
        ((encode_base64(bytes(15)), "10"), bytes(32), "a salt of 16 bytes, got 15"),
        ((encode_base64(bytes(17)), "10"), bytes(32), "a salt of 16 bytes, got 17"),
        ((SALT + "==", "10"), bytes(32), "unexpected character"),
        ((SALT[:-1] + "B", "10"), bytes(32), "not the canonical"),
        ((SALT, "10"), bytes(31), "a body of 32 bytes, got 31"),
        ((SALT, "10"), bytes(33), "a body of 32 bytes, got 33"),
    ],
)
def test_refuses_malformed_stanzas_before_they_cost_anything(args: tuple[str, ...], body: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        IDENTITY.unwrap(Stanza("scrypt", args, body))


@pytest.mark.usefixtures("_no_stretching")
def test_ignores_other_kinds_however_they_look() -> None:
    for kind in ("Scrypt", "scrypt-grease", "X25519", "mlkem768x25519"):
        assert IDENTITY.unwrap(Stanza(kind, (SALT, "99"), bytes(32))) is None


@pytest.mark.parametrize("secret", ["", "short", "x" * (MIN_PASSPHRASE - 1)])
def test_refuses_to_wrap_to_a_short_passphrase_without_showing_it(secret: str) -> None:
    with pytest.raises(UsageError, match=f"at least 12 characters, got {len(secret)}") as caught:
        PassphraseRecipient(secret)
    assert caught.value.hint is not None
    assert not secret or secret not in caught.value.message + caught.value.hint


def test_opens_with_a_short_passphrase_that_another_tool_took() -> None:
    salt = bytes(16)
    key = hashlib.scrypt(b"pw", salt=b"age-encryption.org/v1/scrypt" + salt, n=4, r=8, p=1, dklen=32)
    body = ChaCha20Poly1305(key).encrypt(bytes(12), FILE_KEY, None)
    assert PassphraseIdentity("pw").unwrap(Stanza("scrypt", (SALT, "2"), body)) == FILE_KEY


@pytest.mark.parametrize("kind", [PassphraseRecipient, PassphraseIdentity])
def test_refuses_what_is_no_text_without_carrying_it_along(
    kind: type[PassphraseRecipient] | type[PassphraseIdentity],
) -> None:
    # What Python makes of a byte that is no UTF-8, such as one typed on a terminal with Latin-1.
    with pytest.raises(UsageError, match="not utf-8") as caught:
        kind("a secret of bytes \udce4")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("work_factor", [-1, 0, MAX_WORK_FACTOR + 1])
def test_never_writes_what_it_would_not_read(work_factor: int) -> None:
    with pytest.raises(ValueError, match="would not be read"):
        PassphraseRecipient(SECRET, work_factor)


def test_no_rendering_shows_the_secret() -> None:
    for secret in (PassphraseRecipient(SECRET), IDENTITY):
        for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}", f"{secret!a}"):
            assert "assphrase" in shown
            assert "horse" not in shown


def test_too_little_memory_is_said_in_one_line() -> None:
    script = f"""
import resource
from pathlib import Path
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.errors import ArchiverError
recipient = PassphraseRecipient({SECRET!r})
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    recipient.wrap(bytes(16))
except ArchiverError as error:
    print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "a passphrase takes 256 MiB of memory with the work factor 18, and there is less\n"
