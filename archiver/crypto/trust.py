"""Which signing keys are believed, and until when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from archiver.crypto.minisign import VerifyKey
from archiver.errors import AuthenticityError


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A minisign public key and, if it was stolen or retired, since when its signatures count no longer."""

    key: VerifyKey
    revoked: datetime | None = None

    def __str__(self) -> str:
        return str(self.key) if self.revoked is None else f"{self.key} revoked {self.revoked.isoformat()}"


def check_signature(message: bytes, signature_text: str, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """The one of ``trusted`` whose valid signature of ``message`` this is, revoked or not.

    Raises ``AuthenticityError`` for a malformed signature, one by a key that is not among ``trusted``, and one that is
    not of these bytes.
    """
    errors = []
    for candidate in trusted:
        try:
            candidate.key.verify(message, signature_text)
        except AuthenticityError as error:
            errors.append(error)
        else:
            return candidate
    if not errors:
        raise AuthenticityError("no key to verify with", hint="Give --verify-key RW… or --trust-unsigned.")
    raise errors[0]
