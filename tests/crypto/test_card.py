"""The recovery card: an identity file whose comments are enough on a blank machine."""

import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.crypto.age import seal_bytes
from archiver.crypto.card import CardValues, OpensWith, RecoveryCard, parse_card
from archiver.crypto.identities import parse_identities
from archiver.crypto.keys import generate_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import FormatError, UsageError

OPERATOR = X25519Identity.generate()
KEY = SigningKey.generate().verify_key
CARD = RecoveryCard(
    destination="s3://bucket/prefix?region=eu-central-1",
    source="ucotron-prod",
    vault_recipient=X25519Identity.generate().recipient,
    verify_keys=(TrustedKey(SigningKey.generate().verify_key),),
    created=datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
    identity=OPERATOR,
)
VALUES = CardValues(
    destination=CARD.destination,
    source=CARD.source,
    vault_recipient=CARD.vault_recipient,
    verify_keys=CARD.verify_keys,
    created=CARD.created,
)


def test_a_card_says_everything() -> None:
    text = CARD.render()
    assert parse_card(text, "card.txt") == VALUES
    assert [repr(identity) for identity in parse_identities(text, "card.txt")] == [repr(OPERATOR)]
    assert "archiver restore latest --identity THIS-FILE --to DIR" in text
    assert "#   pip install .\n" in text
    assert "Keep a copy of archiver's source or wheel with this card" in text
    assert f"# verify-key: {CARD.verify_keys[0].key}\n" in text


def test_age_takes_a_card_as_identity_file(tmp_path: Path) -> None:
    (tmp_path / "card.txt").write_text(CARD.render())
    (tmp_path / "sealed.age").write_bytes(seal_bytes(b"text", [OPERATOR.recipient]))
    opened = subprocess.run(
        ["age", "-d", "-i", "card.txt", "sealed.age"], cwd=tmp_path, capture_output=True, check=True
    )
    assert opened.stdout == b"text"


def test_a_card_without_the_secret_becomes_one_when_it_is_appended() -> None:
    text = msgspec.structs.replace(CARD, identity=None).render()
    assert parse_card(text, "card.txt") == VALUES
    assert "append its AGE-SECRET-KEY-... line below" in text
    # It is still true when that line has been appended.
    assert "As archiver wrote it, this file holds no secret. With a line AGE-SECRET-KEY-... at the end it does" in text
    with pytest.raises(FormatError, match="holds no identity"):
        parse_identities(text, "card.txt")
    completed = text + OPERATOR.encode() + "\n"
    assert parse_card(completed, "card.txt") == VALUES
    assert len(parse_identities(completed, "card.txt")) == 1


def test_a_card_survives_an_editor_of_another_system() -> None:
    text = CARD.render().replace("\n", "\r\n")
    assert parse_card(text, "card.txt") == VALUES


def test_a_plain_identity_file_has_no_values() -> None:
    text = f"# created by hand\n# public key: {OPERATOR.recipient}\n{OPERATOR.encode()}\n"
    assert parse_card(text, "key.txt") == CardValues()


def test_no_rendering_but_the_card_shows_the_secret() -> None:
    assert "AGE-SECRET-KEY" not in repr(CARD)
    assert OPERATOR.encode() in CARD.render()


def test_several_signing_keys_with_their_revocations() -> None:
    revoked = datetime(2026, 11, 20, 1, 2, 3, 456789, tzinfo=timezone(timedelta(hours=2)))
    keys = (*CARD.verify_keys, TrustedKey(KEY, revoked), TrustedKey(SigningKey.generate().verify_key))
    text = msgspec.structs.replace(CARD, verify_keys=keys).render()
    assert f"# verify-key: {KEY} revoked 2026-11-20T01:02:03.456789+02:00\n" in text
    parsed = parse_card(text, "card.txt").verify_keys
    assert parsed == keys
    assert parsed[1].revoked is not None
    assert parsed[1].revoked.tzinfo is UTC


WAYS: list[tuple[tuple[OpensWith, ...], str, list[str], list[str]]] = [
    (
        ("key",),
        "it needs this beside it:",
        ["archiver restore latest --identity THIS-FILE --to DIR"],
        ["age -d -i THIS-FILE vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt"],
    ),
    (
        ("passphrase",),
        "it needs this beside it:",
        ["archiver restore latest --identity THIS-FILE --passphrase --to DIR"],
        ["age -d vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt"],
    ),
    (
        ("kms",),
        "it needs this beside it:",
        ["archiver restore latest --identity THIS-FILE --kms --to DIR"],
        ["jq -r .ciphertext vault/SOURCE/VAULT-ID/OPERATOR.kms | base64 -d > vault.kms"],
    ),
    (
        ("passphrase", "kms"),
        "it needs one of these beside it:",
        [
            "archiver restore latest --identity THIS-FILE --passphrase --to DIR",
            "archiver restore latest --identity THIS-FILE --kms --to DIR",
        ],
        [
            "age -d vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt",
            "jq -r .ciphertext vault/SOURCE/VAULT-ID/OPERATOR.kms | base64 -d > vault.kms",
        ],
    ),
]


@pytest.mark.parametrize(("ways", "need", "commands", "opening"), WAYS, ids=["key", "passphrase", "kms", "several"])
def test_a_card_without_the_secret_says_how_to_open(
    ways: tuple[OpensWith, ...], need: str, commands: list[str], opening: list[str]
) -> None:
    text = msgspec.structs.replace(CARD, identity=None, opens_with=ways).render()
    assert all(not line or line.startswith("#") for line in text.split("\n"))
    assert need in text
    found = [line.removeprefix("#").strip() for line in text.split("\n")]
    assert [line for line in found if line.startswith("archiver restore")] == commands
    assert [line for line in found if line.endswith((" > vault.txt", " > vault.kms"))] == [
        *opening,
        *(["--query Plaintext --output text | base64 -d > vault.txt"] if "kms" in ways else []),
    ]
    assert parse_card(text, "card.txt") == VALUES
    # With an identity the card needs nothing else, whatever the operators have.
    assert msgspec.structs.replace(CARD, opens_with=ways).render() == CARD.render()


@pytest.mark.parametrize("part", ["vault", "identity", "both"])
def test_a_post_quantum_card_says_which_age_it_needs(part: str) -> None:
    assert "1.3" not in CARD.render()
    identity, vault = generate_identity(post_quantum=True), generate_identity(post_quantum=True)
    card = msgspec.structs.replace(
        CARD,
        identity=OPERATOR if part == "vault" else identity,
        vault_recipient=CARD.vault_recipient if part == "identity" else vault.recipient,
    )
    text = card.render()
    assert "# The keys are post-quantum: only age 1.3 or newer reads them.\n" in text
    assert parse_card(text, "card.txt") == msgspec.structs.replace(VALUES, vault_recipient=card.vault_recipient)
    assert card.identity is not None
    assert [found.encode() for found in parse_identities(text, "card.txt")] == [card.identity.encode()]


def test_a_card_to_which_any_key_may_be_appended_says_so() -> None:
    text = msgspec.structs.replace(CARD, identity=None).render()
    assert "# Only age 1.3 or newer takes a key that begins with AGE-SECRET-KEY-PQ-1.\n" in text
    appended = generate_identity(post_quantum=True).encode()
    assert [found.encode() for found in parse_identities(f"{text}{appended}\n", "card.txt")] == [appended]
    assert "PQ" not in msgspec.structs.replace(CARD, identity=None, opens_with=("kms",)).render()


@given(st.text(max_size=60), st.text(max_size=30))
def test_any_destination_and_source_come_back_or_are_refused(destination: str, source: str) -> None:
    card = msgspec.structs.replace(CARD, destination=destination, source=source)
    try:
        text = card.render()
    except UsageError:
        return
    values = parse_card(text, "card.txt")
    assert (values.destination, values.source) == (destination, source)
    assert values.vault_recipient == CARD.vault_recipient


@pytest.mark.parametrize("value", ["", " x", "x ", "x\ny", "x\r# vault: y", "\x1b", "x\x85y"])
def test_values_that_are_not_one_printable_line_are_not_rendered(value: str) -> None:
    for card in (msgspec.structs.replace(CARD, destination=value), msgspec.structs.replace(CARD, source=value)):
        with pytest.raises(UsageError, match="on a recovery card to be one printable line"):
            card.render()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("# source: a\n\n# source: a\n", "line 3 of card.txt gives source again, after line 1"),
        ("# source:\n", "line 1 of card.txt: expected source to be printable text"),
        ("# source: a\x1bb\n", "expected source to be printable"),
        ("# vault: age1nonsense\n", "malformed comment line in card.txt: .*bech32"),
        (f"# vault: {OPERATOR.recipient} x\n", "malformed comment line in card.txt"),
        ("# verify-key: RWnonsense\n", "malformed comment line in card.txt: .*minisign public key"),
        (f"# verify-key: {KEY} revoked yesterday\n", "expected the time of a revocation, got 'yesterday'"),
        (f"# verify-key: {KEY} revoked \n", "malformed comment line in card.txt"),
        (f"# verify-key: {KEY} revoked 2026-11-20T00:00:00\n", "the time of a revocation with its zone"),
        (f"# verify-key: {KEY} revoked 0001-01-01T00:00:00+14:00\n", "expected the time of a revocation, got"),
        (f"# verify-key: {KEY}\n# verify-key: {KEY} revoked 2026-11-20\n", "malformed comment line in card.txt"),
        (f"# verify-key: {KEY}\n# verify-key: {KEY}\n", "expected each verify-key once"),
        ("# created: yesterday\n", "expected the time of creation, got 'yesterday'"),
        ("# created: 2026-11-22T02:00:00\n", "with its zone"),
    ],
    # Keys are random: they must not be part of a test's name, which all workers have to agree on.
    ids=map(str, range(14)),
)
def test_malformed_values_are_refused(lines: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        parse_card(f"{lines}# destination: file:///x\n", "card.txt")
    # Without a destination it is no card, and what its comments say is nobody's business.
    assert parse_card(lines, "card.txt") == CardValues()


def test_a_secret_in_a_comment_line_is_not_shown() -> None:
    with pytest.raises(FormatError) as caught:
        parse_card(f"# vault: {OPERATOR.encode()}\n# destination: file:///x\n", "card.txt")
    assert OPERATOR.encode()[20:40] not in caught.value.message
