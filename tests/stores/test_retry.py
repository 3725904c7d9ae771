"""Retries: how often, how long, and for which errors."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.stores.abandonment import Abandonment
from archiver.stores.retry import Retry
from tests.waiting import PATIENCE


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, _: Abandonment, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = iter(range(times))

    def function() -> str:
        for _ in left:
            raise error
        return "done"

    return function


def retry(clock: Clock, *, attempts: int = 5, budget: float = 1000.0, random: float = 1.0) -> Retry:
    return Retry(
        lambda error: isinstance(error, OSError),
        attempts=attempts,
        base=1.0,
        cap=6.0,
        budget=budget,
        sleep=clock.sleep,
        random=lambda: random,
        monotonic=lambda: clock.now,
    )


def test_delays_double_up_to_the_cap() -> None:
    clock = Clock()
    assert retry(clock, attempts=6).call(failing(5, OSError("x"))) == "done"
    assert clock.sleeps == [1.0, 2.0, 4.0, 6.0, 6.0]


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_last_error_is_raised(attempts: int) -> None:
    clock = Clock()
    error = OSError("x")
    with pytest.raises(OSError, match="x") as caught:
        retry(clock, attempts=attempts).call(failing(attempts, error))
    assert caught.value is error
    assert len(clock.sleeps) == attempts - 1


def test_a_permanent_error_is_not_repeated() -> None:
    clock = Clock()
    with pytest.raises(KeyError):
        retry(clock).call(failing(1, KeyError("x")))
    assert clock.sleeps == []


def test_no_attempt_begins_after_the_budget() -> None:
    clock = Clock()
    with pytest.raises(OSError, match="x"):
        retry(clock, attempts=100, budget=10.0).call(failing(100, OSError("x")))
    assert clock.sleeps == [1.0, 2.0, 4.0]


def test_an_interrupt_passes() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    clock = Clock()
    with pytest.raises(KeyboardInterrupt):
        retry(clock).call(interrupted)
    assert clock.sleeps == []


@given(random=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 2000))
def test_jitter_is_full(random: float, failures: int) -> None:
    delay = retry(Clock(), random=random).delay(failures)
    assert delay == random * min(6.0, 2.0 ** min(failures - 1, 3))


def throttled(clock: Clock) -> Retry:
    return Retry(
        lambda error: isinstance(error, OSError),
        lambda error: isinstance(error, ConnectionError),
        base=1.0,
        sleep=clock.sleep,
        random=lambda: 0.5,
        monotonic=lambda: clock.now,
    )


def test_one_call_that_is_throttled_holds_all_others_back() -> None:
    clock = Clock()
    policy = throttled(clock)
    policy.brake.pull(clock.now + 7.0)
    assert policy.call(lambda: clock.now) == 7.5
    assert policy.call(lambda: clock.now) == 7.5


def test_a_throttled_call_waits_no_longer_than_the_others() -> None:
    clock = Clock()
    assert throttled(clock).call(failing(2, ConnectionError("slow down"))) == "done"
    # Half of 1 and of 2 seconds, each with half a second's jitter.
    assert clock.sleeps == [1.0, 1.5]


def test_other_errors_hold_nobody_back() -> None:
    clock = Clock()
    policy = throttled(clock)
    assert policy.call(failing(1, OSError("x"))) == "done"
    assert policy.brake.wait(0.0) == 0.0
    assert clock.sleeps == [0.5]


def test_whoever_waits_waits_on_when_the_brake_is_pulled_again() -> None:
    clock = Clock()
    policy = throttled(clock)
    policy.brake.pull(1.0)

    def sleep(work: Abandonment, seconds: float) -> None:
        clock.sleep(work, seconds)
        if len(clock.sleeps) == 1:
            policy.brake.pull(5.0)

    assert replace(policy, sleep=sleep).call(lambda: clock.now) >= 5.0


def test_a_request_that_takes_longer_than_the_budget_is_repeated_all_the_same() -> None:
    clock = Clock()
    left = failing(1, OSError("reset"))

    def slow() -> str:
        clock.now += 400.0
        return left()

    assert retry(clock, budget=300.0).call(slow) == "done"


def test_a_store_that_throttles_for_ever_does_not_hold_a_failed_call_beyond_its_budget() -> None:
    clock = Clock()
    policy = throttled(clock)

    def busy() -> str:
        policy.brake.pull(clock.now + 200.0)
        raise OSError("x")

    with pytest.raises(OSError, match="x"):
        policy.call(busy)
    assert clock.now < policy.budget


def test_who_is_patient_repeats_until_the_budget_is_used_up(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    policy = retry(clock, attempts=2, budget=100.0)
    assert policy.call(failing(15, OSError("x")), patient=True) == "done"
    assert clock.sleeps == [1.0, 2.0, 4.0] + [6.0] * 12
    assert "x; again in 2.0 s (failed 2 times, goes on for up to 100 s)" in caplog.text


@pytest.mark.parametrize(("end", "outlasted"), [(270.0, True), (330.0, False)])
def test_the_default_outlasts_an_outage_of_nearly_five_minutes_and_no_longer(end: float, outlasted: bool) -> None:
    clock = Clock()
    policy = Retry(lambda _: True, sleep=clock.sleep, random=lambda: 1.0, monotonic=lambda: clock.now)

    def request() -> bool:
        if clock.now < end:
            raise OSError("x")
        return True

    with nullcontext() if outlasted else pytest.raises(OSError, match="x"):
        assert policy.call(request, patient=True)
    assert 250 < clock.now <= 300


def test_who_is_not_patient_gives_up_within_a_minute() -> None:
    clock = Clock()
    policy = Retry(lambda _: True, sleep=clock.sleep, random=lambda: 1.0, monotonic=lambda: clock.now)
    with pytest.raises(OSError, match="x"):
        policy.call(failing(1000, OSError("x")))
    # Half of that on average.
    assert clock.now < 60


def test_who_is_patient_gives_up_at_once_what_is_not_transient() -> None:
    clock = Clock()
    with pytest.raises(KeyError):
        retry(clock).call(failing(1, KeyError("x")), patient=True)
    assert clock.sleeps == []


def test_what_was_given_up_is_not_repeated() -> None:
    clock = Clock()
    work = Abandonment()
    calls = []

    def request() -> None:
        calls.append(1)
        work.abandon()
        raise OSError("x")

    with pytest.raises(OSError, match="x"):
        retry(clock).call(request, abandonment=work)
    assert (len(calls), clock.sleeps) == (1, [])


def test_a_pause_ends_when_the_work_is_given_up() -> None:
    policy = Retry(lambda error: isinstance(error, OSError), base=1000.0, cap=1000.0, random=lambda: 0.2)
    work = Abandonment()
    threading.Timer(0.2, work.abandon).start()
    started = time.monotonic()

    def request() -> None:
        if work.abandoned:
            raise KeyError("given up")
        raise OSError("x")

    with pytest.raises(KeyError):
        policy.call(request, abandonment=work)
    assert time.monotonic() - started < PATIENCE


def test_a_hold_ends_when_the_work_is_given_up() -> None:
    policy = Retry(lambda _: True)
    policy.brake.pull(time.monotonic() + 1000)
    work = Abandonment()
    threading.Timer(0.2, work.abandon).start()
    started = time.monotonic()
    assert policy.call(lambda: "asked", abandonment=work) == "asked"
    assert time.monotonic() - started < PATIENCE
