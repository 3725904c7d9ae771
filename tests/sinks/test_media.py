"""A tree through packs, extents and back; and catalogs that contradict themselves."""

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.catalog.records import (
    DirectoryRecord,
    Extent,
    FileRecord,
    HardLinkRecord,
    MediaRecord,
    SymlinkRecord,
)
from archiver.errors import FormatError, IntegrityError, TargetError
from archiver.sinks.media import MediaSink
from archiver.sinks.owners import by_name
from archiver.sources.entries import FileEntry, Found, HardLinks, Skipped
from archiver.sources.files import LargeFile
from archiver.sources.media import Batch, MediaTree, batches
from archiver.sources.packs import Member, Pack

PACK_LIMIT = 3000
EXTENT_LIMIT = 2500
MIB = 1024 * 1024
Objects = dict[str, bytes]


def backup(root: Path) -> tuple[list[MediaRecord], Objects]:
    """What a backup of ``root`` would put into contents and objects, with packs and extents of a few kilobytes."""
    records: list[MediaRecord] = []
    objects: Objects = {}
    links = HardLinks()
    with MediaTree(root) as tree:
        for batch in batches(tree.walk(), pack_size=5000, pack_limit=PACK_LIMIT, max_entries=7):
            records += _store(tree, batch, links, objects)
    return records, objects


def _store(tree: MediaTree, batch: Batch[Found], links: HardLinks, objects: Objects) -> list[MediaRecord]:
    pack = Pack(tree, batch.small, links, limit=PACK_LIMIT)
    pack_id = f"{len(objects):032x}"
    if not pack.empty:
        objects[pack_id] = b"".join(pack.buffers())
    stored: dict[bytes, MediaRecord] = {}
    for path, outcome in pack.outcomes.items():
        assert not isinstance(outcome, Skipped)
        stored[path] = outcome.record(pack_id) if isinstance(outcome, Member) else outcome.record()
    for entry in batch.large:
        link = links.find(entry)
        stored[entry.path] = link.record() if link else _store_large(tree, entry, links, objects)
    return [stored[entry.path] if isinstance(entry, FileEntry) else _plain(entry) for entry in batch.entries]


def _plain(entry: Found) -> MediaRecord:
    assert not isinstance(entry, FileEntry | Skipped)
    return entry.record()


def _store_large(tree: MediaTree, entry: FileEntry, links: HardLinks, objects: Objects) -> FileRecord:
    extents: list[Extent] = []
    with LargeFile(tree, entry.path) as file:
        links.remember(file.entry)
        for piece in file.pieces(EXTENT_LIMIT if entry.size < MIB else 64 * MIB):
            object_id = f"{len(objects):032x}"
            objects[object_id] = b"".join(piece.buffers())
            extents += piece.extents(object_id)
        return file.record(extents)


def restore(records: list[MediaRecord], objects: Objects, target: Path) -> None:
    with MediaSink(target) as sink:
        for record in records:
            match record:
                case FileRecord():
                    with sink.file(record) as file:
                        for extent in record.extents:
                            start = extent.object_offset
                            file.write_at(extent.offset, objects[extent.object][start : start + extent.length])
                        file.finish(record.blake3)
                case DirectoryRecord():
                    sink.directory(record)
                case SymlinkRecord():
                    sink.symlink(record)
                case HardLinkRecord():
                    sink.hardlink(record)
        sink.finish()


def state(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that must survive, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    base = os.fsencode(root)
    for directory, _, names in sorted(os.walk(base)):
        for name in [b".", *sorted(names + os.listdir(directory))]:
            path = os.path.normpath(os.path.join(directory, name))
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = blake3(file.read()).hexdigest()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            found[os.path.relpath(path, base)] = (
                status.st_mode, status.st_mtime_ns, status.st_uid, status.st_gid, content, links
            )  # fmt: skip
    return found


names = st.one_of(
    st.sampled_from([b"a", b"a.txt", b"a-", b"a0", b"b", b"\xff\xfe", b"new\nline", b"n" * 200, "ü".encode(), b" "]),
    st.binary(min_size=1, max_size=6).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b"..")),
)
nodes = st.tuples(
    st.lists(names, min_size=1, max_size=4),
    st.sampled_from(["file", "file", "file", "directory", "symlink", "hardlink"]),
    st.binary(max_size=40),
    st.sampled_from([0, 1, 3, 90, 300]),
    st.sampled_from([0o600, 0o644, 0o4755, 0o000, 0o2770, 0o1777]),
    st.integers(0, 2**63 - 1),
)
Node = tuple[list[bytes], str, bytes, int, int, int]


def build(root: Path, tree: list[Node]) -> None:
    """Make what can be made of ``tree``: nodes that collide with earlier ones are left out."""
    base = os.path.realpath(os.fsencode(root))
    files: list[bytes] = []
    attributes: list[tuple[bytes, int, int]] = []
    for segments, kind, content, times, mode, mtime in tree:
        path = os.path.join(base, *segments)
        if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path) or os.path.lexists(path):
            continue  # never through a random symlink: it may lead anywhere
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if kind == "directory":
                os.mkdir(path)
            elif kind == "symlink":
                os.symlink(content.replace(b"\0", b"") or b"/etc/passwd", path)
            elif kind == "hardlink" and files:
                os.link(files[mtime % len(files)], path)
            else:
                with open(path, "xb") as file:
                    file.write(content * times)
                files.append(path)
        except (FileExistsError, NotADirectoryError, FileNotFoundError, IsADirectoryError):
            continue
        if kind != "symlink":
            attributes.append((path, mode, mtime))
        else:
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
    for path, mode, mtime in reversed(attributes):
        os.chmod(path, mode)
        os.utime(path, ns=(mtime, mtime))


@given(st.lists(nodes, max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_random_tree_survives(tree: list[Node]) -> None:
    if os.geteuid() != 0:
        tree = [(*node[:4], node[4] | 0o700, node[5]) for node in tree]
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "source"), Path(scratch, "target")
        source.mkdir()
        build(source, tree)
        expected = state(source)
        records, objects = backup(source)
        paths = [record.path_bytes for record in records]
        assert paths[0] == b"."
        assert paths[1:] == sorted(path for path in expected if path != b".")
        restore(records, objects, target)
        assert state(target) == expected


def test_paths_longer_than_the_kernel_takes_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(16):
        os.mkdir(b"d" * 250, dir_fd=here)
        following = os.open(b"d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = following
    os.close(os.open(b"leaf", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=here))
    os.close(here)
    records, objects = backup(source)
    assert len(records[-1].path_bytes) == 16 * 251 + 4
    restore(records, objects, tmp_path / "target")
    again, _ = backup(tmp_path / "target")
    assert again == records
    shutil.rmtree(source / ("d" * 250))
    shutil.rmtree(tmp_path / "target")


def test_a_sparse_file_of_ten_gibibytes_costs_little(tmp_path: Path) -> None:
    size = 10 * 1024 * MIB
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"in the middle")
    began = time.process_time()
    records, objects = backup(source)
    restore(records, objects, tmp_path / "target")
    assert time.process_time() - began < 60
    record = records[1]
    assert isinstance(record, FileRecord)
    assert len(record.extents) == 1
    assert sum(map(len, objects.values())) <= MIB
    restored = (tmp_path / "target/sparse").stat()
    assert restored.st_size == size
    assert restored.st_blocks * 512 <= MIB
    with (tmp_path / "target/sparse").open("rb") as file:
        file.seek(size // 2)
        assert file.read(13) == b"in the middle"


def file_record(path: str, content: bytes = b"", mode: int = 0o644, uid: int = 0) -> FileRecord:
    return FileRecord(
        path=path, mode=mode, mtime_ns=5, uid=uid, gid=0, size=len(content), blake3=blake3(content).hexdigest()
    )


def directory_record(path: str) -> DirectoryRecord:
    return DirectoryRecord(path=path, mode=0o755, mtime_ns=5, uid=0, gid=0)


def symlink_record(path: str, target: str) -> SymlinkRecord:
    return SymlinkRecord(path=path, target=target, mode=0o777, mtime_ns=5, uid=0, gid=0)


def put(sink: MediaSink, record: FileRecord) -> None:
    with sink.file(record) as file:
        file.finish(record.blake3)


class TestContradictions:
    @pytest.mark.parametrize("path", ["../x", "/x", "a/../x", "a//x", "a/./x", "", "..", "a\0b", "x" * 4097])
    def test_paths_that_leave_the_tree_cannot_even_be_recorded(self, path: str) -> None:
        with pytest.raises(FormatError):
            file_record(path)

    def test_one_path_twice(self, tmp_path: Path) -> None:
        with MediaSink(tmp_path / "s") as sink:
            put(sink, file_record("a"))
            with pytest.raises(IntegrityError, match="a: the backup's catalog has two entries"):
                sink.file(file_record("a"))
            sink.directory(directory_record("d"))
            with pytest.raises(IntegrityError, match="two entries"):
                sink.directory(directory_record("d"))

    def test_a_file_where_a_directory_is_and_the_reverse(self, tmp_path: Path) -> None:
        with MediaSink(tmp_path / "s") as sink:
            put(sink, file_record("a"))
            with pytest.raises(IntegrityError, match=r"a/b: .*two entries"):
                sink.file(file_record("a/b"))
            with pytest.raises(IntegrityError, match="two entries"):
                sink.directory(directory_record("a"))
            put(sink, file_record("d/e"))
            with pytest.raises(IntegrityError, match="two entries"):
                sink.file(file_record("d"))
            with pytest.raises(IntegrityError, match="two entries"):
                sink.file(file_record("."))

    def test_a_symlink_never_leads_a_file_outside(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        with MediaSink(tmp_path / "s") as sink:
            sink.symlink(symlink_record("a", str(tmp_path / "outside")))
            put(sink, file_record("a/file"))
            with pytest.raises(IntegrityError, match="two entries"):
                sink.finish()
        assert not any((tmp_path / "outside").iterdir())

    def test_a_planted_symlink_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "s").mkdir()
        (tmp_path / "s/a").symlink_to(tmp_path / "outside")
        with MediaSink(tmp_path / "s") as sink, pytest.raises(IntegrityError):
            sink.file(file_record("a/file"))
        assert not any((tmp_path / "outside").iterdir())

    @pytest.mark.parametrize("target", ["missing", "directory", "link", "deep/missing", "."])
    def test_a_hard_link_to_what_is_no_restored_file(self, tmp_path: Path, target: str) -> None:
        with MediaSink(tmp_path / "s") as sink:
            sink.directory(directory_record("directory"))
            sink.symlink(symlink_record("link", "/etc/passwd"))
            sink.hardlink(HardLinkRecord(path="z", target=target))
            with pytest.raises(IntegrityError, match=f"z: a hard link to {target}, which is no restored file"):
                sink.finish()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_an_owner_that_no_system_has(self, tmp_path: Path) -> None:
        with MediaSink(tmp_path / "s") as sink, pytest.raises(FormatError, match="out of range"):
            put(sink, file_record("a", uid=2**40))


class TestMetadata:
    def test_a_staging_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_bytes(b"")
        with pytest.raises(TargetError, match="cannot be written"):
            MediaSink(tmp_path / "s")

    def test_parents_without_a_record_are_private(self, tmp_path: Path) -> None:
        with MediaSink(tmp_path / "s") as sink:
            put(sink, file_record("a/b/c", mode=0o644))
            sink.finish()
        assert (tmp_path / "s/a/b/c").stat().st_mode & 0o7777 == 0o644
        assert (tmp_path / "s/a/b").stat().st_mode & 0o7777 == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_the_owners_map_decides_and_set_user_id_survives_it(self, tmp_path: Path) -> None:
        with MediaSink(tmp_path / "s", owners=lambda _: (1234, 4321)) as sink:
            put(sink, file_record("a", mode=0o6755))
            sink.symlink(symlink_record("l", "/nowhere"))
            sink.finish()
        for name in ("a", "l"):
            status = (tmp_path / "s" / name).lstat()
            assert (status.st_uid, status.st_gid) == (1234, 4321)
        assert stat.S_IMODE((tmp_path / "s/a").stat().st_mode) == 0o6755

    def test_owners_go_by_name_then_by_number(self) -> None:
        record = directory_record("d")
        named = DirectoryRecord(path="d", mode=0, mtime_ns=0, uid=77, gid=78, owner="root", group="no-such-group")
        assert by_name(record) == (0, 0)
        assert by_name(named) == (0, 78)
