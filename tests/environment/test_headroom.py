"""Room beside a pin: the rules, and real writers that use it up."""

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.environment.databases import find_trees, longest_value
from archiver.environment.freelist import reusable_pages
from archiver.environment.headroom import Gauge, Room, refusal, rest_after_count, shortage
from archiver.environment.meta import Meta, read_meta
from archiver.errors import NotFoundError, SourceError

PAGE = 4096
MAP = 64 << 20
GIB = 1 << 30
HEADROOM = 0.15
PLENTY = Room(
    map_size=10 * GIB,
    beyond=8 * GIB,
    reusable=0,
    disk_size=100 * GIB,
    disk_free=90 * GIB,
    growth=8 * GIB,
)


def of(whole: int, percent: float) -> int:
    return int(whole * percent / 100)


@pytest.mark.parametrize(
    ("beyond", "reusable", "refused", "given_up"),
    [
        (15.01, 0, False, False),
        (14.99, 0, True, False),
        (10.01, 0, True, False),
        (9.99, 0, True, True),
        (6, 9.01, False, False),
        (6, 8.99, True, False),
        (6, 4.01, True, False),
        (6, 3.99, True, True),
        (5.01, 90, False, False),
        (4.99, 90, True, False),
        (3.34, 90, True, False),
        (3.33, 90, True, True),
        (0, 99, True, True),
        (0, 0, True, True),
    ],
)
def test_the_map(beyond: float, reusable: float, refused: bool, given_up: bool) -> None:
    room = replace(PLENTY, beyond=of(PLENTY.map_size, beyond), reusable=of(PLENTY.map_size, reusable))
    assert (refusal(room, HEADROOM) is not None, shortage(room, HEADROOM) is not None) == (refused, given_up)


@pytest.mark.parametrize(
    ("free", "growth", "refused", "given_up"),
    [
        (15.01, 99, False, False),
        (14.99, 99, True, False),
        (10.01, 99, True, False),
        (9.99, 99, True, True),
        (0, 0.01, True, True),
        (8, 8.01, True, True),
        (8, 8, False, False),
        (8, 0, False, False),
        (0, 0, False, False),
    ],
)
def test_the_disk_counts_only_if_the_map_can_fill_it(free: float, growth: float, refused: bool, given_up: bool) -> None:
    disk = PLENTY.disk_size
    room = replace(PLENTY, disk_free=of(disk, free), growth=of(disk, growth))
    assert (refusal(room, HEADROOM) is not None, shortage(room, HEADROOM) is not None) == (refused, given_up)


@pytest.mark.parametrize(
    ("beyond", "longest", "refused", "given_up"),
    [
        (14, 7, False, False),
        (13.99, 7, True, False),
        (7, 7, True, False),
        (6.99, 7, True, True),
        (5, 2.5, False, False),
        (4.99, 0.1, True, False),
        (90, 60, True, False),
    ],
)
def test_the_longest_value(beyond: float, longest: float, refused: bool, given_up: bool) -> None:
    size = PLENTY.map_size
    room = replace(PLENTY, beyond=of(size, beyond), reusable=of(size, 40), longest=of(size, longest))
    assert (refusal(room, HEADROOM) is not None, shortage(room, HEADROOM) is not None) == (refused, given_up)


def test_a_pin_takes_half_of_the_end_of_the_map_at_most() -> None:
    room = replace(PLENTY, beyond=of(PLENTY.map_size, 40), kept=of(PLENTY.map_size, 40))
    assert shortage(room, HEADROOM) is None
    less = replace(room, beyond=room.beyond - 1)
    assert refusal(less, HEADROOM) is None
    lies = "only 39.9 % of its map of 10,240 MiB lies beyond its last page, expected 40 %"
    assert shortage(less, HEADROOM) == f"{lies}, half of what there was when it was pinned"


def test_the_words() -> None:
    scarce = replace(PLENTY, map_size=2 * GIB, beyond=of(2 * GIB, 6), reusable=of(2 * GIB, 3.89))
    assert refusal(scarce, HEADROOM) == "only 9.8 % of its map of 2,048 MiB can still be written to, expected 15 %"
    assert shortage(scarce, HEADROOM) == "only 9.8 % of its map of 2,048 MiB can still be written to, expected 10 %"
    late = replace(PLENTY, beyond=of(PLENTY.map_size, 3.333), reusable=PLENTY.map_size // 2)
    assert refusal(late, HEADROOM) == "only 3.3 % of its map of 10,240 MiB lies beyond its last page, expected 5 %"
    assert shortage(late, HEADROOM) == "only 3.3 % of its map of 10,240 MiB lies beyond its last page, expected 3.4 %"
    index = replace(PLENTY, beyond=of(PLENTY.map_size, 6), reusable=PLENTY.map_size // 2, longest=717 << 20)
    lies = "only 5.9 % of its map of 10,240 MiB lies beyond its last page"
    assert refusal(index, HEADROOM) == f"{lies}, expected 14.1 %, twice its longest value of 717 MiB"
    assert shortage(index, HEADROOM) == f"{lies}, expected 7.1 %, its longest value of 717 MiB"
    full = replace(PLENTY, disk_free=of(PLENTY.disk_size, 3))
    assert refusal(full, HEADROOM) == "only 3 % of its disk of 102,400 MiB is free, expected 15 %"


SIZES = st.integers(0, 2**44)
SHARES = st.integers(1, 90).map(lambda percent: percent / 100)


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    map_size, disk_size = draw(st.integers(1, 2**44)), draw(SIZES)
    beyond = draw(st.integers(0, map_size))
    reusable = draw(st.integers(0, map_size - beyond))
    return Room(
        map_size=map_size,
        beyond=beyond,
        reusable=reusable,
        disk_size=disk_size,
        disk_free=draw(st.integers(0, disk_size)),
        growth=draw(st.integers(0, map_size)),
        longest=draw(st.integers(0, map_size)),
    )


@given(rooms(), SHARES)
@example(replace(PLENTY, beyond=of(PLENTY.map_size, 5), reusable=of(PLENTY.map_size, 10)), HEADROOM)
def test_a_pin_that_may_be_taken_is_not_given_up(room: Room, share: float) -> None:
    assert refusal(room, share) is not None or shortage(room, share) is None


@given(rooms(), SHARES, SIZES, SIZES, SIZES)
def test_more_room_is_never_worse(room: Room, share: float, beyond: int, reusable: int, disk_free: int) -> None:
    more = replace(
        room, beyond=room.beyond + beyond, reusable=room.reusable + reusable, disk_free=room.disk_free + disk_free
    )
    for decide in (refusal, shortage):
        assert decide(room, share) is not None or decide(more, share) is None


@given(rooms(), SHARES)
def test_a_message_never_expects_what_it_got(room: Room, share: float) -> None:
    for reason in (refusal(room, share), shortage(room, share)):
        if reason is not None:
            got, expected = re.findall(r"([\d.]+) %", reason)
            assert float(got) < float(expected)


def test_counting_takes_a_fifth_of_a_core_at_the_most() -> None:
    assert rest_after_count(0.0) == 0
    assert 0.5 / (0.5 + rest_after_count(0.5)) <= 0.2


@contextmanager
def pinned(environment: lmdb.Environment) -> Iterator[int]:
    """A reader that stays on the newest commit, by its txnid."""
    with environment.begin() as reader:
        yield reader.id()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[lmdb.Environment]:
    with lmdb.open(str(tmp_path), map_size=MAP, sync=False, metasync=False, lib_version=0) as environment:
        yield environment


def fill(environment: lmdb.Environment, part: float) -> int:
    """Write values of a page each until ``part`` of the map is in use, then delete four of five; how many were put."""
    number = 0
    while environment.info()["last_pgno"] * PAGE < part * MAP:
        with environment.begin(write=True) as transaction:
            for _ in range(50):
                transaction.put(b"%08d" % number, b"v" * 3000)
                number += 1
    with environment.begin(write=True) as transaction:
        for deleted in range(number):
            if deleted % 5:
                transaction.delete(b"%08d" % deleted)
    # Two more commits, so that what was freed is older than any pin taken from now on.
    for _ in range(2):
        rewrite(environment, 0)
    return number


def rewrite(environment: lmdb.Environment, number: int, pages: int = 1) -> None:
    with environment.begin(write=True) as transaction:
        for page in range(pages):
            transaction.put(b"%08d" % (number + page), b"w" * 3000)


def free_by_mdb_stat(directory: Path, before: int) -> int:
    answer = subprocess.run(["mdb_stat", "-ff", str(directory)], capture_output=True, text=True, check=True).stdout
    freed = re.findall(r"Transaction (\d+), (\d+) pages", answer)
    return sum(int(pages) for key, pages in freed if int(key) < before) * PAGE


def test_a_measurement_agrees_with_lmdb_and_the_system(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.5)
    data = tmp_path / "data.mdb"
    with pinned(live) as txnid:
        room = Gauge(data, lambda: txnid, HEADROOM).measure(1.0)
        assert room.map_size == live.info()["map_size"] == MAP
        assert room.beyond == MAP - (live.info()["last_pgno"] + 1) * PAGE
        assert room.reusable == free_by_mdb_stat(tmp_path, txnid) > 0.35 * MAP
    disk = os.statvfs(tmp_path)
    assert room.disk_size == disk.f_blocks * disk.f_frsize
    assert room.disk_free == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.05)
    assert room.growth == MAP - data.stat().st_blocks * 512
    assert room.beyond <= room.growth < MAP


def test_a_map_that_the_server_was_started_with_smaller(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.5)
    data = tmp_path / "data.mdb"
    taken = (live.info()["last_pgno"] + 1) * PAGE
    with pinned(live) as txnid:
        room = Gauge(data, lambda: txnid, HEADROOM, max_size=taken + 10 * PAGE).measure(0.0)
        assert (room.map_size, room.beyond) == (taken + 10 * PAGE, 10 * PAGE)
        assert "lies beyond its last page" in str(Gauge(data, lambda: txnid, HEADROOM, max_size=taken).refusal())
        assert Gauge(data, lambda: txnid, HEADROOM, max_size=2 * MAP).refusal() is None


def test_only_what_is_older_than_every_reader_counts(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.5)
    oldest = 1
    with pinned(live) as txnid:
        assert Gauge(tmp_path / "data.mdb", lambda: oldest, HEADROOM).measure(1.0).reusable == 0
        assert Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM).measure(1.0).reusable > 0


def test_free_pages_are_used_up_before_the_end_of_the_map(live: lmdb.Environment, tmp_path: Path) -> None:
    count = fill(live, 0.7)
    with pinned(live) as txnid:
        gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
        assert gauge.refusal() is None
        rooms = []
        number = 0
        while gauge.shortage() is None:
            rewrite(live, number % count, pages=100)
            number += 100
            rooms.append(Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM).measure(1.0))
            assert rooms[-1].beyond == MAP - (live.info()["last_pgno"] + 1) * PAGE
            if len(rooms) % 20 == 0:
                assert rooms[-1].reusable == free_by_mdb_stat(tmp_path, txnid)
        early, late = rooms[len(rooms) // 3], rooms[-1]
        assert rooms == sorted(rooms, key=lambda room: (-room.reusable, -room.beyond))
        assert early.reusable > late.reusable
        assert late.reusable < 200 * PAGE
        assert early.beyond > 0.25 * MAP > late.beyond
        # The reason comes in time: the writer still has room, and would have run out of it.
        assert 0.12 * MAP < late.beyond + late.reusable < 0.16 * MAP
        rewrite(live, 0, pages=100)
        with pytest.raises(lmdb.MapFullError):
            for _ in range(60):
                rewrite(live, 0, pages=100)
    # Once the pin is given up, all that it kept may be reused, and the end of the map is left alone.
    last = live.info()["last_pgno"]
    for _ in range(40):
        rewrite(live, 0, pages=100)
    assert live.info()["last_pgno"] == last


def test_an_end_that_is_near_is_room_enough_with_old_free_pages(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.93)
    with pinned(live) as txnid:
        gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
        room = gauge.measure(HEADROOM)
        assert room.beyond < HEADROOM * MAP * 2 / 3
        assert room.reusable > MAP / 2
        assert gauge.refusal() is None
        assert gauge.shortage() is None


def test_an_end_that_is_too_near_is_not(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.955)
    with pinned(live) as txnid:
        gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
        assert gauge.measure(HEADROOM).reusable > MAP / 2
        assert "beyond its last page, expected 5 %" in str(gauge.refusal())
        assert gauge.shortage() is None


def test_long_values_use_up_the_end_while_free_pages_are_left(live: lmdb.Environment, tmp_path: Path) -> None:
    fill(live, 0.8)
    with pinned(live) as txnid:
        gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
        assert gauge.refusal() is None
        # The free pages lie in runs of four.
        while (reason := gauge.shortage()) is None:
            with live.begin(write=True) as transaction:
                transaction.put(b"index", b"i" * (PAGE * 60))
        assert "beyond its last page, expected" in reason
        assert "half of what there was when it was pinned" in reason
        assert gauge.measure(HEADROOM).reusable > MAP / 2
        assert live.info()["last_pgno"] * PAGE < 0.92 * MAP


def test_an_end_without_room_for_the_longest_value_is_refused(tmp_path: Path) -> None:
    """A writer of one value of 7 % of the map, with free pages in plenty of which no two lie side by side.

    The commits that a pin makes fail do not move the last page: without a rule on the longest value nothing sees them.
    """
    size = 4 * MAP
    value = b"i" * (size * 7 // 100)
    with lmdb.open(str(tmp_path), map_size=size, sync=False, metasync=False, lib_version=0) as live:
        with live.begin(write=True) as transaction:
            for number in range(20_000):
                transaction.put(b"%08d" % number, b"v" * 3000)
            transaction.put(b"index", value)
        with live.begin(write=True) as transaction:
            for number in range(0, 20_000, 2):
                transaction.delete(b"%08d" % number)
        # Beside the one that is in use, the writer goes on with two runs of pages, which it takes from the end.
        for number in itertools.count():
            if size - (live.info()["last_pgno"] + 1) * PAGE <= size * 20 // 100:
                break
            live_put(live, b"filler %d" % number, bytes(100_000))
        for _ in range(20):
            live_put(live, b"index", value)
        with pinned(live) as txnid:
            gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
            assert size * 5 // 100 < gauge.measure(0).beyond < size * 7 // 100
            assert gauge.refusal() is None
            gauge.longest = longest_in(live, tmp_path)
            assert len(value) < gauge.longest <= len(value) + 2 * PAGE
            assert "its longest value of 18 MiB" in str(gauge.refusal())
            assert "its longest value of 18 MiB" in str(gauge.shortage())
            with pytest.raises(lmdb.MapFullError):
                for _ in range(10):
                    live_put(live, b"index", value)


def live_put(environment: lmdb.Environment, key: bytes, value: bytes) -> None:
    with environment.begin(write=True) as transaction:
        transaction.put(key, value)


def longest_in(environment: lmdb.Environment, directory: Path) -> int:
    meta = read_meta(directory / "data.mdb")
    with environment.begin(buffers=True) as transaction:
        trees = find_trees(environment, transaction, meta.main, directory)
        return PAGE * longest_value(environment, transaction, trees, PAGE, directory)


def test_a_larger_map_counts_from_the_first_commit_on(tmp_path: Path) -> None:
    data = tmp_path / "data.mdb"
    with lmdb.open(str(tmp_path), map_size=MAP, lib_version=0) as environment:
        rewrite(environment, 0)
    with lmdb.open(str(tmp_path), map_size=4 * MAP, lib_version=0) as environment:
        gauge = Gauge(data, lambda: 1, HEADROOM)
        assert gauge.measure(HEADROOM).map_size == MAP
        rewrite(environment, 0)
        assert gauge.measure(HEADROOM).map_size == 4 * MAP


def test_free_pages_are_counted_only_when_needed(
    live: lmdb.Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(live, 0.92)
    counted = []

    def count(path: Path, meta: Meta, before: int) -> int:
        counted.append(meta.txnid)
        return reusable_pages(path, meta, before)

    monkeypatch.setattr("archiver.environment.headroom.reusable_pages", count)
    rests = iter([0.0, 1000.0])
    monkeypatch.setattr("archiver.environment.headroom.rest_after_count", lambda _: next(rests))
    with pinned(live) as txnid:
        gauge = Gauge(tmp_path / "data.mdb", lambda: txnid, HEADROOM)
        assert gauge.measure(0.05).reusable == 0
        assert counted == []
        first = gauge.measure(HEADROOM)
        assert gauge.measure(HEADROOM).reusable == first.reusable
        assert counted == [txnid], "nothing was committed"
        rewrite(live, 0, pages=100)
        second = gauge.measure(HEADROOM)
        assert second.reusable < first.reusable
        rewrite(live, 0, pages=100)
        assert gauge.measure(HEADROOM).reusable == second.reusable
        assert counted == [txnid, txnid + 1], "it rests"


def test_files_that_cannot_be_measured(live: lmdb.Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError):
        Gauge(tmp_path / "other" / "data.mdb", lambda: 1, HEADROOM).shortage()
    rewrite(live, 0)
    assert read_meta(tmp_path / "data.mdb").txnid == 1

    def fail(path: Path) -> os.statvfs_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(SourceError, match=r"cannot measure the room of .*: input/output error"):
        Gauge(tmp_path / "data.mdb", lambda: 1, HEADROOM).shortage()
