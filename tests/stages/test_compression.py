"""Levels: fixed ones as they are named, adaptive ones by what waits for the store."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.config import Compression
from archiver.stages.compression import (
    FEW,
    FRAMES_PER_STEP,
    HIGHEST,
    HIGHEST_PINNED,
    LOWEST,
    MANY,
    MANY_PINNED,
    START,
    levels,
    next_level,
)

MIB = 1024 * 1024
WAITING = st.one_of(
    st.integers(0, 2 * MANY), st.sampled_from([0, FEW - 1, FEW, FEW + 1, MANY - 1, MANY, MANY + 1, 2**40])
)


def take(level: Callable[[], int], frames: int) -> list[int]:
    return [level() for _ in range(frames)]


def changes(found: list[int]) -> int:
    return sum(before != after for before, after in itertools.pairwise(found))


@pytest.mark.parametrize(("compression", "expected"), [("fast", 1), ("balanced", 3), ("best", 12), (1, 1), (19, 19)])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_fixed_level_stays_whatever_waits(compression: Compression, expected: int, *, pinned: bool) -> None:
    for waiting in (0, 2**40):
        level = levels(compression, lambda waiting=waiting: waiting, pinned=pinned)  # type: ignore[misc]
        assert set(take(level, 100)) == {expected}


@given(st.integers(LOWEST, HIGHEST), WAITING, st.sampled_from([HIGHEST_PINNED, HIGHEST]))
def test_one_step_at_most_and_always_within_bounds(level: int, waiting: int, highest: int) -> None:
    following = next_level(min(level, highest), waiting, highest)
    assert LOWEST <= following <= highest
    assert abs(following - min(level, highest)) <= 1


@given(st.integers(LOWEST, HIGHEST), WAITING, WAITING)
def test_more_that_waits_never_means_a_lower_level(level: int, one: int, other: int) -> None:
    few, many = sorted((one, other))
    assert next_level(level, few, HIGHEST) <= next_level(level, many, HIGHEST)


@given(st.lists(WAITING, max_size=200), st.booleans())
def test_any_waiting_keeps_it_within_bounds(amounts: list[int], pinned: bool) -> None:
    amount = iter(amounts)
    level = levels("auto", lambda: next(amount, 0), pinned=pinned)
    found = take(level, len(amounts) * FRAMES_PER_STEP + 1)
    assert found[0] == (LOWEST if pinned else START)
    assert all(LOWEST <= value <= (HIGHEST_PINNED if pinned else HIGHEST) for value in found)


@given(WAITING, st.booleans())
def test_it_does_not_flap_around_what_stays_the_same(waiting: int, pinned: bool) -> None:
    found = take(levels("auto", lambda: waiting, pinned=pinned), 100)
    assert found in (sorted(found), sorted(found, reverse=True))


@pytest.mark.parametrize(("pinned", "highest"), [(False, HIGHEST), (True, HIGHEST_PINNED)])
def test_it_reaches_either_end_and_comes_back(highest: int, *, pinned: bool) -> None:
    waiting = 0
    level = levels("auto", lambda: waiting, pinned=pinned)
    for amount, end in ((FEW, LOWEST), (MANY_PINNED if pinned else MANY, highest), (0, LOWEST)):
        waiting = amount
        assert take(level, HIGHEST * FRAMES_PER_STEP + 1)[-1] == end


def test_it_stays_between_few_and_many() -> None:
    assert (
        set(take(levels("auto", lambda: FEW + 1), 100)) == set(take(levels("auto", lambda: MANY - 1), 100)) == {START}
    )


def test_while_a_snapshot_is_pinned_it_rises_only_for_what_may_fill_the_spool() -> None:
    assert set(take(levels("auto", lambda: MANY_PINNED - 1, pinned=True), 100)) == {LOWEST}


def test_a_level_is_kept_for_some_frames() -> None:
    found = take(levels("auto", lambda: 2**40), 100)
    assert [found.count(level) for level in (START, START + 1, START + 2)] == [FRAMES_PER_STEP] * 3


def test_a_run_of_a_few_frames_gets_to_the_fastest_level() -> None:
    assert take(levels("auto", lambda: 0), 8)[4:] == [LOWEST] * 4


@pytest.mark.parametrize(
    ("store", "expected"),
    [(1000, {1}), (300, {1, 2, 3, 4}), (25, {6})],
    ids=["faster than level 1", "between levels", "slower than level 6"],
)
def test_the_level_settles_at_what_the_store_takes(store: int, expected: set[int]) -> None:
    """Frames of 4 MiB that take as long as zstd took for vectors, half of which is sealed; a store of so many MB/s."""
    seconds = {1: 0.0072, 2: 0.01, 3: 0.0132, 4: 0.0143, 5: 0.0312, 6: 0.0379}
    waiting = 0.0
    level = levels("auto", lambda: int(waiting))
    found = []
    for _ in range(2000):
        found.append(level())
        waiting = max(0.0, waiting + 3 * MIB - store * 1e6 * seconds[found[-1]])
    settled = found[500:]
    assert set(settled) <= expected
    assert changes(settled) <= len(settled) / 16


def test_threads_together_count_every_frame() -> None:
    """One decision for each FRAMES_PER_STEP frames, however many threads ask, and never two at a time."""
    inside, asked = 0, list[int]()

    def waiting() -> int:
        nonlocal inside
        inside += 1
        asked.append(inside)
        time.sleep(0.0005)
        inside -= 1
        return 0

    level = levels("auto", waiting)
    threads = [threading.Thread(target=take, args=(level, 25 * FRAMES_PER_STEP)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [1] * (100 - 1)
