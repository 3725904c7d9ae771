"""The parallel map and its mirror image: order, bounds, and an end to every thread whatever goes wrong."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial

import pytest

from archiver.errors import NotFoundError
from archiver.parallel import Feed, FeedAbortedError, Tasks, ordered_map, uninterrupted
from tests.waiting import PATIENCE


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("archiver-")]


class Source:
    """Counts what is taken from it, and notices being closed."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.taken = 0
        self.closed = False
        self._count = count
        self._fail_at = fail_at

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                if number == self._fail_at:
                    raise NotFoundError("the source is gone")
                self.taken += 1
                yield number
        finally:
            self.closed = True


def test_results_come_in_order_even_if_later_ones_are_ready_first() -> None:
    def slow_when_even(number: int) -> int:
        time.sleep(0.01 if number % 2 == 0 else 0)
        return number

    assert list(ordered_map(slow_when_even, range(40), workers=4)) == list(range(40))


def test_no_items_give_no_results() -> None:
    assert list(ordered_map(str, [], workers=2)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(1, 0), (1, 2), (3, 2)])
def test_the_number_of_items_in_memory_is_bounded(workers: int, ahead: int) -> None:
    source = Source(100)
    results = ordered_map(lambda number: number, source.items(), workers=workers, ahead=ahead)
    for expected in range(100):
        assert next(results) == expected
        # The one that was just taken, and those that are in flight or finished.
        assert source.taken <= expected + max(workers + ahead, 1)
    assert next(results, None) is None
    assert source.closed


def test_calls_really_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)
    assert sorted(ordered_map(lambda _: meeting.wait(), range(3), workers=3)) == [0, 1, 2]


def test_an_error_of_the_function_ends_the_map_and_leaves_the_rest() -> None:
    source = Source(1000)

    def fail_at_five(number: int) -> int:
        if number == 5:
            raise NotFoundError("number five")
        return number

    results = ordered_map(fail_at_five, source.items(), workers=2)
    received = []
    with pytest.raises(NotFoundError, match="number five"):
        for result in results:
            received.append(result)
    assert received == [0, 1, 2, 3, 4]
    assert source.taken < 12
    assert source.closed
    assert worker_threads() == []


def test_an_error_of_the_items_is_never_taken_for_their_end() -> None:
    source = Source(100, fail_at=7)
    with pytest.raises(NotFoundError, match="the source is gone"):
        list(ordered_map(lambda number: number, source.items(), workers=2))
    assert source.closed
    assert worker_threads() == []


def test_closing_early_cancels_what_has_not_begun_and_closes_the_items() -> None:
    source = Source(1000)
    begun: list[int] = []

    def note(number: int) -> int:
        begun.append(number)
        time.sleep(0.05)
        return number

    results = ordered_map(note, source.items(), workers=1, ahead=5)
    assert next(results) == 0
    assert isinstance(results, Generator)
    results.close()
    assert source.closed
    assert source.taken == 6
    assert len(begun) < 6
    assert worker_threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_consumer_leaves_no_thread(error: type[BaseException]) -> None:
    source = Source(1000)

    def consume() -> None:
        for result in ordered_map(lambda number: number, source.items(), workers=2):
            if result == 3:
                raise error

    with pytest.raises(error):
        consume()
    assert source.closed
    assert worker_threads() == []


def test_an_interrupt_in_the_items_waits_for_running_calls() -> None:
    finished: list[int] = []

    def items() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    def slow(number: int) -> None:
        time.sleep(0.05)
        finished.append(number)

    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(slow, items(), workers=1))
    assert finished == [0]
    assert worker_threads() == []


def test_running_calls_hear_that_they_are_abandoned() -> None:
    abandoned = threading.Event()

    def wait(_: int) -> None:
        assert abandoned.wait(PATIENCE)

    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(ordered_map(wait, items(), workers=1, abandon=abandoned.set))


def test_nobody_is_abandoned_by_a_map_that_succeeds() -> None:
    abandoned = threading.Event()
    assert list(ordered_map(str, [1, 2, 3], workers=2, abandon=abandoned.set)) == ["1", "2", "3"]
    assert not abandoned.is_set()


def test_a_feed_delivers_everything_in_order_and_holds_the_result() -> None:
    with Feed[int, list[int]](list, depth=3) as feed:
        for number in range(500):
            feed.put(number)
    assert feed.result == list(range(500))


def test_a_feed_of_nothing_ends() -> None:
    with Feed[int, list[int]](list) as feed:
        pass
    assert feed.result == []


def test_a_result_is_not_to_be_had_before_the_end() -> None:
    with Feed[int, list[int]](list) as feed, pytest.raises(RuntimeError, match="no result"):
        _ = feed.result


def observed(seen: list[object]) -> Callable[[Iterator[int]], int]:
    """A consumer that notes what it gets, and whether its input ended or failed."""

    def consume(items: Iterator[int]) -> int:
        try:
            for item in items:
                seen.append(item)
        except FeedAbortedError:
            seen.append("aborted")
            raise
        seen.append("end")
        return len(seen)

    return consume


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(1)])
def test_the_consumer_never_takes_a_failure_of_the_producer_for_the_end(error: BaseException) -> None:
    seen: list[object] = []
    with pytest.raises(type(error)) as caught, Feed(observed(seen)) as feed:
        feed.put(1)
        raise error
    assert caught.value is error
    assert seen == [1, "aborted"]
    with pytest.raises(RuntimeError):
        _ = feed.result


def test_a_failing_producer_does_not_hang_behind_a_full_queue() -> None:
    seen: list[object] = []
    release = threading.Event()

    def slow(items: Iterator[int]) -> int:
        release.wait(PATIENCE)
        return observed(seen)(items)

    with pytest.raises(OSError, match="disk"), Feed(slow, depth=2) as feed:
        feed.put(1)
        feed.put(2)
        threading.Timer(0.2, release.set).start()
        raise OSError("disk")
    assert seen == [1, 2, "aborted"]


def failing(items: Iterator[int]) -> int:
    next(items)
    raise NotFoundError("the bucket is gone")


def test_an_error_of_the_consumer_reaches_a_producer_that_goes_on() -> None:
    put = 0
    with pytest.raises(NotFoundError, match="the bucket is gone"), Feed(failing, depth=2) as feed:
        for number in range(10_000):
            feed.put(number)
            put = number
    assert put < 10


def test_an_error_of_the_consumer_reaches_a_producer_that_has_ended() -> None:
    with pytest.raises(NotFoundError, match="the bucket is gone"), Feed(failing) as feed:
        feed.put(1)


def test_a_base_exception_of_the_consumer_is_carried_over_too() -> None:
    def interrupted(items: Iterator[int]) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Feed(interrupted) as feed:
        while True:
            feed.put(1)


def test_the_producers_own_error_outweighs_that_of_the_consumer() -> None:
    with pytest.raises(OSError, match="disk"), Feed(failing) as feed:
        feed.put(1)
        raise OSError("disk")


def test_a_consumer_that_stops_before_the_end_is_an_error_even_if_nothing_more_is_put() -> None:
    """Items that nobody took would be missing from a list that looks complete."""

    def only_one(items: Iterator[int]) -> int:
        return next(items)

    with pytest.raises(RuntimeError, match="ended before its producer"), Feed(only_one) as feed:
        feed.put(1)
        feed.put(2)


def test_an_interrupt_waits_for_the_end_of_what_must_not_be_cut() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("the rest of the block")
    assert done == ["the rest of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_a_feed_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    seen: list[BaseException] = []

    def consume(items: Iterator[int]) -> int:
        try:
            return sum(items)
        except BaseException as error:
            seen.append(error)
            raise

    with pytest.raises(KeyboardInterrupt), Feed(consume):
        pytest.fail("the block must not be entered")
    assert threading.active_count() == before
    assert [type(error) for error in seen] == [FeedAbortedError]


class Told:
    """What a block of tasks tells about its end."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.abandoned = threading.Event()

    def tasks(self, workers: int = 2) -> Tasks:
        return Tasks(workers, self.errors.append, self.abandoned.set)


def test_all_tasks_have_ended_when_their_block_has() -> None:
    told, ended = Told(), list[int]()

    def slow(number: int) -> None:
        time.sleep(0.01)
        ended.append(number)

    with told.tasks() as tasks:
        for number in range(10):
            tasks.start(partial(slow, number))
    assert sorted(ended) == list(range(10))
    assert told.errors == []
    assert not told.abandoned.is_set()


def test_tasks_begin_in_order_and_no_more_than_so_many_at_a_time() -> None:
    begun: list[int] = []
    release = threading.Event()

    def task(number: int) -> None:
        begun.append(number)
        assert release.wait(PATIENCE)

    with Told().tasks(3) as tasks:
        for number in range(5):
            tasks.start(partial(task, number))
        time.sleep(0.05)
        assert begun == [0, 1, 2]
        release.set()
    assert begun == [0, 1, 2, 3, 4]


def gone() -> None:
    raise NotFoundError("the bucket is gone")


def test_the_error_of_a_task_is_told_at_once_and_raised_at_the_end() -> None:
    told = Told()
    with pytest.raises(NotFoundError, match="the bucket is gone"), told.tasks() as tasks:
        tasks.start(gone)
        deadline = time.monotonic() + PATIENCE
        while not told.errors:
            assert time.monotonic() < deadline
        # Those that run on hear of it when the block ends.
        tasks.start(lambda: assert_set(told.abandoned))
        assert not told.abandoned.is_set()
    assert {type(error) for error in told.errors} == {NotFoundError}


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


def test_a_task_that_fails_while_the_end_waits_ends_the_others() -> None:
    told = Told()
    with pytest.raises(NotFoundError, match="the bucket is gone"), told.tasks() as tasks:
        tasks.start(lambda: assert_set(told.abandoned))
        tasks.start(gone)


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_in_the_block_of_tasks_ends_them(error: BaseException) -> None:
    told, begun = Told(), list[str]()
    with pytest.raises(type(error)) as caught, told.tasks(1) as tasks:
        tasks.start(lambda: assert_set(told.abandoned))
        tasks.start(lambda: begun.append("never"))
        raise error
    assert caught.value is error
    assert told.errors == [error]
    assert begun == []


def test_an_interrupt_while_tasks_are_waited_for_ends_them() -> None:
    told = Told()
    with pytest.raises(KeyboardInterrupt), told.tasks() as tasks:
        tasks.start(lambda: assert_set(told.abandoned))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert [type(error) for error in told.errors] == [KeyboardInterrupt]
    assert worker_threads() == []


def test_an_interrupt_while_the_end_of_a_feed_is_waited_for_leaves_no_thread() -> None:
    abandoned = threading.Event()
    with pytest.raises(KeyboardInterrupt), Feed[int, None](lambda _: assert_set(abandoned), abandon=abandoned.set):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert worker_threads() == []
