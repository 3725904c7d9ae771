"""``archiver lifecycle show``, and what other commands say of a bucket's rules."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING, Literal

import msgspec

from archiver.catalog.names import VAULTS, check_backup_id, is_class, parse_object_key
from archiver.config import HELD, Config, RetentionClass
from archiver.errors import FormatError, RefusedError, UsageError
from archiver.operations.rules_in_words import actions, days, scope
from archiver.retention.checking import Problem, never_ending, problems
from archiver.retention.expiry import expired
from archiver.retention.policy import backups_of, data_of, in_force, own_name, wanted_rules
from archiver.retention.rules import Rule
from archiver.stores.base import Store
from archiver.stores.destination import FileDestination, open_store, parse_destination

if TYPE_CHECKING:
    from archiver.stores.s3 import S3Store
    from archiver.stores.s3_rules import BucketRule, Lifecycle

_NAME = "archiver-"
_OVERDUE = timedelta(days=2)
"""For how long what ``archiver expire`` deletes may lie there: it runs once a day, and may have failed once."""
_LOOKED_AT = 1000
"""Keys of a class among which one of archiver's is looked for: those of one page of a listing."""
_TOLD = 3
"""Names of others that are told."""
_EXPIRE = "Run archiver expire from cron, once a day: docs/OPERATIONS.md."


class RuleSite(msgspec.Struct, frozen=True):
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


class ShownRule(msgspec.Struct, frozen=True):
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


def left_classes(store: Store, classes: Mapping[str, RetentionClass]) -> list[str]:
    """Classes that the configuration does not know and that are not empty. Two requests for each name that may be one:
    beside a destination without a prefix anything may lie."""
    return [
        name
        for name in store.list_names()
        if is_class(name) and name not in (HELD, *classes) and _holds_something(store, name)
    ]


def _holds_something(store: Store, name: str) -> bool:
    """Whether there is a key of archiver's among the first of the class."""
    listed = (islice(store.list(prefix), _LOOKED_AT) for prefix in (backups_of(name), data_of(name)))
    return any(_is_of_a_backup(item.key) for item in chain.from_iterable(listed))


def _is_of_a_backup(key: str) -> bool:
    """Whether ``key`` is an object's, or called after a backup."""
    match key.split("/"):
        case [_, "backups", _, backup, _]:
            pass
        case [_, "data", _, name]:
            backup = name.partition(".")[0]
        case _:
            return False
    try:
        check_backup_id(backup)
    except FormatError:
        return parse_object_key(key) is not None
    return True


def left_problems(store: Store, classes: Mapping[str, RetentionClass], rules: Sequence[Rule]) -> Iterator[Problem]:
    """Classes that are left and that the bucket's ``rules``, of full keys, let stay for ever."""
    for name in never_ending(rules, left_classes(store, classes), store.full_key("")):
        yield Problem(
            "warning",
            f"class {name} is not in the configuration, is not empty, and has no lifecycle rules: what is in it stays "
            "for ever",
            f'Put [class.{name}] back into archiver.toml, with every = "never", and run archiver lifecycle apply, as '
            "an administrator; remove it when archiver list --all shows nothing in it, and then its lease and ten days "
            "have passed.",
        )


def sharing_problems(store: Store, classes: Mapping[str, RetentionClass]) -> Iterator[Problem]:
    """Whether a destination without a prefix has others in its bucket."""
    if store.full_key("") != "":
        return
    ours = {*classes, HELD, VAULTS.removesuffix("/"), *left_classes(store, classes)}
    others = [name for name in store.list_names() if name not in ours]
    if others:
        more = f" and {len(others) - _TOLD:,} more" if len(others) > _TOLD else ""
        yield Problem(
            "warning",
            f"the destination has no prefix, and shares its bucket with {', '.join(others[:_TOLD])}{more}: whoever may "
            "back up there may also create and read what is called like its keys",
            "Use a prefix, or a bucket of its own: docs/iam/README.md.",
        )


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
