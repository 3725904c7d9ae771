"""Lifecycle rules in S3's forms, JSON and XML: from and to Rule, and edited without touching those of others. Pure.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html has the elements.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, cast
from xml.sax.saxutils import escape

import msgspec
from msgspec.structs import replace

from archiver.config import ARCHIVE_CLASSES
from archiver.errors import FormatError, RefusedError
from archiver.retention.policy import own_name
from archiver.retention.rules import Rule
from archiver.stores.s3_xml import Element, Meaning, parse_xml

ROOT = "LifecycleConfiguration"
MOST = 1000
"""Rules that a bucket can have."""
_EMPTY = f'<{ROOT} xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></{ROOT}>'.encode()
_WORDS = frozenset({"ID", "Key", "Prefix", "Status", "StorageClass", "Value"})
"""Elements whose text means exactly what it is; that of others is a number, a time or a truth value."""


class BucketRule(msgspec.Struct, frozen=True):
    """One rule of a bucket, disabled ones included."""

    rule: Rule
    enabled: bool
    meaning: Meaning
    """Equal for two that are the same, however a store writes them."""


class Lifecycle(msgspec.Struct, frozen=True):
    """A bucket's lifecycle configuration."""

    rules: tuple[BucketRule, ...]
    raw: bytes
    """The XML as the store gave it; empty where the bucket has no rules."""
    minimum_size: str | None = None
    """What S3 calls TransitionDefaultMinimumObjectSize: a setting of the bucket that each change restates."""
    versioned: bool | None = None
    """Whether the bucket keeps old versions, or once did; None where that cannot be read."""

    @property
    def enabled(self) -> list[Rule]:
        return [item.rule for item in self.rules if item.enabled]


def full_rules(rules: Iterable[Rule], base: str) -> list[Rule]:
    """``rules``, which are relative to a destination, as its bucket is to have them."""
    return [replace(rule, name=own_name(base) + rule.name, prefix=base + rule.prefix) for rule in rules]


def api_rule(rule: Rule) -> dict[str, Any]:
    """A rule of ours as ``aws s3api put-bucket-lifecycle-configuration`` takes it."""
    found: dict[str, Any] = {"ID": rule.name, "Status": "Enabled", "Filter": {"Prefix": rule.prefix}}
    if rule.expires_days is not None:
        found["Expiration"] = {"Days": rule.expires_days}
    if rule.removes_markers:
        found["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if rule.aborts_days is not None:
        found["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule.aborts_days}
    if rule.noncurrent_days is not None:
        found["NoncurrentVersionExpiration"] = {"NoncurrentDays": rule.noncurrent_days}
    return found


def meaning_of(rule: Rule) -> Meaning:
    """What a BucketRule of this rule of ours would have as its meaning."""
    (meaning,) = meanings(_edited(_EMPTY, [], [rule]))
    return meaning


def meanings(raw: bytes) -> list[Meaning]:
    """Of all rules in a configuration; raises ``FormatError``."""
    return [_meaning(element) for element in _rules_in(parse_xml(raw or _EMPTY))]


def name_in(meaning: Meaning) -> str:
    """The name of the rule; empty where it has none."""
    return next((str(value) for name, value in cast("tuple[Meaning, ...]", meaning[1]) if name == "ID"), "")


def enabled_rules(answer: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules in the answer to GetBucketLifecycleConfiguration, as botocore gives it, that are enabled."""
    return tuple(_parse(rule) for rule in answer.get("Rules", []) if rule.get("Status") == "Enabled")


def bucket_rules(answer: Mapping[str, Any], raw: bytes) -> tuple[BucketRule, ...]:
    """All rules in the same answer, whose body was ``raw``; raises ``FormatError``."""
    elements = _rules_in(parse_xml(raw))
    given = answer.get("Rules", [])
    if len(elements) != len(given):
        raise FormatError(f"the lifecycle configuration has {len(elements)} rules, and {len(given)} could be read")
    return tuple(
        BucketRule(_parse(rule), rule.get("Status") == "Enabled", _meaning(element))
        for rule, element in zip(given, elements, strict=True)
    )


def with_rules(raw: bytes, wanted: Sequence[Rule], own: str) -> bytes:
    """The configuration ``raw`` (empty: none) with ``wanted``, rules of full keys, in place of those whose names begin
    with ``own``. Every other byte stays as it is: rules of others, disabled ones, and what is not known here; only a
    filter that is not as S3 writes it is put into S3's form.

    Raises ``FormatError`` for what is no lifecycle configuration, ``RefusedError`` for more rules than S3 takes.
    """
    root = parse_xml(raw or _EMPTY)
    elements = _rules_in(root)
    if not elements:
        raw = _EMPTY
    replaced = [element for element in elements if element.child_text("ID").startswith(own)]
    if (count := len(elements) - len(replaced) + len(wanted)) > MOST:
        raise RefusedError(
            f"the bucket would have {count:,} lifecycle rules, expected at most {MOST:,}",
            hint="Remove rules that are not needed, or give the destination a bucket of its own.",
        )
    return _edited(raw, replaced, wanted)


def _edited(raw: bytes, replaced: Sequence[Element], wanted: Sequence[Rule]) -> bytes:
    root = parse_xml(raw)
    gone = {element.start for element in replaced}
    kept = [element for element in _rules_in(root) if element.start not in gone]
    # S3 does not mix rules whose prefix is in a filter with those of before it had filters.
    old_form = any(element.child("Filter") is None and element.child("Prefix") is not None for element in kept)
    added = "".join(_xml("Rule", _old_form(api_rule(rule)) if old_form else api_rule(rule)) for rule in wanted)
    edits = [(element.start, element.end, b"") for element in replaced]
    edits += [edit for element in kept if (edit := _filter_edit(raw, element)) is not None]
    edits.append((root.inner_end, root.inner_end, added.encode()))
    pieces, position = [], 0
    for start, end, text in sorted(edits):
        pieces += [raw[position:start], text]
        position = end
    return b"".join([*pieces, raw[position:]])


def _filter_edit(raw: bytes, rule: Element) -> tuple[int, int, bytes] | None:
    """Of a filter that says several things side by side, which S3 wants joined in an And: from where to where it lies,
    and how S3 writes it. Ceph answers so, and when it is sent its own words again it forgets half of them: the rule
    would then be for more keys than before."""
    filters = rule.child("Filter")
    if filters is None or len(filters.children) < 2:
        return None
    parts = [part for item in filters.children for part in (item.children if item.name == "And" else [item])]
    parts = [part for part in parts if part.name != "Prefix" or part.text.strip()]
    joined = b"".join(raw[part.start : part.end] for part in parts)
    return filters.start, filters.end, b"<Filter><And>" + joined + b"</And></Filter>"


def _old_form(rule: dict[str, Any]) -> dict[str, Any]:
    return {"Prefix": rule.pop("Filter")["Prefix"], **rule}


def _xml(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return f"<{name}>{''.join(_xml(inner, item) for inner, item in value.items())}</{name}>"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"<{name}>{escape(text)}</{name}>"


def _rules_in(root: Element) -> list[Element]:
    if root.name != ROOT or root.prefixed:
        raise FormatError(f"expected a lifecycle configuration of S3, got an element {root.name!r}")
    return [element for element in root.children if element.name == "Rule"]


def _meaning(rule: Element) -> Meaning:
    """A rule's prefix, filters and actions, in whichever of S3's ways they are written."""
    filters = rule.child("Filter") or Element("Filter")
    both = filters.child("And") or Element("And")
    prefix = next(filter(None, (element.child_text("Prefix") for element in (rule, filters, both))), "")
    narrowed = [item for item in (*filters.children, *both.children) if item.name not in ("And", "Prefix")]
    acts = [item for item in rule.children if item.name not in ("Filter", "Prefix")]
    found = [item.meaning(_WORDS) for item in (*narrowed, *acts)]
    return ("Rule", (("Prefix", prefix), *sorted((item for item in found if item is not None), key=repr)))


def _parse(rule: Mapping[str, Any]) -> Rule:
    chosen = rule.get("Filter") or {}
    chosen = chosen | chosen.get("And", {})
    expiration = rule.get("Expiration", {})
    date = expiration.get("Date")
    return Rule(
        name=rule.get("ID", ""),
        prefix=chosen.get("Prefix") or rule.get("Prefix") or "",
        tagged="Tag" in chosen or bool(chosen.get("Tags")),
        sized="ObjectSizeGreaterThan" in chosen or "ObjectSizeLessThan" in chosen,
        expires_days=expiration.get("Days"),
        expires_at=None if date is None else date.astimezone(UTC),
        aborts_days=rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
        noncurrent_days=_noncurrent_days(rule.get("NoncurrentVersionExpiration", {})),
        removes_markers=bool(expiration.get("ExpiredObjectDeleteMarker")),
        archives_days=_archives_days(rule.get("Transitions", [])),
    )


def _noncurrent_days(expiration: Mapping[str, Any]) -> int | None:
    """None also where the newest old versions are kept for ever: of our keys there is one at most."""
    days = expiration.get("NoncurrentDays")
    return None if days is None or expiration.get("NewerNoncurrentVersions") else int(days)


def _archives_days(transitions: Sequence[Mapping[str, Any]]) -> int | None:
    """At a date, keys of any age are moved: that counts as at once."""
    archiving = [move for move in transitions if move.get("StorageClass") in ARCHIVE_CLASSES]
    return min((int(move.get("Days", 0)) for move in archiving), default=None)
