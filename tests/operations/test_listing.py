"""archiver list, show, ls and cat: what a destination holds, from the card alone."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.environment.live import read_content
from tests.operations.scene import NOT_TEXT, SOURCE, Scene, archiver


class LaterStore(LocalStore):
    """A store whose clock is ahead."""

    def __init__(self, root: Path, ahead: timedelta) -> None:
        super().__init__(root, Journal(None))
        self._ahead = ahead

    def clock(self) -> datetime:
        return datetime.now(UTC) + self._ahead


def entries(scene: Scene, *arguments: str) -> dict[str, str]:
    done = archiver("ls", "latest", *arguments, *scene.identity, "--json")
    assert done.code == 0, done.errors
    records = [json.loads(line) for line in done.output.splitlines()]
    found = {record["path"]: record["kind"] for record in records}
    assert len(found) == len(records)
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("vector", {"vector/data.mdb": "environment"}),
        ("media/link", {"media/link": "symlink"}),
        ("media/empty/", {"media/empty": "directory"}),
        ("media/album/2026/*", {"media/album/2026/none": "file", "media/album/2026/note.txt": "file"}),
        ("*/7.png", {"media/album/7.png": "hardlink"}),
    ],
)
def test_ls_by_path_and_glob(scene: Scene, path: str, expected: dict[str, str]) -> None:
    scene.backup()
    assert entries(scene, path) == expected


def test_ls_shows_everything_once(scene: Scene) -> None:
    scene.backup()
    found = entries(scene)
    on_disk = {f"media/{path.relative_to(scene.media)}" for path in scene.media.rglob("*")}
    assert set(found) == on_disk | {"media", "vector/data.mdb", "graph/data.mdb"}
    # Of two names of one file, the first by path is the file.
    assert found["media/again.png"] == "file"
    assert found["media/album/7.png"] == "hardlink"


def test_ls_of_what_is_not_there(scene: Scene) -> None:
    scene.backup()
    done = archiver("ls", "latest", "media/none", *scene.identity)
    assert (done.code, done.output) == (5, "")


@pytest.mark.parametrize("name", ["album/1.png", "album/2026/note.txt", "album/2026/none", "album/7.png", "sparse.raw"])
def test_cat_gives_the_bytes(scene: Scene, name: str) -> None:
    scene.backup()
    done = archiver("cat", "latest", f"media/{name}", *scene.identity)
    assert (done.code, done.errors) == (0, "")
    assert done.raw == (scene.media / name).read_bytes()


def test_cat_of_a_name_that_is_not_text(scene: Scene) -> None:
    scene.backup()
    done = archiver("cat", "latest", f"media/{os.fsdecode(NOT_TEXT)}", *scene.identity)
    assert done.raw == b"named in latin-1"


def test_cat_of_an_environment_is_one_that_opens(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    done = archiver("cat", "latest", "vector/data.mdb", *scene.identity)
    (tmp_path / "data.mdb").write_bytes(done.raw)
    assert read_content(tmp_path / "data.mdb") == read_content(scene.data / "vector/data.mdb")


@pytest.mark.parametrize(("path", "code"), [("media/album", 2), ("media/link", 2), ("media/nothing", 5), ("vector", 5)])
def test_cat_of_what_has_no_bytes(scene: Scene, path: str, code: int) -> None:
    scene.backup()
    done = archiver("cat", "latest", path, *scene.identity)
    assert (done.code, done.raw) == (code, b"")


def test_list_hides_what_is_past_its_promise(scene: Scene) -> None:
    name = scene.backup()
    for days, expected in ((34, [name]), (36, [])):
        archive = scene.archive(LaterStore(scene.destination, timedelta(days=days)))
        assert [backup.place.backup for backup in archive.backups(archive.store.clock())] == expected
        assert archive.find().manifest.backup == name


def test_a_backup_by_the_beginning_of_its_id(scene: Scene) -> None:
    first, second = scene.backup(), scene.backup()
    assert archiver("show", first[:-2], *scene.identity, "--json").document["backup"] == first
    assert archiver("show", *scene.identity, "--json").document["backup"] == second
    ambiguous = archiver("show", first[:4], *scene.identity)
    assert ambiguous.code == 5
    assert "beginning of 2 backup ids" in ambiguous.errors
    assert archiver("show", "19990101", *scene.identity).code == 5


def test_show_without_an_identity_tells_what_is_public(scene: Scene) -> None:
    scene.backup("--label", "private")
    done = archiver("show", "--config", str(scene.config), "--json")
    assert done.code == 0
    assert "label" not in done.document
    assert done.document["signature"] == "verified"


def test_a_replayed_manifest_is_noticed(scene: Scene) -> None:
    name = scene.backup()
    place = scene.destination / f"daily/backups/{SOURCE}/{name}"
    shutil.copytree(place, place.with_name("29991231T235959Z-abcdef"))
    done = archiver("show", "29991231", *scene.identity)
    assert done.code == 4
    assert "moved or replayed" in done.errors


def test_trust_unsigned_says_so(scene: Scene) -> None:
    scene.backup()
    next(scene.destination.rglob("*.minisig")).unlink()
    assert archiver("list", *scene.identity).code == 4
    done = archiver("list", *scene.identity, "--trust-unsigned", "--json")
    assert (done.code, done.document[0]["signature"]) == (0, "unchecked")
