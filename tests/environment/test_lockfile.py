"""The layout of ``lock.mdb``: as LMDB's source derives it, as real servers write it, and never guessed."""

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.environment import lockfile
from archiver.environment.lockfile import IDLE, MAGIC, ROBUST_SHARED, SLOT_SIZE, Layout, Reader
from tests.environment.server import Serve
from tests.environment.table import layout_of, set_slot

VERSION_1 = 0x00010001
# From MDB_lock_desc in LMDB's mdb.c, compiled with mutexes of 40 and 48 bytes.
VERSION_2_X86_64 = 0x2C2F6002
VERSION_2_AARCH64 = 0x2CD82002
KNOWN = [
    (VERSION_1, "x86_64", Layout(version=1, mutex=8, committed=48, used=56, slots=128)),
    (VERSION_1, "aarch64", Layout(version=1, mutex=8, committed=56, used=64, slots=192)),
    (VERSION_2_X86_64, "x86_64", Layout(version=2, mutex=24, committed=8, used=16, slots=128)),
    (VERSION_2_AARCH64, "aarch64", Layout(version=2, mutex=24, committed=8, used=16, slots=192)),
]


@pytest.mark.parametrize(("word", "machine", "expected"), KNOWN)
def test_known_formats(word: int, machine: str, expected: Layout) -> None:
    assert lockfile.layout(word, machine) == expected
    assert lockfile.version(word) == expected.version


@pytest.mark.parametrize(
    ("word", "machine"),
    [
        (VERSION_2_X86_64, "aarch64"),
        (VERSION_2_AARCH64, "x86_64"),
        (VERSION_1, "riscv64"),
        (VERSION_1, "i686"),
        (VERSION_1, "armv7l"),
        (VERSION_2_X86_64, ""),
        (0, "x86_64"),
        (1, "x86_64"),
        (2, "x86_64"),
        (999, "x86_64"),
        (VERSION_1 + 1, "x86_64"),
        (VERSION_2_X86_64 + 1, "x86_64"),
        (VERSION_2_X86_64 ^ 1 << 12, "x86_64"),
    ],
)
def test_what_is_not_known_is_not_guessed_at(word: int, machine: str) -> None:
    assert lockfile.layout(word, machine) is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(["x86_64", "aarch64", "ppc64le"]))
def test_only_four_formats_are_known(word: int, machine: str) -> None:
    expected = {(known, on): place for known, on, place in KNOWN}.get((word, machine))
    assert lockfile.layout(word, machine) == expected


@pytest.mark.parametrize(("word", "machine", "place"), KNOWN)
def test_fields_neither_overlap_nor_tear(word: int, machine: str, place: Layout) -> None:
    mutex_size = 40 if machine == "x86_64" else 48
    ranges = [
        range(8),
        range(place.mutex, place.mutex + mutex_size),
        range(place.committed, place.committed + 8),
        range(place.used, place.used + 4),
        range(place.slots - SLOT_SIZE, place.slots - SLOT_SIZE + mutex_size),
        range(place.slots, place.slots + SLOT_SIZE),
    ]
    assert len(set().union(*ranges)) == sum(map(len, ranges))
    assert place.committed % 8 == place.mutex % 8 == place.slots % 64 == place.used % 4 == 0


def test_capacity() -> None:
    place = KNOWN[0][2]
    assert [place.capacity(size) for size in (0, 127, 128, 191, 192, 128 + 126 * 64)] == [0, 0, 0, 0, 1, 126]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", None),
        (struct.pack("=I", MAGIC), None),
        (struct.pack("=IHB", MAGIC, 1, 1), None),
        (struct.pack("=II", MAGIC, VERSION_1), VERSION_1),
        (struct.pack(">II", MAGIC, VERSION_1), None),
        (struct.pack("=II", MAGIC + 1, VERSION_1), None),
        (struct.pack("=II", MAGIC, 0) + b"more", 0),
    ],
)
def test_the_format_word(data: bytes, word: int | None) -> None:
    assert lockfile.format_word(data) == word


@pytest.mark.parametrize(("word", "machine", "place"), KNOWN)
def test_whose_mutex_it_is(word: int, machine: str, place: Layout) -> None:
    data = bytearray(place.slots)
    assert not lockfile.made_by_glibc(data, place)
    struct.pack_into("=I", data, place.mutex + 16, ROBUST_SHARED)
    assert lockfile.made_by_glibc(data, place)
    assert not lockfile.made_by_glibc(data[: place.mutex + 19], place)
    # musl keeps its kind in the mutex's first word, and at this place a count.
    musl = bytearray(place.slots)
    struct.pack_into("=I", musl, place.mutex, 0x80 | 4)
    assert not lockfile.made_by_glibc(musl, place)


@given(st.binary(max_size=600), st.sampled_from(KNOWN))
def test_no_bytes_are_too_strange(data: bytes, known: tuple[int, str, Layout]) -> None:
    place = known[2]
    lockfile.format_word(data)
    lockfile.made_by_glibc(data, place)
    assert len(lockfile.readers(data, place)) <= place.capacity(len(data))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1)), max_size=5), st.integers(0, 7))
def test_slots_in_use_are_listed(slots: list[tuple[int, int]], used: int) -> None:
    place = KNOWN[0][2]
    data = bytearray(place.slots)
    struct.pack_into("=I", data, place.used, used)
    data += b"".join(struct.pack("=Qi", txnid, pid).ljust(SLOT_SIZE, b"\0") for txnid, pid in slots)
    expected = [Reader(pid, None if txnid == IDLE else txnid) for txnid, pid in slots[:used] if pid]
    assert list(lockfile.readers(data, place)) == expected


def test_a_real_file_says_what_its_server_says(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", max_readers=17) as server:
        lock = server.directory / "lock.mdb"
        data = lock.read_bytes()
        place = layout_of(server.directory)
        assert place.version == server.version
        assert place.capacity(len(data)) == 17
        assert lockfile.made_by_glibc(data, place)
        for offset in (place.mutex, place.slots - SLOT_SIZE):
            assert data[offset + 16 : offset + 20] == struct.pack("=I", ROBUST_SHARED)
        chance = random.Random(3)
        for index in chance.sample(range(1, 17), 6):
            set_slot(server.directory, index, chance.randrange(0x7FFFFF00, 0x7FFFFFFF), chance.choice([5, IDLE]))
        found = lockfile.readers(lock.read_bytes(), place)
        assert [(reader.pid, reader.txnid) for reader in found] == server.readers()
        assert len(found) >= 6


def test_the_committed_transaction_of_a_real_file(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        place = layout_of(server.directory)

        def committed() -> int:
            data = (server.directory / "lock.mdb").read_bytes()
            return int(struct.unpack_from("=Q", data, place.committed)[0])

        before = committed()
        assert before > 0
        server.commit()
        assert committed() == before + 1
