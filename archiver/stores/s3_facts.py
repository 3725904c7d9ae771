"""What can be found out about a bucket, without a word on whether it is good. Pure."""

from typing import Literal

import msgspec

from archiver.errors import ArchiverError
from archiver.retention.rules import Rule


class Unknown(msgspec.Struct, frozen=True):
    """What could not be found out; ``reason`` completes a sentence."""

    reason: str


Trial = Literal["allowed"] | ArchiverError | Unknown
"""How an attempt to use a permission ended."""


class ObjectLock(msgspec.Struct, frozen=True):
    """Object Lock is on. What a new object is given, where the bucket has a default for that."""

    mode: str | None = None
    days: int | None = None


class BucketSettings(msgspec.Struct, frozen=True):
    """How a bucket is set up. None: the store says that nothing is set."""

    region: str | Unknown
    versioning: Literal["enabled", "suspended", "off"] | Unknown
    lifecycle: tuple[Rule, ...] | Unknown
    object_lock: ObjectLock | Unknown | None
    encryption: str | Unknown | None
    """The algorithm that the store uses where a request names none."""
    unblocked: tuple[str, ...] | Unknown
    """Which of the four settings that block public access are off, by S3's names."""
    public: bool | Unknown
    """Whether the bucket's policy opens it to everybody."""


class Permissions(msgspec.Struct, frozen=True):
    """What the credentials may do below the prefix."""

    create: Trial
    abort: Trial
    list_uploads: Trial
    read: Trial
    delete: Trial


class Rate(msgspec.Struct, frozen=True):
    """``size`` bytes took so many seconds."""

    size: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Bytes."""
        return self.size / max(self.seconds, 1e-6)


class Speed(msgspec.Struct, frozen=True):
    """Of one request after the other, on one connection."""

    latency: float
    """Seconds from a small request to its answer."""
    up: Rate | Unknown
    down: Rate | Unknown
