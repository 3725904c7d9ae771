"""Byte ranges of stored objects: the checks that every store's ``read`` makes."""

from archiver.errors import IntegrityError, UsageError

READ_SIZE = 8 << 20
"""Bytes in one buffer of ``read``: all of a usual request, so that nobody has to put it together again."""


def check_range(start: int, length: int | None) -> None:
    """Raise ``UsageError`` for a range that no object can have."""
    if start < 0 or (length is not None and length < 0):
        raise UsageError(f"malformed byte range: start {start}, length {length}")


def range_end(key: str, size: int, start: int, length: int | None) -> int:
    """The offset after the last byte of the range; raises ``IntegrityError`` where it exceeds the object's ``size``."""
    end = max(start, size) if length is None else start + length
    if end > size:
        raise IntegrityError(f"{key} is too short: expected at least {end} bytes, got {size}")
    return end
