"""Word of damage in the store that a verification leaves in what this host remembers, for its next backup to forget.

Notes are empty files beside the state: damage may be found while a backup has that open, which must not be in the way
of either, and must not be forgotten over it.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from archiver.filesystem import sync_directory

_START = "damaged-"


def note_damage(memory: Path, keys: Iterable[str]) -> None:
    """The objects at ``keys`` are damaged; ``memory`` is a directory that ``memory_directory`` names. Durable when it
    returns; raises ``OSError``."""
    for key in keys:
        # Whoever verifies, root for one, must neither follow what the user who makes the backups put there, nor wait.
        with suppress(FileExistsError):
            os.close(os.open(memory / note_of(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    sync_directory(memory)


def damage_notes(memory: Path) -> list[Path]:
    """The notes that there are; raises ``OSError``."""
    return [path for path in memory.iterdir() if path.name.startswith(_START)]


def note_of(key: str) -> str:
    """The name of the note about what lies at ``key``.

    Of a key, not of an object: a placement is not signed, and a planted one could speak ill of objects that are sound.
    """
    return f"{_START}{hashlib.sha256(key.encode()).hexdigest()[:32]}"
