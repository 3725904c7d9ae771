"""A vault's identity under a key of AWS KMS, for those who may use the key: an operator without a secret to keep.

The ciphertext is what ``kms:Encrypt`` returns, made with the source and the vault as encryption context, so that it
opens for no other vault. docs/FORMAT.md, "Vault and operators", has the file; ``aws kms decrypt`` opens it too.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta

from archiver.errors import DecryptionError, FormatError, StorageError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

VERSION: Final = 1
_ARN = re.compile(r"arn:aws(-[a-z]+)*:kms:([a-z0-9-]{1,40}):[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]{1,256}")
_KEY_ARN = r"^arn:aws(-[a-z]+)*:kms:[a-z0-9-]{1,40}:[0-9]{12}:key/[A-Za-z0-9-]{1,256}\Z"

_CONNECT_TIMEOUT = 10
"""Seconds; so is the next."""
_READ_TIMEOUT = 30
_ATTEMPTS = 4
_NOT_ITS_CIPHERTEXT = {"InvalidCiphertextException", "IncorrectKeyException"}
_UNUSABLE = {
    "NotFoundException": "Check the key's ARN, its account and its region.",
    "DisabledException": "Enable the key, or use another operator's.",
    "KMSInvalidStateException": "The key may be pending deletion: cancel that, or use another operator's.",
    "InvalidKeyUsageException": "Use a symmetric key for encryption and decryption.",
}
_CREDENTIALS = "Check the AWS credentials of this host and that they may use the key."


@dataclass(frozen=True, slots=True)
class KmsKey:
    """A symmetric encryption key of AWS KMS, or an alias of one, by its ARN, which names the region."""

    arn: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an ARN; raises ``FormatError``."""
        if not _ARN.fullmatch(text):
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


class _Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ``.kms`` file."""

    version: Literal[1]
    key: Annotated[str, Meta(pattern=_KEY_ARN, max_length=2048)]
    context: dict[str, str]
    ciphertext: Annotated[bytes, Meta(min_length=1, max_length=6144)]


def encryption_context(source: str, vault: str) -> dict[str, str]:
    """What the ciphertext is bound to, and what a key policy may ask for."""
    return {"archiver:source": source, "archiver:vault": vault}


def kms_seal(plaintext: bytes, key: KmsKey, context: Mapping[str, str]) -> bytes:
    """The ``.kms`` file of ``plaintext`` (at most 4,096 bytes). Raises ``UsageError`` for a key that cannot be used and
    ``StorageError`` when KMS cannot be reached or refuses."""
    with _explained(key), _client(key) as client:
        answer = client.encrypt(KeyId=key.arn, Plaintext=plaintext, EncryptionContext=dict(context))
    sealed = _Sealed(version=VERSION, key=answer["KeyId"], context=dict(context), ciphertext=answer["CiphertextBlob"])
    return msgspec.json.format(msgspec.json.encode(sealed), indent=2) + b"\n"


def kms_open(data: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext of a ``.kms`` file.

    Raises ``FormatError`` for a malformed file or another context than ``context``, before anything is sent,
    ``DecryptionError`` when KMS says that it is not its ciphertext, ``StorageError`` when KMS cannot be reached or
    refuses.
    """
    sealed = parse_kms(data)
    if sealed.context != context:
        raise FormatError("the encryption context of a kms file is not that of its vault: it was moved or replayed")
    key = KmsKey(sealed.key)
    with _explained(key), _client(key) as client:
        answer = client.decrypt(KeyId=sealed.key, CiphertextBlob=sealed.ciphertext, EncryptionContext=dict(context))
    return answer["Plaintext"]


def parse_kms(data: bytes) -> _Sealed:
    """Validate a ``.kms`` file; raises ``FormatError``."""
    try:
        return msgspec.json.decode(data, type=_Sealed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"malformed kms file: {error}") from None


@contextmanager
def _client(key: KmsKey) -> Iterator["KMSClient"]:
    """A client for the key's region, with the credentials and the endpoint of the AWS environment."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=_CONNECT_TIMEOUT,
        read_timeout=_READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
    )
    client = boto3.session.Session().client("kms", region_name=key.region, config=config)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _explained(key: KmsKey) -> Iterator[None]:
    """Within the block, errors of boto3 become ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _NOT_ITS_CIPHERTEXT:
            raise DecryptionError(f"kms key {key}: the ciphertext is not its own, or was altered ({code})") from None
        if code in _UNUSABLE:
            raise UsageError(f"kms key {key} cannot be used: {code}", hint=_UNUSABLE[code]) from None
        raise StorageError(f"kms key {key}: aws kms refused the request: {code}", hint=_CREDENTIALS) from None
    except BotoCoreError as error:
        raise StorageError(f"cannot reach aws kms in {key.region}: {error}", hint=_CREDENTIALS) from None
