"""Retries: how often, how long, and for which errors."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.stores.retry import Retry


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
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

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
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
