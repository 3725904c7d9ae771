"""Where sealed parts wait for a store that is slower than this host: in memory, then on disk, then not at all."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver.buffers import Buffer
from archiver.parallel import FeedAbortedError
from archiver.stores.spool_file import Slot, SpoolFile


class Spool:
    """Holds the parts of all ``queue()``s together: up to ``memory`` bytes in memory, or one part, then up to ``limit``
    bytes on disk in ``directory``, parts of at most ``part_size`` bytes; then whoever puts another one waits.

    On disk it leaves the share ``reserve`` of the file system free, and half of what it finds free; a full disk means
    to wait, not to fail. Queues are filled one after the other and emptied in the same order: nobody gets a part of one
    before the last of the queues before it. So of all consumers only one can have a part in its hands that its store
    has no room for yet. ``taken`` hears of the bytes of each part that a consumer gets, in his thread. A context
    manager: no queue may be used when the block has ended.
    """

    def __init__(
        self,
        directory: Path,
        *,
        part_size: int,
        memory: int,
        limit: int,
        reserve: float = 0.0,
        taken: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._file = SpoolFile(directory, slot_size=part_size, limit=limit, reserve=reserve)
        self._places = _Places(self._file, memory, taken)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def waiting(self) -> int:
        """Bytes that nobody has taken yet."""
        return self._places.waiting

    def queue(self) -> "SpoolQueue":
        """A new queue, for the parts of one object; the one before has ended, or was given up."""
        queue = SpoolQueue(self._places)
        with self._places.lock:
            self._places.queues.append(queue)
        return queue

    def fail(self, error: BaseException) -> None:
        """Let every ``put`` raise ``error`` from now on, the first one that is given here, and end what consumers
        iterate over with ``FeedAbortedError``."""
        self._places.fail(error)


class SpoolQueue:
    """The parts of one object, in order: one thread puts them, another iterates over them, once."""

    def __init__(self, places: "_Places") -> None:
        self._places = places
        self._parts: deque[Buffer | Slot] = deque()
        self._ended = False
        self.failed = False
        """The producer gave it up."""
        self.drained = False
        """The consumer was told of the end: it has had every part."""

    def put(self, part: Buffer) -> None:
        """Hand over ``part``, which is not changed any more; waits while there is no place for it. Raises what the
        spool was told to fail with, also while it waits."""
        place = self._places.keep(part)
        with self._places.lock:
            self._parts.append(place)
            self._places.changed.notify_all()

    def end(self) -> None:
        """That was all."""
        with self._places.lock:
            self._ended = True
            self._places.changed.notify_all()

    def fail(self) -> None:
        """There will be no more, and what there was is not all: the consumer gets ``FeedAbortedError``."""
        with self._places.lock:
            self.failed = True
            while self._parts:
                self._places.leave(self._parts.popleft())
            self._places.queues.remove(self)
            self._places.changed.notify_all()

    def __iter__(self) -> Iterator[Buffer]:
        return self

    # Not a generator, whose frame would hold the last part while it waits for the next one.
    def __next__(self) -> Buffer:
        part = self._take()
        self._places.taken(len(part))
        return part

    def _take(self) -> Buffer:
        with self._places.lock:
            while not (self.failed or self._places.error or self._is_next()):
                self._places.changed.wait()
            if self.failed or self._places.error:
                raise FeedAbortedError("the producer failed before the end")
            if not self._parts:
                self._drain()
                raise StopIteration
            part = self._parts.popleft()
            if not isinstance(part, Slot):
                self._places.leave(part)
                return part
        try:
            return self._places.file.read(part)
        finally:
            with self._places.lock:
                self._places.leave(part)

    def _is_next(self) -> bool:
        return self.drained or (self._places.queues[0] is self and bool(self._parts or self._ended))

    def _drain(self) -> None:
        if not self.drained:
            self.drained = True
            self._places.queues.popleft()
            self._places.changed.notify_all()


class _Places:
    """What all queues of a spool share. ``lock`` guards it and them; ``changed`` tells of any change."""

    def __init__(self, file: SpoolFile, memory: int, taken: Callable[[int], None]) -> None:
        # Entered itself, not through the condition: an interrupt could fall between a Python function that takes it
        # and the block.
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.file = file
        self.taken = taken
        self.queues: deque[SpoolQueue] = deque()
        """Those that are not drained, in the order in which they are."""
        self.waiting = 0
        self.error: BaseException | None = None
        self._memory = memory
        self._in_memory = 0
        self._disk_full = False

    def keep(self, part: Buffer) -> Buffer | Slot:
        """Find a place for ``part``, at last; the part itself where that is in memory."""
        while (number := self._wait_for_place(len(part))) is not None:
            slot = self.file.write(number, part)
            if slot is not None:
                return slot
            with self.lock:
                # Until something gets free, which it does when there is something that waits.
                self._disk_full = True
                self.waiting -= len(part)
                self.file.free(number)
        return part

    def _wait_for_place(self, size: int) -> int | None:
        """The number of a slot, or None for one in memory; either is taken."""
        with self.lock:
            while True:
                if self.error is not None:
                    raise self.error
                if self._in_memory + size <= self._memory or not self._in_memory:
                    self._in_memory += size
                    self.waiting += size
                    return None
                number = None if self._disk_full else self.file.take(size)
                if number is not None:
                    self.waiting += size
                    return number
                self.changed.wait()

    def leave(self, part: Buffer | Slot) -> None:
        """Free the place of ``part``, for a caller that has the lock."""
        self.waiting -= len(part)
        if isinstance(part, Slot):
            self.file.free(part.number)
        else:
            self._in_memory -= len(part)
        self._disk_full = False
        self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        with self.lock:
            self.error = self.error or error
            self.changed.notify_all()
