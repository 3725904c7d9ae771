"""What the stores and the adapter of KMS share of AWS: credentials, and botocore's errors in words.

Credentials are found and renewed apart from the requests, whose failures would hide the reason.
"""

import re

import boto3
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from archiver.errors import StorageError

_GIVE = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or give the host a role."
# Beyond its own errors, botocore lets through what it meets while it reads files, JSON and answers, and asks for a
# second factor.
_FAILURES = (BotoCoreError, ClientError, ResponseParserError, OSError, ValueError, KeyError, EOFError, RuntimeError)
_Failure = BotoCoreError | ClientError | ResponseParserError | OSError | ValueError | KeyError | EOFError | RuntimeError


class AwsCredentials:
    """The first that the AWS chain finds: the environment, a profile, a web identity, a container's, the host's role.

    ``place`` is what they are for, in errors. Raises ``StorageError`` when they are announced and cannot be had.
    """

    def __init__(self, session: boto3.session.Session, place: str) -> None:
        self._place = place
        try:
            self._found = session.get_credentials()
        except _FAILURES as error:
            raise self._translated(error) from error

    def renew(self) -> None:
        """Renew them if they are about to expire; raises ``StorageError`` when there are none, and from the error that
        tells whether it is worth a retry when they cannot be had."""
        if self._found is None:
            raise StorageError(f"no usable credentials for {self._place}: none are given", hint=_GIVE)
        try:
            found = self._found.get_frozen_credentials()
        except _FAILURES as error:
            raise self._translated(error) from error
        # Python's HTTP client would refuse the header, and repeat in its message what it refused.
        if not all(text.isascii() and text.isprintable() for text in found if text is not None):
            raise StorageError(
                f"no usable credentials for {self._place}: one of them holds a character that cannot be sent",
                hint="Look for a line break at the end of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or "
                "AWS_SESSION_TOKEN.",
            )

    def _translated(self, error: _Failure) -> StorageError:
        return StorageError(f"no usable credentials for {self._place}: {_why(error)}", hint=_hint(error))


def reason(error: BotoCoreError | ValueError) -> str:
    """The part of ``error`` that says what happened, without the names of the libraries' classes."""
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return "it did not answer in time"
    cause: object = getattr(error, "kwargs", {}).get("error") or error
    # urllib3 wraps the operating system's error, and shows its Python form.
    while isinstance(cause, Exception) and cause.args and isinstance(cause.args[-1], Exception):
        cause = cause.args[-1]
    text = str((isinstance(cause, OSError) and cause.strerror) or cause)
    # urllib3 names its connection's class first.
    text = " ".join(re.sub(r"^\w+Connection\(.*?\): ", "", text).split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _why(error: _Failure) -> str:
    match error:
        case ClientError():
            refused = error.response.get("Error", {})
            text = f"{error.operation_name} was refused: {refused.get('Code', '')} {refused.get('Message', '')}"
            return " ".join(text.split()).rstrip(".")
        case BotoCoreError():
            url = error.kwargs.get("endpoint_url") if hasattr(error, "kwargs") else None
            return f"{url}: {reason(error)}" if url else reason(error)
        case OSError():
            return f"{error.filename}: {str(error.strerror).lower()}"
        case KeyError():
            return f"the answer lacks {error}"
        case EOFError():
            return "a second factor is asked for, and nobody is there to type it"
        case _:
            text = " ".join(str(error).split()).rstrip(".")
            return text[:1].lower() + text[1:]


def _hint(error: _Failure) -> str:
    match error:
        case PartialCredentialsError():
            return _GIVE
        case SSOError() | TokenRetrievalError():
            return "Run aws sso login with this profile."
        case ClientError():
            return "Check the role's trust policy, and the credentials that assume it."
        case _:
            return "Check the profile, the variables AWS_*, or the host's role."
