"""From objects to files: every byte where it belongs, every object fetched once, nothing unfinished passes."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, ObjectRecord
from archiver.errors import IntegrityError, TargetError
from archiver.operations import assembly as module
from archiver.operations.assembly import Assembly, Opener, Target
from tests.operations.archives import Site

NOISE = random.Random(5).randbytes(60_000)


class Image:
    """A file in memory, which knows what was done with it."""

    def __init__(self, size: int, fail: Exception | None = None) -> None:
        self.data = bytearray(size)
        self.opened = self.proven = self.closed = 0
        self.observed: list[tuple[int, int]] = []
        self._fail = fail

    def write_at(self, offset: int, buffer: Buffer) -> None:
        assert self.opened == 1
        assert not self.closed
        assert offset + len(buffer) <= len(self.data)
        self.data[offset : offset + len(buffer)] = buffer

    def observe(self, offset: int, buffer: Buffer) -> None:
        """What is observed has been written, and comes from the thread that drives it."""
        assert threading.current_thread() is threading.main_thread()
        assert self.data[offset : offset + len(buffer)] == buffer
        self.observed.append((offset, len(buffer)))

    @contextmanager
    def open(self) -> Iterator[tuple[Target, Callable[[], object]]]:
        self.opened += 1
        try:
            yield self, self._prove
        finally:
            self.closed += 1

    def _prove(self) -> None:
        self.proven += 1
        if self._fail is not None:
            raise self._fail

    @property
    def done(self) -> bool:
        return (self.opened, self.proven, self.closed) == (1, 1, 1)


class Bench:
    """A site, its objects by number, and an assembly over them."""

    def __init__(self, *plaintexts: bytes) -> None:
        self.site = Site()
        self.records: list[ObjectRecord] = [self.site.put_object(plaintext) for plaintext in plaintexts]
        self.advanced = 0
        self.backup = self.site.archive().load(self.site.commit())
        self.site.store.reads.clear()

    def assembly(self, *, whole: bool = False) -> Assembly:
        objects = {record.id: record for record in self.records}
        placement = self.site.placement_of(self.records)
        archive = self.site.archive()
        return Assembly(archive, self.backup, objects, placement, self._advance, whole=whole)

    def extents(self, *stretches: tuple[int, int, int, int]) -> list[Extent]:
        """From (offset in the file, length, number of the object, offset in it)."""
        return [
            Extent(offset=offset, length=length, object=self.records[number].id, object_offset=at)
            for offset, length, number, at in stretches
        ]

    def gets(self) -> Counter[str]:
        """How often each object was requested; vault files are not counted."""
        return Counter(key for key, _, _ in self.site.store.reads if not key.startswith("vault/"))

    def _advance(self, count: int) -> None:
        self.advanced += count


def fill(assembly: Assembly, files: Sequence[tuple[Sequence[Extent], Opener]]) -> None:
    for extents, opener in files:
        assembly.add(extents, opener)
    assembly.flush()


@pytest.mark.parametrize("whole", [False, True])
def test_files_that_share_a_pack(whole: bool) -> None:
    bench = Bench(NOISE[:20_000])
    sizes = [1, 999, 1, 5000, 2000, 12]
    images = [Image(size) for size in sizes]
    starts = [512 + sum(sizes[:index]) + 512 * index for index in range(len(sizes))]
    assembly = bench.assembly(whole=whole)
    fill(
        assembly,
        [
            (bench.extents((0, size, 0, start)), image.open)
            for size, start, image in zip(sizes, starts, images, strict=True)
        ],
    )
    for image, start, size in zip(images, starts, sizes, strict=True):
        assert bytes(image.data) == NOISE[start : start + size]
        assert image.done
    assert set(bench.gets().values()) == {1}


def test_a_file_of_several_objects_and_with_holes() -> None:
    bench = Bench(NOISE[:5000], NOISE[5000:9000], NOISE[9000:9001])
    image = Image(20_000)
    fill(bench.assembly(), [(bench.extents((0, 5000, 0, 0), (7000, 4000, 1, 0), (19_999, 1, 2, 0)), image.open)])
    expected = bytearray(20_000)
    expected[:5000], expected[7000:11_000], expected[19_999:] = NOISE[:5000], NOISE[5000:9000], NOISE[9000:9001]
    assert image.data == expected
    assert image.done
    assert set(bench.gets().values()) == {1}


def test_the_same_stretch_for_many_files_and_overlapping_ones() -> None:
    """Not what we write, but what a list may say: each file gets what its extents name."""
    bench = Bench(NOISE[:10_000])
    stretches = [(0, 10_000), (0, 10_000), (10, 9_000), (5000, 1), (4999, 3), (0, 1), (9999, 1)]
    images = [Image(length) for _, length in stretches]
    fill(
        bench.assembly(),
        [
            (bench.extents((0, length, 0, start)), image.open)
            for (start, length), image in zip(stretches, images, strict=True)
        ],
    )
    for (start, length), image in zip(stretches, images, strict=True):
        assert bytes(image.data) == NOISE[start : start + length]
        assert image.done
    assert set(bench.gets().values()) == {1}


@pytest.mark.parametrize("seed", range(15))
def test_arbitrary_extents(seed: int) -> None:
    chosen = random.Random(seed)
    plaintexts = [NOISE[: chosen.randint(1, 9000)] for _ in range(3)]
    bench = Bench(*plaintexts)
    files = []
    for _ in range(8):
        expected = bytearray()
        stretches = []
        for _ in range(chosen.randint(1, 4)):
            number = chosen.randrange(3)
            start = chosen.randrange(len(plaintexts[number]))
            length = chosen.randint(1, len(plaintexts[number]) - start)
            stretches.append((len(expected), length, number, start))
            expected += plaintexts[number][start : start + length]
        files.append((stretches, expected, Image(len(expected))))
    fill(bench.assembly(), [(bench.extents(*stretches), image.open) for stretches, _, image in files])
    for _, expected, image in files:
        assert image.data == expected
        assert image.done
    assert set(bench.gets().values()) == {1}


def test_an_empty_file_is_there_at_once() -> None:
    image, holes = Image(0), Image(5000)
    bench = Bench()
    assembly = bench.assembly()
    assembly.add([], image.open)
    assembly.add([], holes.open)
    assert image.done
    assert holes.done
    assembly.flush()
    assert not bench.gets()


@pytest.mark.parametrize("stretch", [(0, 101, 0, 0), (0, 1, 0, 100), (0, 50, 0, 51), (0, 1, 0, 2**62)])
def test_an_extent_beyond_its_object_is_refused(stretch: tuple[int, int, int, int]) -> None:
    bench = Bench(NOISE[:100])
    image = Image(200)
    with pytest.raises(IntegrityError, match="of an object of 100 bytes"):
        fill(bench.assembly(), [(bench.extents(stretch), image.open)])
    assert not image.proven
    assert image.opened == image.closed


def test_objects_that_nobody_knows_are_named() -> None:
    bench = Bench(NOISE[:100])
    image = Image(1)
    unknown = Extent(offset=0, length=1, object="f" * 32, object_offset=0)
    with pytest.raises(IntegrityError, match=f"object {'f' * 32}, which is not in the objects list"):
        fill(bench.assembly(), [([unknown], image.open)])
    bench.site.store.remove(bench.site.key_of(bench.records[0].id))
    with pytest.raises(IntegrityError, match=bench.records[0].id):
        fill(bench.assembly(), [(bench.extents((0, 1, 0, 0)), image.open)])
    assert not image.proven


def test_a_file_whose_proof_fails_is_an_error_and_all_are_closed() -> None:
    bench = Bench(NOISE[:5000], NOISE[:100])
    good, bad, later = Image(5000), Image(2000, IntegrityError("wrong hash")), Image(4100)
    with pytest.raises(IntegrityError, match="wrong hash"):
        fill(
            bench.assembly(),
            [
                (bench.extents((0, 5000, 0, 0)), good.open),
                (bench.extents((0, 2000, 0, 1000)), bad.open),
                (bench.extents((0, 4000, 0, 500), (4000, 100, 1, 0)), later.open),
            ],
        )
    for image in (good, bad, later):
        assert image.opened == image.closed == 1
    assert not later.proven


class FullDisk(Image):
    def write_at(self, offset: int, buffer: Buffer) -> None:  # noqa: ARG002 - the protocol's signature
        raise TargetError("the disk is full")


def test_a_target_that_cannot_be_written_ends_it_and_is_closed() -> None:
    bench = Bench(NOISE[:5000])
    image = FullDisk(5000)
    with pytest.raises(TargetError, match="the disk is full"):
        fill(bench.assembly(), [(bench.extents((0, 5000, 0, 0)), image.open)])
    assert (image.opened, image.proven, image.closed) == (1, 0, 1)


def test_a_damaged_object_is_an_error_for_the_files_that_it_reaches() -> None:
    bench = Bench(NOISE[:50_000])
    key = bench.site.key_of(bench.records[0].id)
    other = bench.site.put_object(NOISE[10_000:60_000])
    bench.site.store.overwrite(key, bench.site.store.bytes_of(bench.site.key_of(other.id)))
    image = Image(50_000)
    with pytest.raises(IntegrityError, match="stored bytes hash to"):
        fill(bench.assembly(), [(bench.extents((0, 50_000, 0, 0)), image.open)])


@pytest.mark.parametrize("whole", [False, True])
def test_whole_proves_the_hash_of_an_object_of_which_a_file_needs_little(whole: bool) -> None:
    """A partial read of a replaced object passes here: the file's own hash is what refuses it."""
    bench = Bench(NOISE[:20_000])
    other = bench.site.put_object(NOISE[10_000:30_000])
    key = bench.site.key_of(bench.records[0].id)
    bench.site.store.overwrite(key, bench.site.store.bytes_of(bench.site.key_of(other.id)))
    image = Image(10)
    files = [(bench.extents((0, 10, 0, 0)), image.open)]
    if whole:
        with pytest.raises(IntegrityError, match="stored bytes hash to"):
            fill(bench.assembly(whole=True), files)
    else:
        fill(bench.assembly(), files)
        assert image.data == NOISE[10_000:10_010]


def test_files_wait_in_bounded_number_and_a_pack_is_still_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound, what waits is written; but the rest of a pack that waits already joins it."""
    monkeypatch.setattr(module, "PENDING", 5)
    bench = Bench(*(NOISE[number * 1000 : (number + 1) * 1000] for number in range(4)))
    assembly = bench.assembly()
    images = []
    for number in range(4):
        for member in range(8):
            image = Image(10)
            images.append((image, number * 1000 + member * 100))
            assembly.add(bench.extents((0, 10, number, member * 100)), image.open)
        assert sum(not image.done for image, _ in images) == 8
        assert sum(bench.gets().values()) == number
    assembly.flush()
    for image, start in images:
        assert image.data == NOISE[start : start + 10]
        assert image.done
    assert set(bench.gets().values()) == {1}
    assert len(bench.gets()) == 4


def test_a_flush_in_the_middle_starts_afresh() -> None:
    bench = Bench(NOISE[:1000])
    assembly = bench.assembly()
    for _ in range(3):
        image = Image(500)
        fill(assembly, [(bench.extents((0, 500, 0, 100)), image.open)])
        assert image.data == NOISE[100:600]
        assert image.done
    assembly.flush()


def test_what_is_fetched_is_announced() -> None:
    bench = Bench(NOISE[:20_000])
    fill(bench.assembly(), [(bench.extents((0, 20_000, 0, 0)), Image(20_000).open)])
    assert bench.records[0].stored_size - 400 < bench.advanced <= bench.records[0].stored_size


def test_only_files_that_are_being_written_are_open() -> None:
    """Ten thousand small files of one pack must not need ten thousand descriptors."""
    bench = Bench(NOISE[:20_000])
    images: list[Image] = []
    most = 0

    class Watched(Image):
        def write_at(self, offset: int, buffer: Buffer) -> None:
            nonlocal most
            super().write_at(offset, buffer)
            most = max(most, sum(image.opened - image.closed for image in images))

    images += [Watched(100) for _ in range(200)]
    fill(
        bench.assembly(),
        [(bench.extents((0, 100, 0, index * 100)), image.open) for index, image in enumerate(images)],
    )
    assert most == 1


FRAME = 1000
"""As long as frames are in these tests."""


def test_a_small_file_within_a_frame_is_put_as_a_whole_and_others_are_opened() -> None:
    bench = Bench(NOISE[:20_000])
    stretches = [(0, 10), (10, 990), (990, 20), (FRAME, FRAME), (5500, 1), (7000, 3 * FRAME), (19_999, 1)]
    images = [Image(length) for _, length in stretches]
    contents: dict[int, bytes] = {}

    def put(number: int, content: Buffer) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert number not in contents
        contents[number] = bytes(content)

    assembly = bench.assembly()
    for number, ((start, length), image) in enumerate(zip(stretches, images, strict=True)):
        assembly.add(bench.extents((0, length, 0, start)), image.open, partial(put, number))
    assembly.flush()
    for number, (start, length) in enumerate(stretches):
        if start // FRAME == (start + length - 1) // FRAME:
            assert contents[number] == NOISE[start : start + length]
            assert not images[number].opened
        else:
            assert number not in contents
            assert bytes(images[number].data) == NOISE[start : start + length]
            assert images[number].done
    assert set(bench.gets().values()) == {1}


def test_what_is_large_or_made_of_several_stretches_is_not_put(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 100)
    bench = Bench(NOISE[:FRAME])
    large, pieces = Image(100), Image(20)
    assembly = bench.assembly()
    assembly.add(bench.extents((0, 100, 0, 5)), large.open, _refuse)
    assembly.add(bench.extents((0, 10, 0, 0), (10, 10, 0, 50)), pieces.open, _refuse)
    assembly.flush()
    assert large.data == NOISE[5:105]
    assert pieces.data == NOISE[:10] + NOISE[50:60]
    assert large.done
    assert pieces.done


def _refuse(_: Buffer) -> None:
    raise IntegrityError("wrong hash")


def test_a_file_that_cannot_be_put_ends_it() -> None:
    bench = Bench(NOISE[:FRAME])
    crossing, image = Image(10), Image(10)
    assembly = bench.assembly()
    assembly.add(bench.extents((0, 10, 0, 0)), crossing.open)
    assembly.add(bench.extents((0, 10, 0, 5)), image.open, _refuse)
    with pytest.raises(IntegrityError, match="wrong hash"):
        assembly.flush()
    assert not image.opened
    assert crossing.opened == crossing.closed
