"""``terms.json``: for how long a copy of a backup is kept in the class that it was copied into (docs/FORMAT.md)."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from archiver.catalog.manifest import Days, Manifest
from archiver.errors import FormatError

MAX_TERMS = 1024
"""Bytes; a reader refuses a larger one before it reads it."""


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Public and unsigned: it belongs to one location, as the placement does. What lies with it would only make a
    reader believe in a wrong date; the keys themselves show how long they are sure to exist."""

    version: Literal[1]
    keep_days: Days | None
    """The copy is promised until the backup's start and so many days; None: until it is released."""
    lease_days: Days | None
    """For how much longer its data stay; None together with ``keep_days``."""

    def __post_init__(self) -> None:
        if (self.keep_days is None) != (self.lease_days is None):
            raise FormatError("expected keep_days and lease_days to be both null or both numbers")

    def promise(self, manifest: Manifest) -> datetime | None:
        """Until when a copy under these terms is promised; None: for ever. What lies beyond the year 9999 is for ever
        too."""
        try:
            return None if self.keep_days is None else manifest.started.astimezone(UTC) + timedelta(days=self.keep_days)
        except OverflowError:
            return None


def encode_terms(terms: Terms) -> bytes:
    """The exact bytes that are stored."""
    return msgspec.json.encode(terms) + b"\n"


def decode_terms(data: bytes, what: str) -> Terms:
    """Parse and validate; ``what`` names the file in errors. Raises ``FormatError``."""
    try:
        return msgspec.json.decode(data, type=Terms)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what}: {error}") from None
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}") from None
