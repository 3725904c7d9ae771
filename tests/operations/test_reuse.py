"""Unchanged files are recognised and not read, and their objects used again; whatever is doubtful is read."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from archiver.catalog.names import parse_object_key
from archiver.environment.state import Change
from archiver.errors import IntegrityError, NotFoundError, RefusedError, StorageError
from archiver.operations import remembered
from archiver.operations.commit_check import promise_of, promised
from archiver.operations.remembered import Memory
from archiver.operations.reuse import Reuse
from archiver.progress import Silent
from archiver.retention.policy import Term
from archiver.sources.media import MediaTree
from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from tests.operations.scene import SOURCE, Scene, archiver, check_restored, finish, make_scene, spawn
from tests.years.script import night_time
from tests.years.times import DirectoryTime

FILES = 20


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as written long ago."""
    monkeypatch.setattr(remembered, "_RACY", 0)


@dataclass
class Work:
    """What a run opened and created."""

    opened: list[bytes] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)

    @property
    def media(self) -> list[str]:
        """The objects of media that were created."""
        return [key for key in self.created if key.endswith((".tar.zst.age", ".file.zst.age"))]


@contextmanager
def watched() -> Iterator[Work]:
    """What the runs of the block open and create."""
    work = Work()
    open_file, create, copy = MediaTree.open_file, LocalStore.create, LocalStore.copy
    with pytest.MonkeyPatch.context() as patched:

        def opening(tree: MediaTree, path: bytes) -> tuple[int, os.stat_result]:
            work.opened.append(path)
            return open_file(tree, path)

        def creating(store: LocalStore, key: str, body: object) -> StoredObject:
            work.created.append(key)
            return create(store, key, body)  # type: ignore[arg-type]

        def copying(store: LocalStore, source: str, key: str) -> StoredObject:
            work.copied.append(key)
            return copy(store, source, key)

        patched.setattr(MediaTree, "open_file", opening)
        patched.setattr(LocalStore, "create", creating)
        patched.setattr(LocalStore, "copy", copying)
        yield work


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """With small files in an album of their own, so that more than half of a pack can change."""
    for number in range(FILES):
        path = scene.media / "many" / f"{number:02}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Random(number).randbytes(20_000))
    return scene


def placed(scene: Scene, backup: str) -> dict[str, str]:
    """By object id the key that a backup names."""
    (path,) = (scene.destination / "daily/data" / SOURCE).glob(f"{backup}.placement.jsonl.zst")
    lines = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout.splitlines()
    return {record["id"]: record["key"] for record in map(json.loads, lines)}


def media_keys(scene: Scene, backup: str) -> set[str]:
    return {key for key in placed(scene, backup).values() if ".mdb." not in key}


def restored(scene: Scene, target: Path) -> None:
    """The newest backup is what the source is."""
    assert scene.restore("--to", str(target), "--force").code == 0
    check_restored(scene, target)


@pytest.mark.usefixtures("_settled")
def test_an_unchanged_tree_of_a_thousand_files_opens_none_and_stores_nothing(scene: Scene, tmp_path: Path) -> None:
    for number in range(1000):
        (scene.media / "many" / f"more-{number}").write_bytes(b"%d" % number * 10)
    (scene.media / "large").write_bytes(Random(3).randbytes(33 << 20))
    with watched() as work:
        first = scene.backup()
    assert len(work.opened) > 1000
    with watched() as work:
        second = scene.backup()
    assert work.opened == []
    assert work.media == []
    assert media_keys(scene, first) == media_keys(scene, second)
    assert len(media_keys(scene, second)) == 3
    shown = [archiver("show", name, *scene.identity, "--json").document for name in (first, second)]
    assert shown[0]["objects"] == shown[1]["objects"] == 5
    assert shown[0]["files"] == shown[1]["files"]
    scene.verify(second)
    shutil.rmtree(scene.destination / "daily/backups" / SOURCE / first)
    restored(scene, tmp_path / "out")


def test_what_was_changed_just_before_it_was_read_is_read_again_but_not_stored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_RACY", 10**12)
    # One of several names is stored again: its other names become links to it.
    (scene.media / "again.png").unlink()
    scene.backup()
    with watched() as work:
        scene.backup()
    assert b"many/00" in work.opened
    assert not any(".tar." in key for key in work.media)


@pytest.mark.usefixtures("_settled")
def test_a_change_that_keeps_size_and_time_is_seen(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    path = scene.media / "many/07"
    before = path.stat()
    path.write_bytes(Random(99).randbytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with watched() as work:
        scene.backup()
    assert set(work.opened) == {b"many/07"}
    assert len(work.media) == 1
    restored(scene, tmp_path / "out")


@pytest.mark.usefixtures("_settled")
def test_new_times_and_modes_store_nothing_and_are_restored(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    (scene.media / "many/01").chmod(0o604)
    os.utime(scene.media / "many/02", ns=(5, 5))
    with watched() as work:
        scene.backup()
    assert set(work.opened) == {b"many/01", b"many/02"}
    assert work.media == []
    restored(scene, tmp_path / "out")
    with watched() as work:
        scene.backup()
    assert work.opened == []


@pytest.mark.usefixtures("_settled")
def test_names_come_and_go(scene: Scene, tmp_path: Path) -> None:
    """New, deleted and renamed files, further names of old ones, and a directory where a file was."""
    os.link(scene.media / "many/08", scene.media / "many/08 again")
    scene.backup()
    with watched() as work:
        scene.backup()
    assert work.opened == []
    restored(scene, tmp_path / "out")
    (scene.media / "many/00").unlink()
    (scene.media / "many/00").mkdir()
    (scene.media / "many/00/in it").write_bytes(b"new")
    (scene.media / "many/01").rename(scene.media / "many/0 renamed")
    os.link(scene.media / "many/02", scene.media / "a name before it")
    os.link(scene.media / "many/03", scene.media / "many/z a name after it")
    (scene.media / "album/7.png").unlink()
    for _ in range(2):
        scene.backup()
        shutil.rmtree(tmp_path / "out")
        restored(scene, tmp_path / "out")


@pytest.mark.usefixtures("_settled")
def test_a_pack_that_is_mostly_dead_is_packed_anew(scene: Scene, tmp_path: Path) -> None:
    shutil.rmtree(scene.media)
    for number in range(FILES):
        (scene.media / "many").mkdir(parents=True, exist_ok=True)
        (scene.media / "many" / f"{number:02}").write_bytes(Random(number).randbytes(20_000))
    first = scene.backup()
    for number in range(FILES // 2 - 1):
        (scene.media / "many" / f"{number:02}").write_bytes(b"changed")
    second = scene.backup()
    with watched() as work:
        scene.backup()
    assert work.opened == []
    for number in range(FILES // 2 - 1, FILES // 2 + 2):
        (scene.media / "many" / f"{number:02}").write_bytes(b"changed, too")
    scene.backup()
    with watched() as work:
        last = scene.backup()
    # What is left of the first pack is less than half, so it is read; the packs that came later are whole.
    assert set(work.opened) == {b"many/%02d" % number for number in range(FILES // 2 + 2, FILES)}
    assert len(work.media) == 1
    assert media_keys(scene, first) <= media_keys(scene, second)
    assert not media_keys(scene, first) & media_keys(scene, last)
    restored(scene, tmp_path / "out")
    with watched() as work:
        scene.backup()
    assert work.opened == []


@pytest.mark.usefixtures("_settled")
def test_a_volume_that_is_not_mounted_for_a_night_costs_nothing(scene: Scene) -> None:
    scene.backup()
    (scene.media / "many").rename(scene.root / "elsewhere")
    (scene.media / "many").mkdir()
    scene.backup()
    (scene.media / "many").rmdir()
    (scene.root / "elsewhere").rename(scene.media / "many")
    with watched() as work:
        scene.backup()
    assert work.opened == []
    (scene.media / "many").rename(scene.root / "elsewhere")
    for _ in range(2):
        scene.backup()
    with Memory(scene.state / SOURCE, scene.url, Silent()) as memory:
        assert not [path for path, _ in memory.files() if path.startswith(b"many/")]


@pytest.mark.usefixtures("_settled")
def test_names_that_sort_before_the_root_are_recognised(scene: Scene, tmp_path: Path) -> None:
    """The root is called ``.`` and comes first all the same."""
    (scene.media / "-album").mkdir()
    names = [b"!first", b"-album/one", b"-dash", b" space"]
    for name in names:
        (scene.media / os.fsdecode(name)).write_bytes(name)
    scene.backup()
    with watched() as work:
        scene.backup()
        scene.backup()
    assert work.opened == []
    restored(scene, tmp_path / "out")


@pytest.mark.usefixtures("_settled")
def test_what_is_not_in_the_store_any_more_is_read(scene: Scene, tmp_path: Path) -> None:
    first = scene.backup()
    (pack,) = (key for key in media_keys(scene, first) if ".tar." in key)
    (scene.destination / pack).unlink()
    with watched() as work:
        second = scene.backup()
    assert b"many/00" in work.opened
    assert pack not in media_keys(scene, second)
    restored(scene, tmp_path / "out")


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(("late", "used"), [(timedelta(minutes=59), True), (timedelta(minutes=61), False)])
def test_an_object_that_is_younger_than_it_may_be_was_planted(scene: Scene, late: timedelta, *, used: bool) -> None:
    """Of the right name and size, where the true one has expired: only its age tells. An hour is for clocks."""
    first = scene.backup()
    (pack,) = (scene.destination / key for key in media_keys(scene, first) if ".tar." in key)
    made = pack.stat().st_mtime
    if not used:
        pack.write_bytes(bytes(pack.stat().st_size))
    os.utime(pack, (made + late.total_seconds(),) * 2)
    second = scene.backup()
    assert (str(pack.relative_to(scene.destination)) in media_keys(scene, second)) == used
    scene.verify(second)


@pytest.mark.usefixtures("_settled")
def test_a_key_of_another_size_or_that_nobody_made_here_is_not_used(scene: Scene) -> None:
    first = scene.backup()
    (pack,) = (key for key in media_keys(scene, first) if ".tar." in key)
    planted = scene.destination / pack.replace("daily/", "monthly/")
    planted.parent.mkdir(parents=True)
    planted.write_bytes(bytes((scene.destination / pack).stat().st_size))
    assert pack in media_keys(scene, scene.backup())
    with (scene.destination / pack).open("ab") as file:
        file.write(b"more")
    second = scene.backup()
    assert pack not in media_keys(scene, second)
    scene.verify(second)


def state_file(scene: Scene) -> Path:
    (found,) = (scene.state / SOURCE).glob("media-*/data.mdb")
    return found


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("loss", ["lost", "garbage", "bit", "nonsense", "version"])
def test_a_lost_or_damaged_state_costs_a_full_read_and_a_warning(scene: Scene, loss: str, tmp_path: Path) -> None:
    scene.backup()
    if loss == "lost":
        shutil.rmtree(state_file(scene).parent)
    elif loss == "garbage":
        data = state_file(scene).read_bytes()
        state_file(scene).write_bytes(data[: len(data) // 2])
    elif loss == "bit":
        # Within the hash of a file: its structure is whole, and the file as unchanged as before.
        data, digest = state_file(scene).read_bytes(), blake3((scene.media / "many" / "03").read_bytes()).digest()
        assert digest in data
        state_file(scene).write_bytes(data.replace(digest, bytes([digest[0] ^ 1]) + digest[1:]))
    elif loss == "version":
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(remembered, "_VERSION", 2)
            assert archiver("backup", "--config", str(scene.config)).code == 3
    else:
        with Memory(scene.state / SOURCE, scene.url, Silent()) as memory:
            assert memory._state is not None
            memory._state.write([Change("files", b"many/03", b"\x93\x01\x02\x03")])
    with watched() as work:
        done = archiver("backup", "--config", str(scene.config))
    assert done.code == (0 if loss == "lost" else 3), done.errors
    assert done.errors.count("warning: ") == (0 if loss == "lost" else 1), done.errors
    assert b"many/05" in work.opened
    restored(scene, tmp_path / "out")
    if loss in ("nonsense", "bit"):
        # It is thrown away, so that the next run remembers anew.
        assert not list((scene.state / SOURCE).glob("media-*/data.mdb"))
        scene.backup()
    with watched() as work:
        scene.backup()
    assert work.opened == []


def test_a_state_that_cannot_be_written_is_a_warning(scene: Scene) -> None:
    scene.backup()
    path = state_file(scene).parent
    shutil.rmtree(path)
    path.write_bytes(b"a file")
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 3, done.errors
    assert "warning: unchanged files cannot be remembered: " in done.errors
    scene.verify()


@pytest.mark.usefixtures("_settled")
def test_a_disk_that_fills_up_is_one_warning_and_the_backup_is_made(
    scene: Scene, small_disk: Path, tmp_path: Path
) -> None:
    text = scene.config.read_text().replace('state_directory = "state"', f'state_directory = "{small_disk}/state"')
    scene.config.write_text(f"{text}spool = 0\n")
    scene.backup()
    for number in range(3000):
        (scene.media / "many" / f"more-{number}").write_bytes(b"%d" % number)
    status = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - (1 << 15)))
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 3, done.errors
    assert done.errors.count("warning: unchanged files cannot be remembered: ") == 1
    (small_disk / "filler").unlink()
    restored(scene, tmp_path / "out")
    scene.backup()
    restored(scene, tmp_path / "out")


@pytest.mark.usefixtures("_settled")
def test_another_destination_is_remembered_for_itself(scene: Scene) -> None:
    scene.backup()
    text = scene.config.read_text()
    other = scene.destination.with_name("other")
    shutil.copytree(scene.destination / "vault", other / "vault")
    scene.config.write_text(text.replace(scene.url, other.as_uri()))
    with watched() as work:
        scene.backup()
    assert b"many/05" in work.opened
    assert len([*other.glob(f"daily/data/{SOURCE}/*.tar.zst.age")]) == 1
    with watched() as work:
        scene.backup()
        scene.config.write_text(text)
        scene.backup()
    assert work.opened == []


@pytest.mark.usefixtures("_settled")
def test_nothing_sealed_to_another_vault_is_used(scene: Scene) -> None:
    """Whoever was removed before a rotation opens nothing that is stored after it."""
    first = scene.backup()
    done = archiver("keys", "rotate", "--config", str(scene.config), *scene.identity)
    assert done.code == 0, done.errors
    with watched() as work:
        second = scene.backup()
    assert b"many/05" in work.opened
    assert not media_keys(scene, first) & media_keys(scene, second)
    with watched() as work:
        scene.backup()
    assert work.opened == []


@pytest.mark.usefixtures("_settled")
def test_the_state_is_never_sent(scene: Scene) -> None:
    text = scene.config.read_text()
    scene.config.write_text(text.replace('state_directory = "state"', f'state_directory = "{scene.media}/state"'))
    for _ in range(2):
        scene.backup()
    (state,) = (scene.media / "state" / SOURCE).glob("media-*/data.mdb")
    assert b"many/05" in state.read_bytes()
    shown = archiver("ls", "latest", *scene.identity, "--json")
    assert shown.code == 0
    assert "many/05" in shown.output
    assert "media-" not in shown.output
    assert "data.mdb" not in shown.output.replace("vector/data.mdb", "").replace("graph/data.mdb", "")


@pytest.mark.usefixtures("_settled")
def test_a_run_that_failed_has_not_stored_in_vain(scene: Scene, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("the network is gone")

    with watched() as work, pytest.MonkeyPatch.context() as patched:
        patched.setattr("archiver.operations.backup.check_stored", refuse)
        assert archiver("backup", "--config", str(scene.config)).code == 7
    stored = set(work.media)
    assert len(stored) == 2
    with watched() as work:
        backup = scene.backup()
    assert work.opened == []
    assert media_keys(scene, backup) == stored
    restored(scene, tmp_path / "out")


def test_a_run_that_was_killed_has_not_stored_in_vain(scene: Scene, tmp_path: Path) -> None:
    settled = "from archiver.operations import remembered; remembered._RACY = 0\n"
    kill = f"""
import os, time
from archiver.operations.reuse import Reuse
def killed(self):
    while not any(item.kind == "tar" for item in self.memory.objects().values()):
        time.sleep(0.01)
    os.kill(os.getpid(), {signal.SIGKILL})
Reuse.finish = killed
"""
    process = spawn("backup", "--config", str(scene.config), before=settled + kill)
    assert finish(process).code == -signal.SIGKILL
    packs = {path.name for path in (scene.destination / "daily/data" / SOURCE).glob("*.tar.zst.age")}
    assert len(packs) == 1
    with watched() as work:
        backup = scene.backup()
    assert not any(".tar." in key for key in work.media)
    assert {Path(key).name for key in media_keys(scene, backup)} >= packs
    restored(scene, tmp_path / "out")


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> DirectoryTime:
    return DirectoryTime(monkeypatch)


@pytest.mark.usefixtures("_settled")
def test_what_would_not_last_is_copied_within_the_store(scene: Scene, time: DirectoryTime, tmp_path: Path) -> None:
    first = scene.backup()
    time.set(night_time(6))
    with watched() as work:
        second = scene.backup()
    assert (work.opened, work.copied) == ([], [])
    assert media_keys(scene, first) == media_keys(scene, second)
    time.set(night_time(8))
    with watched() as work:
        third = scene.backup()
    assert work.opened == []
    assert set(work.copied) == media_keys(scene, third)
    assert placed(scene, third).keys() >= {
        found.object_id for key in media_keys(scene, first) if (found := parse_object_key(key))
    }
    assert not media_keys(scene, first) & media_keys(scene, third)
    time.set(night_time(9))
    with watched() as work:
        fourth = scene.backup()
    assert work.copied == []
    assert media_keys(scene, fourth) == media_keys(scene, third)
    restored(scene, tmp_path / "out")
    # The first keys have expired; the further ones live on, and are copied in their turn.
    time.set(night_time(17))
    with watched() as work:
        scene.backup()
    assert work.opened == []
    assert len(work.copied) == 2
    time.set(night_time(43))
    assert archiver("expire", "--config", str(scene.config)).code == 0
    scene.verify()


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("error", [NotFoundError, RefusedError, IntegrityError])
def test_what_cannot_be_copied_is_read(scene: Scene, time: DirectoryTime, error: type[Exception]) -> None:
    scene.backup()
    time.set(night_time(8))
    tried = []

    def fail(store: LocalStore, source: str, key: str) -> StoredObject:
        tried.append(source)
        raise error("it is gone")

    with watched() as work, pytest.MonkeyPatch.context() as patched:
        patched.setattr(LocalStore, "copy", fail)
        scene.backup()
    assert len(tried) == 2
    assert b"many/05" in work.opened
    assert len(work.media) == 2
    scene.verify()


@pytest.mark.usefixtures("_settled")
def test_copies_in_longer_classes_are_used(tmp_path: Path, time: DirectoryTime) -> None:
    """So that in the long run each object is stored about once."""
    root = tmp_path / "calendar"
    root.mkdir()
    scene = make_scene(root, calendar=True)
    first = scene.backup()
    assert {key.split("/")[0] for key in media_keys(scene, first)} == {"daily"}
    for night in (1, 8, 30):
        time.set(night_time(night))
        with watched() as work:
            backup = scene.backup()
        assert work.opened == []
        # Promotion copies the environments, which are new each month.
        assert not [key for key in work.copied if ".mdb." not in key and ".jsonl." not in key]
        assert {key.split("/")[0] for key in media_keys(scene, backup)} == {"monthly"}
        scene.verify(backup)


@pytest.mark.usefixtures("_settled")
def test_an_object_that_goes_while_the_backup_is_made_fails_it(scene: Scene) -> None:
    first = scene.backup()
    (pack,) = (scene.destination / key for key in media_keys(scene, first) if ".tar." in key)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Reuse, "finish", lambda _: pack.unlink())
        done = archiver("backup", "--config", str(scene.config))
    assert done.code == 4, done.errors
    assert "does not list it" in done.errors
    assert [path.name for path in (scene.destination / "daily/backups" / SOURCE).iterdir()] == [first]
    second = scene.backup()
    scene.verify(second)


def test_changes_of_rules_bound_the_promise() -> None:
    before, after = Term("daily", 30, 42), Term("daily", 35, 40)
    assert (promised(before, after).keep, promised(before, after).lease) == (30, 10)
    began = datetime.fromisoformat("2026-11-29T00:00:00Z")
    assert promise_of(began, before) == began + timedelta(days=30)
