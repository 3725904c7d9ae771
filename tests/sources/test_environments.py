"""Pinning the environments of a source: all or none, each once."""

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.catalog.records import DatabaseRecord, Extent
from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import SnapshotChangedError
from archiver.errors import FormatError, NotFoundError
from archiver.sources.environments import (
    EnvironmentSpec,
    data_files,
    database_records,
    environment_record,
    pin_all,
)
from tests.environment.live import make_environment, open_descriptors, writer


def spec(name: str, directory: Path) -> EnvironmentSpec:
    return EnvironmentSpec(name, directory, None)


def test_all_are_pinned_in_order_and_released(tmp_path: Path) -> None:
    names = ["vector", "graph", "visual"]
    descriptors = open_descriptors()
    with pin_all([spec(name, make_environment(tmp_path / name)) for name in names]) as pins:
        assert [snapshot.name for snapshot in pins] == names
        assert len(pins) == 3
        assert pins[-1].name == "visual"
        assert [snapshot.name for snapshot in pins[1:]] == names[1:]
        assert timedelta(0) <= pins.skew == pins[2].pinned - pins[0].pinned < timedelta(minutes=1)
        assert pins.duplicates == []
    assert open_descriptors() == descriptors


def test_none_is_an_empty_list(tmp_path: Path) -> None:
    with pin_all([]) as pins:
        assert list(pins) == []
        assert pins.skew == timedelta(0)


def test_one_environment_under_several_paths_is_pinned_once(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "data")
    (tmp_path / "link").symlink_to(directory)
    other = make_environment(tmp_path / "other")
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "data.mdb").hardlink_to(directory / "data.mdb")
    paths = {"vector": directory, "graph": tmp_path / "link", "other": other, "visual": tmp_path / "hard"}
    with pin_all([spec(name, path) for name, path in paths.items()]) as pins:
        assert [snapshot.name for snapshot in pins] == ["vector", "other"]
        assert pins.duplicates == [("graph", "vector"), ("visual", "vector")]


@pytest.mark.parametrize("broken", ["missing", "empty"])
def test_when_one_cannot_be_pinned_none_is(tmp_path: Path, broken: str) -> None:
    with writer(tmp_path / "vector") as live:
        (tmp_path / "graph").mkdir()
        if broken == "empty":
            (tmp_path / "graph" / "data.mdb").touch()
        with (
            pytest.raises((NotFoundError, FormatError), match=r"data\.mdb"),
            pin_all([spec(name, tmp_path / name) for name in ("vector", "graph")]),
        ):
            pass
        assert str(os.getpid()) not in str(live.ask("readers"))


def test_a_cold_copy_that_a_writer_disturbed_succeeds_when_repeated(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "vector", entries=3000)
    with pin_all([spec("vector", directory)]) as pins:
        (snapshot,) = pins
        stream = copy_stream(snapshot, 4096)
        next(stream)
        with writer(directory):
            pass
        with pytest.raises(SnapshotChangedError):
            list(stream)
    with pin_all([spec("vector", directory)]) as pins:
        assert pins[0].txnid > snapshot.txnid
        assert len(b"".join(copy_stream(pins[0], 1 << 20))) == pins[0].estimated_copy_size
    assert "archiver-copy" not in {thread.name for thread in threading.enumerate()}


def test_databases_as_the_catalog_records_them(tmp_path: Path) -> None:
    with pin_all([spec("vector", make_environment(tmp_path))]) as pins:
        records = database_records(pins[0])
    assert records[0] == DatabaseRecord(entries=9)
    assert DatabaseRecord(name="reverse", entries=200, flags=["reverse_key"]) in records
    assert DatabaseRecord(name="integers", entries=200, flags=["dupsort", "integerdup", "dupfixed"]) in records
    assert DatabaseRecord(name_b64="//4gbm90IHRleHQ=", entries=200) in records
    assert len(records) == 8


def test_the_record_of_a_copy(tmp_path: Path) -> None:
    directory = make_environment(tmp_path)
    (directory / "data.mdb").chmod(0o640)
    with pin_all([spec("vector", directory)]) as pins:
        whole = Extent(offset=0, length=8192, object="0" * 32, object_offset=0)
        record = environment_record(pins[0], 8192, "ab" * 32, [whole])
        assert record.databases == database_records(pins[0])
    status = (directory / "data.mdb").stat()
    assert (record.name, record.method, record.size, record.txnid) == ("vector", "cold", 8192, pins[0].txnid)
    assert (record.mode, record.uid, record.gid) == (0o640, status.st_uid, status.st_gid)


def test_data_files_tells_what_the_media_walk_must_not_open(tmp_path: Path) -> None:
    status = (make_environment(tmp_path / "vector") / "data.mdb").stat()
    assert data_files([spec("vector", tmp_path / "vector")]) == {(status.st_dev, status.st_ino)}
