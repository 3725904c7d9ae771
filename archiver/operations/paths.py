"""What the parts of a backup are called: ``vector/data.mdb`` for environments, ``media/…`` for files."""

import os
import re
from collections.abc import Callable, Sequence
from fnmatch import translate

from archiver.catalog.records import EnvironmentRecord, MediaRecord

MEDIA = "media"
DATA_FILE = "data.mdb"


def item_path(record: EnvironmentRecord | MediaRecord) -> str:
    """The path of ``record`` below a restore's ``--to`` directory; undecodable bytes as surrogates."""
    if isinstance(record, EnvironmentRecord):
        return f"{record.name}/{DATA_FILE}"
    return media_path(record.path_bytes)


def media_path(path: bytes) -> str:
    """The same for a path below the media directory."""
    return MEDIA if path == b"." else f"{MEDIA}/{os.fsdecode(path)}"


def selector(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path is one of ``patterns``, lies below one, or matches one as a glob; ``*`` matches ``/`` too.

    No patterns select everything.
    """
    names = tuple(pattern.rstrip("/") for pattern in patterns)
    globs = re.compile("|".join(f"(?:{translate(name)})" for name in names))

    def selected(path: str) -> bool:
        return (
            not names
            or any(path == name or path.startswith(name + "/") for name in names)
            or globs.match(path) is not None
        )

    return selected
