"""Objects: what was written is what is read, in any stretch of it, and no damage passes."""

import contextlib
import itertools
import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.buffers import Buffer, rechunk
from archiver.catalog.records import ObjectRecord
from archiver.config import Tuning
from archiver.crypto.age import MAX_HEAD, seal_bytes
from archiver.crypto.header import Stanza
from archiver.crypto.stream import CHUNK
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import (
    AlreadyExistsError,
    DecryptionError,
    FormatError,
    IntegrityError,
    NotFoundError,
    StorageError,
    UsageError,
)
from archiver.operations import objects, reading
from archiver.operations.objects import PIECE, StoredKey, grouped, touched_frames
from archiver.operations.reading import ObjectReader
from archiver.operations.writing import write_object
from archiver.stages.frames import compress_frame, encode_seek_table
from archiver.stages.measure import Meter
from archiver.stores.base import Store, StoredObject
from tests.operations.archives import CountingStore, Site

KEY = "daily/data/prod/object"
SMALL = Tuning(frame_size=1000)
LARGE = Tuning(frame_size=100_000)
RANDOM = random.Random(3)
NOISE = RANDOM.randbytes(700_000)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def _small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two chunks, so that 700 kB cross what 8 MiB cross in earnest."""
    monkeypatch.setattr(objects, "PIECE", 2 * CHUNK)
    monkeypatch.setattr(reading, "PIECE", 2 * CHUNK)
    monkeypatch.setattr(objects, "_TAIL", CHUNK)


def reader_of(site: Site, record: ObjectRecord, size: int | None = None) -> ObjectReader:
    stored = StoredKey(site.store, site.key_of(record.id), size or record.stored_size, [site.vault])
    return ObjectReader(stored, record.plaintext_size, 2)


def whole(site: Site, record: ObjectRecord) -> bytes:
    return b"".join(data for _, data in reader_of(site, record).read(None, record.blake3))


def check_intervals(site: Site, record: ObjectRecord, plaintext: bytes, intervals: list[tuple[int, int]]) -> None:
    """Every interval equals the slice; frames come in order, each once."""
    image = bytearray(len(plaintext))
    covered = bytearray(len(plaintext))
    last = -1
    for offset, data in reader_of(site, record).read(intervals, record.blake3):
        assert offset > last
        last = offset
        image[offset : offset + len(data)] = data
        covered[offset : offset + len(data)] = b"\1" * len(data)
    for start, length in intervals:
        assert image[start : start + length] == plaintext[start : start + length]
        assert covered[start : start + length] == b"\1" * length


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000, 200_000])
def test_written_and_read_whole(site: Site, size: int) -> None:
    record = site.put_object(NOISE[:size])
    assert (record.plaintext_size, record.stored_size) == (size, site.store.stat(site.key_of(record.id)).size)
    meter = Meter()
    meter.update(site.store.bytes_of(site.key_of(record.id)))
    assert meter.blake3 == record.blake3
    assert whole(site, record) == NOISE[:size]


INTERVALS = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 9000)), max_size=6)
SITE = Site()
RECORD = SITE.put_object(NOISE[:59_000])
BIG = SITE.put_object(NOISE, LARGE)


@settings(max_examples=60, deadline=None)
@given(INTERVALS)
def test_any_intervals_equal_the_slices(intervals: list[tuple[int, int]]) -> None:
    check_intervals(SITE, RECORD, NOISE[:59_000], intervals)


@pytest.mark.usefixtures("_small_requests")
@pytest.mark.parametrize("seed", range(25))
def test_any_intervals_of_an_object_of_many_requests_equal_the_slices(seed: int) -> None:
    chosen = random.Random(seed)
    starts = [chosen.randrange(len(NOISE)) for _ in range(chosen.randint(1, 4))]
    intervals = [(start, chosen.randint(0, min(150_000, len(NOISE) - start))) for start in starts]
    check_intervals(SITE, BIG, NOISE, intervals)


def test_a_small_object_is_one_request(site: Site) -> None:
    record = site.put_object(NOISE[:100_000])
    site.store.reads.clear()
    assert whole(site, record) == NOISE[:100_000]
    assert site.store.reads == [(site.key_of(record.id), 0, record.stored_size)]


def test_an_object_of_just_the_limit_is_still_one_request(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    record = site.put_object(NOISE[:CHUNK])
    monkeypatch.setattr(reading, "PIECE", record.stored_size)
    site.store.reads.clear()
    assert whole(site, record) == NOISE[:CHUNK]
    assert len(site.store.reads) == 1


@pytest.mark.usefixtures("_small_requests")
@pytest.mark.parametrize("tuning", [LARGE, Tuning(frame_size=CHUNK), Tuning(frame_size=700)])
def test_a_larger_object_takes_head_seek_table_and_each_byte_once(site: Site, tuning: Tuning) -> None:
    record = site.put_object(NOISE, tuning)
    site.store.reads.clear()
    assert whole(site, record) == NOISE
    stretches = sorted((start, start + (length or 0)) for _, start, length in site.store.reads)
    payload = reader_of(site, record).stored.open().age.payload_offset
    stretches.remove((0, MAX_HEAD))
    reached = payload
    for start, end in stretches:
        if start == reached:
            reached = end
        else:
            assert record.stored_size - 2 * CHUNK <= start
            assert end == record.stored_size
    assert reached == record.stored_size
    # The seek table, and a request for each piece at most.
    assert len(stretches) <= 1 + -(-len(NOISE) // (2 * CHUNK // tuning.frame_size * tuning.frame_size))


@pytest.mark.usefixtures("_small_requests")
def test_a_partial_read_fetches_little(site: Site) -> None:
    record = site.put_object(NOISE, LARGE)
    reader = reader_of(site, record)
    site.store.reads.clear()
    list(reader.read([(350_000, 10)], record.blake3))
    fetched = sum(length or 0 for _, _, length in site.store.reads)
    # The head and the seek table come before.
    assert 100_000 < fetched - MAX_HEAD - CHUNK < 100_000 + 3 * CHUNK


@pytest.mark.usefixtures("_small_requests")
def test_what_arrives_is_announced_and_adds_up_to_the_object(site: Site) -> None:
    record = site.put_object(NOISE, LARGE)
    heard: list[int] = []
    list(reader_of(site, record).read([(0, len(NOISE))], record.blake3, heard.append))
    assert record.stored_size - 400 < sum(heard) <= record.stored_size


@pytest.mark.usefixtures("_small_requests")
def test_a_seek_table_larger_than_the_first_fetch(site: Site) -> None:
    """9,000 frames: a table of 72 kB behind a first fetch of 64 KiB."""
    plaintext = NOISE[:9_000]
    record = site.put_object(plaintext, Tuning(frame_size=1))
    check_intervals(site, record, plaintext, [(0, 1), (8_999, 1), (4_321, 678)])
    assert whole(site, record) == plaintext


def test_every_flipped_byte_is_refused(site: Site) -> None:
    record = site.put_object(b"some text " * 30)
    key = site.key_of(record.id)
    good = site.store.bytes_of(key)
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x40
        site.store.overwrite(key, bytes(damaged))
        with pytest.raises(IntegrityError, match=record.id):
            whole(site, record)


@pytest.mark.usefixtures("_small_requests")
@pytest.mark.parametrize("position", [0, 250, CHUNK, 2 * CHUNK + 300, 400_000, -1])
@pytest.mark.parametrize("intervals", [[(0, len(NOISE))], [(0, 1)], [(390_000, 20_000)]])
def test_a_flipped_byte_of_a_large_object_is_refused_or_not_read(
    site: Site, position: int, intervals: list[tuple[int, int]]
) -> None:
    record = site.put_object(NOISE, LARGE)
    key = site.key_of(record.id)
    damaged = bytearray(site.store.bytes_of(key))
    damaged[position] ^= 1
    site.store.overwrite(key, bytes(damaged))
    if intervals == [(0, len(NOISE))]:
        with pytest.raises(IntegrityError):
            list(reader_of(site, record).read(intervals, record.blake3))
        return
    with contextlib.suppress(IntegrityError):
        check_intervals(site, record, NOISE, intervals)


def test_every_truncation_is_refused_whatever_size_is_believed(site: Site) -> None:
    record = site.put_object(b"some text " * 30)
    key = site.key_of(record.id)
    good = site.store.bytes_of(key)
    for size in range(1, len(good)):
        site.store.overwrite(key, good[:size])
        for believed in (record.stored_size, size):
            with pytest.raises(IntegrityError):
                list(reader_of(site, record, believed).read(None, record.blake3))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_truncation_at_a_chunks_end_is_refused(site: Site, count: int) -> None:
    record = site.put_object(NOISE[: 4 * CHUNK], LARGE)
    key = site.key_of(record.id)
    good = site.store.bytes_of(key)
    size = len(good) - (len(good) - 200) % (CHUNK + 16) - (count - 1) * (CHUNK + 16)
    for shorter in range(size - 64, size + 64):
        site.store.overwrite(key, good[:shorter])
        with pytest.raises(IntegrityError):
            reader_of(site, record, shorter).stored.open()


def test_an_object_that_another_valid_one_has_replaced_is_refused(site: Site) -> None:
    """Same vault, same sizes: only the hash in the signed list tells them apart."""
    record, other = site.put_object(NOISE[:50_000]), site.put_object(NOISE[50_000:100_000])
    assert record.stored_size == other.stored_size
    site.store.overwrite(site.key_of(record.id), site.store.bytes_of(site.key_of(other.id)))
    with pytest.raises(IntegrityError, match="stored bytes hash to"):
        whole(site, record)
    with pytest.raises(IntegrityError, match="stored bytes hash to"):
        list(reader_of(site, record).read([(0, 50_000)], record.blake3))


def test_an_object_for_another_vault_is_refused(site: Site) -> None:
    record = site.put_object(b"text")
    with pytest.raises(DecryptionError, match="none of 1 identities"):
        StoredKey(site.store, site.key_of(record.id), record.stored_size, [X25519Identity.generate()]).open()


@pytest.mark.parametrize(
    "plaintext",
    [b"", b"x", b"short", b"no seek table here", encode_seek_table([(5, 10)]), encode_seek_table([(0, 10)])],
)
@pytest.mark.parametrize("size", [0, 10, PIECE + 1])
def test_a_sealed_file_that_is_no_object_is_refused(site: Site, plaintext: bytes, size: int) -> None:
    """The vault's recipient is public: anybody can seal anything to it."""
    sealed = seal_bytes(plaintext, [site.vault.recipient])
    site.store.create(KEY, [sealed])
    meter = Meter()
    meter.update(sealed)
    with pytest.raises(IntegrityError):
        list(ObjectReader(StoredKey(site.store, KEY, len(sealed), [site.vault]), size, 2).read(None, meter.blake3))


def test_a_missing_object_is_said_to_be_missing(site: Site) -> None:
    record = site.put_object(b"text")
    site.store.remove(site.key_of(record.id))
    with pytest.raises(IntegrityError, match=f"{record.id}.* is missing from"):
        whole(site, record)
    with pytest.raises(IntegrityError, match=f"{record.id}.* is missing from"):
        reader_of(site, record).stored.open()


class PiecemealStore:
    """A store that gives ranges in pieces of ``size`` bytes, and counts those that were read to the end."""

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        self._size = size
        self.asked = self.ended = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[Buffer]:
        self.asked += 1
        yield from rechunk(self._store.read(key, start, length), self._size)
        self.ended += 1


@pytest.mark.usefixtures("_small_requests")
@pytest.mark.parametrize("size", [1, 999, 2 * CHUNK, 1 << 20])
def test_a_range_may_come_in_any_pieces_and_is_read_to_its_end(site: Site, size: int) -> None:
    plaintext = NOISE[:20_000] if size == 1 else NOISE
    record = site.put_object(plaintext, LARGE)
    store = PiecemealStore(site.store, size)
    stored = StoredKey(cast("Store", store), site.key_of(record.id), record.stored_size, [site.vault])
    reader = ObjectReader(stored, record.plaintext_size, 2)
    assert b"".join(data for _, data in reader.read(None, record.blake3)) == plaintext
    assert store.asked == store.ended > 0


def test_a_thread_keeps_the_memory_that_it_decrypts_to_unless_it_is_large() -> None:
    assert objects._room(1000).obj is objects._room(500).obj
    assert len(objects._room(2000)) == 2000
    assert objects._room(2 * PIECE + 1).obj is not objects._room(1).obj
    assert len(objects._local.room) <= 2 * PIECE


def failing(after: int, error: BaseException) -> Iterator[Buffer]:
    yield from [NOISE[:10_000]] * after
    raise error


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1, 50])
def test_nothing_is_created_when_the_source_fails(site: Site, after: int, error: BaseException) -> None:
    before = threading.active_count()
    with pytest.raises(type(error)):
        write_object(site.store, KEY, failing(after, error), [site.vault.recipient], SMALL)
    with pytest.raises(NotFoundError):
        site.store.stat(KEY)
    assert threading.active_count() == before


def test_nothing_is_read_for_a_recipient_that_cannot_be_used(site: Site) -> None:
    class Unusable:
        label = ""

        def wrap(self, file_key: bytes) -> Stanza:  # noqa: ARG002 - the protocol's signature
            raise UsageError("no")

    with pytest.raises(UsageError):
        write_object(site.store, KEY, failing(0, AssertionError("was read")), [Unusable()], SMALL)


def test_an_object_is_never_overwritten(site: Site) -> None:
    record = site.put_object(b"first")
    with pytest.raises(AlreadyExistsError):
        write_object(site.store, site.key_of(record.id), [b"second"], [site.vault.recipient], SMALL)
    assert whole(site, record) == b"first"


class RefusingStore(CountingStore):
    """Takes a few buffers, then refuses, as a full bucket does."""

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:  # noqa: ARG002 - the protocol's signature
        buffers = iter(body)
        next(buffers)
        next(buffers)
        raise StorageError("the bucket is full")


def test_a_store_that_refuses_leaves_no_thread() -> None:
    before = threading.active_count()
    # The caught error keeps its traceback, and with it every frame and generator on the way.
    with pytest.raises(StorageError, match="the bucket is full") as caught:
        write_object(RefusingStore(), KEY, [NOISE] * 10, [X25519Identity.generate().recipient], SMALL)
    assert caught.tb is not None
    assert threading.active_count() == before


@pytest.mark.usefixtures("_small_requests")
def test_a_read_that_fails_in_the_middle_leaves_no_thread(site: Site) -> None:
    record = site.put_object(NOISE, LARGE)
    key = site.key_of(record.id)
    damaged = bytearray(site.store.bytes_of(key))
    damaged[300_000] ^= 1
    site.store.overwrite(key, bytes(damaged))
    before = threading.active_count()
    with pytest.raises(DecryptionError) as caught:
        list(reader_of(site, record).read(None, record.blake3))
    assert caught.tb is not None
    assert threading.active_count() == before


@pytest.mark.usefixtures("_small_requests")
def test_a_frame_that_does_not_decompress_leaves_no_thread(site: Site) -> None:
    """The frames fail while more stretches are being fetched, opened well: anybody may seal to the vault."""
    frames = [compress_frame(NOISE[:100_000], 3)] * 7
    body = b"".join([*frames[:2], bytes(len(frames[2])), *frames[3:]])
    table = encode_seek_table([(len(frame), 100_000) for frame in frames])
    sealed = seal_bytes(body + table, [site.vault.recipient])
    site.store.create(KEY, [sealed])
    reader = ObjectReader(StoredKey(site.store, KEY, len(sealed), [site.vault]), 700_000, 2)
    before = threading.active_count()
    with pytest.raises(FormatError, match="does not decompress") as caught:
        list(reader.read(None, "0" * 64))
    assert caught.tb is not None
    assert threading.active_count() == before


@pytest.mark.usefixtures("_small_requests")
def test_a_reader_that_is_left_early_leaves_no_thread(site: Site) -> None:
    record = site.put_object(NOISE, LARGE)
    before = threading.active_count()
    for _ in reader_of(site, record).read([(0, 250_000)], record.blake3):
        break
    assert threading.active_count() == before


def test_public_lists_are_not_encrypted(site: Site) -> None:
    written = write_object(site.store, KEY, [b"a line\n"], [], SMALL)
    assert written.plaintext.size == 7
    assert site.store.bytes_of(KEY).startswith(b"\x28\xb5\x2f\xfd")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.data())
def test_touched_frames_are_exactly_those_that_overlap(sizes: list[int], data: st.DataObject) -> None:
    offsets = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
    start = data.draw(st.integers(0, offsets[-1]))
    length = data.draw(st.integers(0, offsets[-1] - start))
    expected = [
        index
        for index, size in enumerate(sizes)
        if size and length and offsets[index] < start + length and start < offsets[index] + size
    ]
    found = touched_frames(offsets, [(start, length)])
    assert [index for index in found if sizes[index]] == expected


@pytest.mark.parametrize("interval", [(0, 11), (10, 1), (11, 0), (-1, 1), (2**63, 2**63)])
def test_intervals_beyond_the_object_are_refused(interval: tuple[int, int]) -> None:
    with pytest.raises(IntegrityError, match="of an object of 10 bytes"):
        touched_frames([0, 5, 10], [interval])


@given(st.sets(st.integers(0, 30)), st.integers(1, 40))
def test_groups_are_exactly_the_frames_consecutive_and_bounded(frames: set[int], limit: int) -> None:
    offsets = [size * 7 for size in range(32)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "PIECE", limit)
        groups = list(grouped(sorted(frames), offsets))
    assert [frame for group in groups for frame in group] == sorted(frames)
    assert all(len(group) == 1 or len(group) * 7 <= limit for group in groups)
    # No two that could have been one.
    for one, other in itertools.pairwise(groups):
        assert one.stop < other.start or (len(one) + 1) * 7 > limit
