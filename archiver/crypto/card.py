"""The recovery card: the one text file that is enough on a blank machine.

It is a valid age identity file. Its comment lines carry what is not secret: where the backups lie, whose they are, and
the keys that they are checked with (docs/RECOVERY.md).
"""

import re
from datetime import UTC, datetime
from typing import Literal

import msgspec

from archiver.crypto.hybrid import HybridIdentity, HybridRecipient
from archiver.crypto.keys import PublicKey, SecretKey, parse_recipient
from archiver.crypto.minisign import VerifyKey
from archiver.crypto.trust import TrustedKey
from archiver.errors import FormatError, UsageError

_CARD = "# destination:"
_FIELD = re.compile(r"# (destination|source|vault|verify-key|created):(.*)")

OpensWith = Literal["key", "passphrase", "kms"]
"""What an operator opens vaults with, beside the card: a secret key that is held elsewhere, a passphrase, AWS KMS."""

_WITH_IDENTITY = "# Keep this file offline and secret: the last line opens every backup of this source.\n"
_WITHOUT_IDENTITY = (
    "# As archiver wrote it, this file holds no secret. With a line AGE-SECRET-KEY-... at the end it does: keep it\n"
    "# offline then. Before it can restore anything, it needs {number} beside it:\n"
)
_NEEDS: dict[OpensWith, str] = {
    "key": "# - an operator's secret key, held elsewhere: append its AGE-SECRET-KEY-... line below, or give its\n"
    "#   file as a second --identity.\n",
    "passphrase": "# - an operator's passphrase: give --passphrase, and archiver asks for it.\n",
    "kms": "# - AWS credentials that may use an operator's KMS key: give --kms.\n",
}
_COMMANDS: dict[OpensWith, str] = {
    "key": "#   archiver restore latest --identity THIS-FILE --to DIR\n",
    "passphrase": "#   archiver restore latest --identity THIS-FILE --passphrase --to DIR\n",
    "kms": "#   archiver restore latest --identity THIS-FILE --kms --to DIR\n",
}
_STOCK_COMMANDS: dict[OpensWith, str] = {
    "key": "#   age -d -i THIS-FILE vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt\n",
    "passphrase": "#   age -d vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt\n",
    "kms": (
        "#   jq -r .ciphertext vault/SOURCE/VAULT-ID/OPERATOR.kms | base64 -d > vault.kms\n"
        "#   aws kms decrypt --region REGION-OF-ITS-KEY --ciphertext-blob fileb://vault.kms \\\n"
        "#     --encryption-context archiver:source=SOURCE,archiver:vault=VAULT-ID \\\n"
        "#     --query Plaintext --output text | base64 -d > vault.txt\n"
    ),
}
_INSTRUCTIONS = """\
# Keep a copy of archiver's source or wheel with this card. To restore, on Linux with Python 3.11 or newer, install
# archiver from its source, in the source's directory, and run it:
#   pip install .
{commands}#
# To restore without archiver, with age, zstd, tar, jq and minisign: docs/RECOVERY.md in archiver's source has every
# command. In short, with the files of the destination at hand, check that a backup is yours, open the vault once, and
# with it every object:
#   minisign -V -P VERIFY-KEY -m manifest.json
{stock_commands}#   age -d -i vault.txt OBJECT.zst.age | zstd -d > OBJECT
{note}"""
_POST_QUANTUM = "# The keys are post-quantum: only age 1.3 or newer reads them.\n"
_MAYBE_POST_QUANTUM = "# Only age 1.3 or newer takes a key that begins with AGE-SECRET-KEY-PQ-1.\n"


class RecoveryCard(msgspec.Struct, frozen=True, kw_only=True):
    """All that a card says. ``identity`` is the operator's, None when it is held elsewhere or is no key."""

    destination: str
    source: str
    vault_recipient: PublicKey
    verify_keys: tuple[TrustedKey, ...]
    created: datetime
    identity: SecretKey | None
    opens_with: tuple[OpensWith, ...] = ("key",)
    """The ways to open vaults where the card holds no identity, at least one. With an identity it needs nothing."""

    def render(self) -> str:
        """The card's text; raises ``UsageError`` when destination or source is not one printable line."""
        for name, value in (("destination", self.destination), ("source", self.source)):
            if not value.isprintable() or value != value.strip() or not value:
                raise UsageError(
                    f"expected the {name} on a recovery card to be one printable line, got {value[:200]!r}"
                )
        keys = "".join(f"# verify-key: {key}\n" for key in self.verify_keys)
        secret = "" if self.identity is None else self.identity.encode() + "\n"
        return (
            f"# archiver recovery card\n"
            f"{self._secrecy()}"
            f"#\n"
            f"# destination: {self.destination}\n"
            f"# source: {self.source}\n"
            f"# vault: {self.vault_recipient}\n"
            f"{keys}"
            f"# created: {self.created.isoformat(timespec='seconds')}\n"
            f"#\n"
            f"{self._instructions()}"
            f"{secret}"
        )

    def _secrecy(self) -> str:
        if self.identity is not None:
            return _WITH_IDENTITY
        number = "this" if len(self.opens_with) == 1 else "one of these"
        return _WITHOUT_IDENTITY.format(number=number) + "".join(_NEEDS[way] for way in self.opens_with)

    def _instructions(self) -> str:
        ways: tuple[OpensWith, ...] = self.opens_with if self.identity is None else ("key",)
        return _INSTRUCTIONS.format(
            commands="".join(_COMMANDS[way] for way in ways),
            stock_commands="".join(_STOCK_COMMANDS[way] for way in ways),
            note=self._note(ways),
        )

    def _note(self, ways: tuple[OpensWith, ...]) -> str:
        if isinstance(self.vault_recipient, HybridRecipient) or isinstance(self.identity, HybridIdentity):
            return _POST_QUANTUM
        return _MAYBE_POST_QUANTUM if self.identity is None and "key" in ways else ""


class CardValues(msgspec.Struct, frozen=True, kw_only=True):
    """What the comment lines of an identity file say; empty when it is not a recovery card."""

    destination: str | None = None
    source: str | None = None
    vault_recipient: PublicKey | None = None
    verify_keys: tuple[TrustedKey, ...] = ()
    created: datetime | None = None


def parse_card(text: str, name: str) -> CardValues:
    """The values in the comment lines of an identity file; its identities are ``parse_identities``' business.

    Raises ``FormatError`` naming ``name`` and the line for a value that is given twice, empty or malformed. Only
    ``verify-key`` may be there several times, with a key each. A file that names no destination is no card: what its
    comments say is their writer's own business.
    """
    if not any(line.strip().startswith(_CARD) for line in text.split("\n")):
        return CardValues()
    values: dict[str, str] = {}
    keys: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        match = _FIELD.fullmatch(line.strip())
        if match is None:
            continue
        field, value = match[1], match[2].strip()
        if field in values and field == "created":
            # An identity file that was appended to the card has such a line of its own.
            continue
        if field in values:
            raise FormatError(f"line {number} of {name} gives {field} again, after line {lines[field]}")
        if not value or not value.isprintable():
            raise FormatError(f"line {number} of {name}: expected {field} to be printable text")
        if field == "verify-key":
            keys.append(value)
        else:
            values[field], lines[field] = value, number
    try:
        return _parse_values(values, keys)
    except FormatError as error:
        raise FormatError(f"malformed comment line in {name}: {error.message}", hint=error.hint) from None


def _parse_values(values: dict[str, str], keys: list[str]) -> CardValues:
    vault, created = values.get("vault"), values.get("created")
    verify_keys = tuple(_parse_key(key) for key in keys)
    if len({trusted.key for trusted in verify_keys}) < len(verify_keys):
        # It could be revoked in one line and not in the other.
        raise FormatError("expected each verify-key once")
    return CardValues(
        destination=values.get("destination"),
        source=values.get("source"),
        vault_recipient=None if vault is None else parse_recipient(vault),
        verify_keys=verify_keys,
        created=None if created is None else _parse_time(created, "the time of creation"),
    )


def _parse_key(text: str) -> TrustedKey:
    """The inverse of ``str(TrustedKey)``."""
    key, revoked, time = text.partition(" revoked ")
    if not revoked:
        return TrustedKey(VerifyKey.parse(key))
    return TrustedKey(VerifyKey.parse(key), _parse_time(time, "the time of a revocation"))


def _parse_time(text: str, what: str) -> datetime:
    """In UTC."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise FormatError(f"expected {what} with its zone, got {text!r}")
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise FormatError(f"expected {what}, got {text!r}") from None
