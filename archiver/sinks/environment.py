"""Where a restored environment lands: staged, proven, then swapped in. Never writes or needs a lock file."""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver.buffers import Buffer
from archiver.catalog.records import DatabaseRecord, EnvironmentRecord, decode_text
from archiver.environment.databases import Database
from archiver.environment.locks import LOCK_FILE, LockState, inspect_lock
from archiver.environment.meta import DATA_FILE, read_meta
from archiver.environment.verification import check_databases, count_entries, verify_structure
from archiver.errors import BusyError, IntegrityError, SourceError, TargetError
from archiver.filesystem import sync_directory
from archiver.sinks.files import StagedFile

_NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK})
"""What ``link`` answers on a file system without hard links."""


class EnvironmentSink:
    """A ``data.mdb`` being restored into ``staging_dir``, which is made when it does not exist.

    A context manager around one file: write every byte by ``write_at``, let it be observed, then
    ``finish``. What is left after a failure is the caller's to remove, with the staging directory.
    """

    def __init__(self, staging_dir: Path, record: EnvironmentRecord) -> None:
        self.path = staging_dir / DATA_FILE
        self._record = record
        try:
            staging_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(f"cannot create {staging_dir}: {str(error.strerror).lower()}") from error
        self._file = StagedFile(self.path, record.size)

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Write ``buffer`` at byte ``offset`` of data.mdb; from any thread."""
        self._file.write_at(offset, buffer)

    def observe(self, offset: int, buffer: Buffer) -> None:
        """Hash what was written, from one thread."""
        self._file.observe(offset, buffer)

    def finish(self, *, thorough: bool = False) -> Path:
        """Prove that data.mdb is what the record says, and return its path; it is durable once its file system is.

        Raises ``IntegrityError`` unless hash, page size, databases, flags and entry counts all agree. Only then does it
        get the recorded mode; until then nobody else can read it. Every page is looked at only if ``thorough``: the
        hash proves that these are the bytes that LMDB wrote when it walked the environment for the backup. Where LMDB
        cannot open them, or counts otherwise, a look at every page is to tell why.
        """
        self._file.finish(self._record.blake3)
        meta = read_meta(self.path)
        if (meta.page_size, meta.size) != (self._record.page_size, self._record.size):
            raise IntegrityError(
                f"{self.path}: expected {self._record.size} bytes in pages of {self._record.page_size}, "
                f"got {meta.size} in pages of {meta.page_size}"
            )
        try:
            if thorough:
                verify_structure(self.path)
            self._check_databases()
        except IntegrityError as error:
            # The hash has proven that these are the bytes that LMDB copied: the operator must have a way to them.
            error.hint = (
                f"These are the bytes that were backed up. Restore an older backup, or take them as they are: "
                f"archiver cat BACKUP {self._record.name}/{DATA_FILE} > {DATA_FILE}."
            )
            raise
        self.path.chmod(self._record.mode & 0o777)
        return self.path

    def _check_databases(self) -> None:
        expected = [_expected(record) for record in self._record.databases]
        try:
            check_databases(self.path, count_entries(self.path), expected)
        except IntegrityError:
            # It says what is wrong, and where, if there is damage.
            verify_structure(self.path)
            raise
        except SourceError as error:
            verify_structure(self.path)
            raise IntegrityError(f"{self.path} cannot be opened: {error.message}") from error


def refuse_live(directory: Path) -> None:
    """Raise ``BusyError`` when a live process has an environment in ``directory`` open, whatever its lock format."""
    _refuse(inspect_lock(directory), directory)


def swap_environment(staged: Path, target_dir: Path, before_dir: Path, *, keep_owner: bool) -> None:
    """Put the data file ``staged`` in place as ``target_dir``'s; what was there goes to ``before_dir``.

    All three on one file system. The old lock.mdb goes too: the next process makes a new one. At every moment
    ``target_dir`` has either its old or its new data.mdb whole, so that neither a crash nor a server that starts
    meanwhile meets an empty directory. With ``keep_owner``, the new file gets owner and mode of the one that it
    replaces; without it, or where there is none, it keeps its own. May be repeated after a crash, as long as
    ``staged`` is there. Raises ``BusyError`` as of ``refuse_live``, and also when the swap is done, but a process
    opened the environment meanwhile.
    """
    data, lock = target_dir / DATA_FILE, target_dir / LOCK_FILE
    refuse_live(target_dir)
    # Whoever holds a lock file that an earlier attempt could not put back has the old environment open.
    _refuse(inspect_lock(before_dir), target_dir)
    try:
        before_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if keep_owner and data.exists():
            _adopt_owner(staged, data)
        if lock.exists():
            _move_lock(lock, before_dir / LOCK_FILE)
            refuse_live(target_dir)
        if data.exists():
            _keep(data, before_dir / DATA_FILE)
        staged.rename(data)
        for directory in (staged.parent, before_dir, target_dir):
            sync_directory(directory)
    except OSError as error:
        raise TargetError(f"cannot put {data} in place: {str(error.strerror).lower()}") from error
    try:
        refuse_live(target_dir)
    except BusyError as error:
        raise BusyError(
            f"a process opened {target_dir} during the swap: its writes went to the old file",
            hint=f"Stop it, look in {before_dir} for what it wrote, and run the restore again with --force.",
        ) from error


def _refuse(state: LockState, directory: Path) -> None:
    if state.live:
        raise BusyError(
            f"{state.holder_text} has the environment in {directory} open",
            hint="Stop it, or restore into another directory.",
        )


def _move_lock(lock: Path, kept: Path) -> None:
    """A process that opened the environment just before has its locks on the moved file: then put it back."""
    lock.rename(kept)
    state = inspect_lock(kept.parent)
    if state.live:
        _put_back(kept, lock)
        _refuse(state, lock.parent)


def _put_back(kept: Path, lock: Path) -> None:
    """Undo the move of a lock file, unless a second process has already made one of its own."""
    try:
        lock.hardlink_to(kept)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        kept.rename(lock)
    else:
        kept.unlink()


def _keep(data: Path, kept: Path) -> None:
    """Give the old data file its second name, so that the rename that follows replaces it without a gap."""
    try:
        kept.hardlink_to(data)
    except FileExistsError:
        if not kept.samefile(data):
            raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # A gap of one rename is the best there is.
        data.rename(kept)


def _adopt_owner(staged: Path, old: Path) -> None:
    status = old.stat()
    if os.geteuid() == 0:
        os.chown(staged, status.st_uid, status.st_gid)
    staged.chmod(status.st_mode & 0o777)


def _expected(record: DatabaseRecord) -> Database:
    unnamed = record.name is None and record.name_b64 is None
    name = None if unnamed else decode_text(record.name, record.name_b64)
    return Database(name, tuple(record.flags), record.entries)
