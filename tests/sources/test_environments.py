"""Pinning the environments of a source: all or none, each once, all at one time."""

import os
import shlex
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.catalog.records import DatabaseRecord, Extent
from archiver.config import PinLimits
from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import Helper, Snapshot
from archiver.errors import FormatError, NotFoundError, PinGivenUpError, SnapshotChangedError, SourceError
from archiver.sources import environments
from archiver.sources.environments import (
    EnvironmentSpec,
    data_files,
    database_records,
    environment_record,
    pin_all,
)
from tests.environment.live import make_environment, writer
from tests.environment.traces import children, nothing_left_behind, pins
from tests.waiting import PATIENCE, wait_until

LIMITS = PinLimits()
WHOLE = [Extent(offset=0, length=8192, object="0" * 32, object_offset=0)]


@pytest.fixture(autouse=True)
def _nothing_left_behind(workspace: Path) -> Iterator[None]:
    with nothing_left_behind():
        yield
    assert list(workspace.iterdir()) == []


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Where the copies that commands make lie."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    return directory


def spec(name: str, directory: Path, *, frozen: bool = False, command: str | None = None) -> EnvironmentSpec:
    return EnvironmentSpec(name, directory, None, frozen, None if command is None else ("sh", "-c", command))


def cat(directory: Path) -> str:
    """A command that copies an environment which nobody writes to."""
    return f"cat {shlex.quote(str(directory / 'data.mdb'))}"


def test_all_are_pinned_in_order_and_released(tmp_path: Path, workspace: Path) -> None:
    names = ["vector", "graph", "visual"]
    before = len(children())
    with pin_all([spec(name, make_environment(tmp_path / name)) for name in names], LIMITS, workspace) as pinned:
        assert [snapshot.name for snapshot in pinned] == names
        assert len(pinned) == 3
        assert pinned[-1].name == "visual"
        assert [snapshot.name for snapshot in pinned[1:]] == names[1:]
        assert timedelta(0) <= pinned.skew == pinned[2].pinned - pinned[0].pinned < timedelta(seconds=PATIENCE)
        assert pinned.duplicates == []
        pinned[1].release()
        assert len(children()) == before + 2


def test_none_is_an_empty_list(workspace: Path) -> None:
    with pin_all([], LIMITS, workspace) as pinned:
        assert list(pinned) == []
        assert pinned.skew == timedelta(0)


def test_all_helpers_run_before_the_first_pin(tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = []
    # Servers of other tests may be children, too.
    before = len(children())
    pin = Helper.pin

    def observed(helper: Helper, *arguments: Any, **options: Any) -> Snapshot:
        running.append(len(children()) - before)
        return pin(helper, *arguments, **options)

    monkeypatch.setattr(Helper, "pin", observed)
    names = ["vector", "graph", "visual"]
    with pin_all([spec(name, make_environment(tmp_path / name)) for name in names], LIMITS, workspace):
        pass
    assert running == [3, 3, 3]


def test_one_environment_under_several_paths_is_pinned_once(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "data")
    (tmp_path / "link").symlink_to(directory)
    other = make_environment(tmp_path / "other")
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "data.mdb").hardlink_to(directory / "data.mdb")
    paths = {"vector": directory, "graph": tmp_path / "link", "other": other, "visual": tmp_path / "hard"}
    with pin_all([spec(name, path) for name, path in paths.items()], LIMITS, workspace) as pinned:
        assert [snapshot.name for snapshot in pinned] == ["vector", "other"]
        assert pinned.duplicates == [("graph", "vector"), ("visual", "vector")]


@pytest.mark.parametrize("broken", ["missing", "empty", "corrupt"])
def test_when_one_cannot_be_pinned_none_is(tmp_path: Path, workspace: Path, broken: str) -> None:
    with writer(tmp_path / "vector"):
        (tmp_path / "graph").mkdir()
        if broken != "missing":
            (tmp_path / "graph" / "data.mdb").write_bytes(bytes(8192 if broken == "corrupt" else 0))
        with (
            pytest.raises((NotFoundError, FormatError), match=r"data\.mdb"),
            pin_all([spec(name, tmp_path / name) for name in ("vector", "graph")], LIMITS, workspace),
        ):
            pass
        assert pins(tmp_path / "vector") == []


def test_an_interrupt_while_the_helpers_start_leaves_none(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Helper):
        def __init__(self) -> None:
            super().__init__()
            os.kill(os.getpid(), 2)

    monkeypatch.setattr(environments, "Helper", Interrupted)
    names = ("vector", "graph")
    specs = [spec(name, make_environment(tmp_path / name)) for name in names]
    with pytest.raises(KeyboardInterrupt), pin_all(specs, LIMITS, workspace):
        pass


def test_a_cold_copy_that_a_writer_disturbed_succeeds_when_repeated(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "vector", entries=4000, value_size=1000)
    with pin_all([spec("vector", directory)], LIMITS, workspace) as pinned:
        (snapshot,) = pinned
        stream = copy_stream(snapshot, 4096)
        next(stream)
        with writer(directory):
            pass
        with pytest.raises(SnapshotChangedError):
            list(stream)
    with pin_all([spec("vector", directory)], LIMITS, workspace) as pinned:
        assert pinned[0].txnid > snapshot.txnid
        assert len(b"".join(copy_stream(pinned[0], 1 << 20))) == pinned[0].estimated_copy_size


def test_a_pin_that_is_lost_while_it_waits_ends_the_copy_of_another(tmp_path: Path, workspace: Path) -> None:
    vector = make_environment(tmp_path / "vector", entries=4000)
    with writer(tmp_path / "graph"):
        specs = [spec("vector", vector), spec("graph", tmp_path / "graph")]
        with pin_all(specs, PinLimits(seconds=1), workspace) as pinned:
            stream = pinned.guard(copy_stream(pinned[0], 64 * 1024))
            next(stream)
            wait_until(lambda: not pins(tmp_path / "graph"))
            with pytest.raises(PinGivenUpError, match="graph: it was held for longer than 1 s"):
                next(stream)


def test_commands_copy_before_anything_is_pinned(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, other = tmp_path / "live", make_environment(tmp_path / "other")
    size = (other / "data.mdb").stat().st_size

    class Late(Helper):
        def __init__(self) -> None:
            assert [path.stat().st_size for path in workspace.glob("*/data.mdb")] == [size]
            super().__init__()

    monkeypatch.setattr(environments, "Helper", Late)
    with writer(live):
        # The directory that the command is for does not exist on this host, as that of a container may not.
        specs = [spec("vector", live), spec("graph", Path("/nowhere/graph"), command=cat(other))]
        with pin_all(specs, LIMITS, workspace) as pinned:
            assert [(snapshot.name, snapshot.method) for snapshot in pinned] == [
                ("vector", "locked"),
                ("graph", "external"),
            ]
            assert pinned[1].origin == Path("/nowhere/graph")
            assert pinned[1].directory.parent == workspace
            assert pinned[1].pinned < pinned[0].pinned
            assert pinned.skew == pinned[0].pinned - pinned[1].pinned
            assert len(b"".join(copy_stream(pinned[1], 1 << 20))) == pinned[1].estimated_copy_size
            record = environment_record(pinned[1], 8192, "ab" * 32, WHOLE)
            assert (record.method, record.pinned, record.mode) == ("external", pinned[1].pinned, 0o600)


def test_a_command_for_an_environment_that_only_another_user_may_see(tmp_path: Path, workspace: Path) -> None:
    # As root nothing is hidden: a path that leads through a file fails, too, and a loop of links in yet another way.
    other = make_environment(tmp_path / "other")
    (tmp_path / "loop").symlink_to("loop")
    with pin_all([spec("graph", tmp_path / "loop", command=cat(other))], LIMITS, workspace) as pinned:
        assert environment_record(pinned[0], 8192, "ab" * 32, WHOLE).method == "external"
    with (
        pytest.raises(SourceError, match=r"environment 'graph': cannot open .*too many levels"),
        pin_all([spec("graph", tmp_path / "loop")], LIMITS, workspace),
    ):
        pass
    assert data_files([spec("graph", tmp_path / "loop")]) == set()


def test_the_owner_and_mode_of_an_external_copy_are_those_of_the_environment(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "graph")
    (directory / "data.mdb").chmod(0o640)
    with pin_all([spec("graph", directory, command=cat(directory))], LIMITS, workspace) as pinned:
        assert environment_record(pinned[0], 8192, "ab" * 32, WHOLE).mode == 0o640


def test_a_command_that_writes_no_environment_is_refused(tmp_path: Path, workspace: Path) -> None:
    specs = [spec("graph", tmp_path / "graph", command="yes | head -c 100000")]
    with pytest.raises(FormatError) as caught, pin_all(specs, LIMITS, workspace):
        pass
    assert caught.value.message == (
        f"'sh', the external command for {tmp_path / 'graph'}, did not write an LMDB copy: "
        "its output is not an LMDB data file: LMDB's magic number is missing at byte 16"
    )
    assert "as mdb_copy -c DIRECTORY does" in (caught.value.hint or "")


def test_what_a_command_did_not_write_whole_is_refused(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "graph")
    specs = [spec("graph", directory, command=f"{cat(directory)} | head -c 40960")]
    refused = pytest.raises(FormatError, match="did not write an LMDB copy: its output is truncated: ")
    with refused as caught, pin_all(specs, LIMITS, workspace):
        pass
    assert str(workspace) not in caught.value.message


def empty(data: Path) -> None:
    data.write_bytes(b"")


def cut(data: Path) -> None:
    os.truncate(data, 40960)


def overwrite(data: Path) -> None:
    data.write_bytes(bytes(8192))


def convert(data: Path) -> None:
    """Let it look as if a machine of the other byte order had made it."""
    content = bytearray(data.read_bytes())
    content[16:20] = content[19:15:-1]
    data.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "frozen", "hint"),
    [
        (empty, False, "A full disk leaves such a file behind"),
        (cut, False, "The server fails with MDB_INVALID"),
        (overwrite, False, "The server fails with MDB_INVALID"),
        (convert, False, "Dump it with that LMDB's mdb_dump"),
        (empty, True, "Take a new snapshot"),
        (cut, True, "Take a new snapshot"),
    ],
)
def test_what_to_do_about_the_servers_own_file(
    tmp_path: Path, workspace: Path, spoil: Callable[[Path], None], frozen: bool, hint: str
) -> None:
    directory = make_environment(tmp_path / "vector")
    spoil(directory / "data.mdb")
    with (
        pytest.raises(FormatError, match=str(directory)) as caught,
        pin_all([spec("vector", directory, frozen=frozen)], LIMITS, workspace),
    ):
        pass
    assert (caught.value.hint or "").startswith(hint)


def test_a_command_for_a_file_that_is_damaged_already(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "graph")
    overwrite(directory / "data.mdb")
    ran = tmp_path / "ran"
    specs = [spec("graph", directory, command=f"touch {shlex.quote(str(ran))}")]
    with pytest.raises(FormatError, match=str(directory)) as caught, pin_all(specs, LIMITS, workspace):
        pass
    assert (caught.value.hint or "").startswith("The server fails with MDB_INVALID")
    assert not ran.exists()


def test_what_is_declared_frozen_says_so(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "vector")
    with pin_all([spec("vector", directory, frozen=True)], LIMITS, workspace) as pinned:
        assert pinned[0].method == "frozen"
        assert environment_record(pinned[0], 8192, "ab" * 32, WHOLE).method == "frozen"


def test_databases_as_the_catalog_records_them(tmp_path: Path, workspace: Path) -> None:
    with pin_all([spec("vector", make_environment(tmp_path / "vector"))], LIMITS, workspace) as pinned:
        records = database_records(pinned[0])
    assert records[0] == DatabaseRecord(entries=9)
    assert DatabaseRecord(name="reverse", entries=200, flags=["reverse_key"]) in records
    assert DatabaseRecord(name="integers", entries=200, flags=["dupsort", "integerdup", "dupfixed"]) in records
    assert DatabaseRecord(name_b64="//4gbm90IHRleHQ=", entries=200) in records
    assert len(records) == 8


def test_the_record_of_a_copy(tmp_path: Path, workspace: Path) -> None:
    directory = make_environment(tmp_path / "vector")
    (directory / "data.mdb").chmod(0o640)
    with pin_all([spec("vector", directory)], LIMITS, workspace) as pinned:
        record = environment_record(pinned[0], 8192, "ab" * 32, WHOLE)
        assert record.databases == database_records(pinned[0])
    status = (directory / "data.mdb").stat()
    assert (record.name, record.method, record.size, record.txnid) == ("vector", "cold", 8192, pinned[0].txnid)
    assert (record.mode, record.uid, record.gid) == (0o640, status.st_uid, status.st_gid)
    assert record.pinned == pinned[0].pinned


def test_data_files_tells_what_the_media_walk_must_not_open(tmp_path: Path) -> None:
    status = (make_environment(tmp_path / "vector") / "data.mdb").stat()
    assert data_files([spec("vector", tmp_path / "vector")]) == {(status.st_dev, status.st_ino)}
