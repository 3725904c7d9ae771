"""What a backup that fails saves: the newest one of before, when that would lapse soon."""

import shutil
from collections.abc import Iterator
from datetime import timedelta

import pytest

from archiver.errors import StorageError
from archiver.operations.run_lock import run_lock
from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from tests.operations.backing_up import pass_time
from tests.operations.scene import SOURCE, Done, Scene, archiver

DAY = timedelta(days=1)


def backup(scene: Scene) -> Done:
    return archiver("backup", "--config", str(scene.config))


def classes(scene: Scene) -> list[list[str]]:
    """Of each backup that is listed, newest first."""
    done = archiver("list", *scene.identity, "--json")
    assert done.code in (0, 3), done.errors
    return [item["classes"] for item in done.document]


def spoil(scene: Scene) -> None:
    """Nothing can be backed up any more."""
    shutil.rmtree(scene.media)


def test_a_failed_run_saves_the_newest_backup_from_lapsing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    newest = scene.backup()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    failed = backup(scene)
    assert failed.code == 5
    assert f"no newer backup was made: {newest} would lapse, and was copied into monthly, until " in failed.errors
    # The first error is the last thing that is said.
    assert failed.errors.splitlines()[-1].startswith(("archiver: ", "hint: "))
    assert "media" in failed.errors.splitlines()[-1] + failed.errors.splitlines()[-2]
    assert classes(scene) == [["daily", "monthly"], ["daily"]]
    # It is safe now, so the next failure has nothing to do.
    again = backup(scene)
    assert again.code == 5
    assert "would lapse" not in again.errors
    shutil.rmtree(scene.destination / "daily")
    done = archiver("verify", newest, "--level", "restore", *scene.identity)
    assert done.code in (0, 3), done.errors


@pytest.mark.parametrize("passed", [0, 32.9])
def test_what_does_not_lapse_soon_is_left_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch, passed: float) -> None:
    scene.backup()
    spoil(scene)
    pass_time(monkeypatch, passed * DAY)
    failed = backup(scene)
    assert failed.code == 5
    assert "warning" not in failed.errors
    assert classes(scene) == [["daily"]]


def test_a_configuration_that_is_broken_does_not_let_the_newest_lapse(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.backup()
    (scene.root / "archiver-signing.key").unlink()
    pass_time(monkeypatch, 34 * DAY)
    failed = backup(scene)
    assert failed.code == 2
    assert "signing.key" in failed.errors.splitlines()[-2]
    assert classes(scene) == [["daily", "monthly"]]


def test_a_rescue_that_fails_hides_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = scene.backup()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)

    def failing(self: LocalStore, source: str, key: str) -> StoredObject:
        raise StorageError("no space left")

    monkeypatch.setattr(LocalStore, "copy", failing)
    failed = backup(scene)
    assert failed.code == 5
    assert f"warning: {newest} would lapse, and cannot be copied into monthly: no space left" in failed.errors
    assert classes(scene) == [["daily"]]


def test_the_next_newest_is_saved_where_the_newest_is_damaged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    older = scene.backup()
    before = set(scene.destination.glob(f"daily/data/{SOURCE}/*.mdb.zst.age"))
    newest = scene.backup()
    (set(scene.destination.glob(f"daily/data/{SOURCE}/*.mdb.zst.age")) - before).pop().unlink()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    failed = backup(scene)
    assert failed.code == 5
    assert f"warning: {newest} would lapse, and cannot be copied into monthly: " in failed.errors
    assert f"no newer backup was made: {older} would lapse, and was copied into monthly" in failed.errors


def test_a_store_that_is_gone_is_told_of_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()

    def failing(self: LocalStore, prefix: str = "") -> Iterator[StoredObject]:
        raise StorageError("the network is gone")

    monkeypatch.setattr(LocalStore, "list", failing)
    failed = backup(scene)
    assert failed.code == 7
    assert failed.errors.count("the network is gone") == 1


def test_another_run_does_the_rescue_itself(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    pass_time(monkeypatch, 34 * DAY)
    with run_lock(scene.state / SOURCE, SOURCE):
        failed = backup(scene)
    assert failed.code == 6
    assert classes(scene) == [["daily"]]


def test_a_first_run_that_fails_has_nothing_to_save(scene: Scene) -> None:
    spoil(scene)
    failed = backup(scene)
    assert failed.code == 5
    assert "warning" not in failed.errors
