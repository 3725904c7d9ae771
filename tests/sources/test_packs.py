"""Packs: what stock tools make of them, and what becomes of files that do not hold still."""

import errno
import io
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from archiver.filesystem import identity
from archiver.sources.entries import FileEntry, HardLinkEntry, HardLinks, Skipped, UnreadableError
from archiver.sources.media import MediaTree
from archiver.sources.packs import Member, Pack

ODD_NAMES = [
    b"plain",
    b"-dash",
    "ümläut/ß".encode(),
    b"not\xff\xfeutf8",
    b"new\nline",
    b"back\\slash",
    b"n" * 101,
    b"n" * 255,
    b"/".join([b"segment" * 20] * 20) + b"/leaf",
]
FAR_TIMES = [0, 1_700_000_000_123_456_789, 999_999_999, 2**33 * 10**9 + 7]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[MediaTree]:
    (tmp_path / "media").mkdir()
    with MediaTree(tmp_path / "media") as media:
        yield media


def make(tree: MediaTree, name: bytes, content: bytes) -> bytes:
    path = os.path.join(os.fsencode(tree.root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return path


def files(tree: MediaTree) -> list[FileEntry]:
    return [entry for entry in tree.walk() if isinstance(entry, FileEntry)]


def members(pack: Pack) -> list[Member]:
    return [outcome for outcome in pack.outcomes.values() if isinstance(outcome, Member)]


def odd_tree(tree: MediaTree) -> None:
    for number, name in enumerate(ODD_NAMES):
        path = make(tree, name, name * number * 13)
        os.chmod(path, [0o600, 0o4755, 0o444, 0o644][number % 4])
        time = FAR_TIMES[number % 4]
        os.utime(path, ns=(time, time))


def test_gnu_tar_extracts_the_same_files(tree: MediaTree, tmp_path: Path) -> None:
    odd_tree(tree)
    pack = Pack(tree, files(tree), HardLinks())
    target = tmp_path / "out"
    target.mkdir()
    run = subprocess.run(
        ["tar", "-xp", "-C", target], input=b"".join(pack.buffers()), capture_output=True, env={"LC_ALL": "C"}
    )
    assert run.returncode == 0, run.stderr
    for name in ODD_NAMES:
        expected = os.stat(os.path.join(os.fsencode(tree.root), name))
        path = os.path.join(os.fsencode(target), name)
        found = os.stat(path)
        assert (found.st_mode, found.st_mtime_ns) == (expected.st_mode, expected.st_mtime_ns)
        with open(path, "rb") as file:
            assert file.read() == name * ODD_NAMES.index(name) * 13


def test_python_tarfile_reads_the_same_files(tree: MediaTree) -> None:
    odd_tree(tree)
    pack = Pack(tree, files(tree), HardLinks())
    data = b"".join(pack.buffers())
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        listed = {info.name.encode("utf-8", "surrogateescape"): info for info in archive}
        assert sorted(listed) == sorted(ODD_NAMES)
        for member in members(pack):
            info = listed[member.file.path]
            assert info.offset_data == member.offset
            assert info.mode == member.file.attributes.mode
            seconds, fraction = info.pax_headers["mtime"].split(".")
            assert int(seconds) * 10**9 + int(fraction) == member.file.attributes.mtime_ns
            content = data[member.offset : member.offset + member.file.size]
            assert blake3(content).hexdigest() == member.blake3
            assert content == member.file.path * ODD_NAMES.index(member.file.path) * 13


def test_a_time_before_1970_is_exact(tree: MediaTree, tmp_path: Path) -> None:
    path = make(tree, b"old", b"x")
    os.utime(path, ns=(-1_500_000_001, -1_500_000_001))
    pack = Pack(tree, files(tree), HardLinks())
    subprocess.run(["tar", "-x", "-C", tmp_path], input=b"".join(pack.buffers()), capture_output=True, check=True)
    assert (tmp_path / "old").stat().st_mtime_ns == -1_500_000_001


def test_records_point_into_the_tar(tree: MediaTree) -> None:
    make(tree, b"a", b"")
    make(tree, b"b", b"bb")
    pack = Pack(tree, files(tree), HardLinks())
    data = b"".join(pack.buffers())
    empty, full = (member.record("0" * 32) for member in members(pack))
    assert (empty.size, empty.extents, empty.blake3) == (0, [], blake3(b"").hexdigest())
    (extent,) = full.extents
    assert data[extent.object_offset : extent.object_offset + extent.length] == b"bb"


def test_a_file_that_vanished_is_skipped_and_not_in_the_tar(tree: MediaTree) -> None:
    make(tree, b"gone", b"x")
    make(tree, b"here", b"y")
    listed = files(tree)
    (tree.root / "gone").unlink()
    pack = Pack(tree, listed, HardLinks())
    names = subprocess.run(["tar", "-t"], input=b"".join(pack.buffers()), capture_output=True, check=True).stdout
    assert names == b"here\n"
    assert pack.outcomes[b"gone"] == Skipped(b"gone", "vanished while the tree was read")


def test_a_pack_of_nothing_readable_is_known_to_be_empty(tree: MediaTree) -> None:
    make(tree, b"gone", b"x")
    listed = files(tree)
    (tree.root / "gone").unlink()
    pack = Pack(tree, listed, HardLinks())
    assert pack.empty
    assert isinstance(pack.outcomes[b"gone"], Skipped)


def test_a_file_replaced_by_a_pipe_a_link_or_a_skipped_file_is_not_opened(tree: MediaTree, tmp_path: Path) -> None:
    paths = [make(tree, name, b"x") for name in (b"pipe", b"link", b"lock")]
    listed = files(tree)
    for path in paths:
        os.unlink(path)
    os.mkfifo(tree.root / "pipe")
    (tree.root / "link").symlink_to("/etc/passwd")
    lock = tmp_path / "lock.mdb"
    lock.write_bytes(b"lock")
    os.link(lock, tree.root / "lock")
    with MediaTree(tree.root, skip={identity(lock.stat())}) as guarded:
        pack = Pack(guarded, listed, HardLinks())
        assert pack.empty
    assert {outcome.reason for outcome in pack.outcomes.values() if isinstance(outcome, Skipped)} == {
        "is no longer the regular file that was listed"
    }


def test_a_file_replaced_by_a_newer_one_is_stored_as_it_is_now(tree: MediaTree) -> None:
    make(tree, b"file", b"old")
    listed = files(tree)
    (tree.root / "new").write_bytes(b"newer")
    (tree.root / "new").rename(tree.root / "file")
    pack = Pack(tree, listed, HardLinks())
    assert b"newer" in b"".join(pack.buffers())
    (member,) = members(pack)
    assert (member.file.size, member.changed) == (5, False)


class Restless(MediaTree):
    """A tree in which somebody appends to every file right after it was opened."""

    def open_file(self, path: bytes) -> tuple[int, os.stat_result]:
        opened = super().open_file(path)
        file = self.root / os.fsdecode(path)
        with file.open("ab") as appended:
            appended.write(b"+")
        os.utime(file, ns=(1, 1))
        return opened


def test_a_file_that_changed_once_is_read_again(tree: MediaTree) -> None:
    make(tree, b"file", b"old")
    with Restless(tree.root) as restless:
        pack = Pack(restless, files(tree), HardLinks())
        data = b"".join(pack.buffers())
    (member,) = members(pack)
    assert not member.changed
    assert data[member.offset : member.offset + member.file.size] == b"old+"
    assert member.file.attributes.mtime_ns == 1


def test_a_file_that_never_holds_still_is_stored_with_a_warning(
    tree: MediaTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tree, b"file", b"old")
    listed = files(tree)
    reads = 0
    pread = os.pread

    def pread_beside_a_writer(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        data = pread(descriptor, length, offset)
        os.utime(path, ns=(reads, reads))
        return data

    monkeypatch.setattr(os, "pread", pread_beside_a_writer)
    pack = Pack(tree, listed, HardLinks())
    monkeypatch.undo()
    data = b"".join(pack.buffers())
    (member,) = members(pack)
    assert reads == 3
    assert member.changed
    assert data[member.offset : member.offset + 3] == b"old"


def test_a_file_that_grew_beyond_a_pack_is_left_to_be_read_as_a_large_one(tree: MediaTree) -> None:
    path = make(tree, b"file", b"x" * 10)
    listed = files(tree)
    with open(path, "ab") as file:
        file.write(b"y" * 90)
    pack = Pack(tree, listed, HardLinks(), limit=50)
    assert pack.empty
    assert [file.path for file in pack.grown] == [b"file"]
    assert pack.grown[0].size == 100


class Watching(MediaTree):
    """A tree that counts how often each file was opened, and how many descriptors there were at most."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: Counter[bytes] = Counter()
        self.most = 0

    def open_file(self, path: bytes) -> tuple[int, os.stat_result]:
        self.opened[path] += 1
        opened = super().open_file(path)
        self.most = max(self.most, descriptors())
        return opened


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class TestReadingAhead:
    @pytest.fixture
    def many(self, tree: MediaTree) -> Iterator[Watching]:
        for number in range(100):
            make(tree, b"%03d" % number, b"x" * number)
        with Watching(tree.root) as watching:
            yield watching

    def test_the_next_files_are_open_and_advised_but_not_all(
        self, many: Watching, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        advised: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "posix_fadvise", lambda _, _start, size, advice: advised.append((size, advice)))
        listed = files(many)
        before = descriptors()
        pack = Pack(many, listed, HardLinks())
        assert descriptors() == before + 32
        b"".join(pack.buffers())
        # One more while the next is opened.
        assert many.most <= before + 33
        assert descriptors() == before
        assert advised == [(size, os.POSIX_FADV_WILLNEED) for size in range(1, 100)]
        assert set(many.opened.values()) == {1}

    def test_a_file_system_that_takes_no_advice_is_read(self, many: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: int) -> None:
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(os, "posix_fadvise", refuse)
        pack = Pack(many, files(many), HardLinks())
        b"".join(pack.buffers())
        assert len(members(pack)) == 100

    @pytest.mark.parametrize("taken", [1, 2])
    def test_closing_early_leaves_no_file_open(self, many: Watching, taken: int) -> None:
        make(many, b"000", bytes(2 << 20))
        listed = files(many)
        before = descriptors()
        pack = Pack(many, listed, HardLinks())
        buffers = pack.buffers()
        for _ in range(taken):
            next(buffers)
        assert descriptors() > before
        buffers.close()
        assert descriptors() == before

    def test_an_error_that_ends_everything_leaves_no_file_open(
        self, many: Watching, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(descriptor: int, length: int, offset: int) -> bytes:
            if length == 50:
                raise KeyboardInterrupt
            return b"x" * length

        listed = files(many)
        before = descriptors()
        monkeypatch.setattr(os, "pread", interrupted)
        pack = Pack(many, listed, HardLinks())
        with pytest.raises(KeyboardInterrupt):
            b"".join(pack.buffers())
        assert descriptors() == before

    def test_what_was_opened_before_its_first_name_was_read_is_a_link_and_is_closed(self, tree: MediaTree) -> None:
        first = make(tree, b"a", b"content")
        os.link(first, tree.root / "b")
        make(tree, b"c", b"other")
        with Watching(tree.root) as watching:
            listed = files(watching)
            before = descriptors()
            pack = Pack(watching, listed, HardLinks())
            data = b"".join(pack.buffers())
            assert watching.opened == {b"a": 1, b"b": 1, b"c": 1}
            assert descriptors() == before
        assert pack.outcomes[b"b"] == HardLinkEntry(b"b", b"a")
        assert data.count(b"content") == 1
        assert list(pack.outcomes) == [b"a", b"b", b"c"]

    def test_where_few_files_may_be_open_fewer_are_read_ahead(
        self, many: Watching, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        refused = []
        limit = descriptors() + 10

        def scarce(path: bytes) -> tuple[int, os.stat_result]:
            if descriptors() >= limit:
                refused.append(path)
                raise UnreadableError(path, "cannot be read") from OSError(errno.EMFILE, "Too many open files")
            return MediaTree.open_file(many, path)

        monkeypatch.setattr(many, "open_file", scarce)
        pack = Pack(many, files(many), HardLinks())
        b"".join(pack.buffers())
        assert refused
        assert len(members(pack)) == 100
        assert descriptors() < limit

    def test_what_vanishes_while_it_waits_open_is_stored(self, many: Watching) -> None:
        pack = Pack(many, files(many), HardLinks())
        (many.root / "031").unlink()
        (many.root / "050").unlink()
        b"".join(pack.buffers())
        assert isinstance(pack.outcomes[b"031"], Member)
        assert isinstance(pack.outcomes[b"050"], Skipped)


def test_small_files_come_in_long_buffers_and_long_files_as_they_are(tree: MediaTree) -> None:
    for number in range(300):
        make(tree, b"%03d" % number, bytes([number % 256]) * 10_000)
    make(tree, b"150-long", os.urandom(3 << 20))
    pack = Pack(tree, files(tree), HardLinks())
    buffers = list(pack.buffers())
    sizes = [len(buffer) for buffer in buffers]
    assert sizes.count(3 << 20) == 1
    assert len(sizes) < 10
    assert all(size < (1 << 20) + 20_000 for size in sizes if size != 3 << 20)
    data = b"".join(buffers)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [info.offset_data for info in archive] == [member.offset for member in members(pack)]
    for member in members(pack):
        assert blake3(data[member.offset : member.offset + member.file.size]).hexdigest() == member.blake3


class TestHardLinks:
    def test_further_names_are_links_across_packs(self, tree: MediaTree) -> None:
        first = make(tree, b"a", b"content")
        os.link(first, tree.root / "b")
        os.link(first, tree.root / "c")
        a, b, c = files(tree)
        links = HardLinks()
        pack = Pack(tree, [a, b], links)
        data = b"".join(pack.buffers())
        assert data.count(b"content") == 1
        assert isinstance(pack.outcomes[b"a"], Member)
        assert pack.outcomes[b"b"] == HardLinkEntry(b"b", b"a")
        second = Pack(tree, [c], links)
        assert second.empty
        assert second.outcomes == {b"c": HardLinkEntry(b"c", b"a")}

    def test_the_next_name_is_read_when_the_first_one_vanished(self, tree: MediaTree) -> None:
        first = make(tree, b"a", b"content")
        os.link(first, tree.root / "b")
        listed = files(tree)
        os.unlink(first)
        pack = Pack(tree, listed, HardLinks())
        assert b"content" in b"".join(pack.buffers())
        assert isinstance(pack.outcomes[b"a"], Skipped)
        assert isinstance(pack.outcomes[b"b"], Member)

    def test_a_reused_inode_number_is_no_link(self) -> None:
        path = Path(__file__)
        old = FileEntry.of(b"a", path.stat())
        old = FileEntry(b"a", old.attributes, old.size, old.identity, 2, old.ctime_ns)
        new = FileEntry(b"b", old.attributes, old.size + 1, old.identity, 2, old.ctime_ns)
        links = HardLinks()
        links.remember(old)
        assert links.find(new) is None
        same = FileEntry(b"b", old.attributes, old.size, old.identity, 2, old.ctime_ns)
        assert links.find(same) == HardLinkEntry(b"b", b"a")
