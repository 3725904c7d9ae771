"""Key pairs, told apart by their text: X25519 (``age1…``) and post-quantum (``age1pq1…``)."""

from archiver.crypto.hybrid import HybridIdentity, HybridRecipient
from archiver.crypto.x25519 import X25519Identity, X25519Recipient

PublicKey = X25519Recipient | HybridRecipient
"""A recipient that can be written down: an operator's or a vault's."""
SecretKey = X25519Identity | HybridIdentity
"""The identity of such a recipient."""

_HYBRID_RECIPIENT = "age1pq1"
_HYBRID_IDENTITY = "AGE-SECRET-KEY-PQ-1"


def parse_recipient(text: str) -> PublicKey:
    """Parse ``age1…`` or ``age1pq1…``; raises ``FormatError``."""
    return HybridRecipient.parse(text) if text.startswith(_HYBRID_RECIPIENT) else X25519Recipient.parse(text)


def parse_identity(text: str) -> SecretKey:
    """Parse ``AGE-SECRET-KEY-1…`` or ``AGE-SECRET-KEY-PQ-1…``; raises ``FormatError``, which never shows it."""
    return HybridIdentity.parse(text) if text.startswith(_HYBRID_IDENTITY) else X25519Identity.parse(text)


def generate_identity(*, post_quantum: bool) -> SecretKey:
    """A new identity from the system's random source."""
    return HybridIdentity.generate() if post_quantum else X25519Identity.generate()


def identity_file(identity: SecretKey, created: str) -> str:
    """The text of an age identity file, as ``age-keygen`` writes it; ``created`` is a time in RFC 3339."""
    return f"# created: {created}\n# public key: {identity.recipient}\n{identity.encode()}\n"
