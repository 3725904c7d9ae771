"""Nothing is moved into place before the disk has it, and what the disk refuses is said."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from archiver.errors import TargetError
from archiver.sinks import durability
from archiver.sinks.durability import FileSystem, begin_writing, reports_errors, sync_file
from archiver.sinks.files import StagedFile
from tests.environment.live import open_descriptors


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that ``os.fsync`` was called for."""
    inodes: list[int] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return inodes


def test_a_file_system_is_synced_once_for_all_files(tmp_path: Path, synced: list[int]) -> None:
    before = open_descriptors()
    with FileSystem(tmp_path) as system:
        with StagedFile(tmp_path / "file", 3) as file:
            file.write_at(0, b"abc")
            file.finish("6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85")
        assert system.device == tmp_path.stat().st_dev
        system.sync()
    assert not synced
    assert open_descriptors() == before


def test_an_error_of_the_disk_is_a_target_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def syncfs(descriptor: int) -> int:
        asked.append(os.fstat(descriptor).st_ino)
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(durability, "_syncfs", lambda: syncfs)
    with (
        FileSystem(tmp_path) as system,
        pytest.raises(TargetError, match=r"could not be written to disk: input/output"),
    ):
        system.sync()
    assert asked == [tmp_path.stat().st_ino]


def test_without_syncfs_every_file_is_synced_by_itself(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "_syncfs", lambda: None)
    with FileSystem(tmp_path) as system:
        with (tmp_path / "file").open("wb") as file:
            sync_file(file.fileno())
        system.sync()
    assert synced == [(tmp_path / "file").stat().st_ino]


@pytest.mark.parametrize(
    ("release", "expected"),
    [("4.18.0-553.el8", False), ("5.7.19", False), ("5.8.0", True), ("5.10.0-30", True), ("6.1", True), ("odd", False)],
)
def test_only_a_kernel_that_reports_errors_is_believed(release: str, expected: bool) -> None:
    assert reports_errors(release) == expected


def test_to_begin_writing_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"abc")
        file.flush()
        begin_writing(file.fileno(), 0, 3)
    begin_writing(10**6, 0, 3)
    monkeypatch.setattr(durability, "_sync_file_range", lambda: None)
    begin_writing(10**6, 0, 3)


def test_a_function_that_the_library_lacks_is_none() -> None:
    assert durability._function("no_such_function_of_any_c_library", []) is None
