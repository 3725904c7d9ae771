"""``archiver restore``: plan, stage, prove, swap.

Everything is put together inside the target, in ``.archiver-restore-<id>``, and proven there: hashes, the structure
of each environment, its entry counts. Only then is it moved into place, file by file, and what was there is moved to
``.archiver-before-<id>``. Until the first rename the target is as it was.
"""

import fcntl
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain, count
from pathlib import Path

import msgspec

from archiver.catalog.records import (
    DirectoryRecord,
    EnvironmentRecord,
    FileRecord,
    HardLinkRecord,
    MediaRecord,
    SymlinkRecord,
)
from archiver.errors import ArchiverError, BusyError, TargetError
from archiver.filesystem import sync_directory
from archiver.operations.archive import Archive
from archiver.operations.assembly import Assembly
from archiver.operations.paths import DATA_FILE, MEDIA
from archiver.operations.restore_plan import BEFORE, STAGING, Landing, Plan, check_plan, selected_media
from archiver.operations.thaw import refuse_archived, thaw
from archiver.progress import Reporter
from archiver.sinks.durability import FileSystem
from archiver.sinks.environment import EnvironmentSink, refuse_live, swap_environment
from archiver.sinks.files import StagedFile
from archiver.sinks.media import MediaSink
from archiver.sinks.owners import by_name, give
from archiver.sinks.swap import swap_into


class RestoreResult(msgspec.Struct, frozen=True):
    """What is in place now, and where what was there before is kept."""

    environments: Sequence[tuple[EnvironmentRecord, Path]]
    media: Path | None
    files: int
    kept: Sequence[Path]


def restore(
    archive: Archive,
    plan: Plan,
    reporter: Reporter,
    *,
    force: bool = False,
    thaw_days: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> RestoreResult:
    """Carry out ``plan``. On any failure before the swap the target is as it was and nothing is left behind.

    Archived objects are thawed for ``thaw_days`` and waited for; without it they are refused.
    """
    check_plan(plan, force=force)
    backup = plan.backup.manifest.backup
    if thaw_days is None:
        refuse_archived(backup, plan.archived)
    elif plan.archived:
        thaw(archive.store, plan.archived, reporter, days=thaw_days, sleep=sleep)
        # The wait may have taken days.
        check_plan(plan, force=force)
    with ExitStack() as resources:
        for root in plan.roots:
            resources.enter_context(_staging(root, backup))
        # Held from before the first byte is written: only so does each hear of an error that the disk has.
        systems = [resources.enter_context(FileSystem(root)) for root in plan.roots]
        with _collecting_only_what_is_new():
            _fetch(archive, plan, reporter)
        reporter.phase("sync")
        for system in {system.device: system for system in systems}.values():
            system.sync()
        reporter.phase("swap")
        for record in plan.environments:
            refuse_live(plan.layout.landing(record.name).final)
        with _explained(plan, reporter):
            return _swap(plan)


@contextmanager
def _staging(root: Path, backup: str) -> Iterator[None]:
    """Hold ``root`` for one restore at a time; what an earlier one was killed in the middle of is removed."""
    made = _make_directory(root)
    try:
        with _hold(root):
            try:
                for left in root.glob(f"{STAGING}*"):
                    _remove(left)
                yield
            finally:
                _remove(root / f"{STAGING}{backup}")
    finally:
        for path in made:
            if path.is_dir() and not os.listdir(path):
                path.rmdir()


@contextmanager
def _hold(root: Path) -> Iterator[None]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another restore into {root} is under way", hint="Wait for it to end.") from None
        yield
    finally:
        os.close(descriptor)


def _make_directory(path: Path) -> list[Path]:
    """Make ``path`` and its parents; those that were made, innermost first."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o755)
            sync_directory(directory.parent)
        except OSError as error:
            raise TargetError(f"cannot create {directory}: {(error.strerror or str(error)).lower()}") from None
    return missing


def _remove(staging: Path) -> None:
    """Remove a tree, or a link in its place. The target may be somebody else's: no link in it is ever followed.

    Restored directories may be read-only already, so their modes are widened on the way down.
    """
    if staging.is_symlink():
        staging.unlink()
    elif staging.is_dir():
        for _, names, _, directory in os.fwalk(staging):
            for name in names:
                with suppress(OSError):
                    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                    try:
                        os.fchmod(descriptor, 0o700)
                    finally:
                        os.close(descriptor)
        shutil.rmtree(staging)


@contextmanager
def _collecting_only_what_is_new() -> Iterator[None]:
    """Within the block, Python looks for garbage only among what was made in it.

    Records of thousands of files that wait for their objects make it look again and again, each time through every
    module that was ever loaded: that took a tenth of the processor time.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _fetch(archive: Archive, plan: Plan, reporter: Reporter) -> None:
    """Put every selected file together in the staging directories, each proven by its hash."""
    total = plan.environment_bytes + plan.fetch_bytes
    backup = plan.backup
    identifier = backup.manifest.backup
    assembly = Assembly(archive, backup, archive.objects(backup), archive.placement(backup), reporter.advance)
    reporter.phase("restore", total)
    for record in plan.environments:
        assembly.add(record.extents, partial(_open_environment, plan.layout.landing(record.name), identifier, record))
    assembly.flush()
    if plan.has_media:
        landing = plan.layout.landing(MEDIA)
        with MediaSink(landing.staging(identifier), plan.owners) as sink:
            for media in selected_media(archive, plan):
                _stage(media, sink, assembly, plan)
            assembly.flush()
            sink.finish()


@contextmanager
def _open_environment(
    landing: Landing, backup: str, record: EnvironmentRecord
) -> Iterator[tuple[EnvironmentSink, Callable[[], object]]]:
    with EnvironmentSink(landing.staging(backup), record) as sink:
        yield sink, sink.finish


@contextmanager
def _open_file(sink: MediaSink, record: FileRecord) -> Iterator[tuple[StagedFile, Callable[[], object]]]:
    with sink.file(record) as file:
        yield file, partial(file.finish, record.blake3)


def _stage(record: MediaRecord, sink: MediaSink, assembly: Assembly, plan: Plan) -> None:
    match record:
        case FileRecord():
            if not plan.is_unchanged(record):
                whole = len(record.extents) == 1 and record.extents[0].length == record.size
                put = partial(sink.put, record) if whole else None
                assembly.add(record.extents, partial(_open_file, sink, record), put)
        case DirectoryRecord():
            sink.directory(record)
        case SymlinkRecord():
            sink.symlink(record)
        case HardLinkRecord():
            sink.hardlink(record)


@contextmanager
def _explained(plan: Plan, reporter: Reporter) -> Iterator[None]:
    """A failure of the swap may leave a part of it done: say so, and that nothing is lost."""
    try:
        yield
    except BaseException as error:
        kept = ", ".join(str(root / f"{BEFORE}{plan.backup.manifest.backup}*") for root in plan.roots)
        advice = (
            f"Some parts may be restored already, what they replaced is kept in {kept}: mend the cause, then run the "
            f"same restore again with --force."
        )
        if isinstance(error, ArchiverError):
            error.hint = f"{advice} {error.hint or ''}".rstrip()
        else:
            reporter.warn(f"the swap was interrupted. {advice}")
        raise


def _swap(plan: Plan) -> RestoreResult:
    """Everything is proven: move it into place. Environments first, because nothing may open them half-way."""
    backup = plan.backup.manifest.backup
    kept = {root: _before(root, backup) for root in plan.roots}
    environments = []
    for record in plan.environments:
        landing = plan.layout.landing(record.name)
        for directory in _make_directory(landing.final):
            give(directory, record, plan.owners)
        staged = landing.staging(backup) / DATA_FILE
        give(staged, record, plan.owners)
        before = kept[landing.root] / landing.item
        # The server's own file knows best whose it is, unless the operator says otherwise.
        swap_environment(staged, landing.final, before, keep_owner=plan.owners is by_name)
        environments.append((record, landing.final))
    media = None
    if plan.has_media:
        landing = plan.layout.landing(MEDIA)
        media = landing.final
        _make_directory(media)
        keep = partial(plan.layout.is_environment, media)
        before = kept[landing.root] / landing.item
        swap_into(landing.staging(backup), media, before, keep=keep)
    return RestoreResult(environments, media, plan.files, [path for path in kept.values() if _holds_files(path)])


def discard(result: RestoreResult) -> None:
    """Delete what the restore replaced."""
    for path in result.kept:
        _remove(path)


def _before(root: Path, backup: str) -> Path:
    """A directory that does not exist yet for what is replaced: no earlier restore's is ever touched."""
    names = (f"{BEFORE}{backup}{suffix}" for suffix in chain([""], map("-{}".format, count(2))))
    return next(root / name for name in names if not (root / name).exists())


def _holds_files(before: Path) -> bool:
    """Whether anything is kept in ``before``; what is empty of it is removed."""
    for directory, _, _ in os.walk(before, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
    return before.exists()
