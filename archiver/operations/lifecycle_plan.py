"""``archiver lifecycle plan``, ``apply`` and ``check``: in what a bucket's rules differ from those that the policy
wants, and which promises a change would break."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from archiver.catalog.names import is_class
from archiver.errors import RefusedError, StorageError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.lifecycle import RuleSite, left_classes, left_problems, overdue, sharing_problems
from archiver.operations.needs import needs
from archiver.operations.rules_in_words import actions
from archiver.retention.checking import Problem, newly_broken, problems
from archiver.retention.expiry import Need, Threat
from archiver.retention.policy import backups_of, data_of, own_name
from archiver.retention.rules import Rule
from archiver.stores.base import Store

if TYPE_CHECKING:
    from archiver.stores.s3_rules import BucketRule, Lifecycle


class Change(msgspec.Struct, frozen=True):
    """What becomes of one rule of ours."""

    action: Literal["add", "change", "remove"]
    name: str
    prefix: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """How a bucket's rules become those of the configuration."""

    existing: "Lifecycle"
    wanted: Sequence[Rule]
    """All rules of ours, of full keys, as they are to be."""
    changes: Sequence[Change]
    broken: Sequence[Threat]
    """Promises that would be broken, and are not, or later, by the rules that there are."""
    unread: Sequence[str]
    """In words, with the keys of their manifests, backups that cannot be read, so that nobody knows what they need."""
    shortens: bool
    """Whether a rule that deletes is new, or deletes sooner or elsewhere than before."""

    @property
    def refused(self) -> bool:
        """Whether it breaks a promise, or may break one that cannot be read: then it is not carried out."""
        return bool(self.broken or (self.unread and self.shortens))


def make_plan(site: RuleSite) -> Plan:
    """What ``apply_plan`` would change. Looks at every backup of every source below the destination.

    Memory: as operations.needs.needs, for the largest source. Raises ``UsageError`` for a directory.
    """
    existing = site.required().lifecycle()
    wanted, changes = _compare(site, existing)
    others = [item.rule for item in existing.rules if item.enabled and not _is_ours(item, site.base)]
    broken: list[Threat] = []
    unread: list[str] = []
    if changes:
        now = site.store.clock()
        before, after = _relative(existing.enabled, site.base), _relative([*others, *wanted], site.base)
        for source in _sources(site.store):
            found = _needs(site, source, unread)
            broken += newly_broken(before, after, found, now)
    return Plan(existing, wanted, changes, broken, unread, shortens=_shortens(site, existing, wanted))


def apply_plan(site: RuleSite, plan: Plan) -> list[Problem]:
    """Carry ``plan`` out, which must not be ``refused``; what is still wrong with the bucket's rules afterwards."""
    bucket = site.required()
    if plan.changes:
        bucket.set_lifecycle(plan.existing, plan.wanted)
    return list(_problems(site, bucket.lifecycle()))


def check_rules(site: RuleSite) -> list[Problem]:
    """What the rules do to this destination that they should not, and in what ours are not as ``apply_plan`` would have
    them. Of a directory: whether ``archiver expire`` is overdue."""
    if site.bucket is None:
        return list(overdue(site.store, site.config.classes, site.store.clock()))
    lifecycle = site.bucket.lifecycle()
    return [
        *_problems(site, lifecycle),
        *left_problems(site.store, site.config.classes, lifecycle.enabled),
        *sharing_problems(site.store, site.config.classes),
        *_drift(site, lifecycle),
    ]


def _problems(site: RuleSite, lifecycle: "Lifecycle") -> Iterator[Problem]:
    versioned = lifecycle.versioned is True
    yield from problems(lifecycle.enabled, site.config.classes, site.base, versioned=versioned)


def _drift(site: RuleSite, existing: "Lifecycle") -> Iterator[Problem]:
    """Where rules of ours are not what they would be made. Those that are missing are no matter as long as others do
    the same, and checking.problems looks at what is done."""
    for change in _compare(site, existing)[1]:
        if change.action != "add":
            yield Problem(
                "warning",
                f"lifecycle rule {change.name!r} is not as archiver would have it: {change.reason}",
                "Run archiver lifecycle plan, which shows all of it, and then apply, as an administrator.",
            )


def _compare(site: RuleSite, existing: "Lifecycle") -> tuple[list[Rule], list[Change]]:
    """The rules that are to be ours, and what that changes."""
    from archiver.stores.s3_rules import meaning_of

    own = own_name(site.base)
    ours = {item.rule.name: item for item in existing.rules if _is_ours(item, site.base)}
    wanted = {rule.name: rule for rule in site.wanted(existing)}
    for name in left_classes(site.store, site.config.classes):
        # As long as something lies in a class that the configuration has no more, it is to end as it was promised.
        for rule_name in (f"{own}{name}-backups", f"{own}{name}-data", f"{own}{name}-rest"):
            if rule_name in ours and ours[rule_name].enabled:
                wanted[rule_name] = ours[rule_name].rule
    changes = []
    for name, rule in wanted.items():
        if name not in ours:
            changes.append(Change("add", name, rule.prefix, _said(rule)))
        elif ours[name].meaning != meaning_of(rule):
            changes.append(Change("change", name, rule.prefix, _difference(ours[name], rule)))
    for name, item in ours.items():
        if name not in wanted:
            changes.append(Change("remove", name, item.rule.prefix, "the configuration asks for no such rule"))
    return list(wanted.values()), changes


def _shortens(site: RuleSite, existing: "Lifecycle", wanted: Sequence[Rule]) -> bool:
    """Whether one of the ``wanted`` rules deletes what ours, those that are enabled, leave for longer."""
    ours = {(item.rule.name, item.rule.prefix): item for item in existing.rules if _is_ours(item, site.base)}
    return any(_is_sooner(rule, ours.get((rule.name, rule.prefix))) for rule in wanted if rule.expires_days is not None)


def _is_sooner(rule: Rule, present: "BucketRule | None") -> bool:
    if present is None or not present.enabled or present.rule.tagged or present.rule.sized:
        return True
    days = present.rule.expires_days
    return present.rule.expires_at is None and (days is None or (rule.expires_days or 0) < days)


def _difference(item: "BucketRule", rule: Rule) -> str:
    if not item.enabled:
        return f"it is disabled; expected: {_said(rule)}"
    if item.rule.prefix != rule.prefix:
        return f"it is for {item.rule.prefix or 'all keys'}, expected {rule.prefix or 'all keys'}"
    if _said(item.rule) == _said(rule):
        return f"it says more than: {_said(rule)}"
    return f"{_said(item.rule)}; expected: {_said(rule)}"


def _said(rule: Rule) -> str:
    return " and ".join(actions(rule)) or "deletes no current key"


def _is_ours(item: "BucketRule", base: str) -> bool:
    return item.rule.name.startswith(own_name(base))


def _relative(rules: Sequence[Rule], base: str) -> list[Rule]:
    return [found for rule in rules if (found := rule.below(base)) is not None]


def _sources(store: Store) -> list[str]:
    """Every source that has, or had, a backup in any class."""
    classes = [name for name in store.list_names() if is_class(name)]
    prefixes = [prefix for name in classes for prefix in (backups_of(name), data_of(name))]
    return sorted({source for prefix in prefixes for source in store.list_names(prefix)})


def _needs(site: RuleSite, source: str, unread: list[str]) -> list[Need]:
    """What the backups of ``source`` need, whoever has signed them: a rule is for all hosts that store here, and one
    believed too many only keeps something for longer. Of those that cannot be read a line each goes to ``unread``."""
    archive = Archive(site.store, source, None)
    backups = []
    for item in archive.newest_first():
        if isinstance(item, Backup):
            backups.append(item)
        elif isinstance(item.error, StorageError) and not isinstance(item.error, RefusedError):
            raise item.error
        else:
            key = site.store.full_key(item.place.manifest)
            unread.append(f"{item.place.backup} of {source}, {key}: {item.error.message}")
    return needs(archive, backups)
