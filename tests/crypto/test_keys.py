"""Key pairs of both kinds: told apart by their text, one text for each key, and identity files."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.crypto import bech32
from archiver.crypto.hybrid import HybridIdentity, HybridRecipient
from archiver.crypto.identities import parse_identities
from archiver.crypto.keys import SecretKey, generate_identity, identity_file, parse_identity, parse_recipient
from archiver.crypto.x25519 import X25519Identity, X25519Recipient
from archiver.errors import FormatError

KEYS: list[SecretKey] = [X25519Identity(b"\x42" * 32), HybridIdentity(b"\x42" * 32)]
EACH_KIND = pytest.mark.parametrize("identity", KEYS, ids=["x25519", "post-quantum"])
KINDS = st.sampled_from([X25519Identity, HybridIdentity])


@settings(max_examples=60, deadline=None)
@given(KINDS, st.binary(min_size=32, max_size=32))
def test_parse_inverts_encode(kind: type[X25519Identity] | type[HybridIdentity], secret: bytes) -> None:
    identity = kind(secret)
    parsed = parse_identity(identity.encode())
    assert type(parsed) is kind
    assert bech32.decode(parsed.encode()) == (identity.encode().rpartition("1")[0], secret)
    assert parsed.recipient == identity.recipient == parse_recipient(str(identity.recipient))
    assert type(parse_recipient(str(identity.recipient))) is type(identity.recipient)


@settings(max_examples=60, deadline=None)
@given(KINDS, st.binary(max_size=70).filter(lambda data: len(data) != 32))
def test_refuses_every_other_length(kind: type[X25519Identity] | type[HybridIdentity], data: bytes) -> None:
    prefixes = ("AGE-SECRET-KEY-", "age") if kind is X25519Identity else ("AGE-SECRET-KEY-PQ-", "age1pq")
    with pytest.raises(FormatError, match=f"expected 32 bytes, got {len(data)}"):
        parse_identity(bech32.encode(prefixes[0], data))
    with pytest.raises(FormatError, match=rf"expected \d+ bytes, got {len(data)}"):
        parse_recipient(bech32.encode(prefixes[1], data))


@EACH_KIND
def test_refuses_the_other_letter_case(identity: SecretKey) -> None:
    with pytest.raises(FormatError, match="expected it to start with age1"):
        parse_recipient(str(identity.recipient).upper())
    with pytest.raises(FormatError, match="expected it to start with AGE-SECRET-KEY-1") as caught:
        parse_identity(identity.encode().lower())
    assert "gfpyy" not in caught.value.message
    for text in (str(identity.recipient), identity.encode()):
        with pytest.raises(FormatError, match="mixed case"):
            parse_recipient(text[:-3] + text[-3:].swapcase())


@EACH_KIND
def test_never_takes_a_secret_for_a_recipient_or_the_reverse(identity: SecretKey) -> None:
    with pytest.raises(FormatError, match="not an X25519 recipient") as caught:
        parse_recipient(identity.encode())
    assert "gfpyy" not in caught.value.message.lower()
    with pytest.raises(FormatError, match="not an X25519 identity"):
        parse_identity(str(identity.recipient))


@pytest.mark.parametrize(
    "prefix",
    ["age1pqc", "age1p", "age1tag", "age1yubikey", "agepq", "AGE-SECRET-KEY-PQ-", "AGE-PLUGIN-YUBIKEY-", "npub"],
)
def test_refuses_other_prefixes(prefix: str) -> None:
    with pytest.raises(FormatError, match="not an X25519 recipient"):
        parse_recipient(bech32.encode(prefix, bytes(32)))
    with pytest.raises(FormatError, match=r"not an X25519 identity|not a post-quantum identity"):
        parse_identity(bech32.encode(prefix.lower() + "x", bytes(32)))


@pytest.mark.parametrize(
    "text", ["", " ", "1", "age1", "age1pq1", "AGE-SECRET-KEY-1", "AGE-SECRET-KEY-PQ-1", "\0", "ä"]
)
def test_refuses_scraps(text: str) -> None:
    for parse in (parse_recipient, parse_identity):
        with pytest.raises(FormatError):
            parse(text)


def test_generates_the_kind_that_is_asked_for() -> None:
    classic, quantum = generate_identity(post_quantum=False), generate_identity(post_quantum=True)
    assert (type(classic), type(classic.recipient)) == (X25519Identity, X25519Recipient)
    assert (type(quantum), type(quantum.recipient)) == (HybridIdentity, HybridRecipient)
    assert generate_identity(post_quantum=False).recipient != classic.recipient
    assert generate_identity(post_quantum=True).recipient != quantum.recipient


@EACH_KIND
def test_an_identity_file_reads_back(identity: SecretKey) -> None:
    text = identity_file(identity, "2026-11-25T08:00:00+00:00")
    (found,) = parse_identities(text, "key.txt")
    assert found.encode() == identity.encode()
    assert f"# public key: {identity.recipient}\n" in text


def test_an_identity_file_is_like_that_of_age_keygen(tmp_path: Path) -> None:
    identity = KEYS[0]
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    shape = re.compile(r"# created: (\S+)\n# public key: (age1\w{58})\n(AGE-SECRET-KEY-1\w{58})\n")
    theirs, ours = shape.fullmatch(made), shape.fullmatch(identity_file(identity, "2026-11-25T08:00:00Z"))
    assert theirs is not None
    assert ours is not None
    assert ours.groups() == ("2026-11-25T08:00:00Z", str(identity.recipient), identity.encode())
    (tmp_path / "key.txt").write_text(ours[0])
    told = subprocess.run(["age-keygen", "-y", tmp_path / "key.txt"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(identity.recipient)
    (parsed,) = parse_identities(made, "theirs")
    assert str(parsed.recipient) == theirs[2]
