"""Objects on their way into the store: what overlaps, what is bounded, and who hears of what goes wrong."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random

import lmdb
import pytest
from blake3 import blake3

from archiver.buffers import Buffer
from archiver.catalog.names import BackupPlace
from archiver.catalog.records import DirectoryRecord, ObjectRecord
from archiver.config import DEFAULT_CLASSES, PinLimits, Tuning
from archiver.crypto.age import unseal
from archiver.crypto.minisign import SigningKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import PinGivenUpError, StorageError
from archiver.operations.backup_environments import EnvironmentCopies
from archiver.operations.backup_lists import BackupLists
from archiver.operations.backup_request import BackupRequest
from archiver.operations.sources import Source
from archiver.operations.uploads import CREATES, MEMORY, Uploads
from archiver.progress import UPLOAD, Silent
from archiver.sources.entries import UnreadableError
from archiver.sources.environments import EnvironmentSpec
from archiver.stages.frames import decompress
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from archiver.stores.memory import MemoryStore
from tests.waiting import PATIENCE, wait_until

PART = 64 * 1024
PLACE = BackupPlace("daily", "prod", "20261129T000000Z-abcdef")
VAULT = X25519Identity.generate()


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class GatedStore(MemoryStore):
    """Takes nothing of a body, or does not say that it has all of it, until a gate is opened."""

    part_size = PART

    def __init__(self, *, before: bool = True, after: bool = True) -> None:
        super().__init__()
        self.before = threading.Event()
        self.after = threading.Event()
        if before:
            self.before.set()
        if after:
            self.after.set()
        self.taken: dict[str, int] = {}
        """Bytes by key, in the order in which the creates began."""
        self.running = 0
        self.most_running = 0
        self._counting = threading.Lock()

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        with self._counting:
            self.taken[key] = 0
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            self._pass(self.before)
            data = b""
            for part in body:
                assert len(part) <= PART
                data += part
                self.taken[key] = len(data)
            self._pass(self.after)
            return super().create(key, [data])
        finally:
            with self._counting:
                self.running -= 1

    def abandon(self) -> None:
        self.before.set()
        self.after.set()

    def _pass(self, gate: threading.Event) -> None:
        if not gate.wait(PATIENCE):
            raise StorageError("nobody opened the gate")


def request_in(state: Path, *, spool: int = 1 << 30, environments: tuple[EnvironmentSpec, ...] = ()) -> BackupRequest:
    return BackupRequest(
        source=Source("prod", environments, None, ()),
        retention_class="daily",
        classes=DEFAULT_CLASSES,
        vault=VAULT.recipient,
        signing_key=SigningKey.generate(),
        state_directory=state,
        tuning=Tuning(frame_size=PART // 2, workers=2, spool=spool),
        pin=PinLimits(headroom=1),
    )


def noise(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, PART // 2, 3 * PART, 20 * PART + 1])
@pytest.mark.parametrize("memory", [1, MEMORY])
def test_what_was_written_is_in_the_store_when_the_block_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, memory: int
) -> None:
    """Through memory, or all but one part through the disk."""
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", memory)
    heard: list[tuple[ObjectRecord, StoredObject]] = []
    store = GatedStore(before=False)
    with Uploads(store, PLACE, request_in(tmp_path), Silent(), lambda *of: heard.append(of)) as uploads:
        written = {uploads.write("file", [noise(size, seed)]): noise(size, seed) for seed in range(5)}
        assert heard == []
        store.before.set()
    assert {record for record, _ in heard} == set(written)
    for record, item in heard:
        sealed = b"".join(store.read(item.key))
        assert (record.id in item.key, record.stored_size, item.size) == (True, len(sealed), len(sealed))
        assert record.blake3 == blake3(sealed).hexdigest()
        assert b"".join(decompress(unseal([sealed], [VAULT]))) == written[record]
        assert record.plaintext_size == size


def test_the_next_object_is_sent_while_the_store_completes_the_last(tmp_path: Path) -> None:
    store = GatedStore(after=False)
    with Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads:
        records = [uploads.write("file", [noise(2 * PART)]) for _ in range(CREATES + 2)]
        wait_until(lambda: [taken for taken in store.taken.values() if taken] == [records[0].stored_size] * CREATES)
        time.sleep(0.05)
        # No more of them than that; the others wait, sealed.
        assert len(store.taken) == CREATES
        assert list(store.list()) == []
        store.after.set()
    assert store.most_running == CREATES
    assert len(list(store.list())) == len(records)
    assert [record.id in key for record, key in zip(records, store.taken, strict=True)] == [True] * len(records)


def make_noise(directory: Path) -> None:
    """An environment of 2 MiB that does not compress."""
    directory.mkdir()
    with lmdb.open(str(directory), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number in range(512):
            transaction.put(b"%d" % number, noise(4000, number))


def copies(store: GatedStore, request: BackupRequest) -> "tuple[Uploads, BackupLists, EnvironmentCopies]":
    uploads = Uploads(store, PLACE, request, Silent())
    lists = BackupLists(MemoryStore(), PLACE, request.vault, request.tuning, Silent())
    return uploads, lists, EnvironmentCopies(request, uploads, lists, Silent())


def test_a_pin_ends_however_slow_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This one takes nothing at all. What is sealed lies on disk, and in bounded memory."""
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", 2 * PART)
    make_noise(tmp_path / "vector")
    store = GatedStore(before=False)
    state = tmp_path / "state"
    state.mkdir()
    environment = EnvironmentSpec("vector", tmp_path / "vector", None)
    uploads, lists, environments = copies(store, request_in(state, environments=(environment,)))
    with lists, uploads:
        (record,), _ = environments.copy()
        assert sum(store.taken.values()) == 0
        (spooled,) = spooled_bytes(state)
        assert spooled > 4 * PART
        store.before.set()
    assert sum(store.taken.values()) == lists.totals.stored_bytes
    assert record.size == lists.totals.plaintext_bytes


def test_no_more_records_wait_for_a_slow_store_than_memory_is_meant_for(tmp_path: Path) -> None:
    store = GatedStore(before=False)
    many = threading.Event()
    waited: list[bool] = []

    def open_gate() -> None:
        waited.append(not many.wait(1))
        store.before.set()

    opener = threading.Thread(target=open_gate)
    opener.start()
    with BackupLists(store, PLACE, VAULT.recipient, Tuning(), Silent()) as lists:
        for number in range(3000):
            if number == 2000:
                many.set()
            lists.put(DirectoryRecord(path=str(number), mode=0o755, mtime_ns=1, uid=0, gid=0))
    opener.join()
    assert waited == [True]


def test_the_level_is_learned_across_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack has fewer frames than a decision needs."""
    asked: list[tuple[int, bool]] = []

    def levels(_: object, waiting: Callable[[], int], *, pinned: bool) -> Callable[[], int]:
        count = 0

        def level() -> int:
            nonlocal count
            count += 1
            asked.append((count, pinned))
            return 1

        assert waiting() == 0
        return level

    monkeypatch.setattr("archiver.operations.uploads.levels", levels)
    with Uploads(GatedStore(), PLACE, request_in(tmp_path), Silent()) as uploads:
        for pinned in (True, False, True, False):
            uploads.write("file", [b"one frame"], pinned=pinned)
    assert asked == [(1, True), (1, False), (2, True), (2, False)]


class Heard(Silent):
    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.advanced = 0

    def phase(self, name: str, total: int | None = None) -> None:
        self.phases.append((name, total))
        self.advanced = 0

    def advance(self, count: int) -> None:
        self.advanced += count


def test_progress_tells_of_what_is_still_to_be_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", 2 * PART)
    store, heard = GatedStore(before=False), Heard()
    with Uploads(store, PLACE, request_in(tmp_path), heard) as uploads:
        record = uploads.write("file", [noise(10 * PART)])
        assert (heard.phases, heard.advanced) == ([], 10 * PART)
        threading.Timer(0.1, store.before.set).start()
    assert heard.phases == [(UPLOAD, record.stored_size)]
    assert heard.advanced == record.stored_size


def spooled_bytes(state: Path) -> list[int]:
    """The sizes of files without a name in ``state`` that this process has open."""
    links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return [os.stat(link).st_size for link in links if os.path.lexists(link) and f"{state}/" in os.readlink(link)]


def test_the_spool_on_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", 2 * PART)
    store = GatedStore(before=False)
    read = 0

    def plaintext() -> Iterator[bytes]:
        nonlocal read
        for seed in range(60):
            yield noise(PART // 2, seed)
            read += 1

    with Uploads(store, PLACE, request_in(tmp_path, spool=5 * PART), Silent()) as uploads:
        writing = threading.Thread(target=lambda: uploads.write("file", plaintext()))
        writing.start()
        wait_until(lambda: spooled_bytes(tmp_path) == [5 * PART])
        seen = -1
        while seen != read:
            seen = read
            time.sleep(0.1)
        # Seven parts wait, one has no place, and frames are ahead of it.
        assert 14 <= read < 30
        assert spooled_bytes(tmp_path) == [5 * PART]
        store.before.set()
        writing.join()
    assert read == 60


class FailingStore(GatedStore):
    """Fails the create that begins as number ``at``, from 0."""

    def __init__(self, at: int, *, moment: str, after: bool = True) -> None:
        super().__init__(after=after)
        self._at = at
        self._moment = moment

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        if len(self.taken) != self._at:
            return super().create(key, body)
        self.taken[key] = 0
        if self._moment == "before":
            raise StorageError("the network is gone")
        next(iter(body))
        if self._moment == "middle":
            raise StorageError("the network is gone")
        list(body)
        raise StorageError("the network is gone")


@pytest.mark.parametrize("moment", ["before", "middle", "after"])
def test_an_error_of_the_store_is_raised_by_the_next_write(tmp_path: Path, moment: str) -> None:
    store = FailingStore(1, moment=moment)
    written = 0
    with (
        pytest.raises(StorageError, match="the network is gone"),
        Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads,
    ):
        for _ in range(10_000):
            uploads.write("file", [noise(2 * PART)])
            written += 1
    assert 1 <= written < 10_000


def test_an_error_of_the_store_reaches_a_write_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", PART)
    store = FailingStore(0, moment="middle")
    opened = threading.Event()

    def plaintext() -> Iterator[bytes]:
        while True:
            yield noise(PART)
            opened.set()

    create = store.create

    def late(key: str, body: Iterable[Buffer]) -> StoredObject:
        assert opened.wait(PATIENCE)
        time.sleep(0.2)
        return create(key, body)

    monkeypatch.setattr(store, "create", late)
    raised = 0
    # Whoever does not let it through does not get to the end of the block without it.
    with (
        pytest.raises(StorageError, match="the network is gone"),
        Uploads(store, PLACE, request_in(tmp_path, spool=0), Silent()) as uploads,
    ):
        for endless in (plaintext(), plaintext()):
            with pytest.raises(StorageError, match="the network is gone"):
                uploads.write("file", endless)
            raised += 1
    assert raised == 2


@pytest.mark.parametrize("moment", ["before", "middle", "after"])
def test_an_error_of_the_store_is_raised_at_the_end_of_the_block(tmp_path: Path, moment: str) -> None:
    """Not what the others then end with, which are given up: the first create would never complete by itself."""
    store = FailingStore(1, moment=moment, after=False)
    release = store.create
    begun = threading.Event()

    def late(key: str, body: Iterable[Buffer]) -> StoredObject:
        if len(store.taken) == 1:
            assert begun.wait(PATIENCE)
        return release(key, body)

    store.create = late  # type: ignore[method-assign]
    with (
        pytest.raises(StorageError, match="the network is gone"),
        Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads,
    ):
        uploads.write("file", [noise(PART)])
        wait_until(lambda: len(store.taken) == 1)
        uploads.write("file", [noise(PART)])
        threading.Timer(0.1, begun.set).start()


def test_an_error_of_who_hears_of_objects_fails_the_block(tmp_path: Path) -> None:
    def stored(_: ObjectRecord, __: StoredObject) -> None:
        raise StorageError("it cannot be written down")

    with (
        pytest.raises(StorageError, match="it cannot be written down"),
        Uploads(GatedStore(), PLACE, request_in(tmp_path), Silent(), stored) as uploads,
    ):
        uploads.write("file", [b"data"])


def test_a_store_that_leaves_some_of_the_body_is_no_success(tmp_path: Path) -> None:
    class Careless(GatedStore):
        def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
            return super().create(key, [next(iter(body))])

    heard: list[object] = []
    with (
        pytest.raises(RuntimeError, match="ended before the body"),
        Uploads(Careless(), PLACE, request_in(tmp_path), Silent(), lambda *of: heard.append(of)) as uploads,
    ):
        uploads.write("file", [noise(2 * PART)])
    assert heard == []


@pytest.mark.parametrize(
    "error", [UnreadableError(b"film.mp4", "it is gone"), PinGivenUpError("too little room")], ids=["media", "pin"]
)
@pytest.mark.parametrize("passed", [0, 6])
def test_plaintext_that_fails_makes_no_object_and_others_go_on(
    tmp_path: Path, error: BaseException, passed: int
) -> None:
    heard: list[ObjectRecord] = []
    store = LocalStore(tmp_path / "destination", Journal(tmp_path / "journal"))

    def failing() -> Iterator[bytes]:
        for seed in range(passed):
            yield noise(1 << 20, seed)
        raise error

    with Uploads(store, PLACE, request_in(tmp_path), Silent(), lambda record, _: heard.append(record)) as uploads:
        good = [uploads.write("file", [noise(PART)])]
        for _ in range(5):
            with pytest.raises(type(error)) as caught:
                uploads.write("file", failing())
            assert caught.value is error
            good.append(uploads.write("file", [noise(PART)]))
    assert sorted(record.id for record in heard) == sorted(record.id for record in good)
    assert len(list(store.list())) == len(good)
    check_nothing_open(tmp_path)


def check_nothing_open(root: Path) -> None:
    assert list(root.rglob("*.partial")) == []
    assert (root / "journal").read_text() == ""


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), SystemExit(1)])
def test_an_error_that_leaves_the_block_ends_all_creates(tmp_path: Path, error: BaseException) -> None:
    store = GatedStore(after=False)
    began = time.monotonic()
    with pytest.raises(type(error)) as caught, Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads:
        for _ in range(CREATES + 2):
            uploads.write("file", [noise(2 * PART)])
        raise error
    assert caught.value is error
    assert time.monotonic() - began < PATIENCE
    # What had not begun never did.
    assert len(store.taken) <= CREATES


def test_nothing_is_left_open_in_the_store_by_an_interrupt(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "destination", Journal(tmp_path / "journal"))

    def plaintext() -> Iterator[bytes]:
        while True:
            yield noise(1 << 20)
            if list(tmp_path.rglob("*.partial")):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads:
        uploads.write("file", plaintext())
    assert list(store.list()) == []
    check_nothing_open(tmp_path)
    assert spooled_bytes(tmp_path) == []


def test_an_interrupt_while_the_store_completes_what_it_has(tmp_path: Path) -> None:
    store = GatedStore(after=False)
    with pytest.raises(KeyboardInterrupt), Uploads(store, PLACE, request_in(tmp_path), Silent()) as uploads:
        uploads.write("file", [noise(PART)])
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_an_interrupt_while_the_end_is_announced_ends_all_creates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen may take a while, and Ctrl-C comes when it likes."""
    monkeypatch.setattr("archiver.operations.uploads.MEMORY", PART)

    class Interrupted(Silent):
        def phase(self, name: str, total: int | None = None) -> None:  # noqa: ARG002 - of the protocol
            raise KeyboardInterrupt

    store = GatedStore(before=False)
    with pytest.raises(KeyboardInterrupt), Uploads(store, PLACE, request_in(tmp_path), Interrupted()) as uploads:
        for _ in range(CREATES + 2):
            uploads.write("file", [noise(5 * PART)])
        assert spooled_bytes(tmp_path) != []
    assert list(store.list()) == []
    assert len(store.taken) <= CREATES
    assert spooled_bytes(tmp_path) == []
