"""What only a directory has: permissions, symbolic links, full disks, missing roots."""

import os
import resource
import signal
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archiver.errors import NotFoundError, StorageError
from archiver.stores.journal import Journal
from archiver.stores.limits import Limits
from archiver.stores.local import LocalStore
from tests.waiting import PATIENCE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "destination"


@pytest.fixture
def store(root: Path, tmp_path: Path) -> LocalStore:
    return LocalStore(root, Journal(tmp_path / "journal"))


def test_the_root_is_made_and_all_is_private(store: LocalStore, root: Path) -> None:
    store.create("daily/data/x", [b"x"])
    assert stat.S_IMODE((root / "daily/data/x").stat().st_mode) == 0o600
    for directory in (root, root / "daily", root / "daily" / "data"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert (root / "daily/data/x").stat().st_nlink == 1


def test_a_missing_root(store: LocalStore) -> None:
    for listing in (store.list, store.list_names):
        with pytest.raises(NotFoundError, match=r"destination directory \S+ does not exist") as caught:
            listing()
        assert caught.value.hint
    with pytest.raises(NotFoundError):
        store.stat("x")
    with pytest.raises(NotFoundError):
        list(store.read("x"))


def test_everything_is_forced_to_disk_before_it_counts(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        state = "linked" if (root / "a/b/x").exists() else "temporary"
        synced.append(f"{path.relative_to(root.parent.parent) if path.is_dir() else 'file'} {state}")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    store.create("a/b/x", [b"x"])
    assert [entry for entry in synced if not entry.startswith(("..", "file"))][-5:] == [
        "deep temporary",
        "deep/destination temporary",
        "deep/destination/a temporary",
        ". temporary",
        "deep/destination/a/b linked",
    ]
    assert synced[-2] == "file temporary"


def test_symbolic_links_are_not_followed(store: LocalStore, root: Path, tmp_path: Path) -> None:
    store.create("a/x", [b"x"])
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "a" / "file-link").symlink_to(outside / "secret")
    assert [item.key for item in store.list()] == ["a/x"]
    assert list(store.list_names()) == ["a"]
    assert list(store.list_names("a/")) == ["x"]
    with pytest.raises(NotFoundError):
        list(store.read("a/file-link"))
    with pytest.raises(NotFoundError):
        store.stat("a/file-link")
    with pytest.raises(StorageError, match="symbolic link"):
        store.create("link/y", [b""])
    assert sorted(os.listdir(outside)) == ["secret"]


def test_the_root_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    root.mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    store = LocalStore(tmp_path / "link", Journal(None))
    store.create("x", [b"x"])
    assert [item.key for item in store.list()] == ["x"]


def test_what_is_not_a_key_is_not_listed(store: LocalStore, root: Path) -> None:
    store.create("a/x", [b"x"])
    (root / "lost+found").mkdir()
    (root / "a" / "with space").touch()
    (root / "a" / ".~0123.partial").touch()
    os.mkfifo(root / "a" / "pipe")
    (root / "empty" / "deeper").mkdir(parents=True)
    assert [item.key for item in store.list()] == ["a/x"]
    assert list(store.list_names()) == ["a"]
    for name in ("a/pipe", "a"):
        with pytest.raises(NotFoundError, match="not a regular file"):
            store.stat(name)
        with pytest.raises(NotFoundError, match="not a regular file"):
            list(store.read(name))


def test_a_file_where_a_directory_must_be(store: LocalStore) -> None:
    store.create("a", [b""])
    with pytest.raises(StorageError, match="not a directory") as caught:
        store.create("a/b", [b""])
    assert caught.value.hint
    with pytest.raises(NotFoundError):
        store.stat("a/b")


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow beyond so many bytes: the nearest to a full disk that needs no mount."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield 10_000
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_leaves_nothing(store: LocalStore, root: Path, small_files: int) -> None:
    with pytest.raises(StorageError, match="file too large"):
        store.create("a/x", [bytes(small_files), b"x"])
    assert list(store.list()) == []
    assert os.listdir(root / "a") == []
    assert store.recover() == 0


@pytest.mark.parametrize("call", ["link", "unlink", "fsync"])
def test_a_failure_at_any_step_leaves_nothing(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.create("a/first", [b""])
    real = getattr(os, call)
    hits: list[object] = []

    def fail(target: object, *arguments: object, **named: object) -> object:
        is_journal = isinstance(target, int) and os.readlink(f"/proc/self/fd/{target}").endswith("journal")
        if hits or is_journal:
            return real(target, *arguments, **named)
        hits.append(target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match="no space left on device") as caught:
        store.create("a/x", [b"x"])
    assert hits
    assert caught.value.hint == "Free some space in the destination, or choose another one."
    assert os.listdir(root / "a") == ["first"]
    assert store.recover() == 0


def test_recover_touches_only_temporary_files(store: LocalStore, root: Path, tmp_path: Path) -> None:
    store.create("a/x", [b"x"])
    for entry in ("a/x", "../.~1.partial", "/etc/passwd"):
        journal = Journal(tmp_path / f"journal-{entry.replace('/', '-')}")
        journal.add(entry)
        with pytest.raises(StorageError, match="not a temporary file of archiver"):
            LocalStore(root, journal).recover()
    assert (root / "a/x").exists()


def test_recover_when_the_file_is_gone(root: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add("a/.~0123.partial")
    assert LocalStore(root, journal).recover() == 0
    assert journal.entries() == []


@pytest.mark.parametrize("seconds", [10**12, -(10**12)])
def test_a_time_that_no_calendar_has_is_its_nearest(tmp_path: Path, seconds: int) -> None:
    store = LocalStore(tmp_path, Journal(None))
    store.create("a", [b"x"])
    try:
        os.utime(tmp_path / "a", (seconds, seconds))
    except OverflowError:
        pytest.skip("this file system has no such times")
    (item,) = store.list()
    assert item.modified.year in (1, 9999) or abs(item.modified.timestamp()) < abs(seconds)


def test_limits_hold_for_both_directions(tmp_path: Path) -> None:
    rate = 2_000_000
    data = os.urandom(1_000_000)
    store = LocalStore(tmp_path, Journal(None), limits=Limits(upload=rate, download=rate))
    for transfer in (lambda: store.create("a", [data]), lambda: b"".join(store.read("a"))):
        started = time.monotonic()
        transfer()
        assert time.monotonic() - started >= len(data) / rate - 0.125
    assert (tmp_path / "a").read_bytes() == data


def test_a_limit_keeps_nobody_who_gives_up(tmp_path: Path) -> None:
    """At the limit, each would take a quarter of an hour."""
    store = LocalStore(tmp_path, Journal(None), limits=Limits(upload=1000, download=1000))
    (tmp_path / "whole").write_bytes(bytes(1_000_000))
    begun = threading.Event()

    def body() -> Iterator[bytes]:
        begun.set()
        yield bytes(1_000_000)

    def read() -> list[bytes]:
        blocks = store.read("whole")
        begun.set()
        return list(blocks)

    for attempt in (lambda: store.create("a", body()), read):
        begun.clear()
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(attempt)
            assert begun.wait(PATIENCE)
            time.sleep(0.1)
            started = time.monotonic()
            store.abandon()
            with pytest.raises(StorageError, match="given up"):
                running.result()
        assert time.monotonic() - started < PATIENCE
    assert [item.key for item in store.list()] == ["whole"]
    assert list(tmp_path.rglob("*.partial")) == []
