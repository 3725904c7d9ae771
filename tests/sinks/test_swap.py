"""Swapping a restored tree into place: what is moved, what stays, and that it can be interrupted anywhere."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import TargetError
from archiver.sinks.swap import Keep, keep_nothing, swap_into

Tree = dict[str, str]
"""Relative path -> content; a value that begins with ``->`` is a symlink, the value ``/`` an empty directory."""


def build(root: Path, tree: Tree) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
        elif content == "/":
            path.mkdir()
        else:
            path.write_text(content)
    return root


def tree_of(root: Path) -> Tree:
    found: Tree = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            if path.is_symlink():
                found[str(path.relative_to(root))] = f"->{path.readlink()}"
            elif path.is_file():
                found[str(path.relative_to(root))] = path.read_text()
            elif not any(path.iterdir()):
                found[str(path.relative_to(root))] = "/"
    return found


class Place:
    """A target with a staging and a before directory inside it, as a restore has them."""

    def __init__(self, tmp_path: Path, target: Tree, staged: Tree) -> None:
        self.target = build(tmp_path / "target", target)
        self.staging = build(self.target / ".archiver-restore-1" / "media", staged)
        self.before = self.target / ".archiver-before-1"

    def swap(self, *, keep: Keep = keep_nothing) -> None:
        swap_into(self.staging, self.target, self.before, keep=keep)

    def placed(self) -> Tree:
        return {name: content for name, content in tree_of(self.target).items() if not name.startswith(".archiver-")}

    def kept(self) -> Tree:
        return tree_of(self.before) if self.before.exists() else {}


OLD: Tree = {
    "same": "old",
    "d/same": "old",
    "d/extra": "old",
    "extra/deep/file": "old",
    "turned": "old",
    "into/x": "old",
}
NEW: Tree = {"same": "new", "d/same": "new", "d/new/deep": "new", "turned/x": "new", "into": "new", "link": "->/etc"}
PLACED: Tree = {**NEW, "d/extra": "old", "extra/deep/file": "old"}
REPLACED: Tree = {"same": "old", "d/same": "old", "turned": "old", "into/x": "old"}


def test_entries_take_their_places_and_replaced_ones_are_kept(tmp_path: Path) -> None:
    place = Place(tmp_path, OLD, NEW)
    place.swap()
    assert (place.placed(), place.kept()) == (PLACED, REPLACED)
    assert list(place.staging.parent.iterdir()) == []


def test_repeating_a_finished_swap_does_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, OLD, NEW)
    place.swap()
    place.swap()
    assert (place.placed(), place.kept()) == (PLACED, REPLACED)


class CutError(Exception):
    """The power goes."""


@pytest.mark.parametrize("call", ["rename", "rmdir", "mkdir", "fsync"])
def test_interrupted_at_any_call_and_repeated_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    whole = Place(tmp_path / "whole", OLD, NEW)
    whole.swap()
    real: Any = getattr(os, call)
    cuts = 0
    while True:
        place = Place(tmp_path / str(cuts), OLD, NEW)
        calls = 0

        def cut(*arguments: Any, stop: int = cuts, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > stop:
                raise CutError
            return real(*arguments, **options)

        monkeypatch.setattr(os, call, cut)
        try:
            place.swap()
        except CutError:
            cuts += 1
        else:
            break
        finally:
            monkeypatch.setattr(os, call, real)
        place.swap()
        assert place.placed() == whole.placed()
        assert place.kept() == whole.kept()
    assert cuts > 0


def test_an_interrupted_merge_still_gets_the_directorys_time_and_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, {"d/a": "old"}, {"d/a": "new", "d/b": "new"})
    (place.staging / "d").chmod(0o550)
    os.utime(place.staging / "d", ns=(5, 1_234_567_890))
    os.utime(place.staging, ns=(5, 9_876_543_210))
    rename = os.rename
    calls = 0

    def cut(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise CutError
        rename(*arguments, **options)

    monkeypatch.setattr(os, "rename", cut)
    with pytest.raises(CutError):
        place.swap()
    monkeypatch.undo()
    place.swap()
    status = (place.target / "d").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o550, 1_234_567_890)
    assert place.target.stat().st_mtime_ns == 9_876_543_210


def test_a_symlink_in_the_target_is_moved_and_never_followed(tmp_path: Path) -> None:
    outside = build(tmp_path / "outside", {"file": "precious"})
    place = Place(tmp_path, {"d": f"->{outside}", "e/f": f"->{outside}/file"}, {"d/file": "new", "e/f": "new"})
    place.swap()
    assert tree_of(outside) == {"file": "precious"}
    assert place.placed() == {"d/file": "new", "e/f": "new"}
    assert place.kept() == {"d": f"->{outside}", "e/f": f"->{outside}/file"}


class TestKept:
    def keep(self, path: bytes) -> bool:
        return path in (b"graph/data.mdb", b"old/env")

    def test_stays_while_all_around_it_is_replaced(self, tmp_path: Path) -> None:
        stays = {
            "graph/data.mdb": "live",
            "graph/lock.mdb": "live",
            "old/env/data.mdb": "live",
            "lock.mdb": "live",
            "ucotron-writer.lock": "live",
            "graph/other": "old",
        }
        place = Place(
            tmp_path, {**stays, "old/x": "old", "file": "old"}, {"graph/x": "new", "old/x": "new", "file": "new"}
        )
        place.swap(keep=self.keep)
        assert place.placed() == {**stays, "graph/x": "new", "old/x": "new", "file": "new"}
        assert place.kept() == {"old/x": "old", "file": "old"}

    def test_a_directory_called_as_a_lock_file_is_like_any_other(self, tmp_path: Path) -> None:
        old = {"lock.mdb/x": "old", "lock.mdb/y": "old", "turned/ucotron-writer.lock/z": "old"}
        place = Place(tmp_path, old, {"lock.mdb/x": "new", "ucotron-writer.lock": "/", "turned": "new"})
        place.swap()
        assert place.placed() == {"lock.mdb/x": "new", "lock.mdb/y": "old", "ucotron-writer.lock": "/", "turned": "new"}
        assert place.kept() == {"lock.mdb/x": "old", "turned/ucotron-writer.lock/z": "old"}

    @pytest.mark.parametrize(
        ("staged", "message"),
        [
            ({"graph/data.mdb": "new"}, "graph/data.mdb: is in the backup, but must stay"),
            ({"d/lock.mdb": "new"}, "d/lock.mdb: is in the backup, but must stay"),
            ({"e/lock.mdb/x": "new"}, "e/lock.mdb: is in the backup, but must stay"),
            ({"e/lock.mdb": "->elsewhere"}, "e/lock.mdb: is in the backup, but must stay"),
            ({"e": "a file"}, "e: a directory with files that must stay"),
            ({".archiver-before-0": "new"}, r"\.archiver-before-0: is in the backup, but must stay"),
            ({"graph": "a file"}, "graph: a directory with files that must stay"),
            ({"old": "->elsewhere"}, "old: a directory with files that must stay"),
        ],
    )
    def test_a_backup_that_would_replace_it_is_refused_before_anything_moves(
        self, tmp_path: Path, staged: Tree, message: str
    ) -> None:
        target = {"graph/data.mdb": "live", "old/env/x": "live", "d/x": "old", "a": "old", "e/lock.mdb": "live"}
        place = Place(tmp_path, target, {"a": "new", **staged})
        with pytest.raises(TargetError, match=message):
            place.swap(keep=self.keep)
        assert place.placed() == target
        assert place.kept() == {}


def test_what_was_kept_before_is_not_overwritten(tmp_path: Path) -> None:
    place = Place(tmp_path, {"a": "old"}, {"a": "new"})
    build(place.before, {"a": "older"})
    with pytest.raises(TargetError, match="a: would replace what was kept"):
        place.swap()
    assert (place.placed(), place.kept()) == ({"a": "old"}, {"a": "older"})


def test_a_mount_point_in_the_way_is_refused_before_anything_moves(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at hand")
    place = Place(tmp_path, {}, {"a": "new"})
    elsewhere = other / f"archiver-test-{os.getpid()}"
    elsewhere.mkdir()
    try:
        with pytest.raises(TargetError, match="cross-device") as caught:
            swap_into(place.staging, elsewhere, elsewhere / "before")
        assert caught.value.hint is not None
        assert tree_of(place.staging) == {"a": "new"}
        assert tree_of(elsewhere) in ({}, {"before": "/"})
    finally:
        for path in [*elsewhere.iterdir(), elsewhere]:
            path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_somebody_who_is_not_root_restores_directories_that_nobody_may_write_to(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from archiver.catalog.records import DirectoryRecord
from archiver.sinks.media import MediaSink
from archiver.sinks.swap import swap_into
os.setresuid(65534, 65534, 65534)
target = Path(sys.argv[1])
staging = target / ".archiver-restore-1" / "media"
with MediaSink(staging) as sink:
    for path, mode in ((".", 0o755), ("new", 0o500), ("new/closed", 0), ("old", 0o555), ("old/deep", 0o500)):
        sink.directory(DirectoryRecord(path=path, mode=mode, mtime_ns=7, uid=0, gid=0))
    sink.finish()
swap_into(staging, target, target / ".archiver-before-1")
"""
    target = build(tmp_path / "target", {"old/file": "stays", "old/deep": "replaced"})
    for path in (target, target / "old"):
        os.chown(path, 65534, 65534)
    for directory in [tmp_path, *tmp_path.parents[:-2]]:
        directory.chmod(directory.stat().st_mode | 0o055)
    command = [sys.executable, "-c", script, str(target)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.stderr == ""
    found = {name: (target / name).stat() for name in ("new", "new/closed", "old", "old/deep")}
    assert {name: status.st_mode & 0o7777 for name, status in found.items()} == {
        "new": 0o500,
        "new/closed": 0,
        "old": 0o555,
        "old/deep": 0o500,
    }
    assert {status.st_mtime_ns for status in found.values()} == {7}
    assert (target / "old/file").read_text() == "stays"
    assert (target / ".archiver-before-1/old/deep").read_text() == "replaced"
