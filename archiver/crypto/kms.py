"""A vault's identity under a key of AWS KMS, for those who may use the key: an operator without a secret to keep.

The ciphertext is what ``kms:Encrypt`` returns, made with the source and the vault as encryption context, so that it
opens for no other vault. docs/FORMAT.md, "Vault and operators", has the file; ``aws kms decrypt`` opens it too.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta

from archiver.errors import ArchiverError, DecryptionError, FormatError, StorageError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_kms import KMSClient

VERSION: Final = 1
MAX_CIPHERTEXT = 6144
"""Bytes, by KMS's own limit; of an identity there are about 330, or 2,250 where it is post-quantum."""

# The region becomes part of a host name, and the ARN may be anybody's: so it is spelled out what a region looks like.
_OWNER = r"arn:aws(-[a-z]+)*:kms:[a-z]{2,5}(-[a-z]+){1,2}-[0-9]{1,2}:[0-9]{12}:"
_KEY = rf"{_OWNER}key/[A-Za-z0-9-]{{1,256}}"
_KEY_OR_ALIAS = re.compile(rf"{_KEY}|{_OWNER}alias/[A-Za-z0-9/_-]{{1,250}}")

_CONNECT_TIMEOUT = 5
"""Seconds; so is the next. With the attempts they give up within a minute and a half."""
_READ_TIMEOUT = 20
_ATTEMPTS = 3

_NOT_ITS_CIPHERTEXT = {"InvalidCiphertextException", "IncorrectKeyException"}
_ENDPOINT = "Check the network, the region in the key's ARN, HTTPS_PROXY, and AWS_ENDPOINT_URL_KMS if it is set."
_NOT_KMS = "Check AWS_ENDPOINT_URL_KMS, and that no proxy or login page stands between."
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the host a role."
_ANOTHER = "or use another operator's identity."
_REFUSALS = {
    "DisabledException": ("the key is disabled", f"Enable the key, {_ANOTHER}"),
    "ExpiredTokenException": ("the credentials have expired", "Renew the session."),
    "InvalidKeyUsageException": (
        "the key is of another kind",
        "Use a symmetric key for encryption and decryption.",
    ),
    "InvalidSignatureException": (
        "the signature is wrong",
        "Check AWS_SECRET_ACCESS_KEY or the profile, and this host's clock.",
    ),
    "KMSInvalidStateException": (
        "the key cannot be used in its state, such as pending deletion",
        f"Cancel the key's deletion, {_ANOTHER}",
    ),
    "NotFoundException": ("there is no such key", "Check the key's ARN: its region, its account and its name."),
    "ThrottlingException": ("it asked to slow down", "Try again later."),
    "UnrecognizedClientException": ("the access key or the session token is not known there", _CREDENTIALS),
}

# At debug level botocore logs requests and answers, the plaintext among them.
logging.getLogger("botocore").setLevel(logging.INFO)
# It writes a stack trace of what it raises as well.
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)


class KmsKey(msgspec.Struct, frozen=True):
    """A symmetric encryption key of AWS KMS, or an alias of one, by its ARN, which names the region."""

    arn: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an ARN; raises ``FormatError``."""
        if not _KEY_OR_ALIAS.fullmatch(text):
            raise FormatError(
                f"not the ARN of a KMS key: {text[:200]!r}",
                hint="Give arn:aws:kms:REGION:ACCOUNT:key/ID, or …:alias/NAME.",
            )
        return cls(text)

    def __str__(self) -> str:
        return self.arn

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]


class KmsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a ``.kms`` file says. Anybody may have written it."""

    version: Literal[1]
    key: Annotated[str, Meta(pattern=rf"^{_KEY}\Z", max_length=2048)]
    """The ARN of the key itself, never of an alias."""
    context: dict[str, str]
    ciphertext: Annotated[bytes, Meta(min_length=1, max_length=MAX_CIPHERTEXT)]


def encryption_context(source: str, vault: str) -> dict[str, str]:
    """What the ciphertext is bound to, and what a policy may ask for."""
    return {"archiver:source": source, "archiver:vault": vault}


def kms_seal(plaintext: bytes, key: KmsKey, context: Mapping[str, str]) -> bytes:
    """The ``.kms`` file of ``plaintext`` (at most 4,096 bytes). Raises ``StorageError`` when KMS cannot be reached or
    refuses, for lack of credentials and for a key that cannot be used too."""
    with _asking(key, "kms:Encrypt") as client:
        answer = client.encrypt(KeyId=key.arn, Plaintext=plaintext, EncryptionContext=dict(context))
        sealed = KmsFile(
            version=VERSION, key=answer["KeyId"], context=dict(context), ciphertext=answer["CiphertextBlob"]
        )
        data = msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"
        parse_kms(data)
    return data


def kms_open(data: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext of a ``.kms`` file.

    Raises ``FormatError`` for a malformed file or another context than ``context``, before anything is sent,
    ``DecryptionError`` when KMS says that it is not its ciphertext, ``StorageError`` as ``kms_seal`` does.
    """
    sealed = parse_kms(data)
    if sealed.context != context:
        raise FormatError("the encryption context of a kms file is not that of its vault: it was moved or replayed")
    with _asking(KmsKey(sealed.key), "kms:Decrypt") as client:
        # KMS finds the key by itself: that it is named makes KMS refuse a ciphertext of any other.
        answer = client.decrypt(KeyId=sealed.key, CiphertextBlob=sealed.ciphertext, EncryptionContext=dict(context))
        return answer["Plaintext"]


def parse_kms(data: bytes) -> KmsFile:
    """Validate a ``.kms`` file; raises ``FormatError``."""
    try:
        return msgspec.json.decode(data, type=KmsFile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"malformed kms file: {error}") from None


@contextmanager
def _asking(key: KmsKey, right: str) -> Iterator["KMSClient"]:
    """A client for the block, which makes one request that needs ``right``, such as ``kms:Decrypt``, and takes the
    answer apart. What goes wrong in it becomes an error of ours."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    from archiver.aws import reason

    with closing(_connect(key)) as client:
        # An endpoint that the environment names may have a password in it.
        endpoint = re.sub(r"//.*@", "//", client.meta.endpoint_url)
        try:
            yield client
        except ClientError as error:
            raise _refused(error, key, right, endpoint) from None
        except BotoCoreError as error:
            raise StorageError(f"cannot reach {endpoint}: {reason(error)}", hint=_ENDPOINT) from None
        except (FormatError, ResponseParserError, AttributeError, KeyError, TypeError, ValueError):
            # botocore takes anything for an answer, and stumbles over what is no JSON object or lacks a field.
            raise StorageError(f"{endpoint} answered {right} with something that is not KMS's", hint=_NOT_KMS) from None


def _connect(key: KmsKey) -> "KMSClient":
    """A client for the key's region, with the credentials and the endpoint of the AWS environment; ``StorageError``
    when there are none."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from archiver.aws import AwsCredentials, reason

    try:
        session = boto3.session.Session()
    except BotoCoreError as error:
        raise StorageError(f"no usable credentials for kms key {key}: {reason(error)}", hint=_CREDENTIALS) from None
    AwsCredentials(session, f"kms key {key}").renew()
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    try:
        return session.client("kms", region_name=key.region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StorageError(f"cannot ask aws kms in {key.region}: {reason(error)}", hint=_ENDPOINT) from None


def _refused(error: "ClientError", key: KmsKey, right: str, endpoint: str) -> ArchiverError:
    """The error that an operator sees; nothing of KMS's own text is in it but the code."""
    code = str(error.response.get("Error", {}).get("Code", ""))[:100]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _NOT_ITS_CIPHERTEXT:
        return DecryptionError(f"kms key {key}: the ciphertext is not of this key and context, or was altered ({code})")
    request = f"{right} with {key}"
    if code == "AccessDeniedException":
        return StorageError(
            f"{endpoint} refused {request}: access denied",
            hint=f"Allow {right} with that key to the credentials in use, or use other credentials.",
        )
    if code in _REFUSALS:
        reason, hint = _REFUSALS[code]
        return StorageError(f"{endpoint} refused {request}: {reason}", hint=hint)
    if status >= 500:
        return StorageError(f"{endpoint} failed {request}: {code}", hint="Try again when KMS is healthy.")
    return StorageError(f"{endpoint} refused {request}: {code}", hint=_NOT_KMS if code.isdigit() else None)
