"""What a key may be. One rule for all stores, so that whatever one of them takes the others take too."""

import re

from archiver.errors import UsageError

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,255}", re.ASCII)
_PARTIAL = re.compile(r"[A-Za-z0-9._-]{0,255}", re.ASCII)


def is_segment(name: str) -> bool:
    """Whether ``name`` may stand between two slashes of a key."""
    return _SEGMENT.fullmatch(name) is not None and name not in (".", "..")


def is_key(key: str) -> bool:
    """Whether ``key`` fulfils the Store contract. Stores do not list what does not: it is not ours."""
    return all(is_segment(segment) for segment in key.split("/"))


def check_key(key: str) -> None:
    """Raise ``UsageError`` unless ``key`` fulfils the Store contract."""
    if not is_key(key):
        raise UsageError(f"malformed store key {key!r}: expected segments of 1 to 255 letters, digits, '.', '_' or '-'")


def check_prefix(prefix: str) -> None:
    """Raise ``UsageError`` unless some key may start with ``prefix``."""
    parents, _, last = prefix.rpartition("/")
    if (parents and not is_key(parents)) or prefix.startswith("/") or _PARTIAL.fullmatch(last) is None:
        raise UsageError(f"malformed prefix of store keys: {prefix!r}")


def check_directory(prefix: str) -> None:
    """Raise ``UsageError`` unless ``prefix`` is empty or ends with ``/`` and some key may start with it."""
    check_prefix(prefix)
    if prefix and not prefix.endswith("/"):
        raise UsageError(f"malformed prefix of store keys: {prefix!r} does not end with '/'")


def next_segment(key: str, prefix: str) -> str:
    """The segment of ``key`` that follows ``prefix``."""
    return key[len(prefix) :].partition("/")[0]
