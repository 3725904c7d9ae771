"""The recovery card: the one text file that is enough on a blank machine.

It is a valid age identity file. Its comment lines carry what is not secret: where the backups lie, whose they are, and
the keys that they are checked with (docs/RECOVERY.md).
"""

import re
from dataclasses import dataclass
from datetime import datetime

from archiver.crypto.keys import PublicKey, SecretKey, parse_recipient
from archiver.crypto.minisign import VerifyKey
from archiver.errors import FormatError, UsageError

_FIELD = re.compile(r"# (destination|source|vault|verify-key|created):(.*)")

_INSTRUCTIONS = """\
# Keep a copy of archiver's source or wheel with this card. To restore, on Linux with Python 3.11 or newer, install
# archiver from its source, in the source's directory, and run it:
#   pip install .
#   archiver restore latest --identity THIS-FILE --to DIR
#
# To restore without archiver, with age, zstd, tar, jq and minisign: docs/RECOVERY.md in archiver's source has every
# command. In short, with the files of the destination at hand, check that a backup is yours, open the vault once, and
# with it every object:
#   minisign -V -P VERIFY-KEY -m manifest.json
#   age -d -i THIS-FILE vault/SOURCE/VAULT-ID/OPERATOR.age > vault.txt
#   age -d -i vault.txt OBJECT.zst.age | zstd -d > OBJECT
"""

_WITH_IDENTITY = "# Keep this file offline and secret: the last line opens every backup of this source."
_WITHOUT_IDENTITY = (
    "# The secret key is held elsewhere. Before this file can restore anything,\n"
    "# append the operator's AGE-SECRET-KEY-1... line below."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCard:
    """All that a card says. ``identity`` is the operator's, None when it is held elsewhere."""

    destination: str
    source: str
    vault_recipient: PublicKey
    verify_key: VerifyKey
    created: datetime
    identity: SecretKey | None

    def render(self) -> str:
        """The card's text; raises ``UsageError`` when destination or source is not one printable line."""
        for name, value in (("destination", self.destination), ("source", self.source)):
            if not value.isprintable() or value != value.strip() or not value:
                raise UsageError(
                    f"expected the {name} on a recovery card to be one printable line, got {value[:200]!r}"
                )
        secret = "" if self.identity is None else self.identity.encode() + "\n"
        return (
            f"# archiver recovery card\n"
            f"{_WITHOUT_IDENTITY if self.identity is None else _WITH_IDENTITY}\n"
            f"#\n"
            f"# destination: {self.destination}\n"
            f"# source: {self.source}\n"
            f"# vault: {self.vault_recipient}\n"
            f"# verify-key: {self.verify_key}\n"
            f"# created: {self.created.isoformat(timespec='seconds')}\n"
            f"#\n"
            f"{_INSTRUCTIONS}"
            f"{secret}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CardValues:
    """What the comment lines of an identity file say; all None when it is not a recovery card."""

    destination: str | None = None
    source: str | None = None
    vault_recipient: PublicKey | None = None
    verify_key: VerifyKey | None = None
    created: datetime | None = None


def parse_card(text: str, name: str) -> CardValues:
    """The values in the comment lines of an identity file; its identities are ``parse_identities``' business.

    Raises ``FormatError`` naming ``name`` and the line for a value that is given twice, empty or malformed.
    """
    values: dict[str, str] = {}
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
        values[field], lines[field] = value, number
    try:
        return _parse_values(values)
    except FormatError as error:
        raise FormatError(f"malformed comment line in {name}: {error.message}", hint=error.hint) from None


def _parse_values(values: dict[str, str]) -> CardValues:
    vault, key, created = values.get("vault"), values.get("verify-key"), values.get("created")
    return CardValues(
        destination=values.get("destination"),
        source=values.get("source"),
        vault_recipient=None if vault is None else parse_recipient(vault),
        verify_key=None if key is None else VerifyKey.parse(key),
        created=None if created is None else _parse_time(created),
    )


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise FormatError(f"expected the time of creation, got {text!r}") from None
    if time.tzinfo is None:
        raise FormatError(f"expected the time of creation with its zone, got {text!r}")
    return time
