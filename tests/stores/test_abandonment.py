"""Work that is given up ends, and only that."""

import threading
import time

import pytest

from archiver.errors import StorageError
from archiver.stores.abandonment import Abandonment, Generations
from tests.waiting import PATIENCE


def test_a_part_ends_with_the_whole_and_not_the_other_way_round() -> None:
    whole = Abandonment()
    first, second = whole.part(), whole.part()
    first.abandon()
    assert (first.abandoned, second.abandoned, whole.abandoned) == (True, False, False)
    whole.abandon()
    assert second.abandoned
    second_part = second.part()
    with pytest.raises(StorageError, match="daily/x: given up"):
        second_part.check("daily/x")


def test_whoever_sleeps_wakes_up_at_once() -> None:
    whole = Abandonment()
    part = whole.part()
    threading.Timer(0.1, whole.abandon).start()
    started = time.monotonic()
    part.sleep(1000)
    assert time.monotonic() - started < PATIENCE


def test_another_part_sleeps_on() -> None:
    whole = Abandonment()
    part, other = whole.part(), whole.part()
    threading.Timer(0.05, other.abandon).start()
    started = time.monotonic()
    part.sleep(0.3)
    assert time.monotonic() - started >= 0.3


def test_what_begins_later_is_not_given_up() -> None:
    generations = Generations()
    before = generations.current()
    generations.abandon()
    assert before.abandoned
    assert not generations.current().abandoned
