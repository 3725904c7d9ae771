"""One bounded, ordered, parallel map, and its mirror image for producers that push."""

import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Generic, Self, TypeVar

from archiver.errors import ArchiverError

_Handler = Callable[[int, FrameType | None], object] | int | None
T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM until the block has ended, where they could fall between a start and its clean-up.

    Signals are handled by the main thread alone, so elsewhere there is nothing to put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    previous = {
        number: signal.signal(number, lambda *signal_and_frame: caught.append(signal_and_frame))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for received, frame in caught:
            _deliver(received, frame, previous[signal.Signals(received)])


def _deliver(number: int, frame: FrameType | None, handler: "_Handler") -> None:
    if callable(handler):
        handler(number, frame)
    elif handler is not signal.SIG_IGN:
        signal.raise_signal(number)


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    ahead: int = 2,
    abandon: Callable[[], None] = lambda: None,
) -> Iterator[R]:
    """Yield ``function(item)`` for every item, in order, computed by ``workers`` threads.

    ``items`` is advanced by the consumer's thread only. At most ``workers + ahead`` items are in flight or
    finished but not yet taken, so memory is bounded whatever the length of ``items``. The first error, be it from
    ``function``, from ``items`` or a KeyboardInterrupt in the consumer, ends the map: calls that have not started
    are cancelled, running ones are waited for, and no thread is left behind. So does closing the generator. A
    generator that is given as ``items`` is closed with the map. ``abandon`` is called before running calls are waited
    for because of an error: it may tell them that nobody wants their results any more.
    """
    in_flight: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="archiver-map")
    try:
        for item in items:
            with uninterrupted():
                in_flight.append(executor.submit(function, item))
            if len(in_flight) >= workers + ahead:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()
    except BaseException:
        abandon()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        if isinstance(items, Generator):
            items.close()


class _End:
    """Marks the end of a feed in its queue."""


class FeedAbortedError(ArchiverError):
    """Raised inside a feed's consumer when the producer failed, so that the consumer never mistakes it for an end."""


class Feed(Generic[T, R]):
    """Run a consumer of an iterable in a thread of its own and push items to it.

    The mirror image of pulling: ``with Feed(consume) as feed: feed.put(item)`` calls ``consume(items)`` where
    ``items`` yields what was put. ``put`` blocks while ``depth`` items wait. Leaving the block normally ends
    ``items`` and waits; ``feed.result`` then holds what ``consume`` returned. Leaving it by an exception raises
    ``FeedAbortedError`` inside ``items``, because an end that follows a failure must not look like success. An error of
    the consumer surfaces in the next ``put`` or at the end of the block.
    """

    def __init__(self, consume: Callable[[Iterator[T]], R], *, depth: int = 1024) -> None:
        self._consume = consume
        self._queue: queue.Queue[T | _End | BaseException] = queue.Queue(maxsize=depth)
        self._finished = threading.Event()
        self._drained = False
        self._error: BaseException | None = None
        self._result: R | None = None
        self._thread = threading.Thread(target=self._run, name="archiver-feed", daemon=True)

    def __enter__(self) -> Self:
        try:
            with uninterrupted():
                self._thread.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.ident is None:
            return
        self._push(_End() if error is None else FeedAbortedError("the producer failed before the end"))
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
        if error is None and not self._drained:
            raise RuntimeError("a feed's consumer ended before its producer")

    def put(self, item: T) -> None:
        """Hand ``item`` to the consumer; raises the consumer's error when it has failed."""
        if not self._push(item):
            raise self._error or RuntimeError("a feed's consumer ended before its producer")

    @property
    def result(self) -> R:
        """What the consumer returned; to be read after the block has ended."""
        if self._result is None:
            raise RuntimeError("a feed has no result before its end")
        return self._result

    def _push(self, item: T | _End | BaseException) -> bool:
        while not self._finished.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _items(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                self._drained = True
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            self._result = self._consume(self._items())
        except BaseException as error:  # noqa: BLE001 - carried to the producer's thread, which raises it
            self._error = error
        finally:
            self._finished.set()
