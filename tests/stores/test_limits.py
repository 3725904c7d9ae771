"""Limits: never more than was allowed, close to it, and no thread that waits for long."""

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.stores.limits import Bucket, Limiter, stretches
from tests.stores.pace import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = st.floats(0.5, 1e9)


@given(
    rate=RATES,
    steps=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 3)), min_size=1, max_size=60),
)
def test_in_no_time_does_more_than_the_rate_and_a_burst_pass(
    rate: float, steps: "Sequence[tuple[float, float]]"
) -> None:
    """``steps``: what share of the burst comes how many bursts' time after the one before."""
    burst = rate / 8
    bucket = Bucket(rate, burst)
    now, passed = 1000.0, []
    for share, pause in steps:
        now += pause * burst / rate
        passed.append((now + bucket.take(int(share * burst), now), int(share * burst)))
    times = [time for time, _ in passed]
    assert times == sorted(times), "each in its turn"
    for first in range(len(passed)):
        total = 0
        for time, size in passed[first:]:
            total += size
            assert total <= (rate * (time - passed[first][0]) + burst) * (1 + 1e-6) + 1e-6


@given(rate=RATES, sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_whoever_has_always_something_to_send_gets_the_rate(rate: float, sizes: list[int]) -> None:
    bucket = Bucket(rate, 10**6)
    now = 0.0
    for size in sizes:
        now += bucket.take(size, now)
    assert now <= sum(sizes) / rate * (1 + 1e-9)


@pytest.mark.parametrize("rate", [1, 1000, 10**6, 10**8])
def test_threads_share_a_limit(rate: int) -> None:
    clock = Clock()
    limiter = Limiter(rate, sleep=clock.sleep, monotonic=lambda: clock.now)
    assert 1 <= limiter.stretch <= max(1, rate // 16)

    def send() -> None:
        for _ in range(100):
            limiter.take(limiter.stretch)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The burst passes at once.
    assert clock.now >= (400 - 2) * limiter.stretch / rate - 1e-6


@given(data=st.binary(max_size=500), rate=st.integers(1, 2000))
def test_stretches_are_all_of_a_buffer(data: bytes, rate: int) -> None:
    clock = Clock()
    limiter = Limiter(rate, sleep=clock.sleep, monotonic=lambda: clock.now)
    pieces = list(stretches(data, limiter))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= limiter.stretch for piece in pieces)
    assert b"".join(stretches(data, None)) == data
