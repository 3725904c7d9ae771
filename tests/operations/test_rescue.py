"""What a run saves at its beginning and when it fails: the newest backup of before, when that would lapse soon."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from archiver.errors import RefusedError, StorageError
from archiver.operations import nightly
from archiver.operations.run_lock import run_lock
from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from tests.operations.backing_up import pass_time
from tests.operations.scene import SOURCE, Done, Scene, archiver
from tests.security.house import ago, backup_from

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


def fail_in(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Nothing can be copied into these classes."""
    copy = LocalStore.copy

    def failing(self: LocalStore, source: str, key: str) -> StoredObject:
        name = key.partition("/")[0]
        if name in names:
            raise RefusedError(f"copies into {name} are denied")
        return copy(self, source, key)

    monkeypatch.setattr(LocalStore, "copy", failing)


def test_where_a_class_refuses_the_next_longer_one_saves_the_same_backup(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.backup()
    newest = scene.backup()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    fail_in(monkeypatch, "monthly")
    failed = backup(scene)
    assert failed.code == 5
    assert f"{newest} would lapse, and cannot be copied into monthly: copies into monthly are denied" in failed.errors
    assert f"{newest} would lapse, and was copied into held, until it is released" in failed.errors
    assert failed.errors.count("are denied") == 1
    assert classes(scene) == [["daily", "held"], ["daily"]]


def test_a_single_planted_key_does_not_prevent_the_rescue(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = scene.backup()
    planted = scene.destination / f"monthly/backups/{SOURCE}/{newest}/terms.json"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"garbage")
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    assert backup(scene).code == 5
    assert classes(scene) == [["daily", "held"]]


# At the beginning of a run: whatever becomes of that.


class Killed(BaseException):
    """As a signal ends a run, or a bug."""


@pytest.mark.parametrize("end", [Killed(), OSError(28, "No space left on device"), MemoryError()])
def test_a_run_that_ends_in_any_way_has_saved_the_newest_backup(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    scene.backup()
    pass_time(monkeypatch, 34 * DAY)

    def ending(*_: object) -> object:
        raise end

    monkeypatch.setattr(nightly, "make_backup", ending)
    with suppress(Killed, OSError, MemoryError):
        backup(scene)
    assert classes(scene) == [["daily", "monthly"]]


def test_a_class_that_is_not_there_does_not_let_the_newest_lapse(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    pass_time(monkeypatch, 34 * DAY)
    assert archiver("backup", "--config", str(scene.config), "--class", "nightly").code == 2
    assert classes(scene) == [["daily", "monthly"]]


def test_a_run_that_saves_the_newest_and_makes_a_newer_one_says_so(scene: Scene) -> None:
    newest = backup_from(scene, ago(days=34))
    done = backup(scene)
    assert done.code == 3
    assert f"{newest} would lapse, and was copied into monthly" in done.errors
    assert classes(scene)[1] == ["daily", "monthly"]


def test_a_beginning_that_fails_does_not_fail_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = backup_from(scene, ago(days=34))
    fail_in(monkeypatch, "monthly", "held")
    done = backup(scene)
    assert done.code == 3
    for name in ("monthly", "held"):
        assert f"{newest} would lapse, and cannot be copied into {name}: " in done.errors
    assert len(classes(scene)) == 2


def test_a_rescue_that_the_store_broke_off_is_tried_again_at_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.backup()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    copy, failures = LocalStore.copy, [StorageError("the network was gone")]

    def failing(self: LocalStore, source: str, key: str) -> StoredObject:
        if failures:
            raise failures.pop()
        return copy(self, source, key)

    monkeypatch.setattr(LocalStore, "copy", failing)
    assert backup(scene).code == 5
    assert classes(scene) == [["daily", "monthly"]]


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("days", [1, 1.9])
def test_a_class_that_keeps_a_day_or_two_is_not_copied_every_night(scene: Scene, keep: int, days: float) -> None:
    keep_days(scene, keep)
    backup_from(scene, ago(days=days))
    done = backup(scene)
    assert (done.code, done.errors.count("would lapse")) == (0, 0), done.errors
    assert not (scene.destination / "monthly").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_where_a_night_was_missed_it_is_copied(scene: Scene, keep: int) -> None:
    keep_days(scene, keep)
    newest = backup_from(scene, ago(days=2.1))
    assert f"{newest} would lapse, and was copied into monthly" in backup(scene).errors


def keep_days(scene: Scene, keep: int) -> None:
    text = scene.config.read_text()
    assert "keep = 35\n" in text
    scene.config.write_text(text.replace("keep = 35\n", f"keep = {keep}\n", 1))


def test_the_next_newest_is_saved_where_the_newest_is_damaged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    older = scene.backup()
    before = set(scene.destination.glob(f"daily/data/{SOURCE}/*.mdb.zst.age"))
    newest = scene.backup()
    (set(scene.destination.glob(f"daily/data/{SOURCE}/*.mdb.zst.age")) - before).pop().unlink()
    spoil(scene)
    pass_time(monkeypatch, 34 * DAY)
    failed = backup(scene)
    assert failed.code == 5
    for name in ("monthly", "held"):
        assert f"warning: {newest} would lapse, and cannot be copied into {name}: " in failed.errors
    assert f"no newer backup was made: {older} would lapse, and was copied into monthly" in failed.errors


def test_a_rescue_that_was_cut_off_lets_the_next_backup_come_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit that is too short for it would otherwise end every run before its backup."""
    scene.backup()
    pass_time(monkeypatch, 34 * DAY)

    def cut_off(self: LocalStore, source: str, key: str) -> StoredObject:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "copy", cut_off)
        first = backup(scene)
    assert first.code == 130
    assert "environment" not in first.errors
    # It does not succeed here, because what is created has today's age.
    second = backup(scene).errors
    assert second.index("environment vector") < second.index("no newer backup was made")
    assert not list(scene.state.glob("*/rescue-begun"))


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
