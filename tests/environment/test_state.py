"""archiver's own state: kept in order, private, growing, and never trusted when it is damaged."""

import os
import stat
from pathlib import Path

import lmdb
import pytest

from archiver.environment import state as module
from archiver.environment.state import LONGEST_KEY, Change, State, StateError, remove_state

MAPS = ("files", "objects")
STAMP = b"state 1 of a test"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def fill(path: Path, entries: dict[bytes, bytes]) -> None:
    with State(path, STAMP, MAPS) as state:
        state.write(Change("files", key, value) for key, value in entries.items())


def content(path: Path, name: str = "files") -> dict[bytes, bytes]:
    with State(path, STAMP, MAPS) as state:
        return dict(state.items(name))


def test_what_is_written_is_there_in_order_the_next_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_AHEAD", 3)
    entries = {b"%d" % (number * 37 % 101): b"%d" % number for number in range(100)} | {b"l" * LONGEST_KEY: b""}
    entries |= {b"l" * LONGEST_KEY: b"last", b"a": b"x" * 100_000}
    fill(path, entries)
    with State(path, STAMP, MAPS) as state:
        assert list(state.items("files")) == sorted(entries.items())
        assert list(state.items("objects")) == []
        state.write([Change("files", b"a", None), Change("files", b"never there", None), Change("objects", b"o", b"1")])
    assert b"a" not in content(path)
    assert content(path, "objects") == {b"o": b"1"}


def test_entries_may_be_changed_behind_the_place_that_was_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_AHEAD", 2)
    fill(path, {b"%d" % number: b"old" for number in range(9)})
    seen = []
    with State(path, STAMP, MAPS) as state:
        for key, value in state.items("files"):
            seen.append((key, value))
            state.write([Change("files", key, None)])
        assert list(state.items("files")) == []
    assert seen == [(b"%d" % number, b"old") for number in range(9)]


def test_nobody_else_can_read_it(path: Path) -> None:
    old = os.umask(0)
    try:
        fill(path, {b"private": b"hash"})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.iterdir()} == {"data.mdb": 0o600}


def test_the_map_grows(path: Path) -> None:
    with State(path, STAMP, MAPS, map_size=1 << 16) as state:
        for number in range(40):
            state.write([Change("files", b"%d" % number, os.urandom(10_000))])
        assert len(list(state.items("files"))) == 40
    assert len(content(path)) == 40


@pytest.mark.parametrize("damage", ["page", "cut", "empty", "text", "directory", "zeros"])
def test_damage_is_an_error_before_lmdb_touches_the_file(
    path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, {b"%05d" % number: b"v" * 50 for number in range(5000)})
    data = path / "data.mdb"
    whole = data.read_bytes()
    if damage == "page":
        data.write_bytes(whole[: 20 * 4096] + os.urandom(4096) + whole[21 * 4096 :])
    elif damage == "zeros":
        data.write_bytes(whole[: 4096 * 8] + bytes(len(whole) - 4096 * 8))
    elif damage == "cut":
        data.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    elif damage == "directory":
        data.unlink()
        data.mkdir()
    else:
        data.write_bytes(b"" if damage == "empty" else b"no environment\n" * 1000)
    monkeypatch.setattr(lmdb, "open", lambda *_, **__: pytest.fail("LMDB was given a damaged file"))
    with pytest.raises(StateError):
        State(path, STAMP, MAPS)


def test_a_byte_that_changed_within_any_entry_is_damage(path: Path) -> None:
    entries = {b"key-%03d" % number: b"<value-%03d>" % number for number in range(200)}
    fill(path, entries)
    whole = (path / "data.mdb").read_bytes()
    for found in (b"<value-007>", b"<value-150>"):
        assert found in whole
        (path / "data.mdb").write_bytes(whole.replace(found, found.replace(b"value", b"valve")))
        with State(path, STAMP, MAPS) as state, pytest.raises(StateError, match="an entry of files is damaged"):
            list(state.items("files"))
    # Another key in the same place, and in order.
    (path / "data.mdb").write_bytes(whole.replace(b"key-199", b"key-299"))
    with State(path, STAMP, MAPS) as state, pytest.raises(StateError, match="an entry of files is damaged"):
        list(state.items("files"))


def test_one_of_another_version_is_refused_and_can_be_removed(path: Path) -> None:
    fill(path, {b"a": b"1"})
    with pytest.raises(StateError, match="is of another version, source or destination"):
        State(path, b"state 2 of a test", MAPS)
    remove_state(path)
    with State(path, b"state 2 of a test", MAPS) as state:
        assert list(state.items("files")) == []


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="not a directory"):
        State(tmp_path / "file" / "state", STAMP, MAPS)


def test_it_is_of_no_use_once_closed(path: Path) -> None:
    state = State(path, STAMP, MAPS)
    state.close()
    state.close()
    with pytest.raises(StateError):
        state.write([Change("files", b"a", b"1")])
    with pytest.raises(StateError):
        next(state.items("files"))
