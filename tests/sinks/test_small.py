"""Small files, made of their whole content: all that a StagedFile promises, in fewer steps."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from archiver.catalog.records import FileRecord
from archiver.errors import FormatError, IntegrityError, TargetError
from archiver.sinks.media import MediaSink
from archiver.sinks.owners import OwnerMap, by_name

BLOCK = 64 * 1024
NOISE = random.Random(3).randbytes(3 * BLOCK)
TIME = 1_600_000_000_123_456_789


def record(path: str, content: bytes, *, mode: int = 0o644, mtime_ns: int = TIME) -> FileRecord:
    return FileRecord(
        path=path,
        mode=mode,
        mtime_ns=mtime_ns,
        uid=os.geteuid(),
        gid=os.getegid(),
        size=len(content),
        blake3=blake3(content).hexdigest(),
    )


def put(root: Path, path: str, content: bytes, *, mode: int = 0o644, owners: OwnerMap = by_name) -> os.stat_result:
    with MediaSink(root, owners) as sink:
        sink.put(record(path, content, mode=mode), memoryview(content))
    return (root / path).stat()


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o600, 0o644, 0o666, 0o777, 0o6755, 0o1644])
def test_mode_time_and_content_are_the_recorded_ones_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    status = put(tmp_path / "s", "a/b/c", NOISE, mode=mode)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, TIME)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    (tmp_path / "s/a/b/c").chmod(0o600)
    assert (tmp_path / "s/a/b/c").read_bytes() == NOISE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o6755])
def test_another_owner_is_set_and_set_user_id_survives_it(tmp_path: Path, mode: int) -> None:
    status = put(tmp_path / "s", "a", NOISE, mode=mode, owners=lambda _: (1234, 4321))
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_group_that_the_directory_gave_is_set_right(tmp_path: Path) -> None:
    """A new file in a directory with the set-group-id bit belongs to the directory's group, not to this process's."""
    (tmp_path / "s").mkdir()
    os.chown(tmp_path / "s", 0, 4321)
    (tmp_path / "s").chmod(0o2700)
    assert put(tmp_path / "s", "a", NOISE).st_gid == os.getegid()


def test_what_is_right_already_is_not_set_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand files are twenty thousand times each system call."""
    set_calls: list[str] = []
    for name in ("fchown", "fchmod", "ftruncate", "pwrite"):
        monkeypatch.setattr(os, name, _noted(name, set_calls))
    os.umask(before := os.umask(0o022))
    if before == 0o022:
        put(tmp_path / "s", "a", NOISE)
        assert set_calls == ["pwrite"]
        set_calls.clear()
    put(tmp_path / "s", "b", NOISE, mode=0o4644)
    assert set_calls == ["pwrite", "fchmod"]


def _noted(name: str, calls: list[str]) -> object:
    function = getattr(os, name)

    def noted(*arguments: object) -> object:
        calls.append(name)
        return function(*arguments)

    return noted


@pytest.mark.parametrize(
    "content",
    [b"x", bytes(BLOCK), NOISE[:BLOCK] + bytes(3 * BLOCK), bytes(3 * BLOCK) + b"x", b"x" + bytes(5 * BLOCK) + b"x"],
    ids=["one byte", "zeros", "a hole at the end", "a hole at the beginning", "a hole inside"],
)
def test_zeros_are_not_written(tmp_path: Path, content: bytes) -> None:
    status = put(tmp_path / "s", "a", content)
    assert (tmp_path / "s/a").read_bytes() == content
    data = sum(any(content[start : start + BLOCK]) for start in range(0, len(content), BLOCK))
    assert status.st_blocks * 512 <= data * BLOCK


def test_other_content_is_refused_before_there_is_a_file(tmp_path: Path) -> None:
    found, expected = blake3(b"abd").hexdigest(), blake3(b"abc").hexdigest()
    with (
        MediaSink(tmp_path / "s") as sink,
        pytest.raises(IntegrityError, match=f"d/a: restored content hashes to {found}, expected {expected}"),
    ):
        sink.put(record("d/a", b"abc"), b"abd")
    assert not any((tmp_path / "s").iterdir())


@pytest.mark.parametrize("content", [b"", b"ab", b"abcd"])
def test_another_size_is_refused_before_there_is_a_file(tmp_path: Path, content: bytes) -> None:
    with MediaSink(tmp_path / "s") as sink, pytest.raises(FormatError, match=f"{len(content)}, expected 3 bytes"):
        sink.put(record("a", b"abc"), content)
    assert not any((tmp_path / "s").iterdir())


def test_one_path_twice(tmp_path: Path) -> None:
    with MediaSink(tmp_path / "s") as sink:
        sink.put(record("a", b"first"), b"first")
        for path in ("a", "a/b", "."):
            with pytest.raises(IntegrityError, match="two entries in one place"):
                sink.put(record(path, b"second"), b"second")
    assert (tmp_path / "s/a").read_bytes() == b"first"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/directory").symlink_to(tmp_path / "outside")
    (tmp_path / "s/file").symlink_to(tmp_path / "victim")
    (tmp_path / "s/dangling").symlink_to(tmp_path / "nowhere")
    with MediaSink(tmp_path / "s") as sink:
        for path in ("directory/a", "file", "dangling"):
            with pytest.raises(IntegrityError, match="two entries in one place"):
                sink.put(record(path, b"x"), b"x")
    assert not any((tmp_path / "outside").iterdir())
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_name_that_the_file_system_does_not_take_is_told(tmp_path: Path) -> None:
    with MediaSink(tmp_path / "s") as sink, pytest.raises(TargetError, match="cannot be written: file name too long"):
        sink.put(record("x" * 300, b"x"), b"x")


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(os, "pwrite", lambda _, view, __: full.write(view))
        with MediaSink(tmp_path / "s") as sink, pytest.raises(TargetError, match="a: cannot be written: no space") as e:
            sink.put(record("a", b"x"), b"x")
    assert e.value.hint is not None
    assert e.value.hint.startswith("Free space")
