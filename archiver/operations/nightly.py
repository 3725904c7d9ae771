"""What ``archiver backup`` does: a backup, the promotions that are due after it, and a look at the bucket's rules.

The newest backup of before is saved from lapsing: at the beginning where it is old already, so that no way in which a
run ends can prevent that, and after a failure, because it may be the last for a while.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from archiver.config import Config, SourceConfig
from archiver.errors import ArchiverError, is_unreachable
from archiver.operations.access import configured_keys
from archiver.operations.archive import Archive
from archiver.operations.backup import make_backup
from archiver.operations.backup_request import BackupResult
from archiver.operations.backup_setup import backup_request, check_backup_class, open_destination
from archiver.operations.history import Backup
from archiver.operations.lifecycle import examine_rules
from archiver.operations.places import latest
from archiver.operations.promote import Promoted, known, promote_due
from archiver.operations.promotion import Copied, promote_copy
from archiver.operations.remembered import remember_copies
from archiver.operations.run_lock import run_lock
from archiver.progress import Reporter
from archiver.retention.checking import Problem
from archiver.retention.policy import Term, in_force
from archiver.retention.promotion import rescue
from archiver.stores.base import Store

_BEGUN = "rescue-begun"
"""In the source's state directory while a rescue at the beginning of a run is under way."""
_OLD = timedelta(days=2)
"""How old the newest backup must be to be saved at the beginning of a run: with a class that keeps a day or two, every
night's would be."""


class Night(msgspec.Struct, frozen=True):
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
        """Until when the new backup is sure to be restorable, by the longest of its copies; None: for ever. The rules
        bound what its manifest says, and not what copies promise: those count only under rules without an error."""
        manifest = self.backup.manifest
        sound = all(problem.severity != "error" for problem in self.problems)
        copies = [
            item.copied.promise for item in self.promoted if item.copied.place.backup == manifest.backup and sound
        ]
        return latest([manifest.promised_until, *copies])


def run_night(config: Config, name: str | None, retention_class: str, label: str, reporter: Reporter) -> Night:
    """Back up the source called ``name``, or the only one, then promote what is due, under one lock.

    Raises what the backup raises. What goes wrong once it is committed is told, and does not fail the run.
    """
    began = time.monotonic()
    source = config.source(name)
    with (
        run_lock(config.state_directory / source.name, source.name),
        closing(open_destination(config, source)) as store,
    ):
        tried = _rescue_old(config, source, store, reporter)
        try:
            check_backup_class(config, retention_class)
            request = backup_request(config, source, retention_class, label)
            result = make_backup(store, request, reporter)
            promoted = _promote(config, source, store, result, reporter)
            _remember(request.state_directory, store, promoted, reporter)
            found = _examine(config, store, reporter)
            return Night(result, promoted, found, store.requests, time.monotonic() - began)
        except ArchiverError as error:
            # Where the store cannot be reached, asking it again takes minutes and tells nothing.
            if not tried and not is_unreachable(error):
                _rescue(config, source, reporter)
            raise


def _promote(
    config: Config, source: SourceConfig, store: Store, result: BackupResult, reporter: Reporter
) -> list[Promoted]:
    try:
        return promote_due(_archive(config, source, store), in_force(config.classes, None), reporter)
    except ArchiverError as error:
        reporter.warn(f"which backups belong into which calendar class cannot be looked at: {error.message}")
        return []
    except KeyboardInterrupt:
        reporter.warn(f"{result.manifest.backup} is stored; archiver promote copies what is due into calendar classes")
        raise


def _remember(directory: Path, store: Store, promoted: Sequence[Promoted], reporter: Reporter) -> None:
    """Later backups can refer to the copies, which last longer: so each object is stored about once."""
    made = [key for item in promoted for key in item.copied.made]
    if made:
        remember_copies(directory, store.url, made, store.clock(), reporter)


def _examine(config: Config, store: Store, reporter: Reporter) -> list[Problem]:
    try:
        return examine_rules(store, config.classes)
    except ArchiverError as error:
        reporter.warn(f"the bucket's lifecycle rules cannot be looked at: {error.message}")
        return []


def _rescue_old(config: Config, source: SourceConfig, store: Store, reporter: Reporter) -> bool:
    """``_rescue``, before anything of this run can fail, where the newest backup is old; whether no more can be done.
    Never raises: a new backup is the better rescue."""
    begun = config.state_directory / source.name / _BEGUN
    try:
        if begun.exists():
            # The last one was cut off, by a time limit perhaps: this time the backup comes first.
            begun.unlink()
            return False
        archive = _archive(config, source, store)
        if not _is_old(archive):
            return False
        begun.touch()
        saved = _save_newest(archive, in_force(config.classes, None), reporter)
        begun.unlink(missing_ok=True)
        return saved
    except (ArchiverError, OSError):
        # What is wrong is for the run to say; if it fails, there is another try.
        return False


def _is_old(archive: Archive) -> bool:
    """Whether there is a backup that could be saved, and none of the last days. Reads no more than it must."""
    now = archive.store.clock()
    for found in archive.newest_first(lazily=True):
        (item,) = known([found]) if isinstance(found, Backup) else (None,)
        if item is not None and item.lasting and item.started <= now:
            return item.started + _OLD < now
    return False


def _rescue(config: Config, source: SourceConfig, reporter: Reporter) -> None:
    """Copy the newest backup into a class that keeps it for longer, if it would lapse soon. Never raises: why there is
    no new one is what the operator must read last."""
    try:
        with closing(open_destination(config, source)) as store:
            store.recover()
            _save_newest(_archive(config, source, store), in_force(config.classes, None), reporter)
    except ArchiverError as error:
        reporter.warn(f"whether the newest backup would lapse cannot be looked at: {error.message}")


def _save_newest(archive: Archive, terms: Mapping[str, Term], reporter: Reporter) -> bool:
    """Copy the newest backup that can be copied, into the shortest class that it can be copied into, unless it is
    promised for long enough. False where the store could not be reached any more: another try may help."""
    backups = {found.manifest.backup: found for found in archive.backups() if isinstance(found, Backup)}
    candidates = known(list(backups.values()))
    while due := rescue(candidates, terms, archive.store.clock()):
        for promotion in due:
            try:
                copied = promote_copy(archive, backups[promotion.backup], promotion.target, terms, reporter)
            except ArchiverError as error:
                reporter.warn(
                    f"{promotion.backup} would lapse, and cannot be copied into {promotion.target}: {error.message}"
                )
                if is_unreachable(error):
                    return False
            else:
                reporter.warn(_saved(copied))
                return True
        candidates = [item for item in candidates if item.backup != due[0].backup]
    return True


def _saved(copied: Copied) -> str:
    name, until = copied.place, copied.promise
    said = "until it is released" if until is None else f"until {until.astimezone(UTC):%Y-%m-%d}"
    return f"no newer backup was made: {name.backup} would lapse, and was copied into {name.retention_class}, {said}"


def _archive(config: Config, source: SourceConfig, store: Store) -> Archive:
    return Archive(store, source.name, configured_keys(config), workers=config.tuning.workers)
