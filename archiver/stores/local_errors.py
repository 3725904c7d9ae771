"""What went wrong with a file of the store in a directory, in our words."""

import errno
from pathlib import Path

from archiver.errors import ArchiverError, NotFoundError, RefusedError, StorageError

_HINTS = {
    errno.ENOSPC: "Free some space in the destination, or choose another one.",
    errno.EDQUOT: "Raise the quota, or choose another destination.",
    errno.EACCES: "Give the user who runs archiver access to the destination directory.",
    errno.EPERM: "Use a directory that the user who runs archiver may write, on a filesystem with hard links.",
    errno.EOPNOTSUPP: "Use a directory on a filesystem with hard links.",
    errno.EROFS: "Mount the destination's filesystem writable.",
    errno.ENOTDIR: "Use a destination in which no file or link lies where a directory must be.",
}


def lookup_error(path: Path, error: OSError) -> ArchiverError:
    """``error``, met where ``path`` was looked for."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return NotFoundError(f"{path} does not exist")
    return storage_error(path, error)


def storage_error(path: Path, error: OSError) -> StorageError:
    """``error``, met at ``path``."""
    return RefusedError(f"{path}: {(error.strerror or str(error)).lower()}", hint=_HINTS.get(error.errno or 0))
