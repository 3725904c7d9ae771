"""archiver restore: everything comes back as it was, where it is wanted, and what it replaces is kept."""

import gc
import os
import shutil
import stat
from pathlib import Path

import lmdb
import pytest

from archiver.buffers import Buffer
from archiver.catalog.records import FileRecord
from archiver.sinks.files import StagedFile
from archiver.sinks.media import MediaSink
from tests.environment.live import make_environment, read_content
from tests.heed import HeedWriter, check
from tests.operations.restoring import WatchedStore, occupied_target, restore_from
from tests.operations.scene import (
    ENVIRONMENTS,
    NOT_TEXT,
    SPARSE_SIZE,
    Scene,
    check_restored,
    restore_leftovers,
    tree,
)

BEFORE = [b".archiver-before-"]


def test_everything_is_equal_on_a_blank_machine(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    original = tree(scene.media)
    blank = tmp_path / "blank"
    shutil.copy(scene.card, tmp_path / "card.txt")
    for path in (scene.config, scene.card, scene.root / "archiver-signing.key"):
        path.unlink()
    shutil.rmtree(scene.state)
    done = Scene(tmp_path, scene.url)
    result = Scene(tmp_path, scene.url).restore("--to", str(blank), "--json")
    assert result.code == 0, result.errors
    assert (tmp_path / "card.txt") == done.card
    check_restored(scene, blank, media=original)
    assert restore_leftovers(blank) == []
    assert sorted(os.listdir(blank)) == ["graph", "media", "vector"]


def test_flags_counts_and_metadata_that_a_restore_must_keep(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    with (
        lmdb.open(str(tmp_path / "out/vector"), readonly=True, lock=False, max_dbs=16, lib_version=0) as environment,
        environment.begin() as transaction,
    ):
        flags = {}
        for name in (b"plain", b"reverse", b"integer", b"duplicates", b"fixed", b"integers", b"\xff\xfe not text"):
            database = environment.open_db(name, txn=transaction, create=False)
            flags[name] = {flag for flag, on in database.flags().items() if on}
            assert transaction.stat(database)["entries"] == (133 if name == b"plain" else 200), name
        assert flags == {
            b"plain": set(),
            b"reverse": {"reverse_key"},
            b"integer": {"integerkey"},
            b"duplicates": {"dupsort"},
            b"fixed": {"dupsort", "dupfixed"},
            b"integers": {"dupsort", "dupfixed", "integerdup"},
            b"\xff\xfe not text": set(),
        }
    media = tmp_path / "out/media"
    assert (media / os.fsdecode(NOT_TEXT)).read_bytes() == b"named in latin-1"
    assert os.path.samefile(media / "album/7.png", media / "again.png")
    sparse = (media / "sparse.raw").stat()
    assert (sparse.st_size, sparse.st_blocks * 512 < SPARSE_SIZE // 10) == (SPARSE_SIZE, True)
    assert stat.S_IMODE((media / "album/4.png").stat().st_mode) == 0o400
    assert os.readlink(media / "dangling") == "../nowhere"
    assert os.listdir(media / "empty") == []


def test_in_place_replaces_and_keeps_what_was_there(scene: Scene) -> None:
    backup = scene.backup()
    media = tree(scene.media)
    content = {name: read_content(scene.data / name / "data.mdb") for name in ENVIRONMENTS}
    older = {name: read_content(make_environment(scene.data / name, 20) / "data.mdb") for name in ENVIRONMENTS}
    (scene.media / "album/1.png").write_bytes(b"changed")
    (scene.media / "album/extra").write_bytes(b"added")
    refused = scene.restore("--in-place", "--config", str(scene.config))
    assert (refused.code, read_content(scene.data / "vector/data.mdb")) == (6, older["vector"])
    done = scene.restore("--in-place", "--force", "--config", str(scene.config))
    assert done.code == 0, done.errors
    kept = f".archiver-before-{backup}"
    for name in ENVIRONMENTS:
        assert read_content(scene.data / name / "data.mdb") == content[name]
        assert read_content(scene.data / name / kept / name / "data.mdb") == older[name]
    # What the backup does not hold stays where it is.
    assert (scene.media / "album/extra").read_bytes() == b"added"
    (scene.media / "album/extra").unlink()
    assert tree(scene.media, leave_out=BEFORE) | {b"album": media[b"album"]} == media
    assert (scene.media / kept / "media/album/1.png").read_bytes() == b"changed"
    assert not (scene.media / kept / "media/album/extra").exists()
    assert restore_leftovers(scene.data) == []


def test_in_place_refuses_a_live_heed_server(scene: Scene, heed_writer: Path) -> None:
    scene.backup()
    live = scene.data / "live"
    with HeedWriter.start(heed_writer, live, paused=True) as server:
        text = scene.config.read_text()
        for name in ("vector", "graph"):
            text = text.replace(str(scene.data / name), str(live / name))
        scene.config.write_text(text)
        before = tree(live)
        done = scene.restore("--in-place", "--force", "--config", str(scene.config))
        assert done.code == 6
        assert f"pid {server.pid}" in done.errors
        assert tree(live) == before
        server.commit()
        assert server.stop().errors == 0
    assert check(heed_writer, live).ok


def test_replaced_files_are_discarded_on_request(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    target = occupied_target(tmp_path)
    assert scene.restore("--to", str(target), "--force", "--discard-replaced").code == 0
    check_restored(scene, target)
    assert (target / "media/unknown").read_bytes() == b"not in the backup"
    assert sorted(os.listdir(target)) == ["graph", "media", "vector"]


def test_a_second_replacement_does_not_touch_the_first(scene: Scene, tmp_path: Path) -> None:
    backup = scene.backup()
    target = occupied_target(tmp_path)
    for text in (b"first", b"second"):
        (target / "media/album/1.png").write_bytes(text)
        assert scene.restore("--to", str(target), "--force").code == 0
    for suffix, text in (("", b"first"), ("-2", b"second")):
        assert (target / f".archiver-before-{backup}{suffix}/media/album/1.png").read_bytes() == text


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["vector"], {"vector/data.mdb"}),
        (["media/album/3.png"], {"media/album/3.png"}),
        (["media/album/2026"], {"media/album/2026/note.txt", "media/album/2026/none"}),
        (["media/*/1*.png"], {"media/album/1.png", "media/album/10.png", "media/album/11.png"}),
        (["graph", "media/link"], {"graph/data.mdb", "media/link"}),
    ],
)
def test_only(scene: Scene, tmp_path: Path, patterns: list[str], expected: set[str]) -> None:
    scene.backup()
    target = tmp_path / "out"
    options = [option for pattern in patterns for option in ("--only", pattern)]
    done = scene.restore("--to", str(target), *options)
    assert done.code == 0, done.errors
    found = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_symlink() or path.is_file()}
    assert found == expected
    for name in expected & {"media/album/3.png", "media/album/1.png"}:
        assert (target / name).read_bytes() == (scene.data / name).read_bytes()


def test_only_leaves_the_rest_of_the_target_alone(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    target = occupied_target(tmp_path)
    before = tree(target)
    assert scene.restore("--to", str(target), "--force", "--only", "media/album/1.png").code == 0
    after = tree(target, leave_out=BEFORE)
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {b"media", b"media/album", b"media/album/1.png"}
    assert (target / "media/album/1.png").read_bytes() == (scene.media / "album/1.png").read_bytes()


def test_only_that_selects_nothing_is_not_found(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    done = scene.restore("--to", str(tmp_path / "out"), "--only", "media/nothing")
    assert (done.code, (tmp_path / "out").exists()) == (5, False)


def test_at_takes_the_newest_that_had_started_by_then(scene: Scene, tmp_path: Path) -> None:
    first = scene.backup()
    moment = f"{first[:4]}-{first[4:6]}-{first[6:11]}:{first[11:13]}:{first[13:16]}"
    second = scene.backup()
    for index, (options, expected) in enumerate(((("--at", moment), first), ((), second))):
        done = scene.restore("--to", str(tmp_path / str(index)), *options, "--json")
        assert done.code == 0, done.errors
        assert done.document["backup"] == expected
    assert scene.restore("--to", str(tmp_path / "none"), "--at", "2001-01-01").code == 5


def test_unchanged_files_are_not_fetched_again(scene: Scene, tmp_path: Path) -> None:
    # A file with several names is: what is in place must not change before the swap.
    (scene.media / "again.png").unlink()
    scene.backup()
    target = tmp_path / "out"
    first, second = WatchedStore(scene.destination), WatchedStore(scene.destination)
    restore_from(scene, first, target)
    restore_from(scene, second, target, force=True)
    fetched = {kind for key in first.keys for kind in (".mdb.", ".tar.", ".file.") if kind in key}
    assert fetched == {".mdb.", ".tar.", ".file."}
    assert not [key for key in second.keys if ".tar." in key or ".file." in key]
    check_restored(scene, target)


def test_small_files_are_made_at_once_and_old_memory_is_not_searched_for_garbage(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are what makes a restore of thousands of small files fast."""
    put, begin = MediaSink.put, MediaSink.file
    made: set[bytes] = set()
    begun: set[bytes] = set()
    frozen: set[bool] = set()

    def watched_put(sink: MediaSink, record: FileRecord, content: Buffer) -> None:
        made.add(record.path_bytes)
        frozen.add(gc.get_freeze_count() > before)
        put(sink, record, content)

    def watched_file(sink: MediaSink, record: FileRecord) -> StagedFile:
        begun.add(record.path_bytes)
        return begin(sink, record)

    monkeypatch.setattr(MediaSink, "put", watched_put)
    monkeypatch.setattr(MediaSink, "file", watched_file)
    before = gc.get_freeze_count()
    scene.backup()
    restore_from(scene, WatchedStore(scene.destination), tmp_path / "out")
    assert {b"album/1.png", b"album/4.png"} <= made
    assert b"sparse.raw" in begun
    assert not made & begun
    assert frozen == {True}
    assert gc.get_freeze_count() == 0
    check_restored(scene, tmp_path / "out")
