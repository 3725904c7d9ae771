"""What the commands that copy within a destination begin with: a source of the configuration, and the terms there."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

import msgspec

from archiver.config import Config
from archiver.operations.access import configured_keys, store_limits
from archiver.operations.archive import Archive
from archiver.operations.needs import destination_rules
from archiver.operations.run_lock import run_lock
from archiver.retention.attributes import attribution
from archiver.retention.policy import Term, in_force
from archiver.stores.destination import open_store, parse_destination


class CopySite(msgspec.Struct, frozen=True):
    """A source's backups, and the classes that they can be copied into."""

    archive: Archive
    terms: Mapping[str, Term]
    """Those of the configuration, by class: copies are planned by them (copy_plan.plan_copy)."""
    in_force: Mapping[str, Term]
    """What the bucket's rules leave of them."""

    def shortened(self, name: str) -> str | None:
        """In words, that a rule ends what lies in class ``name`` too soon; None where none does."""
        term, left = self.terms[name], self.in_force[name]
        if (left.keep, left.data) == (term.keep, term.data):
            return None
        days = left.data if left.keep == term.keep else left.keep
        return (
            f"a rule of the bucket deletes what lies in {name} after {days} days; "
            "archiver lifecycle check shows which one"
        )


@contextmanager
def open_copy_site(config: Config, name: str | None, *, dry_run: bool) -> Iterator[CopySite]:
    """The source called ``name``, or the only one, its store closed at the end. Unless it is a ``dry_run`` the source
    is locked on this host, and what an interrupted run left open is aborted. Raises ``BusyError``."""
    source = config.source(name)
    state = config.state_directory / source.name
    destination = parse_destination(config.destination, config.destination_options)
    trusted = configured_keys(config)
    with ExitStack() as resources:
        if not dry_run:
            resources.enter_context(run_lock(state, source.name))
        journal = None if dry_run else state / "journal"
        store = open_store(destination, journal, attribution(config.classes), store_limits(config.tuning))
        resources.enter_context(closing(store))
        if not dry_run:
            store.recover()
        archive = Archive(store, source.name, trusted, workers=config.tuning.workers)
        rules = destination_rules(store)
        yield CopySite(archive, in_force(config.classes, None), in_force(config.classes, rules))
