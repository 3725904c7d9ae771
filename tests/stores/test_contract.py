"""The contract of archiver/stores/base.py, held against every store."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from archiver.buffers import Buffer
from archiver.errors import AlreadyExistsError, IntegrityError, NotFoundError, UsageError
from archiver.stores.base import Store
from archiver.stores.destination import open_store, parse_destination
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.stores.conftest import Subject

KEY = "daily/data/prod/0123.mdb.zst.age"
REPOSITORY = Path(__file__).resolve().parents[2]


def pattern(size: int) -> bytes:
    """Bytes that differ everywhere, so that a part out of place shows."""
    return hashlib.shake_256(size.to_bytes(8, "big")).digest(size)


def body(data: bytes, step: int) -> Iterator[Buffer]:
    for offset in range(0, len(data), step):
        yield data[offset : offset + step]


def fetch(store: Store, key: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.read(key, start, length))


class BrokenError(Exception):
    """What a body raises in these tests."""


def test_what_was_created_is_there(subject: "Subject") -> None:
    store = subject.store
    before = store.clock()
    created = store.create(KEY, [b"ab", bytearray(b"c"), memoryview(b"de")])
    assert (created.key, created.size) == (KEY, 5)
    assert created.modified.utcoffset() == timedelta(0)
    assert abs(created.modified - before) < timedelta(seconds=PATIENCE)
    assert fetch(store, KEY) == b"abcde"
    stated = store.stat(KEY)
    assert (stated.key, stated.size) == (KEY, 5)
    assert abs(stated.modified - created.modified) <= timedelta(seconds=2)
    assert list(store.list()) == [stated]
    assert subject.leftovers() == []


@pytest.mark.parametrize(("parts", "extra"), [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1), (3, 0)])
def test_sizes_around_parts(subject: "Subject", parts: int, extra: int) -> None:
    data = pattern(parts * subject.part + extra)
    created = subject.store.create(KEY, body(data, max(1, subject.part // 3 + 7)))
    assert created.size == len(data)
    assert subject.store.stat(KEY).size == len(data)
    assert hashlib.sha256(fetch(subject.store, KEY)).digest() == hashlib.sha256(data).digest()
    assert subject.leftovers() == []


@pytest.mark.parametrize(
    ("start", "length"), [(0, None), (0, 0), (0, 1), (3, 4), (9, 1), (9, None), (10, 0), (10, None)]
)
def test_ranges(subject: "Subject", start: int, length: int | None) -> None:
    data = b"0123456789"
    subject.store.create(KEY, [data])
    assert fetch(subject.store, KEY, start, length) == data[start : None if length is None else start + length]


@pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (11, None), (11, 0), (20, 5)])
def test_a_range_beyond_the_end_is_refused(subject: "Subject", start: int, length: int | None) -> None:
    subject.store.create(KEY, [b"0123456789"])
    with pytest.raises(IntegrityError, match="too short: expected at least"):
        fetch(subject.store, KEY, start, length)


def test_an_empty_object_can_be_read(subject: "Subject") -> None:
    subject.store.create(KEY, [])
    assert fetch(subject.store, KEY) == fetch(subject.store, KEY, 0, 0) == b""
    with pytest.raises(IntegrityError):
        fetch(subject.store, KEY, 0, 1)


def test_buffers_are_bounded(subject: "Subject") -> None:
    """And no smaller than they need be: a range of up to 8 MiB comes as one."""
    data = pattern((16 << 20) + 1)
    subject.store.create(KEY, [data])
    for start, length, sizes in [(0, None, [8 << 20, 8 << 20, 1]), (5, 8 << 20, [8 << 20]), (1 << 20, 1000, [1000])]:
        buffers = list(subject.store.read(KEY, start, length))
        assert [len(buffer) for buffer in buffers] == sizes
        assert b"".join(buffers) == data[start : None if length is None else start + length]


@pytest.mark.parametrize("start", [0, 1])
def test_a_missing_key(subject: "Subject", start: int) -> None:
    subject.store.create("daily/other", [b""])
    with pytest.raises(NotFoundError, match=r"daily/missing does not exist"):
        fetch(subject.store, "daily/missing", start)
    with pytest.raises(NotFoundError, match=r"daily/missing does not exist"):
        fetch(subject.store, "daily/missing", start, 0)
    with pytest.raises(NotFoundError, match=r"daily/missing does not exist"):
        subject.store.stat("daily/missing")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "ä", "a\n", "a" * 256])
def test_malformed_keys_are_refused(subject: "Subject", key: str) -> None:
    with pytest.raises(UsageError):
        subject.store.create(key, [b""])
    with pytest.raises(UsageError):
        fetch(subject.store, key)
    with pytest.raises(UsageError):
        subject.store.stat(key)
    assert list(subject.store.list()) == []


@pytest.mark.parametrize("key", ["...", ".hidden", "-", "a.partial", ".a.b.partial", "A_b-C.9/..x/x..", "x" * 255])
def test_odd_but_allowed_keys(subject: "Subject", key: str) -> None:
    subject.store.create(key, [b"odd"])
    assert fetch(subject.store, key) == b"odd"
    assert [item.key for item in subject.store.list()] == [key]


def test_list_is_by_prefix(subject: "Subject") -> None:
    keys = sorted(["a-b", "a.d/x", "a/b/c", "a/b-c", "a/d", "a0", "ab/c", "b/a"])
    for key in reversed(keys):
        subject.store.create(key, [b"x"])
    for prefix in ["", "a", "a/", "a/b", "a/b/", "a-", "b/a", "c", "a/b/c/d"]:
        listed = [item.key for item in subject.store.list(prefix)]
        # SeaweedFS sorts each directory by itself, so that 'a/b' comes before 'a-b'; S3 says the reverse.
        in_order = listed if subject.name != "seaweed" else sorted(listed)
        assert in_order == [key for key in keys if key.startswith(prefix)]
    assert list(subject.store.list_names()) == ["a", "a-b", "a.d", "a0", "ab", "b"]
    assert list(subject.store.list_names("a/")) == ["b", "b-c", "d"]
    assert list(subject.store.list_names("c/")) == []


def test_list_is_in_order(subject: "Subject") -> None:
    keys = sorted(f"daily/data/{name}" for name in ["a-b", "a.d", "a0", "ab", "a", "a_", "B", "aB", "0", "-", ".x"])
    for key in reversed(keys):
        subject.store.create(key, [b"x"])
    assert [item.key for item in subject.store.list("daily/data/")] == keys


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a b", "./a"])
def test_malformed_prefixes_are_refused(subject: "Subject", prefix: str) -> None:
    with pytest.raises(UsageError):
        list(subject.store.list(prefix))
    with pytest.raises(UsageError):
        list(subject.store.list_names(prefix))


def test_list_names_wants_whole_segments(subject: "Subject") -> None:
    with pytest.raises(UsageError, match="does not end with '/'"):
        list(subject.store.list_names("daily"))


@pytest.mark.parametrize("parts", [0, 2])
def test_a_key_is_never_overwritten(subject: "Subject", parts: int) -> None:
    subject.store.create(KEY, [b"first"])
    with pytest.raises(AlreadyExistsError, match="exists already"):
        subject.store.create(KEY, body(pattern(parts * subject.part + 1), subject.part))
    assert fetch(subject.store, KEY) == b"first"
    assert subject.leftovers() == []


@pytest.mark.parametrize("parts", [0, 1])
def test_of_two_creators_exactly_one_wins(subject: "Subject", parts: int) -> None:
    size = parts * subject.part + 1000
    barrier = threading.Barrier(2)
    outcomes: dict[bytes, bool] = {}

    def create(fill: bytes) -> None:
        barrier.wait()
        try:
            subject.store.create(KEY, [fill * size])
            outcomes[fill] = True
        except AlreadyExistsError:
            outcomes[fill] = False

    threads = [threading.Thread(target=create, args=(fill,)) for fill in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == [False, True]
    winner = next(fill for fill, won in outcomes.items() if won)
    assert fetch(subject.store, KEY) == winner * size
    assert subject.leftovers() == []


def test_a_deleted_key_is_gone(subject: "Subject") -> None:
    for key in (KEY, f"{KEY}.more", "daily/data/other"):
        subject.store.create(key, [b"first"])
    subject.store.delete(KEY)
    with pytest.raises(NotFoundError, match="does not exist"):
        fetch(subject.store, KEY)
    with pytest.raises(NotFoundError, match="does not exist"):
        subject.store.stat(KEY)
    assert {item.key for item in subject.store.list()} == {f"{KEY}.more", "daily/data/other"}
    assert list(subject.store.list_names("daily/data/")) == ["other", "prod"]
    subject.store.create(KEY, [b"second"])
    assert fetch(subject.store, KEY) == b"second"


def test_the_last_key_of_a_directory_is_deleted(subject: "Subject") -> None:
    subject.store.create(KEY, [b"x"])
    subject.store.delete(KEY)
    assert list(subject.store.list()) == []
    # SeaweedFS names a directory for a while after its last key is gone.
    assert list(subject.store.list_names()) == [] or subject.name == "seaweed"
    subject.store.create(KEY, [b"again"])
    assert fetch(subject.store, KEY) == b"again"


def test_a_missing_key_cannot_be_deleted(subject: "Subject") -> None:
    subject.store.create(f"{KEY}/below", [b"x"])
    for key in (KEY, f"{KEY}/below/it", "daily/missing"):
        with pytest.raises(NotFoundError, match=r"does not exist|is not a regular file"):
            subject.store.delete(key)
    subject.store.delete(f"{KEY}/below")
    with pytest.raises(NotFoundError, match="does not exist"):
        subject.store.delete(f"{KEY}/below")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b"])
def test_a_malformed_key_is_never_deleted(subject: "Subject", key: str) -> None:
    with pytest.raises(UsageError):
        subject.store.delete(key)


@pytest.mark.parametrize("error", [BrokenError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("parts", [0, 3])
def test_a_body_that_raises_leaves_nothing(subject: "Subject", error: type[BaseException], parts: int) -> None:
    def broken() -> Iterator[bytes]:
        for _ in range(parts):
            yield bytes(subject.part)
        yield b"half"
        raise error

    with pytest.raises(error):
        subject.store.create(KEY, broken())
    assert list(subject.store.list()) == []
    assert list(subject.store.list_names()) == []
    assert subject.leftovers() == []
    assert subject.store.recover() == 0
    subject.store.create(KEY, [b"again"])
    assert fetch(subject.store, KEY) == b"again"


@pytest.mark.parametrize("subject", ["local", "localstack", "seaweed"], indirect=True)
def test_the_run_after_a_kill_removes_what_it_left(subject: "Subject") -> None:
    assert subject.url is not None
    script = f"""
        import sys, time
        from pathlib import Path
        from archiver.stores.destination import open_store, parse_destination

        def body():
            for _ in range(8):
                yield bytes({subject.part})
            print("under way", flush=True)
            time.sleep(3600)

        store = open_store(parse_destination({subject.url!r}), Path({str(subject.journal)!r}))
        store.create({KEY!r}, body())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY, stdout=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        process.send_signal(signal.SIGKILL)
    assert len(subject.leftovers()) == 1
    assert list(subject.store.list()) == []
    elsewhere = open_store(parse_destination(f"{subject.url.partition('?')[0]}/elsewhere"), subject.journal)
    assert elsewhere.recover() == 0
    elsewhere.close()
    assert subject.store.recover() == 1
    assert subject.leftovers() == []
    assert subject.store.recover() == 0
    subject.store.create(KEY, [b"again"])
    assert fetch(subject.store, KEY) == b"again"
