"""Which signing keys are believed, and until when."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from archiver.crypto.minisign import VerifyKey, key_id, signer_of
from archiver.errors import AuthenticityError


class TrustedKey(msgspec.Struct, frozen=True):
    """A minisign public key and, if it was stolen or retired, since when its signatures count no longer."""

    key: VerifyKey
    revoked: datetime | None = None

    def __str__(self) -> str:
        return str(self.key) if self.revoked is None else f"{self.key} revoked {self.revoked.isoformat()}"


def possible_signers(signature_text: str, trusted: Sequence[TrustedKey]) -> list[TrustedKey]:
    """Those of ``trusted`` that the signature may be by, at least one; nothing is verified.

    Raises ``AuthenticityError`` for a malformed signature and one by a key that is not among ``trusted``.
    """
    if not trusted:
        raise AuthenticityError("no key to verify with", hint="Give --verify-key RW… or --trust-unsigned.")
    number = signer_of(signature_text)
    # Numbers are random but nobody guarantees it: of two keys with the same one, either may have signed.
    candidates = [candidate for candidate in trusted if candidate.key.number == number]
    if not candidates:
        expected = " or ".join(candidate.key.key_id for candidate in trusted)
        raise AuthenticityError(
            f"signed by key {key_id(number)}, expected key {expected}",
            hint="If the signing key was changed, this recovery card or configuration is too old: use the newest card, "
            "or one that archiver keys card writes anew. If not, somebody else wrote this backup.",
        )
    return candidates


def check_signature(message: bytes, signature_text: str, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """The one of ``trusted`` whose valid signature of ``message`` this is, revoked or not.

    Raises ``AuthenticityError`` as ``possible_signers`` does, and for a signature that is not of these bytes.
    """
    errors = []
    for candidate in possible_signers(signature_text, trusted):
        try:
            candidate.key.verify(message, signature_text)
        except AuthenticityError as error:
            errors.append(error)
        else:
            return candidate
    raise errors[0]
