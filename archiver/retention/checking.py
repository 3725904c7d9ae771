"""What is wrong with a bucket's rules for a policy."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from archiver.catalog.names import VAULTS
from archiver.config import HELD, RetentionClass
from archiver.retention.expiry import Need, Threat
from archiver.retention.policy import (
    ABORT_DAYS,
    NONCURRENT_DAYS,
    all_of,
    backups_of,
    data_of,
    own_name,
    wanted_rules,
)
from archiver.retention.rules import Rule, lasts, sure_until

_APPLY = "Run archiver lifecycle apply, as an administrator; archiver lifecycle plan shows what it would change."


class Problem(msgspec.Struct, frozen=True):
    """``error``: something promised would be deleted or become unreadable; ``warning``: something would stay for too
    long."""

    severity: Literal["error", "warning"]
    message: str
    hint: str


def problems(
    rules: Sequence[Rule], classes: Mapping[str, RetentionClass], base: str, *, versioned: bool = False
) -> Iterator[Problem]:
    """What the bucket's ``rules`` (of full keys) do to a destination below ``base`` that they should not, and what they
    fail to do: foreign or weaker rules that delete or archive too soon, missing expiry, uploads that nobody aborts.

    ``base`` is empty or ends with ``/``. What is deleted in a bucket is kept as an old version where it is
    ``versioned``: what ends that, and how soon, is looked at only then.
    """
    ours = [rule for rule in (rule.below(base) for rule in rules) if rule is not None and not rule.tagged]
    for rule in ours:
        yield from _harm(rule, classes, base)
    # A rule by size may delete, but whether it ever does is not known.
    certain = [rule for rule in ours if not rule.sized]
    yield from _left(certain, classes, base)
    yield from _unended(certain, classes, base)
    if versioned:
        for rule in ours:
            yield from _hasty(rule, classes, base)
        yield from _versions(certain, classes, base)


class _Area(msgspec.Struct, frozen=True):
    """What must stay as it is below ``prefix``, for so many days; None: for ever."""

    what: str
    prefix: str
    days: int | None


def _areas(classes: Mapping[str, RetentionClass]) -> Iterator[_Area]:
    yield _Area("vault files, without which nobody can restore", VAULTS, None)
    yield _Area("backups that are held until somebody releases them", f"{HELD}/", None)
    for name, retention in sorted(classes.items()):
        days = retention.keep + retention.lease
        yield _Area(f"manifests of {name}, promised for {retention.keep} days", backups_of(name), retention.keep)
        yield _Area(f"data of {name}, needed for {days} days", data_of(name), days)


def _harm(rule: Rule, classes: Mapping[str, RetentionClass], base: str) -> Iterator[Problem]:
    """``rule`` is relative to ``base``."""
    met = [area for area in _areas(classes) if rule.meets(area.prefix)]
    deleted = [area for area in met if rule.expires_at is not None or _too_soon(rule.expires_days, area)]
    if deleted:
        yield Problem(
            "error",
            f"lifecycle rule {rule.name!r} {_expiry(rule)}, too soon for {_what(deleted)}",
            _hint(rule, deleted, base, "Correct the rule, or keep and lease of the class in archiver.toml."),
        )
    if archived := [area for area in met if _too_soon(rule.archives_days, area)]:
        yield Problem(
            "error",
            f"lifecycle rule {rule.name!r} archives after {_days(rule.archives_days or 0)}, "
            f"so that a restore must wait for hours, {_what(archived)}",
            _hint(
                rule, archived, base, "Remove that from the rule, and set storage_class of the class in archiver.toml."
            ),
        )


def _too_soon(days: int | None, area: _Area) -> bool:
    return days is not None and (area.days is None or days < area.days)


def _what(areas: Sequence[_Area]) -> str:
    return "; ".join(area.what for area in areas)


def _hint(rule: Rule, areas: Sequence[_Area], base: str, otherwise: str) -> str:
    """Rules of ours are made anew; what is kept for ever can only be left out of another's."""
    if rule.name.startswith(own_name(base)):
        return _APPLY
    endless = [f"{base}{area.prefix}" for area in areas if area.days is None]
    return f"Give the rule a prefix that leaves out {_listing(endless)}." if endless else otherwise


def _left(rules: Sequence[Rule], classes: Mapping[str, RetentionClass], base: str) -> Iterator[Problem]:
    """What would stay for longer than is wanted, or for ever."""
    endless = []
    for name, retention in sorted(classes.items()):
        wanted = (
            ("manifests", backups_of(name), retention.keep),
            ("data", data_of(name), retention.keep + retention.lease),
        )
        ends = [_end(rules, prefix) for _, prefix, _ in wanted]
        if None in ends:
            endless.append(name)
            continue
        for (what, prefix, days), end in zip(wanted, ends, strict=True):
            if end is not None and end > days:
                yield Problem(
                    "warning",
                    f"{what} of {name} stay too long: the lifecycle rules delete {base}{prefix} after {_days(end)}, "
                    f"expected {_days(days)}",
                    _APPLY,
                )
    if endless:
        rules_wanted = wanted_rules({name: classes[name] for name in endless}, versioned=False)
        said = [f"{base}{rule.prefix} after {_days(rule.expires_days)}" for rule in rules_wanted if rule.expires_days]
        yield Problem(
            "warning",
            f"no lifecycle rule lets backups of {_listing(endless)} expire: they stay until somebody deletes them",
            f"{_APPLY} By hand, add rules that expire {_listing(said)}.",
        )


def _end(rules: Sequence[Rule], prefix: str) -> int | None:
    """After how many days all keys below ``prefix`` are gone; None: not all of them ever go."""
    ends = [0 if rule.expires_at is not None else rule.expires_days for rule in rules if rule.covers(prefix)]
    return min((end for end in ends if end is not None), default=None)


def _unended(rules: Sequence[Rule], classes: Mapping[str, RetentionClass], base: str) -> Iterator[Problem]:
    aborting = [rule for rule in rules if rule.aborts_days is not None]
    if names := _not_covered(aborting, classes, data_of):
        yield Problem(
            "warning",
            f"no lifecycle rule aborts incomplete uploads of {_listing(names)}: what killed runs leave costs money",
            f"{_APPLY} By hand, add rules for {_prefixes(names, base)} that abort incomplete multipart uploads after "
            f"{ABORT_DAYS} days.",
        )


def _hasty(rule: Rule, classes: Mapping[str, RetentionClass], base: str) -> Iterator[Problem]:
    """Old versions are what an administrator brings back after a mistake or a theft."""
    if rule.noncurrent_days is None:
        return
    met = [f"{base}{all_of(name)}" for name in (*sorted(classes), HELD) if rule.meets(all_of(name))]
    if met and rule.noncurrent_days < NONCURRENT_DAYS:
        yield Problem(
            "warning",
            f"lifecycle rule {rule.name!r} deletes old versions after {_days(rule.noncurrent_days)}, expected at least "
            f"{NONCURRENT_DAYS}: less time to bring back what was deleted from {_listing(met)}",
            _hint(rule, (), base, f"Let the rule wait for {NONCURRENT_DAYS} days."),
        )
    if rule.meets(VAULTS):
        yield Problem(
            "warning",
            f"lifecycle rule {rule.name!r} deletes old versions of vault files after {_days(rule.noncurrent_days)}: "
            "where a thief has put others in their place, they are all that is left",
            _hint(rule, (), base, f"Give the rule a prefix that leaves out {base}{VAULTS}."),
        )


def _versions(rules: Sequence[Rule], classes: Mapping[str, RetentionClass], base: str) -> Iterator[Problem]:
    ending = [rule for rule in rules if rule.noncurrent_days is not None]
    if names := _not_covered(ending, classes, backups_of, data_of):
        yield Problem(
            "warning",
            f"no lifecycle rule deletes old versions of {_listing(names)}: what has expired stays, and costs as before",
            f"{_APPLY} By hand, add rules for {_prefixes(names, base)} that delete noncurrent versions after "
            f"{NONCURRENT_DAYS} days.",
        )
    if names := _not_covered([rule for rule in rules if rule.removes_markers], classes, backups_of, data_of):
        yield Problem(
            "warning",
            f"no lifecycle rule removes the delete markers of {_listing(names)}: every listing becomes slower",
            f"{_APPLY} By hand, add rules for {_prefixes(names, base)} that remove expired object delete markers.",
        )


def _not_covered(
    rules: Sequence[Rule], classes: Mapping[str, RetentionClass], *areas: Callable[[str], str]
) -> list[str]:
    """The classes, ``held`` among them, of which ``rules`` leave out keys in one of these areas."""
    return [
        name
        for name in (*sorted(classes), HELD)
        if not all(any(rule.covers(area(name)) for rule in rules) for area in areas)
    ]


def _prefixes(names: Sequence[str], base: str) -> str:
    return _listing([f"{base}{all_of(name)}" for name in names])


def never_ending(rules: Sequence[Rule], names: Iterable[str], base: str) -> list[str]:
    """Those of the classes ``names`` whose manifests or data the bucket's ``rules``, of full keys, leave for ever."""
    found = [rule for rule in (rule.below(base) for rule in rules) if rule is not None]
    certain = [rule for rule in _without_sizes(found) if not rule.tagged]
    return [name for name in names if None in (_end(certain, backups_of(name)), _end(certain, data_of(name)))]


def newly_broken(before: Sequence[Rule], after: Sequence[Rule], needs: Sequence[Need], now: datetime) -> list[Threat]:
    """The promises that the rules ``after`` (relative to the destination) would break, without those that the rules
    ``before`` break already, of keys that go no sooner ``after`` them."""
    found = _worse(before, after, needs, now)
    if found:
        return found
    # A rule by size may never act: then it hides nothing.
    return _worse(_without_sizes(before), _without_sizes(after), needs, now)


def _worse(before: Sequence[Rule], after: Sequence[Rule], needs: Sequence[Need], now: datetime) -> list[Threat]:
    ends = {_identity(threat): threat.end for threat in broken_by(before, needs, now)}
    return [
        threat
        for threat in broken_by(after, needs, now)
        if _identity(threat) not in ends or threat.end < ends[_identity(threat)]
    ]


def _without_sizes(rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if not rule.sized]


def _identity(threat: Threat) -> tuple[str, str, str, str]:
    return threat.need.source, threat.need.backup, threat.need.retention_class, threat.key


def broken_by(rules: Sequence[Rule], needs: Sequence[Need], now: datetime) -> list[Threat]:
    """The promises that these rules (relative to the destination) would break: what ``lifecycle apply`` refuses.

    What a promise needs and is not there is not their doing.
    """
    threats = []
    for need in needs:
        if need.promise is not None and need.promise <= now:
            continue
        promised = "for ever" if need.promise is None else f"until {need.promise:%Y-%m-%d %H:%M}"
        for key, stored in need.keys.items():
            end = None if stored is None else sure_until(stored, rules)
            if end is not None and not lasts(end, need.promise):
                reason = f"goes from {end:%Y-%m-%d %H:%M} on, and is promised {promised}"
                threats.append(Threat(need, key, reason, end))
    return threats


def _expiry(rule: Rule) -> str:
    if rule.expires_at is not None:
        return f"deletes on {rule.expires_at:%Y-%m-%d}"
    return f"deletes after {_days(rule.expires_days or 0)}"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count:,} days"


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
