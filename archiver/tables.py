"""A TOML document as tables that know their place in the file, so that every mistake is told by line and key."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from archiver.errors import ConfigError

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_KEY_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_KEY})\s*\]")
_PAIR = re.compile(rf"\s*({_KEY})\s*=")
_SIZE = re.compile(r"([0-9]{1,19})([KMGTkmgt]?)")
_UNITS = ("", "K", "M", "G", "T")
_KINDS = {
    dict: "a table",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    date: "a date",
}


def parse_size(text: str) -> int:
    """The bytes that ``text`` names: a whole number, and K, M, G or T for powers of 1024. Raises ``ValueError``."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"expected a size such as 500K, 20M or 8G, got {text!r}")
    return int(found[1]) << 10 * _UNITS.index(found[2].upper())


def size_text(count: int) -> str:
    """``count`` bytes as short as ``parse_size`` reads them without a loss: ``64K``, ``8G``, ``1000``."""
    power = 0
    while count and power < len(_UNITS) - 1 and count % 1024 == 0:
        count, power = count // 1024, power + 1
    return f"{count}{_UNITS[power]}"


class Origin(msgspec.Struct, frozen=True):
    """The text of a document, and the path that messages give it."""

    path: Path
    text: str

    def line(self, keys: tuple[str, ...]) -> int | None:
        """The line on which ``keys`` is set, for messages; tomllib does not keep it."""
        current: tuple[str, ...] = ()
        first_below: int | None = None
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                found = current = _split_key(header[1])
            elif pair := _PAIR.match(line):
                found = current + _split_key(pair[1])
            else:
                continue
            if found == keys:
                return number
            if first_below is None and found[: len(keys)] == keys:
                first_below = number
        return first_below


def _split_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, text))


def _join_key(keys: tuple[str, ...]) -> str:
    """``keys`` in one printable line."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key) for key in keys)


class Table:
    """A TOML table that knows its place in the file and notices keys that nobody asked for."""

    def __init__(self, values: dict[str, Any], keys: tuple[str, ...], origin: Origin) -> None:
        self._values = values
        self._keys = keys
        self._unread = set(values)
        self.origin = origin

    def fail(self, key: str | None, problem: str) -> NoReturn:
        """Raise ``ConfigError`` about ``key`` of this table, or about the table itself."""
        keys = self._keys if key is None else (*self._keys, key)
        line = self.origin.line(keys) or self.origin.line(self._keys)
        place = f", line {line}" if line is not None else ""
        raise ConfigError(
            f"{self.origin.path}{place}: {_join_key(keys)}: {problem}",
            hint="docs/CONFIGURATION.md lists every key.",
        )

    def check_name(self, name: str, what: str) -> None:
        if not _NAME.fullmatch(name):
            self.fail(None, f"invalid {what} name {name!r}, expected up to 63 of a-z, 0-9, - and _")

    def names(self) -> list[str]:
        return list(self._values)

    def table(self, key: str) -> "Table":
        """The table at ``key``, empty where there is none."""
        value = self._take(key, dict)
        return Table({} if value is None else value, (*self._keys, key), self.origin)

    def required(self, key: str, kind: type[str]) -> str:
        """A text that must be there and must not be empty."""
        value: str | None = self._take(key, kind)
        if not value:
            self.fail(key, "missing, expected a text")
        return value

    def optional(self, key: str, kind: type[str]) -> str | None:
        value: str | None = self._take(key, kind)
        return value

    def boolean(self, key: str) -> bool:
        """True or false; false where it is not set."""
        return bool(self._take(key, bool))

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._take(key, int)
        if value is None:
            return default
        if isinstance(value, bool) or not low <= value <= high:
            self.fail(key, f"expected a whole number from {low} to {high}, got {value!r}")
        return int(value)

    def number(self, key: str, default: float | None, high: float) -> float:
        """A number from 0 to ``high``; ``default`` where it is not set, None: it must be."""
        value = self._take(key, object)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
            self.fail(key, f"expected a number from 0 to {high:,.0f}, got {value!r}")
        return float(value)

    def size(self, key: str, low: int, high: int) -> int | None:
        """Bytes from ``low`` to ``high``, a whole number or a text that ``parse_size`` reads; None where not set."""
        value = self._take(key, object)
        if value is None:
            return None
        size = -1
        if isinstance(value, str):
            with suppress(ValueError):
                size = parse_size(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            size = value
        if not low <= size <= high:
            self.fail(key, f'expected a size from "{size_text(low)}" to "{size_text(high)}", got {value!r}')
        return size

    def word_or_integer(self, key: str, default: str, words: Sequence[str], low: int, high: int) -> str | int:
        """One of ``words``, or a whole number from ``low`` to ``high``."""
        value: str | int | None = self._take(key, object)
        if value is None:
            return default
        number = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if not number and value not in words:
            self.fail(key, f"expected one of {', '.join(words)}, or a whole number from {low} to {high}, got {value!r}")
        return value

    def strings(self, key: str) -> list[str]:
        value = self._take(key, list)
        if value is None:
            return []
        if not all(isinstance(item, str) for item in value):
            self.fail(key, "expected a list of texts")
        return list(value)

    def moment(self, key: str) -> datetime:
        """A point in time that must be there, in UTC: a date with a time and its offset, or a date, which is its
        beginning."""
        value = self._take(key, date)
        if value is None:
            self.fail(key, "missing, expected a date")
        if not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value.tzinfo is None:
            self.fail(key, f"expected a time with its offset, such as {value.isoformat()}Z, got {value.isoformat()}")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            self.fail(key, f"expected a time within the years 1 to 9999, got {value.isoformat()}")

    def rest(self) -> dict[str, object]:
        """Every key that was not read yet: the destination's options, which the stores check."""
        taken, self._unread = self._unread, set()
        return {key: self._values[key] for key in sorted(taken)}

    def end(self) -> None:
        """Raise ``ConfigError`` for a key that nobody asked for; to be called when all others were."""
        for key in sorted(self._unread):
            self.fail(key, "unknown key")

    def _take(self, key: str, kind: type) -> Any:
        self._unread.discard(key)
        value = self._values.get(key)
        if value is not None and not isinstance(value, kind):
            self.fail(key, f"expected {_KINDS[kind]}, got {value!r}")
        return value
