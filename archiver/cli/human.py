"""Sizes, durations and times as people read them."""

from datetime import UTC, datetime

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: int) -> str:
    """Bytes in binary units: ``0 B``, ``1.5 KiB``, ``3.20 GiB``."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, len(_UNITS))
    value, unit = count / 1024**power, _UNITS[power - 1]
    return f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def mebibytes(count: int) -> str:
    """``4,096 MiB``: what the messages on a map's room say, for sizes that are compared with theirs."""
    return f"{count / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``, ``5 days``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    return f"{hours // 24} days"


def time(moment: datetime) -> str:
    """UTC in ISO 8601, to the second: ``2026-11-22T02:00:00Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def number(count: int) -> str:
    """With a comma for each thousand."""
    return f"{count:,}"


def plural(count: int, singular: str) -> str:
    """``1 file``, ``2 files``, ``3 entries``, ``4 keys``."""
    if count == 1:
        return f"1 {singular}"
    changes = singular.endswith("y") and singular[-2:-1] not in "aeiou"
    return f"{count:,} {singular[:-1] + 'ies' if changes else singular + 's'}"
