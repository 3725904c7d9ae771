"""The journal survives its writer."""

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import StorageError
from archiver.stores.journal import Journal


def test_entries_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal"
    journal = Journal(path)
    for entry in ("one", "two words", "three"):
        journal.add(entry)
    journal.remove("one")
    assert Journal(path).entries() == ["two words", "three"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_is_emptied_when_nothing_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.add("one")
    journal.remove("one")
    assert (tmp_path / "journal").stat().st_size == 0
    journal.remove("never added")


@given(cut=st.integers(0, 30))
def test_a_torn_line_counts_as_never_written(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path)
    for entry in ("first", "second", "third"):
        journal.add(entry)
    complete = path.read_bytes()
    os.truncate(path, min(cut, len(complete)))
    whole = complete[:cut].count(b"\n")
    after = Journal(path)
    assert after.entries() == ["first", "second", "third"][:whole]
    after.add("next")
    assert Journal(path).entries() == [*["first", "second", "third"][:whole], "next"]


def test_without_a_path_it_lives_in_memory() -> None:
    journal = Journal(None)
    journal.add("one")
    assert journal.entries() == ["one"]
    journal.remove("one")
    assert journal.entries() == []


def test_a_missing_file_is_an_empty_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing" / "journal")
    assert journal.entries() == []
    journal.remove("one")
    assert not (tmp_path / "missing").exists()


def test_an_entry_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        Journal(tmp_path / "journal").add("a\nb")


def test_an_unusable_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "journal")
    with pytest.raises(StorageError, match="cannot be used"):
        journal.add("one")


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be used"):
        Journal(tmp_path).entries()


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    Journal(path).add("first")
    write = os.write

    def fill(descriptor: int, data: bytes) -> int:
        if len(data) < 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:-4])

    with monkeypatch.context() as full:
        full.setattr(os, "write", fill)
        with pytest.raises(StorageError, match="No space left"):
            Journal(path).add("second")
    Journal(path).add("third")
    assert Journal(path).entries() == ["first", "third"]
