"""One bounded, ordered, parallel map, its mirror image for producers that push, and tasks beside a block."""

import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
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
) -> Generator[R, None, None]:
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
    the consumer surfaces in the next ``put`` or at the end of the block. ``abandon`` is called when an interrupt comes
    while the consumer is waited for there: it may tell it that nobody wants its result any more.
    """

    def __init__(
        self, consume: Callable[[Iterator[T]], R], *, depth: int = 1024, abandon: Callable[[], None] = lambda: None
    ) -> None:
        self._consume = consume
        self._abandon = abandon
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
        try:
            self._push(_End() if error is None else FeedAbortedError("the producer failed before the end"))
            # Not join(): CPython takes a thread for ended after an interrupt of that (bpo-45274).
            self._finished.wait()
        except BaseException:
            self._abandon()
            self._push(FeedAbortedError("interrupted before the end"))
            self._finished.wait()
            raise
        finally:
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


class Tasks:
    """Functions that run beside the block: begun in order, at most ``workers`` at a time, each in a thread.

    All of them have ended when the block has. The first error of one is told to ``failed`` at once, in its thread, and
    raised at the end of the block unless one leaves it anyway. An error that leaves the block is told to ``failed``
    too, and so is an interrupt while it waits at its end. After any of these ``abandon`` is called at the end of the
    block: it may tell those that are still running that nobody wants their results; those that have not begun are not
    called.
    """

    def __init__(
        self, workers: int, failed: Callable[[BaseException], None], abandon: Callable[[], None] = lambda: None
    ) -> None:
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="archiver-task")
        self._failed = failed
        self._abandon = abandon
        self._unfinished: deque[Future[None]] = deque()
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._wait()
        except BaseException as problem:
            self._end_early(problem)
            raise
        if error is not None:
            self._end_early(error)
        self._executor.shutdown(wait=True)

    def _wait(self) -> None:
        # One that failed before is unfinished no more.
        if not self._errors:
            wait(self._unfinished, return_when=FIRST_EXCEPTION)
        if self._errors:
            raise self._errors[0]

    def _end_early(self, error: BaseException) -> None:
        try:
            self._failed(error)
            self._abandon()
        finally:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def start(self, function: Callable[[], None]) -> None:
        """Let ``function`` be called, now or when an earlier one has ended."""
        while self._unfinished and self._unfinished[0].done():
            self._unfinished.popleft()
        with uninterrupted():
            self._unfinished.append(self._executor.submit(self._run, function))

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            self._errors.append(error)
            self._failed(error)
            raise
