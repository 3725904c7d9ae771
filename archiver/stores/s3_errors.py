"""What went wrong with a request to S3, from botocore's words to ours. Pure."""

import re
from http import HTTPStatus

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,  # noqa: A004 - botocore's own, unrelated to the builtin
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from archiver.aws import reason
from archiver.errors import AlreadyExistsError, ArchiverError, NotFoundError, RefusedError, StorageError
from archiver.stores.s3_answers import REDIRECTS

S3Error = BotoCoreError | ClientError | ResponseParserError
S3_ERRORS = (BotoCoreError, ClientError, ResponseParserError)

_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_TRANSIENT_ERRORS = (
    ConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,
    ResponseStreamingError,
)
# Of TLS, in lower case: what no repetition mends, unlike a connection that breaks.
_PERMANENT_TLS = ("certificate", "doesn't match", "no such file", "wrong_version_number")
_THROTTLING_CODES = {"RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
_THROTTLING_STATUS = {429, 503}
_DENIALS = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"}

_LONGEST = 500
"""Characters of what others wrote that a message repeats."""
_NOT_S3 = "Check the endpoint, and that no proxy or login page stands between."
_CREDENTIALS = (
    "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile, that they belong to this endpoint, and that no "
    "old AWS_SESSION_TOKEN is set."
)
_LOCK = "Turn Object Lock on for the bucket, or remove the option object_lock."
_CHECKSUM = "Try again; if it stays so, the store may not know the CRC-32 of a whole object: set checksum to none."
_REFUSALS = {
    "InvalidAccessKeyId": ("the access key is not known there", _CREDENTIALS),
    "SignatureDoesNotMatch": ("the signature is wrong", _CREDENTIALS),
    "InvalidToken": ("the session token is malformed", _CREDENTIALS),
    "ExpiredToken": ("the credentials have expired", "Renew the session, or use credentials that outlive the run."),
    "TokenRefreshRequired": ("the credentials have expired", "Renew the session."),
    "RequestTimeTooSkewed": ("this host's clock differs too much from the store's", "Set the clock, with NTP."),
    "NoSuchBucket": ("the bucket does not exist", "Check the bucket's name, the region and the endpoint."),
    "SlowDown": ("it asked to slow down", "Lower the option uploads, or try again later."),
    "BadDigest": ("what arrived has another checksum", _CHECKSUM),
    "InvalidPart": ("it does not find the parts to be what was sent", _CHECKSUM),
    "EntityTooSmall": ("a part is too small for it", "Raise the option part_size."),
    "EntityTooLarge": ("a part is too large for it", "Lower the option part_size."),
    "InvalidStorageClass": ("it does not know the storage class", "Correct or remove the option storage_class."),
    "InvalidObjectState": (
        "the object lies in an archive class",
        "Let the store restore it first, which may take hours: archiver restore --thaw asks for it.",
    ),
    "407": (
        "the proxy wants a user name and a password",
        "Set HTTP_PROXY to http://USER:PASSWORD@HOST:PORT, or name the endpoint in NO_PROXY.",
    ),
    "KeyTooLongError": ("the key is too long", "Use a shorter prefix."),
    "QuotaExceeded": ("its quota is used up", "Raise the quota, or choose another destination."),
}

_OF_ALL_KEYS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "NoSuchBucket",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


def error_code(error: S3Error) -> str:
    """The service's code, such as ``NoSuchKey``; the HTTP status where the response had none; or empty."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code") or _status(error) or "")


def _status(error: S3Error) -> int:
    if not isinstance(error, ClientError):
        return 0
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        transient = error_code(error) in _TRANSIENT_CODES or _status(error) in _TRANSIENT_STATUS
        return transient or is_throttling(error)
    if isinstance(error, SSLError):
        return not any(reason in str(error).lower() for reason in _PERMANENT_TLS)
    if isinstance(error, ProxyConnectionError):
        return " 407 " not in str(error.kwargs["error"])
    if isinstance(error, StorageError):
        # Of credentials that could not be had.
        return isinstance(error.__cause__, Exception) and is_transient(error.__cause__)
    return isinstance(error, _TRANSIENT_ERRORS)


def is_throttling(error: Exception) -> bool:
    """Whether the store asks for fewer requests."""
    return isinstance(error, ClientError) and (
        error_code(error) in _THROTTLING_CODES or _status(error) in _THROTTLING_STATUS
    )


def is_refusal(error: S3Error) -> bool:
    """Whether access is denied, by a right that is missing or to a key that is."""
    return error_code(error) in _DENIALS or _status(error) == HTTPStatus.FORBIDDEN


def is_rejection(error: object) -> bool:
    """Whether it is the store's word that it did not do what it was asked to."""
    return isinstance(error, ClientError) and 300 <= _status(error) < 500


def is_precondition_failure(error: S3Error) -> bool:
    """Whether ``If-None-Match`` or ``If-Match`` did not hold."""
    return error_code(error) in ("PreconditionFailed", str(int(HTTPStatus.PRECONDITION_FAILED)))


def translate(error: S3Error, *, action: str, place: str, endpoint: str) -> ArchiverError:
    """The error that an operator sees.

    ``action`` is the permission that the request needs, such as ``s3:PutObject``; ``place`` the ``s3://bucket/key``
    it was about; ``endpoint`` the URL of the service. ``NotFoundError`` is for missing keys alone: a missing bucket
    is a ``StorageError``, so that nobody takes it for an empty one.
    """
    if isinstance(error, ResponseParserError):
        return StorageError(f"{endpoint} answered {action} on {place} with something that is not S3's", hint=_NOT_S3)
    if not isinstance(error, ClientError):
        return _translate_failure(error, place=place, endpoint=endpoint)
    code, status = error_code(error), _status(error)
    is_head = error.operation_name.startswith("Head")
    # Only the answer to a HEAD has no body that says what is missing.
    if code == "NoSuchKey" or (is_head and code in ("404", "NotFound")):
        return NotFoundError(f"{place} does not exist")
    if status in REDIRECTS or code in _ELSEWHERE:
        return _translate_redirect(error, action=action, place=place, endpoint=endpoint)
    # Of one key, the store's last word: others may be had.
    refused = RefusedError if is_rejection(error) and code not in _OF_ALL_KEYS else StorageError
    if is_precondition_failure(error):
        return AlreadyExistsError(f"{place} exists already")
    if code.startswith("KMS."):
        return refused(
            f"{endpoint} refused {action} on {place}: the key in KMS cannot be used ({code[4:]})",
            hint="Check the option sse_kms_key, that the key is enabled, and its policy.",
        )
    detail = error.response.get("Error", {}).get("Message") or ""
    right = re.search(r"\bkms:\w+", detail)
    if is_refusal(error) and right is not None:
        return refused(
            f"{endpoint} refused {action} on {place}: access to the key in KMS is denied",
            hint=f"Allow {right[0]} with that key to the credentials in use.",
        )
    if code == "NotImplemented":
        words = f": {_said(detail)}" if detail else ""
        return refused(
            f"{endpoint} refused {action} on {place}: it does not support a feature of the request{words}",
            hint=_without(action, detail),
        )
    if code in _REFUSALS:
        reason, hint = _REFUSALS[code]
        return refused(f"{endpoint} refused {action} on {place}: {reason}", hint=hint)
    if is_refusal(error):
        # A create may need more than one right, and AWS names the one that is missing.
        named = re.search(r"\bnot authorized to perform: (s3:\w+)", detail)
        missing = action if named is None else named[1]
        return refused(
            f"{endpoint} refused {action} on {place}: access denied",
            hint=f"Allow {missing} there to the credentials in use, or use other credentials.",
        )
    if is_transient(error):
        return StorageError(
            f"{endpoint} failed {action} on {place}: {code or status}", hint="Try again when the store is healthy."
        )
    return refused(
        f"{endpoint} refused {action} on {place}: {_said(f'{code} {detail}')}",
        hint=_hint(code, detail, is_head=is_head),
    )


def _said(text: str) -> str:
    """The store's own words, as a message repeats them."""
    return " ".join(text.split()).rstrip(".")[:_LONGEST]


def _without(action: str, detail: str) -> str:
    """What to do without a feature that the store does not have."""
    if "object-lock" in detail.lower() or "object lock" in detail.lower():
        return _LOCK
    if action == "s3:PutObject":
        return "Set the option conditional_writes to false, and checksum to none."
    return "See docs/S3-COMPATIBILITY.md for what each command asks of a store."


def _hint(code: str, detail: str, *, is_head: bool) -> str | None:
    if code.isdigit():
        return "Run archiver doctor: this kind of answer has no reason in it." if is_head else _NOT_S3
    return _LOCK if "Object Lock" in detail else None


def _translate_redirect(error: ClientError, *, action: str, place: str, endpoint: str) -> StorageError:
    fields = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or fields.get("x-amz-bucket-region")
    if region is not None or error_code(error) in _ELSEWHERE:
        return StorageError(
            f"{endpoint} refused {action} on {place}: the bucket is in another region",
            hint=f"Set the option region to {region or 'that of the bucket'}.",
        )
    target = fields.get("location", "nowhere")[:_LONGEST]
    return StorageError(
        f"{endpoint} refused {action} on {place}: it redirects to {target}",
        hint="Set the option endpoint to the service itself, and check that no login page stands between.",
    )


def _translate_failure(error: BotoCoreError, *, place: str, endpoint: str) -> StorageError:
    match error:
        case NoCredentialsError() | CredentialRetrievalError() | PartialCredentialsError():
            return StorageError(
                f"no usable credentials for {place}",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or give the host a role.",
            )
        case ProfileNotFound():
            return StorageError(
                f"{str(error)[:1].lower()}{str(error)[1:]}", hint="Check the option profile, or AWS_PROFILE."
            )
        case SSLError():
            is_plain = "wrong_version_number" in str(error).lower()
            return StorageError(
                f"no secure connection to {endpoint}: {reason(error)}",
                hint="That port does not speak TLS: check the port, or use http://."
                if is_plain
                else "Check the endpoint's certificate, and name its authority with the option ca_bundle.",
            )
        case ProxyConnectionError():
            return StorageError(
                f"cannot reach {endpoint} through the proxy {_proxy(error)}: {reason(error)}",
                hint="Check HTTP_PROXY, HTTPS_PROXY and NO_PROXY.",
            )
        case IncompleteReadError() | ResponseStreamingError():
            return StorageError(
                f"the connection to {endpoint} broke again and again while {place} was read", hint="Check the network."
            )
        case ConnectTimeoutError() | ReadTimeoutError():
            return StorageError(f"{endpoint} did not answer in time", hint="Check the network and the endpoint.")
        case EndpointConnectionError() | ConnectionClosedError() | ConnectionError() | HTTPClientError():
            hint = "Check the network and the endpoint."
            if endpoint.startswith("http://"):
                hint = "Check the network and the endpoint; if its port speaks TLS, it is https://."
            return StorageError(f"cannot reach {endpoint}: {reason(error)}", hint=hint)
        case _:
            return StorageError(f"{place}: {reason(error)}")


def _proxy(error: ProxyConnectionError) -> str:
    return re.sub(r"//.*@", "//", error.kwargs["proxy_url"])
