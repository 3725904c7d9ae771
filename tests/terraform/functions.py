"""Terraform's functions that terraform/ uses, but for those that read files; ``ValueError`` where they fail.

https://developer.hashicorp.com/terraform/language/functions
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any


def _coalesce(*values: Any) -> Any:
    for value in values:
        if value is not None and value != "":
            return value
    raise ValueError("coalesce: all arguments are null or empty")


def _flatten(value: Any) -> list[Any]:
    return [inner for item in value for inner in (_flatten(item) if isinstance(item, (list, set)) else [item])]


def _merge(*maps: Mapping[str, Any]) -> dict[str, Any]:
    if not maps:
        raise ValueError("merge: expected a map")
    return {key: value for each in maps for key, value in each.items()}


def _regex(pattern: str, text: str) -> str:
    # Go's $ is the very end of the text.
    found = re.search(re.sub(r"\$$", r"\\Z", pattern), text)
    if found is None:
        raise ValueError(f"regex: {pattern} does not match {text!r}")
    return found[0]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "alltrue": all,
    "anytrue": any,
    "coalesce": _coalesce,
    "concat": lambda *lists: [item for each in lists for item in each],
    "contains": lambda collection, value: value in collection,
    "flatten": _flatten,
    "floor": math.floor,
    "keys": sorted,
    "length": len,
    "max": lambda *numbers: max(numbers),
    "merge": _merge,
    "regex": _regex,
    "replace": lambda text, old, new: text.replace(old, new),
    "setintersection": lambda first, *others: set(first).intersection(*others),
    "sha256": lambda text: hashlib.sha256(text.encode()).hexdigest(),
    "split": lambda separator, text: text.split(separator),
    "substr": lambda text, offset, length: text[offset : offset + length],
    "toset": set,
    "tostring": str,
    "trimsuffix": lambda text, suffix: text.removesuffix(suffix),
    "values": lambda each: [value for _, value in sorted(each.items())],
}
