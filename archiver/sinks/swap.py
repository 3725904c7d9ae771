"""The last step of a restore: a proven tree takes the place of what was there, and what was there is kept."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

from archiver.errors import TargetError
from archiver.filesystem import ROOT, Beneath, join, printable
from archiver.sinks.owners import set_attributes

_KEPT_NAMES = frozenset({b"lock.mdb", b"ucotron-writer.lock"})
_KEPT_PREFIXES = (b".archiver-restore-", b".archiver-before-")
_ROUND = 10_000
"""How many names of one directory are held in memory at once."""

Keep = Callable[[bytes], bool]
"""Whether the path, relative to the target, is none of the media tree's business, such as an environment in it."""


def keep_nothing(_: bytes) -> bool:
    """The ``Keep`` of a media tree with no environment in it."""
    return False


def swap_into(staging: Path, target: Path, before: Path, *, keep: Keep = keep_nothing) -> None:
    """Move the tree in ``staging`` into ``target``, entry by entry; what it replaces goes to ``before``.

    All three are directories of one file system, ``before`` made when it is missing; what moves keeps its relative
    path. ``staging`` and ``before`` may lie inside ``target``, which itself is never renamed: it may be a mount point.
    A directory that both have is merged and gets the staged one's mode, owner and time; what ``staging`` does not
    have stays as it is. Nothing is deleted, and no symbolic link in ``target`` is followed: one where the backup has
    a directory is moved like anything else. Never replaced: what ``keep`` names, regular files called ``lock.mdb`` or
    ``ucotron-writer.lock``, and ``.archiver-restore-*`` and ``.archiver-before-*``.

    Interrupted at any moment and repeated with the same arguments, it ends in the same state, except that after a
    kill or power loss a merged directory may have the time of the swap and be writable. ``staging`` is gone at the
    end, so the swap counts as done when it is missing. Raises ``TargetError``; where what must stay or a mount point
    is in the way, before anything is moved.
    """
    if not staging.exists():
        return
    try:
        before.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as stack:
            staged, placed, kept = (stack.enter_context(Beneath(path)) for path in (staging, target, before))
            swap = _Swap(staged, placed, kept, keep)
            swap.check()
            swap.place()
        staging.rmdir()
    except OSError as error:
        hint = None
        if error.errno == errno.EXDEV:
            hint = "A volume is mounted inside the target: restore to another directory with --to."
        reason = (error.strerror or str(error)).lower()
        raise TargetError(f"{target}: restored files cannot be moved into place: {reason}", hint=hint) from error


class _Swap:
    def __init__(self, staging: Beneath, target: Beneath, before: Beneath, keep: Keep) -> None:
        self._staging = staging
        self._target = target
        self._before = before
        self._keep = keep

    def check(self) -> None:
        """Raise ``TargetError`` if a staged entry cannot take its place: nothing has been moved yet."""
        with self._staging.directory(ROOT) as descriptor:
            device = os.fstat(descriptor).st_dev
        pending = [ROOT]
        while pending:
            directory = pending.pop()
            with self._target.directory(directory) as descriptor:
                if os.fstat(descriptor).st_dev != device:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            for path in self._list(self._staging, directory):
                if self._is_kept(path, self._staging, self._target):
                    raise TargetError(f"{printable(path)}: is in the backup, but must stay as it is in the target")
                if _has_directory(self._target, path):
                    if _has_directory(self._staging, path):
                        pending.append(path)
                    elif self._holds_kept(path):
                        raise TargetError(
                            f"{printable(path)}: a directory with files that must stay, where the backup has a file"
                        )

    def place(self) -> None:
        """Move every staged entry to its place, directories that the target has as well by merging them."""
        entered = [(ROOT, self._enter(ROOT))]
        try:
            while entered:
                directory, status = entered[-1]
                paths = list(islice(self._list(self._staging, directory), _ROUND))
                for path in paths:
                    if _has_directory(self._staging, path) and _has_directory(self._target, path):
                        entered.append((path, self._enter(path)))
                    else:
                        self._move_in(path)
                if not paths:
                    self._settle(directory, status)
                    entered.pop()
        finally:
            # A merged directory's own attributes exist only here and in what is still staged of it.
            for directory, status in entered:
                with suppress(OSError), self._staging.directory(directory) as descriptor:
                    set_attributes(descriptor, None, stat.S_IMODE(status.st_mode), status.st_mtime_ns)

    def _enter(self, directory: bytes) -> os.stat_result:
        """What a staged directory is, before its entries are moved out, for which it must be writable."""
        with self._staging.directory(directory) as descriptor:
            status = os.fstat(descriptor)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
            return status

    def _move_in(self, path: bytes) -> None:
        if _exists(self._target, path):
            self._set_aside(path)
        status = _look(self._staging, path)
        if status is not None and stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWUSR:
            # Only root may move a directory that its owner cannot write to another parent.
            self._enter(path)
            self._rename_in(path)
            with self._target.directory(path) as descriptor:
                set_attributes(descriptor, None, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        else:
            self._rename_in(path)

    def _rename_in(self, path: bytes) -> None:
        with self._staging.parent(path) as (source, name), self._target.parent(path) as (destination, _):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)

    def _settle(self, directory: bytes, status: os.stat_result) -> None:
        """All entries of ``directory`` are in place: it becomes what the staged one was, which goes."""
        owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        with self._target.directory(directory) as descriptor:
            set_attributes(descriptor, owner, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
        self._sync(directory)
        if directory != ROOT:
            with self._staging.parent(directory) as (parent, name):
                os.rmdir(name, dir_fd=parent)

    def _set_aside(self, path: bytes) -> None:
        """Move what the target has at ``path`` to the same path in ``before``."""
        self._make_before(path)
        with self._target.parent(path) as (source, name), self._before.parent(path) as (destination, _):
            if _stat(name, destination) is not None:
                raise TargetError(
                    f"{printable(path)}: would replace what was kept there before",
                    hint="Move the files that an earlier restore kept to another place and repeat.",
                )
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=destination)

    def _make_before(self, path: bytes) -> None:
        parents = path.split(b"/")[:-1]
        for depth in range(1, len(parents) + 1):
            with (
                suppress(FileExistsError),
                self._before.parent(b"/".join(parents[:depth])) as (descriptor, name),
            ):
                os.mkdir(name, mode=0o700, dir_fd=descriptor)

    def _sync(self, directory: bytes) -> None:
        for tree in (self._before, self._target):
            with suppress(FileNotFoundError), tree.directory(directory) as descriptor:
                os.fsync(descriptor)

    def _is_kept(self, path: bytes, *trees: Beneath) -> bool:
        """Whether ``path`` must stay as it is, judged by what it is in any of ``trees``."""
        name = path.rpartition(b"/")[2]
        if name.startswith(_KEPT_PREFIXES) or self._keep(path):
            return True
        return name in _KEPT_NAMES and any(_has_file(tree, path) for tree in trees)

    def _holds_kept(self, path: bytes) -> bool:
        """Whether anything at or below ``path`` in the target must stay."""
        pending = [path]
        while pending:
            path = pending.pop()
            if self._is_kept(path, self._target):
                return True
            if _has_directory(self._target, path):
                pending.extend(self._list(self._target, path))
        return False

    def _list(self, tree: Beneath, directory: bytes) -> Iterator[bytes]:
        with tree.directory(directory) as descriptor:
            listing = os.scandir(descriptor)
        with listing:
            for entry in listing:
                yield join(directory, os.fsencode(entry.name))


def _exists(tree: Beneath, path: bytes) -> bool:
    return _look(tree, path) is not None


def _has_directory(tree: Beneath, path: bytes) -> bool:
    """Whether ``path`` is a directory itself: a symbolic link to one is none."""
    status = _look(tree, path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def _has_file(tree: Beneath, path: bytes) -> bool:
    """Whether ``path`` is a regular file itself: a symbolic link to one is none."""
    status = _look(tree, path)
    return status is not None and stat.S_ISREG(status.st_mode)


def _look(tree: Beneath, path: bytes) -> os.stat_result | None:
    with suppress(FileNotFoundError), tree.parent(path) as (descriptor, name):
        return _stat(name, descriptor)
    return None


def _stat(name: bytes, descriptor: int) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    return None
