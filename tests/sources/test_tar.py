"""Headers of a pack: byte for byte what Python's tarfile makes of the same files."""

import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.sources import tar
from archiver.sources.entries import EARLIEST, LATEST, Attributes, FileEntry, group_name, owner_name
from archiver.sources.tar import tar_header

characters = st.characters(exclude_characters="\0/", exclude_categories=["Cs"])
segments = st.one_of(
    st.binary(min_size=1, max_size=120).filter(lambda name: not set(name) & {0, ord("/")}),
    st.text(characters, min_size=1, max_size=120).map(str.encode),
    st.text("abc-._ 0", min_size=1, max_size=120).map(str.encode),
)
paths = st.lists(segments, min_size=1, max_size=4).map(b"/".join)
names = (
    st.text(max_size=40)
    | st.text("abcxyz", max_size=40)
    | st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
ids = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1000, 8**7 - 1, 8**7])
times = st.integers(EARLIEST, LATEST) | st.sampled_from([-1, 0, 1, 8**11 * 10**9 - 1, EARLIEST, LATEST])
sizes = st.integers(0, 8**11 - 1)


def entry(path: bytes, size: int, mtime_ns: int, mode: int, uid: int, gid: int) -> FileEntry:
    return FileEntry(path, Attributes(mode, mtime_ns, uid, gid), size, (0, 0), 1, 0)


def expected(file: FileEntry, owner: str, group: str) -> bytes:
    attributes = file.attributes
    info = tarfile.TarInfo(file.path.decode("utf-8", "surrogateescape"))
    info.size, info.mode = file.size, attributes.mode
    info.mtime = attributes.mtime_ns // 10**9
    info.uid, info.gid, info.uname, info.gname = attributes.uid, attributes.gid, owner, group
    seconds, fraction = divmod(abs(attributes.mtime_ns), 10**9)
    info.pax_headers = {"mtime": f"{'-' if attributes.mtime_ns < 0 else ''}{seconds}.{fraction:09d}"}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


@given(paths, sizes, times, st.integers(0, 0o7777), ids, ids, names, names)
@example(b"a", 0, 0, 0o644, 0, 0, "root", "root")
@example(b"n" * 100, 0, 0, 0o644, 0, 0, "u" * 32, "g" * 33)
@example(b"n" * 101, 0, 0, 0o644, 0, 0, "", "")
@example(b"\xff", 0, 0, 0o644, 0, 0, "\udcff", "é")
@example("ü".encode() * 60, 0, 0, 0o644, 0, 0, "", "")
def test_headers_are_those_of_tarfile(
    path: bytes, size: int, mtime_ns: int, mode: int, uid: int, gid: int, owner: str, group: str
) -> None:
    file = entry(path, size, mtime_ns, mode, uid, gid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar, "owner_name", lambda _: owner)
        patch.setattr(tar, "group_name", lambda _: group)
        tar._owned.cache_clear()
        assert tar_header(file) == expected(file, owner, group)
    tar._owned.cache_clear()


def test_every_length_of_a_record_counts_itself() -> None:
    for length in range(1, 1100):
        file = entry(b"n" * length, 0, 0, 0o644, 0, 0)
        assert tar_header(file) == expected(file, owner_name(0), group_name(0))
