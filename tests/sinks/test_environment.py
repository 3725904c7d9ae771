"""Restored environments: proven before they count, swapped in without a gap, never beside a live process."""

import errno
import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import lmdb
import msgspec
import pytest
from blake3 import blake3

from archiver.catalog.records import DatabaseRecord, EnvironmentRecord, Extent
from archiver.config import PinLimits
from archiver.environment.copying import copy_stream
from archiver.environment.locks import inspect_lock
from archiver.environment.meta import read_meta
from archiver.errors import ArchiverError, BusyError, FormatError, IntegrityError, SourceError, TargetError
from archiver.sinks import environment as sinks
from archiver.sinks.environment import EnvironmentSink, refuse_live, swap_environment
from archiver.sources.environments import EnvironmentSpec, environment_record, pin_all
from tests.environment.live import LiveProcess, make_environment, read_content, writer
from tests.heed import HeedWriter


@dataclass
class Backup:
    copy: bytes
    record: EnvironmentRecord
    original: Path


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    directory = make_environment(tmp_path / "original", entries=400)
    (directory / "data.mdb").chmod(0o640)
    with pin_all([EnvironmentSpec("vector", directory, None)], PinLimits(), tmp_path) as pins:
        (snapshot,) = pins
        copy = b"".join(copy_stream(snapshot, 1 << 20))
        whole = Extent(offset=0, length=len(copy), object="0" * 32, object_offset=0)
        record = environment_record(snapshot, len(copy), blake3(copy).hexdigest(), [whole])
    return Backup(copy, record, directory)


def restore(backup: Backup, staging: Path, copy: bytes | None = None, *, thorough: bool = False) -> Path:
    content = backup.copy if copy is None else copy
    with EnvironmentSink(staging, backup.record) as sink:
        for start in reversed(range(0, len(content), 50_000)):
            sink.write_at(start, content[start : start + 50_000])
        return sink.finish(thorough=thorough)


def refuse_link(source: object, target: object, **_: object) -> None:
    """``os.link`` on a file system without hard links."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_restored_environment_equals_the_original(backup: Backup, tmp_path: Path) -> None:
    data = restore(backup, tmp_path / "target" / "staging")
    assert data == tmp_path / "target" / "staging" / "data.mdb"
    assert stat.S_IMODE(data.stat().st_mode) == 0o640
    assert read_content(data) == read_content(backup.original / "data.mdb")
    assert os.listdir(data.parent) == ["data.mdb"]


def test_a_restored_environment_is_written_to_again(backup: Backup, tmp_path: Path) -> None:
    data = restore(backup, tmp_path / "restored")
    with lmdb.open(str(data.parent), map_size=backup.record.map_size, max_dbs=16, lib_version=0) as environment:
        database = environment.open_db(b"plain")
        with environment.begin(write=True, db=database) as transaction:
            transaction.put(b"new key", b"new value")
        with environment.begin(db=database) as reader:
            assert reader.get(b"new key") == b"new value"


def test_nobody_else_can_read_it_before_it_is_proven(backup: Backup, tmp_path: Path) -> None:
    with EnvironmentSink(tmp_path / "staging", backup.record) as sink:
        assert stat.S_IMODE(sink.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(sink.path.parent.stat().st_mode) == 0o700


def test_wrong_bytes_are_refused(backup: Backup, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        restore(backup, tmp_path / "flipped", backup.copy[:-1] + bytes([backup.copy[-1] ^ 1]))
    with pytest.raises(IntegrityError):
        restore(backup, tmp_path / "short", backup.copy[: len(backup.copy) // 2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"databases": [DatabaseRecord(entries=1)]}, "the main database of .*: expected 1 entries, got 9"),
        ({"page_size": 8192}, "in pages of 8192, got .* in pages of 4096"),
        ({"databases": []}, "which it should not"),
    ],
)
def test_bytes_that_are_right_but_not_what_the_record_says(
    backup: Backup, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    backup.record = msgspec.structs.replace(backup.record, **changes)
    with pytest.raises(IntegrityError, match=message):
        restore(backup, tmp_path / "staging")


def test_every_page_is_looked_at_where_that_is_asked_for_or_something_is_wrong(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    monkeypatch.setattr(sinks, "verify_structure", looked.append)
    restore(backup, tmp_path / "one")
    assert not looked
    restore(backup, tmp_path / "two", thorough=True)
    assert looked == [tmp_path / "two" / "data.mdb"]
    backup.record = msgspec.structs.replace(backup.record, databases=[])
    with pytest.raises(IntegrityError, match="which it should not"):
        restore(backup, tmp_path / "three")
    assert looked[1:] == [tmp_path / "three" / "data.mdb"]


@pytest.mark.parametrize("error", [SourceError("LMDB says no"), FormatError("LMDB says no")])
def test_a_copy_that_lmdb_does_not_open_is_refused_with_a_way_to_its_bytes(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ArchiverError
) -> None:
    def refuse(_: Path) -> None:
        raise error

    monkeypatch.setattr(sinks, "count_entries", refuse)
    with pytest.raises(IntegrityError, match="LMDB says no") as caught:
        restore(backup, tmp_path / "staging")
    assert caught.value.hint is not None
    assert "archiver cat" in caught.value.hint


@pytest.mark.parametrize("thorough", [True, False])
def test_a_copy_that_was_unsound_from_the_start(backup: Backup, tmp_path: Path, thorough: bool) -> None:
    """Of a page that is not needed to count entries: a restore gives back what was backed up, a drill finds it."""
    unsound = bytearray(backup.copy)
    unsound[2 * 4096] ^= 1
    backup.copy = bytes(unsound)
    backup.record = msgspec.structs.replace(backup.record, blake3=blake3(backup.copy).hexdigest())
    if thorough:
        with pytest.raises(IntegrityError, match="is corrupt"):
            restore(backup, tmp_path / "staging", thorough=True)
    else:
        assert restore(backup, tmp_path / "staging").read_bytes() == backup.copy


def test_what_lmdb_cannot_open_is_told_by_a_look_at_every_page(backup: Backup, tmp_path: Path) -> None:
    unsound = bytearray(backup.copy)
    (tmp_path / "data.mdb").write_bytes(backup.copy)
    root = read_meta(tmp_path / "data.mdb").main.root
    unsound[root * 4096 + 10] = 0x40
    backup.copy = bytes(unsound)
    backup.record = msgspec.structs.replace(backup.record, blake3=blake3(backup.copy).hexdigest())
    with pytest.raises(IntegrityError, match=f"is corrupt: .*{root}"):
        restore(backup, tmp_path / "staging")


def test_a_live_process_is_refused_whatever_its_lock_format(backup: Backup, tmp_path: Path, heed_writer: Path) -> None:
    target = tmp_path / "graph"
    refuse_live(tmp_path)
    staged = restore(backup, target / "staging")
    with writer(target) as live:
        before = sorted(os.listdir(target))
        with pytest.raises(BusyError, match=f"pid {live.pid}") as refusal:
            swap_environment(staged, target, target / "before", keep_owner=True)
        assert refusal.value.exit_code == 6
        assert sorted(os.listdir(target)) == before
    with (
        HeedWriter.start(heed_writer, tmp_path, only="graph", paused=True) as server,
        pytest.raises(BusyError, match=f"pid {server.pid}"),
    ):
        swap_environment(staged, target, target / "before", keep_owner=True)
    assert staged.exists()


def test_the_swap_keeps_what_was_there(backup: Backup, tmp_path: Path) -> None:
    target = make_environment(tmp_path / "target", entries=10)
    old = read_content(target / "data.mdb")
    (target / "data.mdb").chmod(0o600)
    if os.geteuid() == 0:
        os.chown(target / "data.mdb", 1000, 1001)
    swap_environment(restore(backup, target / "staging"), target, target / "before", keep_owner=True)
    assert read_content(target / "data.mdb") == read_content(backup.original / "data.mdb")
    assert read_content(target / "before" / "data.mdb") == old
    assert sorted(os.listdir(target / "before")) == ["data.mdb", "lock.mdb"]
    assert sorted(os.listdir(target)) == ["before", "data.mdb", "staging"]
    status = (target / "data.mdb").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert os.geteuid() != 0 or (status.st_uid, status.st_gid) == (1000, 1001)


@pytest.mark.parametrize(("existing", "keep_owner"), [(True, False), (False, True), (False, False)])
def test_the_swap_leaves_the_owner_that_the_file_was_given(
    backup: Backup, tmp_path: Path, existing: bool, keep_owner: bool
) -> None:
    target = tmp_path / "target"
    if existing:
        make_environment(target, entries=10)
        (target / "data.mdb").chmod(0o600)
    staged = restore(backup, target / "staging")
    if os.geteuid() == 0:
        os.chown(target, 1000, 1001)
        os.chown(staged, 2000, 2001)
    swap_environment(staged, target, target / "before", keep_owner=keep_owner)
    status = (target / "data.mdb").stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert os.geteuid() != 0 or (status.st_uid, status.st_gid) == (2000, 2001)
    assert sorted(os.listdir(target / "before")) == (["data.mdb", "lock.mdb"] if existing else [])


class TestRaces:
    """Processes that open the target while the swap is under way: real ones, started at a chosen call."""

    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        return make_environment(tmp_path / "target", entries=10)

    def test_one_that_opens_the_old_file_is_told_with_where_its_writes_are(
        self, backup: Backup, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staged = restore(backup, target / "staging")
        keep = sinks._keep
        with ExitStack() as stack:

            def open_late(data: Path, kept: Path) -> None:
                stack.enter_context(writer(target))
                keep(data, kept)

            monkeypatch.setattr(sinks, "_keep", open_late)
            with pytest.raises(BusyError, match=f"opened {target} during the swap: its writes went to") as refusal:
                swap_environment(staged, target, target / "before", keep_owner=True)
        assert refusal.value.exit_code == 6
        assert refusal.value.hint is not None
        assert f"look in {target / 'before'} for what it wrote" in refusal.value.hint
        assert read_content(target / "data.mdb") == read_content(backup.original / "data.mdb")
        assert b"left" in read_content(target / "before" / "data.mdb")

    @pytest.mark.parametrize("hard_links", [True, False])
    def test_one_that_opens_just_before_gets_its_lock_file_back(
        self, backup: Backup, target: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
    ) -> None:
        staged = restore(backup, target / "staging")
        old = (target / "lock.mdb").stat().st_ino
        move_lock = sinks._move_lock
        if not hard_links:
            monkeypatch.setattr(os, "link", refuse_link)
        with ExitStack() as stack:
            first: list[LiveProcess] = []

            def open_before(lock: Path, kept: Path) -> None:
                first.append(stack.enter_context(writer(target)))
                move_lock(lock, kept)

            monkeypatch.setattr(sinks, "_move_lock", open_before)
            with pytest.raises(BusyError) as refusal:
                swap_environment(staged, target, target / "before", keep_owner=True)
            assert f"pid {first[0].pid}) has the environment in {target} open" in refusal.value.message
            assert os.listdir(target / "before") == []
            assert (target / "lock.mdb").stat().st_ino == old
            with pytest.raises(BusyError, match=f"pid {first[0].pid}"):
                refuse_live(target)
        assert staged.exists()

    def test_a_lock_file_that_a_second_process_made_is_never_overwritten(
        self, backup: Backup, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        staged = restore(backup, target / "staging")
        move_lock, put_back = sinks._move_lock, sinks._put_back
        with ExitStack() as stack:
            opened: list[LiveProcess] = []

            def open_before(lock: Path, kept: Path) -> None:
                opened.append(stack.enter_context(writer(target)))
                move_lock(lock, kept)

            def open_after(kept: Path, lock: Path) -> None:
                opened.append(stack.enter_context(writer(target)))
                put_back(kept, lock)

            with monkeypatch.context() as patches:
                patches.setattr(sinks, "_move_lock", open_before)
                patches.setattr(sinks, "_put_back", open_after)
                with pytest.raises(BusyError, match=f"has the environment in {target} open"):
                    swap_environment(staged, target, target / "before", keep_owner=True)
            first, second = opened
            assert inspect_lock(target).holder == second.pid
            assert inspect_lock(target / "before").holder == first.pid
            second.kill()
            with pytest.raises(BusyError, match=f"pid {first.pid}"):
                swap_environment(staged, target, target / "before", keep_owner=True)
        swap_environment(staged, target, target / "before", keep_owner=True)
        assert read_content(target / "data.mdb") == read_content(backup.original / "data.mdb")


@pytest.mark.parametrize("step", ["kept", "locked"])
def test_the_swap_is_repeated_after_a_crash(backup: Backup, tmp_path: Path, step: str) -> None:
    target = make_environment(tmp_path / "target", entries=10)
    old = read_content(target / "data.mdb")
    staged = restore(backup, target / "staging")
    (target / "before").mkdir()
    (target / "lock.mdb").rename(target / "before" / "lock.mdb")
    if step == "kept":
        (target / "before" / "data.mdb").hardlink_to(target / "data.mdb")
    swap_environment(staged, target, target / "before", keep_owner=True)
    assert read_content(target / "data.mdb") == read_content(backup.original / "data.mdb")
    assert read_content(target / "before" / "data.mdb") == old


def test_what_was_kept_before_is_never_overwritten(backup: Backup, tmp_path: Path) -> None:
    target = make_environment(tmp_path / "target", entries=10)
    old = (target / "data.mdb").read_bytes()
    staged = restore(backup, target / "staging")
    (target / "before").mkdir()
    (target / "before" / "data.mdb").write_bytes(b"kept")
    with pytest.raises(TargetError, match=r"cannot put .*data\.mdb in place: file exists"):
        swap_environment(staged, target, target / "before", keep_owner=True)
    assert (target / "before" / "data.mdb").read_bytes() == b"kept"
    assert (target / "data.mdb").read_bytes() == old


def test_a_file_system_without_hard_links(backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_environment(tmp_path / "target", entries=10)
    old = read_content(target / "data.mdb")
    staged = restore(backup, target / "staging")
    monkeypatch.setattr(os, "link", refuse_link)
    swap_environment(staged, target, target / "before", keep_owner=True)
    assert read_content(target / "before" / "data.mdb") == old
    assert read_content(target / "data.mdb") == read_content(backup.original / "data.mdb")
