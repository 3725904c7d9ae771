"""Work that nobody wants any more, and the threads that are at it."""

import threading
from typing import Self

from archiver.errors import StorageError


class Abandonment:
    """Whether some work was given up: by itself, or with the larger one that it is a part of."""

    def __init__(self, whole: "Abandonment | None" = None) -> None:
        self._whole = whole
        self._given_up = False
        self.changed: threading.Condition = threading.Condition() if whole is None else whole.changed
        """Notified when any work of the largest that this is a part of was given up."""

    def part(self) -> Self:
        """That of a part of this work, which can be given up by itself."""
        return type(self)(self)

    def abandon(self) -> None:
        """Give it up, and wake whoever sleeps."""
        with self.changed:
            self._given_up = True
            self.changed.notify_all()

    @property
    def abandoned(self) -> bool:
        return self._given_up or (self._whole is not None and self._whole.abandoned)

    def check(self, name: str) -> None:
        """Raise ``StorageError`` about ``name`` if it was given up."""
        if self.abandoned:
            raise StorageError(f"{name}: given up, because something else failed or was interrupted")

    def sleep(self, seconds: float) -> None:
        """Sleep for so long, or until it is given up."""
        with self.changed:
            self.changed.wait_for(lambda: self.abandoned, timeout=seconds)


class Generations:
    """The abandonment of what is under way now, all of which can be given up together; what begins later is not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current = Abandonment()

    def current(self) -> Abandonment:
        """For work that begins now."""
        with self._lock:
            return self._current

    def abandon(self) -> None:
        """Give up all that has begun."""
        with self._lock:
            self._current.abandon()
            self._current = Abandonment()
