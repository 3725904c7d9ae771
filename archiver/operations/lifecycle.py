"""``archiver lifecycle show``, and what other commands say of a bucket's rules."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from archiver.config import Config, RetentionClass
from archiver.errors import RefusedError, UsageError
from archiver.operations.rules_in_words import actions, days, scope
from archiver.retention.checking import Problem, problems
from archiver.retention.expiry import expired
from archiver.retention.policy import backups_of, in_force, wanted_rules
from archiver.retention.rules import Rule
from archiver.stores.base import Store
from archiver.stores.destination import FileDestination, open_store, parse_destination

if TYPE_CHECKING:
    from archiver.stores.s3 import S3Store
    from archiver.stores.s3_rules import BucketRule, Lifecycle

_NAME = "archiver-"
_OVERDUE = timedelta(days=2)
"""For how long what ``archiver expire`` deletes may lie there: it runs once a day, and may have failed once."""
_EXPIRE = "Run archiver expire from cron, once a day: docs/OPERATIONS.md."


@dataclass(frozen=True, slots=True)
class RuleSite:
    """A destination, and what its rules are to be."""

    config: Config
    store: Store
    bucket: "S3Store | None"
    """The same store, where it has lifecycle rules; None: a directory, which has none."""

    @property
    def base(self) -> str:
        """What its keys begin with in the bucket, empty or with a ``/`` at its end."""
        return self.store.full_key("")

    def required(self) -> "S3Store":
        """The bucket; raises ``UsageError`` where there is none."""
        if self.bucket is None:
            raise UsageError(f"{self.store.url} is a directory, which runs no lifecycle rules", hint=_EXPIRE)
        return self.bucket

    def wanted(self, lifecycle: "Lifecycle") -> list[Rule]:
        """The rules that the configuration asks for, of full keys. Where it is not known whether the bucket keeps old
        versions they are the same as if it did, which does no harm."""
        from archiver.stores.s3_rules import full_rules

        return full_rules(wanted_rules(self.config.classes, versioned=lifecycle.versioned is not False), self.base)


@contextmanager
def open_rule_site(config: Config) -> Iterator[RuleSite]:
    """The configuration's destination, closed at the end."""
    destination = parse_destination(config.destination, config.destination_options)
    with closing(open_store(destination)) as store:
        if isinstance(destination, FileDestination):
            yield RuleSite(config, store, None)
            return
        # boto3 takes a quarter of a second to import.
        from archiver.stores.s3 import S3Store

        yield RuleSite(config, store, store if isinstance(store, S3Store) else None)


Owner = Literal["archiver", "another destination", "others"]
"""Whose rule it is: of this destination, of another one of archiver in the same bucket, or not archiver's at all."""


@dataclass(frozen=True, slots=True)
class ShownRule:
    """A rule of the bucket, and what it means for this destination."""

    rule: Rule
    enabled: bool
    owner: Owner
    scope: str
    actions: tuple[str, ...]
    concerns: bool
    """Whether it can meet a key of this destination."""
    harm: tuple[str, ...]
    """What it deletes or archives too soon, in sentences."""


def show_rules(site: RuleSite) -> list[ShownRule] | None:
    """All rules of the bucket, in its order; None where the store has none."""
    if site.bucket is None:
        return None
    return [_shown(site, item) for item in site.bucket.lifecycle().rules]


def _shown(site: RuleSite, item: "BucketRule") -> ShownRule:
    rule = item.rule
    concerns = item.enabled and not rule.tagged and rule.below(site.base) is not None
    harm = tuple(
        problem.message for problem in problems([rule], site.config.classes, site.base) if problem.severity == "error"
    )
    return ShownRule(
        rule,
        item.enabled,
        owner_of(rule.name, site.base),
        scope(rule),
        tuple(actions(rule)),
        concerns,
        harm if item.enabled else (),
    )


def owner_of(name: str, base: str) -> Owner:
    """Whose rule has that name."""
    from archiver.stores.s3_rules import own_name

    if name.startswith(own_name(base)):
        return "archiver"
    return "another destination" if name.startswith(_NAME) else "others"


def examine_rules(store: Store, classes: Mapping[str, RetentionClass]) -> list[Problem]:
    """What the store's rules do to backups that they should not, by one request: for the end of a backup. Nothing where
    there are no rules or they may not be read."""
    try:
        rules = store.rules()
    except RefusedError:
        return []
    return [] if rules is None else list(problems(rules, classes, store.full_key("")))


def overdue(store: Store, classes: Mapping[str, RetentionClass], now: datetime) -> Iterator[Problem]:
    """Whether backups lie in a store that runs no rules for longer than ``archiver expire`` would leave them."""
    terms = in_force(classes, None)
    for name in sorted(classes):
        late = expired(store.list(backups_of(name)), terms, now - _OVERDUE)
        count = sum(deletion.key.endswith("/manifest.json") for deletion in late)
        if late:
            what = "1 backup" if count == 1 else f"{count:,} backups" if count else "what failed runs left"
            yield Problem(
                "warning",
                f"{what} of {name} should have been deleted more than {days(_OVERDUE.days)} ago: nothing does it here",
                _EXPIRE,
            )
