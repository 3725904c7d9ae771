"""What can be found out about a bucket, without a word on whether it is good. Pure."""

from dataclasses import dataclass
from typing import Literal

from archiver.errors import ArchiverError
from archiver.retention.rules import Rule


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be found out; ``reason`` completes a sentence."""

    reason: str


Trial = Literal["allowed"] | ArchiverError | Unknown
"""How an attempt to use a permission ended."""


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """Object Lock is on. What a new object is given, where the bucket has a default for that."""

    mode: str | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class BucketSettings:
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


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the credentials may do below the prefix."""

    create: Trial
    abort: Trial
    list_uploads: Trial
    read: Trial
    delete: Trial


@dataclass(frozen=True, slots=True)
class Rate:
    """``size`` bytes took so many seconds."""

    size: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Bytes."""
        return self.size / max(self.seconds, 1e-6)


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one request after the other, on one connection."""

    latency: float
    """Seconds from a small request to its answer."""
    up: Rate | Unknown
    down: Rate | Unknown
