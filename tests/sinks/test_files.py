"""Staged files: any order, sparse, and nothing counts that was not hashed."""

import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from archiver.catalog.records import FileRecord
from archiver.errors import FormatError, IntegrityError, TargetError
from archiver.sinks import files
from archiver.sinks.files import StagedFile, is_unchanged, translated
from archiver.sinks.owners import by_name
from tests.environment.live import open_descriptors

MIB = 1024 * 1024


def digest(content: bytes) -> str:
    return blake3(content).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3 * MIB + 11])
def test_pieces_in_any_order_make_the_file(tmp_path: Path, size: int) -> None:
    chance = random.Random(size)
    content = b"".join(chance.choice([bytes(7919), chance.randbytes(7919)]) for _ in range(-(-size // 7919)))[:size]
    pieces = [(offset, content[offset : offset + 100_003]) for offset in range(0, size, 100_003)]
    chance.shuffle(pieces)
    with StagedFile(tmp_path / "file", size) as file:
        for offset, piece in pieces:
            file.write_at(offset, chance.choice([bytes, bytearray, memoryview])(piece))
        file.finish(digest(content))
    assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("ascending", [True, False])
def test_only_what_was_not_observed_in_order_is_read_back(
    tmp_path: Path, ascending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(1).randbytes(MIB) + bytes(2 * MIB) + b"end"
    pieces = [(0, content[:1000]), (1000, content[1000:MIB]), (3 * MIB, b"end")]
    read: list[int] = []

    def read_back(_: int, size: int) -> str:
        read.append(size)
        return digest(content)

    monkeypatch.setattr(files, "_hash", read_back)
    with StagedFile(tmp_path / "file", len(content)) as file:
        for offset, piece in pieces:
            file.write_at(offset, piece)
        for offset, piece in pieces if ascending else pieces[::-1]:
            file.observe(offset, piece)
        file.finish(digest(content))
    assert read == ([] if ascending else [len(content)])
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("observed", [b"abd", b"ab", b""])
def test_what_was_observed_is_what_counts(tmp_path: Path, observed: bytes) -> None:
    with StagedFile(tmp_path / "file", 3) as file:
        file.write_at(0, b"abd")
        file.observe(0, observed)
        with pytest.raises(IntegrityError, match="restored content hashes to"):
            file.finish(digest(b"abc"))


def test_a_file_is_as_long_as_it_must_be_when_its_end_is_a_hole(tmp_path: Path) -> None:
    content = b"a" * 10 + bytes(MIB)
    with StagedFile(tmp_path / "file", len(content)) as file:
        file.write_at(0, content[:10])
        file.observe(0, content[:10])
        file.finish(digest(content))
    assert (tmp_path / "file").read_bytes() == content


def test_zeros_are_not_written(tmp_path: Path) -> None:
    content = bytes(8 * MIB) + b"x" + bytes(8 * MIB)
    with StagedFile(tmp_path / "file", len(content)) as file:
        file.write_at(0, content)
        file.finish(digest(content))
    assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "file").stat().st_blocks * 512 <= 128 * 1024


def test_other_content_is_refused(tmp_path: Path) -> None:
    with StagedFile(tmp_path / "file", 3) as file:
        file.write_at(0, b"abd")
        with pytest.raises(IntegrityError, match=f"hashes to {digest(b'abd')}, expected {digest(b'abc')}"):
            file.finish(digest(b"abc"))


def test_a_hole_where_data_belong_is_refused(tmp_path: Path) -> None:
    with StagedFile(tmp_path / "file", 2 * MIB) as file:
        file.write_at(0, b"a" * MIB)
        with pytest.raises(IntegrityError):
            file.finish(digest(b"a" * 2 * MIB))


def test_data_beyond_the_end_are_refused(tmp_path: Path) -> None:
    with StagedFile(tmp_path / "file", 3) as file, pytest.raises(FormatError, match="up to byte 4, expected 3"):
        file.write_at(2, b"ab")


def test_an_existing_file_or_link_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("victim", "link", "dangling"):
        with pytest.raises(IntegrityError, match="two entries in one place"):
            StagedFile(tmp_path / name, 3)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_is_told_with_what_to_do() -> None:
    with (
        pytest.raises(TargetError, match=r"movie\.mp4: cannot be written: no space left on device") as caught,
        translated("movie.mp4"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("Free space")


def test_a_limit_on_file_size_is_a_target_error(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from archiver.errors import TargetError
from archiver.sinks.files import StagedFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    StagedFile(Path({str(tmp_path)!r}) / "file", 1000).write_at(0, b"x" * 1000)
except TargetError as error:
    print(error.message)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert "file: cannot be written: file too large" in run.stdout, run.stderr


class TestIsUnchanged:
    def record(self, root: Path, path: str, content: bytes) -> FileRecord:
        """What a backup of the file at ``path``, whatever it is, would say if it had ``content``."""
        status = (root / path).stat()
        return FileRecord(
            path=path,
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            uid=status.st_uid,
            gid=status.st_gid,
            size=len(content),
            blake3=digest(content),
        )

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        (tmp_path / "d").mkdir()
        (tmp_path / "d/file").write_bytes(b"abc")
        return tmp_path / "d/file"

    @pytest.mark.parametrize("content", [b"", b"abc", b"x" + bytes(3 * MIB)])
    def test_as_recorded(self, tmp_path: Path, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert is_unchanged(tmp_path, self.record(tmp_path, "d/file", content), by_name)

    @pytest.mark.usefixtures("file")
    @pytest.mark.parametrize("content", [b"abd", b"abcd", b"ab", b""])
    def test_other_content(self, tmp_path: Path, content: bytes) -> None:
        assert not is_unchanged(tmp_path, self.record(tmp_path, "d/file", content), by_name)

    @pytest.mark.usefixtures("file")
    def test_another_mode_time_or_owner(self, tmp_path: Path) -> None:
        record = self.record(tmp_path, "d/file", b"abc")
        assert not is_unchanged(tmp_path, msgspec.structs.replace(record, mode=0o4755), by_name)
        assert not is_unchanged(tmp_path, msgspec.structs.replace(record, mtime_ns=record.mtime_ns + 1), by_name)
        assert is_unchanged(tmp_path, record, lambda _: (1234, 4321)) == (os.geteuid() != 0)

    def test_another_name_of_the_same_file(self, tmp_path: Path, file: Path) -> None:
        record = self.record(tmp_path, "d/file", b"abc")
        (tmp_path / "other").hardlink_to(file)
        assert not is_unchanged(tmp_path, record, by_name)
        (tmp_path / "other").unlink()
        assert is_unchanged(tmp_path, record, by_name)

    @pytest.mark.usefixtures("file")
    def test_no_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("d/file")
        (tmp_path / "e").symlink_to("d")
        assert not is_unchanged(tmp_path, self.record(tmp_path, "link", b"abc"), by_name)
        assert not is_unchanged(tmp_path, self.record(tmp_path, "e/file", b"abc"), by_name)

    def test_what_is_missing_or_no_file(self, tmp_path: Path, file: Path) -> None:
        record = self.record(tmp_path, "d/file", b"abc")
        assert not is_unchanged(tmp_path / "missing", record, by_name)
        file.unlink()
        assert not is_unchanged(tmp_path, record, by_name)
        file.mkdir()
        assert not is_unchanged(tmp_path, self.record(tmp_path, "d/file", b""), by_name)

    def test_a_pipe_does_not_make_us_wait_and_is_no_empty_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert not is_unchanged(tmp_path, self.record(tmp_path, "pipe", b""), by_name)

    @pytest.mark.usefixtures("file")
    def test_no_descriptor_stays_open(self, tmp_path: Path) -> None:
        (tmp_path / "directory").mkdir()
        records = [self.record(tmp_path, path, b"abc") for path in ("d/file", "directory")]
        before = open_descriptors()
        assert [is_unchanged(tmp_path, record, by_name) for record in records] == [True, False]
        assert open_descriptors() == before
