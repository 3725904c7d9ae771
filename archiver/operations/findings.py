"""What ``archiver doctor`` has to say about one thing that it looked at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from archiver.environment.inspection import EnvironmentReport
from archiver.errors import ArchiverError

Severity = Literal["ok", "warning", "error"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    severity: Severity
    subject: str
    message: str
    hint: str | None = None
    environment: EnvironmentReport | None = None
    """The facts, once for each environment that could be looked at."""
    facts: Mapping[str, object] | None = None
    """For machines: what the message says in words, of other things."""

    @staticmethod
    def of(subject: str, error: ArchiverError) -> "Finding":
        """``error`` as a finding."""
        return Finding("error", subject, error.message, error.hint)


def nearest(path: Path) -> Path:
    """``path`` or the closest directory above it that exists."""
    while not path.exists():
        path = path.parent
    return path
