"""The walk: order, rules for what is left out, and what is never opened."""

import ctypes
import os
import socket
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver.errors import NotFoundError, SourceError
from archiver.filesystem import identity
from archiver.sources import media
from archiver.sources.entries import Attributes, DirectoryEntry, FileEntry, Found, Skipped, SymlinkEntry
from archiver.sources.media import MediaTree, batches
from archiver.sources.sorting import sorted_names

IN_OPEN = 0x20


def walk(root: Path, *, exclude: tuple[str, ...] = ()) -> list[Found]:
    with MediaTree(root, exclude=exclude) as tree:
        return list(tree.walk())


def paths(found: list[Found]) -> list[bytes]:
    return [entry.path for entry in found]


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def reasons(found: list[Found]) -> dict[bytes, str]:
    return {entry.path: entry.reason for entry in found if isinstance(entry, Skipped)}


class TestOrder:
    def test_whole_paths_come_in_byte_order_after_the_root(self, tmp_path: Path) -> None:
        for name in ["a/b", "a/b.c/d", "a/c", "a.txt", "a-", "a0", "b/.x", "!", "é", "Z"]:
            write(tmp_path / name)
        found = paths(walk(tmp_path))
        assert found[0] == b"."
        assert found[1:] == sorted(found[1:])
        assert found.index(b"a") < found.index(b"a-") < found.index(b"a.txt") < found.index(b"a/b") < found.index(b"a0")

    @given(st.lists(st.binary(min_size=1, max_size=3).filter(lambda name: b"\0" not in name), max_size=60))
    @settings(max_examples=60, deadline=None)
    def test_spilled_runs_merge_to_the_order_of_an_ordinary_sort(self, names: list[bytes]) -> None:
        assert list(sorted_names(iter(names), run_names=4)) == sorted(names)

    def test_runs_longer_than_a_read_block(self) -> None:
        names = [b"%07d-%s" % (number * 7919 % 20011, b"n" * 40) for number in range(20011)]
        assert list(sorted_names(iter(names), run_names=3000)) == sorted(names)

    def test_a_tree_deeper_than_descriptors_and_recursion_allow(self, tmp_path: Path) -> None:
        depth = 1500
        current = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir("d", dir_fd=current)
            following = os.open("d", os.O_RDONLY, dir_fd=current)
            os.close(current)
            current = following
        os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=current))
        os.close(current)
        found = walk(tmp_path)
        assert len(found) == depth + 2
        assert found[-1].path == b"d/" * depth + b"leaf"
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)

    def test_paths_beyond_the_catalogs_limit_are_skipped(self, tmp_path: Path) -> None:
        current = os.open(tmp_path, os.O_RDONLY)
        for _ in range(17):
            os.mkdir(b"n" * 250, dir_fd=current)
            following = os.open(b"n" * 250, os.O_RDONLY, dir_fd=current)
            os.close(current)
            current = following
        os.close(current)
        found = walk(tmp_path)
        assert isinstance(found[-1], Skipped)
        assert "longer than 4096 bytes" in found[-1].reason
        subprocess.run(["rm", "-rf", tmp_path / ("n" * 250)], check=True)


class TestKinds:
    def test_entries_carry_what_is_restored(self, tmp_path: Path) -> None:
        file = write(tmp_path / "dir/file", b"12345")
        file.chmod(0o4751)
        os.utime(file, ns=(1, 1_234_567_890_123_456_789))
        (tmp_path / "link").symlink_to("/no/where")
        found = {entry.path: entry for entry in walk(tmp_path)}
        entry = found[b"dir/file"]
        assert isinstance(entry, FileEntry)
        assert entry.attributes == Attributes(0o4751, 1_234_567_890_123_456_789, os.getuid(), os.getgid())
        assert (entry.size, entry.links) == (5, 1)
        assert isinstance(found[b"dir"], DirectoryEntry)
        link = found[b"link"]
        assert isinstance(link, SymlinkEntry)
        assert link.target == b"/no/where"

    def test_special_files_are_skipped_with_the_reason(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
            found = walk(tmp_path)
        assert reasons(found) == {b"fifo": "is a named pipe", b"socket": "is a socket"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device")
    def test_a_device_is_skipped(self, tmp_path: Path) -> None:
        try:
            os.mknod(tmp_path / "null", 0o20600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("no right to make a device")
        assert reasons(walk(tmp_path)) == {b"null": "is a device"}

    def test_a_symlink_to_a_directory_is_not_entered(self, tmp_path: Path) -> None:
        write(tmp_path / "outside/secret")
        write(tmp_path / "media/file")
        (tmp_path / "media/link").symlink_to(tmp_path / "outside")
        assert paths(walk(tmp_path / "media")) == [b".", b"file", b"link"]

    def test_a_directory_swapped_for_a_symlink_while_walking_is_not_followed(self, tmp_path: Path) -> None:
        write(tmp_path / "outside/secret")
        write(tmp_path / "media/a/file")
        with MediaTree(tmp_path / "media") as tree:
            found: list[Found] = []
            for entry in tree.walk():
                found.append(entry)
                if isinstance(entry, DirectoryEntry) and entry.path == b"a":
                    (tmp_path / "media/a").rename(tmp_path / "moved")
                    (tmp_path / "media/a").symlink_to(tmp_path / "outside")
        assert reasons(found) == {b"a": "cannot be read: not a directory"}
        assert paths(found) == [b".", b"a", b"a"]

    def test_what_vanishes_between_listing_and_looking_is_skipped(self, tmp_path: Path) -> None:
        write(tmp_path / "a")
        write(tmp_path / "b")
        with MediaTree(tmp_path) as tree:
            entries = tree.walk()
            found = [next(entries)]
            (tmp_path / "b").unlink()
            found += list(entries)
        assert reasons(found) == {b"b": "vanished while the tree was read"}

    def test_the_root_must_be_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="media directory does not exist"):
            MediaTree(tmp_path / "missing")
        with pytest.raises(SourceError, match="not a directory"):
            MediaTree(write(tmp_path / "file"))

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
    def test_unreadable_directories_and_files_are_skipped(self, tmp_path: Path) -> None:
        write(tmp_path / "closed/file")
        write(tmp_path / "open")
        write(tmp_path / "secret").chmod(0)
        (tmp_path / "closed").chmod(0)
        for directory in [tmp_path, *tmp_path.parents[:-2]]:
            directory.chmod(directory.stat().st_mode | 0o055)
        script = """
import os, sys
from pathlib import Path
from typing import Self
from archiver.sources.entries import HardLinks
from archiver.sources.media import MediaTree, batches
from archiver.sources.packs import Pack
os.setresuid(65534, 65534, 65534)
with MediaTree(Path(sys.argv[1])) as tree:
    for batch in batches(tree.walk()):
        for entry in batch.entries:
            if hasattr(entry, "reason"):
                print(entry.path.decode(), entry.reason)
        pack = Pack(tree, batch.small, HardLinks())
        b"".join(pack.buffers())
        for path, outcome in pack.outcomes.items():
            print(path.decode(), getattr(outcome, "reason", "stored"))
"""
        run = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )
        assert run.stderr == ""
        assert run.stdout.splitlines() == [
            "closed cannot be read: permission denied",
            "open stored",
            "secret cannot be read: permission denied",
        ]


class TestLeftOut:
    def test_by_name(self, tmp_path: Path) -> None:
        for name in [
            "lock.mdb",
            "ucotron-writer.lock",
            ".archiver-restore-1/x",
            ".archiver-before-1/x",
            "deep/lock.mdb",
        ]:
            write(tmp_path / name)
        assert paths(walk(tmp_path)) == [b".", b"deep"]

    def test_only_regular_files_by_the_names_of_lock_files(self, tmp_path: Path) -> None:
        write(tmp_path / "lock.mdb/file")
        write(tmp_path / "lock.mdb/lock.mdb")
        (tmp_path / "ucotron-writer.lock").mkdir()
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep/lock.mdb").symlink_to("elsewhere")
        assert paths(walk(tmp_path)) == [
            b".",
            b"deep",
            b"deep/lock.mdb",
            b"lock.mdb",
            b"lock.mdb/file",
            b"ucotron-writer.lock",
        ]

    def test_environments_that_the_source_does_not_name(self, tmp_path: Path) -> None:
        write(tmp_path / "env/data.mdb", bytes(16) + (0xBEEFC0DE).to_bytes(4, "little") + bytes(4076))
        write(tmp_path / "other/data.mdb", b"something else entirely")
        write(tmp_path / "short/data.mdb", b"")
        found = walk(tmp_path)
        assert reasons(found) == {b"env/data.mdb": "is an LMDB environment that the source does not name"}
        assert {b"other/data.mdb", b"short/data.mdb"} <= {e.path for e in found if isinstance(e, FileEntry)}

    def test_patterns(self, tmp_path: Path) -> None:
        for name in ["a.tmp", "d/b.tmp", "d/c", "cache/x", "keep/cache.txt", "d/e/f"]:
            write(tmp_path / name)
        assert paths(walk(tmp_path, exclude=("*.tmp", "cache", "d/e*"))) == [
            b".",
            b"d",
            b"d/c",
            b"keep",
            b"keep/cache.txt",
        ]

    @given(
        st.lists(st.text("ab*?[]!-./|(", min_size=1, max_size=6), max_size=4),
        st.text("ab*./|(-", min_size=1, max_size=8),
    )
    @example(["(", "a|b"], "a")
    @example(["a"], "a\n")
    @settings(deadline=None)
    def test_patterns_together_match_what_each_of_them_does(self, patterns: list[str], name: str) -> None:
        together = media._any_of(patterns)
        assert media._matches(together, name.encode()) == any(fnmatchcase(name, pattern) for pattern in patterns)

    def test_a_pattern_reaches_names_that_are_not_text(self, tmp_path: Path) -> None:
        for name in (b"a\xff.tmp", b"a\xff.jpg"):
            write(Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))))
        assert paths(walk(tmp_path, exclude=("a?.tmp",))) == [b".", b"a\xff.jpg"]

    def test_skipped_inodes_are_never_opened(self, tmp_path: Path) -> None:
        database = write(tmp_path / "env/data.mdb", bytes(16) + (0xBEEFC0DE).to_bytes(4, "little"))
        alias = tmp_path / "alias"
        os.link(database, alias)
        other = write(tmp_path / "other/data.mdb")
        with opens_of(database) as opened, opens_of(other) as control:
            with MediaTree(tmp_path, skip={identity(database.stat())}) as tree:
                assert paths(list(tree.walk())) == [b".", b"env", b"other", b"other/data.mdb"]
            assert control.count() == 1
            assert opened.count() == 0

    def test_a_skipped_directory_is_not_entered(self, tmp_path: Path) -> None:
        write(tmp_path / "env/data.mdb")
        write(tmp_path / "file")
        with MediaTree(tmp_path, skip={identity((tmp_path / "env").stat())}) as tree:
            assert paths(list(tree.walk())) == [b".", b"file"]


class TestBatches:
    def files(self, sizes: list[int]) -> list[FileEntry]:
        attributes = Attributes(0o644, 0, 0, 0)
        return [FileEntry(b"%04d" % number, attributes, size, (1, number), 1, 0) for number, size in enumerate(sizes)]

    @given(st.lists(st.integers(0, 60), max_size=80))
    @settings(deadline=None)
    def test_batches_partition_the_entries_in_order(self, sizes: list[int]) -> None:
        entries = self.files(sizes)
        made = list(batches(entries, pack_size=100, pack_limit=40, max_entries=16))
        assert [entry for batch in made for entry in batch.entries] == entries
        for batch in made:
            assert 1 <= len(batch.entries) <= 16
            assert [e for e in batch.entries if e in batch.small] == batch.small
            assert all(file.size <= 40 for file in batch.small)
            assert all(file.size > 40 for file in batch.large)
            assert len(batch.small) + len(batch.large) == len(batch.entries)
            assert sum(file.size for file in batch.small[:-1]) < 100
        for batch in made[:-1]:
            assert len(batch.entries) == 16 or sum(file.size for file in batch.small) >= 100


class opens_of:  # noqa: N801 - reads as a phrase where it is used
    """Counts how often the kernel opened one inode, by whatever name (inotify)."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_OPEN) >= 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def count(self) -> int:
        try:
            return len(os.read(self._descriptor, 65536)) // 16
        except BlockingIOError:
            return 0
