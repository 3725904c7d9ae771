"""The options that say what a new operator is to open vaults with."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.cli.secrets import ask_new_passphrase
from archiver.errors import FormatError, UsageError

if TYPE_CHECKING:
    from archiver.crypto.vault import OperatorKey

F = TypeVar("F", bound=Callable[..., Any])


def operator_options(function: F) -> F:
    """``--recipient``, ``--kms-key`` and ``--new-passphrase``, at most one of them.

    The function gets ``operator_key``: an OperatorKey, or None when none was given. A passphrase is asked for, twice,
    before the function is called.
    """

    @wraps(function)
    def run(*, recipient: str | None, kms_key: str | None, new_passphrase: bool, **values: Any) -> Any:
        if (recipient is not None) + (kms_key is not None) + new_passphrase > 1:
            raise UsageError("expected at most one of --recipient, --kms-key and --new-passphrase")
        return function(operator_key=_operator_key(recipient, kms_key, new_passphrase), **values)

    for option in (
        click.option("--new-passphrase", is_flag=True, help="The operator's passphrase; asked for, twice."),
        click.option("--kms-key", metavar="ARN", help="A key of AWS KMS, or an alias: whoever may use it can restore."),
        click.option("--recipient", metavar="age1…", help="The operator's recipient, X25519 or post-quantum."),
    ):
        option(run)
    return run  # type: ignore[return-value]


def _operator_key(recipient: str | None, kms_key: str | None, new_passphrase: bool) -> "OperatorKey | None":
    if recipient is not None:
        from archiver.crypto.keys import parse_recipient

        try:
            return parse_recipient(recipient)
        except FormatError as error:
            raise UsageError(
                f"invalid --recipient: {error.message}",
                hint="Give the age1… line that archiver keys generate prints.",
            ) from None
    if kms_key is not None:
        from archiver.crypto.kms import KmsKey

        try:
            return KmsKey.parse(kms_key)
        except FormatError as error:
            raise UsageError(f"invalid --kms-key: {error.message}", hint=error.hint) from None
    if new_passphrase:
        from archiver.crypto.passphrase import PassphraseRecipient

        return PassphraseRecipient(ask_new_passphrase("New passphrase of the operator: "))
    return None
