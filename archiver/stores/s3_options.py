"""What can be set for an ``s3://`` destination. Apart from s3.py, so that reading a URL does not import boto3."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import asdict

from archiver.config import ARCHIVE_CLASSES
from archiver.errors import ConfigError

MIB = 1 << 20
Checksum = Literal["crc32", "none"]
Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]
LockMode = Literal["governance", "compliance"]


class S3Options(msgspec.Struct, frozen=True):
    """Options of an S3 destination; every field may stand in its URL's query or in its table of archiver.toml."""

    endpoint: str | None = None
    """URL of the service; None leaves it to the AWS environment (``AWS_ENDPOINT_URL``, the profile, or AWS itself)."""
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    """Bucket in the path rather than in the host name; None: path style where an endpoint is given."""
    storage_class: str | None = None
    """Of objects in classes that name none of their own; what is small or read often stays in the standard class."""
    sse: Encryption | None = None
    """How the store is to encrypt what it keeps, on top of ours; None leaves it to the bucket's default."""
    sse_kms_key: str | None = None
    """Id, ARN or alias of the key, for ``aws:kms``; None: the account's own for S3."""
    object_lock: LockMode | None = None
    """Lock what is created, in a bucket that has Object Lock, for as long as its class keeps it: so that those with a
    special right can delete it (``governance``), or nobody at all (``compliance``). None: as the bucket does it."""
    requester_pays: bool = False
    """Whether the account of these credentials pays for the requests, instead of the bucket's owner."""
    checksum: Checksum = "crc32"
    """What the store is to verify of each part and of the whole object."""
    conditional_writes: bool = True
    """Create with ``If-None-Match: *``; without it a HEAD before each create, which two writers can both pass."""
    connect_timeout: float = 10.0
    """Seconds; also without progress while the first body is sent over a new connection."""
    read_timeout: float = 60.0
    """Seconds without progress, after which a request or a part is sent again and a read goes on where it was."""
    attempts: int = 8
    """Of each request that does not upload, the first one included; those that do are repeated for minutes."""
    part_size: int = 8 * MIB
    """Bytes; a body of at most one part is sent in one request."""
    uploads: int = 4
    """Parts sent at a time, of all bodies together."""
    ca_bundle: str | None = None
    """Path of a PEM file with the certificate authorities to trust."""


_DEFAULTS = S3Options()


def parse_options(given: Mapping[str, object]) -> S3Options:
    """``given``, as text from a URL or as values from TOML, checked; raises ``ConfigError``."""
    for name in given:
        if name not in _PARSERS:
            raise ConfigError(f"unknown destination option {name!r}", hint=f"Known are {', '.join(sorted(_PARSERS))}.")
    values: dict[str, object] = {}
    for name, value in given.items():
        try:
            values[name] = _PARSERS[name](value)
        except ValueError as error:
            raise ConfigError(f"destination option {name}: {error}") from None
    if "sse_kms_key" in values and values.get("sse") not in ("aws:kms", "aws:kms:dsse"):
        raise ConfigError("destination option sse_kms_key: expected sse to be aws:kms", hint="Add sse=aws:kms.")
    if values.get("object_lock") is not None and values.get("checksum") == "none":
        raise ConfigError(
            "destination option object_lock: S3 locks nothing that comes without a checksum",
            hint="Remove checksum=none, or object_lock.",
        )
    return S3Options(**values)  # type: ignore[arg-type]  # each parser returns its field's type


def changed_options(options: S3Options) -> dict[str, str]:
    """The options that differ from their defaults, as a URL writes them: the inverse of parse_options."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in asdict(options).items()
        if value != getattr(_DEFAULTS, name)
    }


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _endpoint(value: object) -> str:
    parts = urlsplit(_text(value))
    if parts.username is not None or parts.password is not None:
        raise ValueError("an endpoint must not hold credentials")
    try:
        # urlsplit checks the port when it is asked for it.
        valid = parts.port != 0 and parts.scheme in ("http", "https") and parts.hostname and not parts.query
    except ValueError:
        valid = False
    if not valid or parts.fragment:
        raise ValueError(f"expected http://HOST[:PORT] or https://HOST[:PORT], got {value!r}")
    return _text(value)


def _flag(value: object) -> bool:
    if value in (True, "true"):
        return True
    if value in (False, "false"):
        return False
    raise ValueError(f"expected true or false, got {value!r}")


def _checksum(value: object) -> Checksum:
    if value not in ("crc32", "none"):
        raise ValueError(f"expected crc32 or none, got {value!r}")
    return value


def _encryption(value: object) -> Encryption:
    if value not in ("AES256", "aws:kms", "aws:kms:dsse"):
        raise ValueError(f"expected AES256, aws:kms or aws:kms:dsse, got {value!r}")
    return value


def _lock_mode(value: object) -> LockMode:
    if value not in ("governance", "compliance"):
        raise ValueError(f"expected governance or compliance, got {value!r}")
    return value


def _storage_class(value: object) -> str:
    text = _text(value)
    if text in ARCHIVE_CLASSES:
        raise ValueError(
            f"{text} cannot be read without hours of waiting: set it as storage_class of a class, not of all; or use "
            "STANDARD_IA or GLACIER_IR"
        )
    return text


def _ca_bundle(value: object) -> str:
    text = _text(value)
    if not Path(text).is_absolute():
        raise ValueError(f"expected an absolute path, got {text!r}")
    return text


def _integer(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
            raise ValueError(f"expected a whole number from {least} to {most}, got {value!r}")
        return number

    return parse


def _seconds(value: object) -> float:
    message = f"expected seconds from 0.1 to 3600, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(message)
    try:
        number = float(value)
    except ValueError:
        raise ValueError(message) from None
    if not 0.1 <= number <= 3600:
        raise ValueError(message)
    return number


_PARSERS: Mapping[str, Callable[[object], object]] = {
    "endpoint": _endpoint,
    "region": _text,
    "profile": _text,
    "path_style": _flag,
    "storage_class": _storage_class,
    "sse": _encryption,
    "sse_kms_key": _text,
    "object_lock": _lock_mode,
    "requester_pays": _flag,
    "checksum": _checksum,
    "conditional_writes": _flag,
    "connect_timeout": _seconds,
    "read_timeout": _seconds,
    "attempts": _integer(1, 100),
    # S3 takes parts of 5 MiB to 5 GiB; every part in flight is held in memory.
    "part_size": _integer(5 * MIB, 1024 * MIB),
    "uploads": _integer(1, 64),
    "ca_bundle": _ca_bundle,
}
