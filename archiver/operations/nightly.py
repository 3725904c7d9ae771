"""What ``archiver backup`` does: a backup, the promotions that are due after it, and a look at the bucket's rules.

When there is no new backup, the newest one of before is saved from lapsing: it may be the last for a while.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from archiver.config import Config, SourceConfig
from archiver.errors import ArchiverError
from archiver.operations.access import configured_keys
from archiver.operations.archive import Archive
from archiver.operations.backup import BackupResult, make_backup
from archiver.operations.backup_setup import backup_request, check_backup_class, open_destination
from archiver.operations.history import Backup
from archiver.operations.lifecycle import examine_rules
from archiver.operations.needs import destination_rules
from archiver.operations.places import latest
from archiver.operations.promote import Promoted, is_unreachable, known, promote_due
from archiver.operations.promotion import Copied, promote_copy
from archiver.operations.run_lock import run_lock
from archiver.progress import Reporter
from archiver.retention.checking import Problem
from archiver.retention.policy import Term, in_force
from archiver.retention.promotion import rescue
from archiver.stores.base import Store


@dataclass(frozen=True, slots=True)
class Night:
    """A backup that was committed, and what came after it."""

    backup: BackupResult
    promoted: Sequence[Promoted]
    """Backups that were copied into calendar classes, this one or earlier ones."""
    problems: Sequence[Problem]
    """What the bucket's rules do that they should not."""
    requests: Mapping[str, int]
    """What was sent to the destination's service, by operation; empty for a directory."""
    seconds: float

    @property
    def guaranteed_until(self) -> datetime | None:
        """Until when the new backup is sure to be restorable, by the longest of its copies; None: for ever."""
        manifest = self.backup.manifest
        copies = [item.copied.promise for item in self.promoted if item.copied.place.backup == manifest.backup]
        return latest([manifest.promised_until, *copies])


def run_night(config: Config, name: str | None, retention_class: str, label: str, reporter: Reporter) -> Night:
    """Back up the source called ``name``, or the only one, then promote what is due, under one lock.

    Raises what the backup raises. What goes wrong once it is committed is told, and does not fail the run.
    """
    began = time.monotonic()
    source = config.source(name)
    check_backup_class(config, retention_class)
    with run_lock(config.state_directory / source.name, source.name):
        try:
            request = backup_request(config, source, retention_class, label)
            with closing(open_destination(config, source)) as store:
                result = make_backup(store, request, reporter)
                promoted = _promote(config, source, store, result, reporter)
                found = _examine(config, store, reporter)
                return Night(result, promoted, found, store.requests, time.monotonic() - began)
        except ArchiverError as error:
            _rescue(config, source, error, reporter)
            raise


def _promote(
    config: Config, source: SourceConfig, store: Store, result: BackupResult, reporter: Reporter
) -> list[Promoted]:
    try:
        return promote_due(_archive(config, source, store), _terms(config, store), reporter)
    except ArchiverError as error:
        reporter.warn(f"which backups belong into which calendar class cannot be looked at: {error.message}")
        return []
    except KeyboardInterrupt:
        reporter.warn(f"{result.manifest.backup} is stored; archiver promote copies what is due into calendar classes")
        raise


def _examine(config: Config, store: Store, reporter: Reporter) -> list[Problem]:
    try:
        return examine_rules(store, config.classes)
    except ArchiverError as error:
        reporter.warn(f"the bucket's lifecycle rules cannot be looked at: {error.message}")
        return []


def _rescue(config: Config, source: SourceConfig, failure: ArchiverError, reporter: Reporter) -> None:
    """Copy the newest backup into a class that keeps it for longer, if it would lapse soon. Never raises: why there is
    no new one is what the operator must read last."""
    try:
        with closing(open_destination(config, source)) as store:
            store.recover()
            archive, terms = _archive(config, source, store), _terms(config, store)
            copied = _save_newest(archive, terms, reporter)
    except ArchiverError as error:
        # A store that cannot be reached is told of once.
        if not (is_unreachable(failure) and is_unreachable(error)):
            reporter.warn(f"whether the newest backup would lapse cannot be looked at: {error.message}")
        return
    if copied is not None:
        name, until = copied.place, copied.promise
        said = "until it is released" if until is None else f"until {until.astimezone(UTC):%Y-%m-%d}"
        reporter.warn(
            f"no newer backup was made: {name.backup} would lapse, and was copied into {name.retention_class}, {said}"
        )


def _save_newest(archive: Archive, terms: Mapping[str, Term], reporter: Reporter) -> Copied | None:
    """Copy the newest backup that can be copied, unless it is promised for long enough."""
    backups = {found.manifest.backup: found for found in archive.backups() if isinstance(found, Backup)}
    candidates = known(list(backups.values()))
    while (due := rescue(candidates, terms, archive.store.clock())) is not None:
        try:
            return promote_copy(archive, backups[due.backup], due.target, terms, reporter)
        except ArchiverError as error:
            reporter.warn(f"{due.backup} would lapse, and cannot be copied into {due.target}: {error.message}")
            if is_unreachable(error):
                return None
        candidates = [item for item in candidates if item.backup != due.backup]
    return None


def _archive(config: Config, source: SourceConfig, store: Store) -> Archive:
    return Archive(store, source.name, configured_keys(config), workers=config.tuning.workers)


def _terms(config: Config, store: Store) -> dict[str, Term]:
    return in_force(config.classes, destination_rules(store))
