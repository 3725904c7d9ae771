"""Killed, interrupted or terminated at any moment: only complete backups, only the old or the new target, no debris."""

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.environment.live import make_environment, read_content
from tests.operations.crash import dying_at, events
from tests.operations.faults import forget
from tests.operations.scene import (
    ENVIRONMENTS,
    MIB,
    Scene,
    check_restored,
    finish,
    restore_leftovers,
    spawn,
    tree,
)
from tests.waiting import wait_until

KILLS = 15
SLOW = "1M"
"""A limit by which a transfer lasts longer than anybody takes to end it."""


def backup(scene: Scene, *options: str, before: str = "") -> "subprocess.Popen[bytes]":
    return spawn("backup", "--config", str(scene.config), *options, before=before)


def restore(scene: Scene, target: Path, *options: str, before: str = "") -> "subprocess.Popen[bytes]":
    return spawn("restore", *scene.identity, "--to", str(target), "--force", *options, before=before)


def spread(count: int, many: int) -> list[int]:
    """``many`` numbers from 1 to ``count``, evenly spread, the first and the last among them."""
    return sorted({1 + index * (count - 1) // (many - 1) for index in range(many)})


def check_after_a_kill(scene: Scene, complete: list[str]) -> list[str]:
    """Every backup that is listed is sound, and none has been lost."""
    listed = scene.backups()
    assert set(complete) <= set(listed)
    for name in listed:
        scene.verify(name)
    return listed


def check_next_run_cleans_up(scene: Scene) -> None:
    scene.backup()
    assert scene.partial_files() == []
    assert scene.journal() == ""


@pytest.mark.parametrize("kills", [KILLS, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_backup_killed_at_any_operation(scene: Scene, kills: int) -> None:
    done = finish(backup(scene, before=dying_at(0, str(scene.root))))
    assert done.code == 0, done.errors
    count = events(done.errors)
    assert count > 40
    complete = scene.backups()
    left = 0
    for number in spread(count, min(kills, count)):
        forget(scene)
        process = backup(scene, before=dying_at(number, str(scene.root)))
        # The number of operations varies a little: the last ones may not come.
        assert finish(process).code == -signal.SIGKILL or number > count - 10
        left += bool(scene.partial_files())
        complete = check_after_a_kill(scene, complete)
    assert left, "no kill left anything to clean up"
    check_next_run_cleans_up(scene)


def has_begun(scene: Scene, process: "subprocess.Popen[bytes]") -> bool:
    """Whether it is writing; or has ended, which on a busy machine may be all that is seen of it."""
    return bool(scene.partial_files()) or process.poll() is not None


def test_a_backup_killed_at_any_time(scene: Scene) -> None:
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(24 * MIB))
    process = backup(scene)
    wait_until(lambda: has_begun(scene, process))
    began = time.monotonic()
    assert finish(process).code == 0
    seconds = time.monotonic() - began
    complete = scene.backups()
    chance = random.Random(7)
    for _ in range(6):
        forget(scene)
        process = backup(scene)
        wait_until(partial(has_begun, scene, process))
        time.sleep(chance.random() * seconds)
        process.kill()
        finish(process)
        complete = check_after_a_kill(scene, complete)
    check_next_run_cleans_up(scene)


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "archiver: interrupted"), (signal.SIGTERM, 143, "archiver: terminated")],
)
def test_a_backup_told_to_stop_leaves_nothing_at_once(
    scene: Scene, number: signal.Signals, code: int, message: str
) -> None:
    scene.backup()
    (scene.media / "film.mp4").write_bytes(random.randbytes(16 * MIB))
    process = backup(scene, "--limit-upload", SLOW)
    wait_until(lambda: any(written(path) > MIB for path in scene.partial_files()))
    process.send_signal(number)
    done = finish(process)
    assert done.code == code, done.errors
    assert done.errors.splitlines()[-1] == message
    assert "" not in done.errors.splitlines()
    assert "Traceback" not in done.errors
    assert scene.partial_files() == []
    assert scene.journal() == ""
    assert len(check_after_a_kill(scene, [])) == 1


@pytest.fixture
def target(scene: Scene, tmp_path: Path) -> Path:
    """An older state, which the restore replaces."""
    target = tmp_path / "target"
    for name in ENVIRONMENTS:
        make_environment(target / name, 30)
    (target / "media/album").mkdir(parents=True)
    (target / "media/album/1.png").write_bytes(b"older")
    return target


@pytest.mark.parametrize("kills", [KILLS, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_restore_killed_at_any_operation(scene: Scene, target: Path, kills: int) -> None:
    scene.backup()
    done = finish(restore(scene, target.with_name("counted"), before=dying_at(0, "counted")))
    assert done.code == 0, done.errors
    count = events(done.errors)
    assert count > 40
    older = tree(target)
    content = {name: read_content(target / name / "data.mdb") for name in ENVIRONMENTS}
    as_before = left = 0
    for number in spread(count, min(kills, count)):
        process = restore(scene, target, before=dying_at(number, str(target)))
        assert finish(process).code in (-signal.SIGKILL, 0)
        left += bool(restore_leftovers(target))
        state = tree(target, leave_out=[b".archiver-restore-", b".archiver-before-"])
        swapped = any(target.glob(".archiver-before-*"))
        if not swapped:
            as_before += 1
            assert state == older
        for name in ENVIRONMENTS:
            # Never without a whole environment: the old one or the new one.
            found = read_content(target / name / "data.mdb")
            assert found in (content[name], read_content(scene.data / name / "data.mdb"))
    assert as_before, "no kill came before the swap"
    assert left, "no kill left anything to clean up"
    assert finish(restore(scene, target)).code == 0
    assert restore_leftovers(target) == []
    kept = [path.read_bytes() for path in target.glob(".archiver-before-*/media/album/1.png")]
    assert b"older" in kept
    check_restored(scene, target)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_restore_told_to_stop_leaves_the_target_as_it_was(
    scene: Scene, target: Path, number: signal.Signals, code: int
) -> None:
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(16 * MIB))
    scene.backup()
    older = tree(target)
    process = restore(scene, target, "--limit-download", SLOW)
    wait_until(lambda: restore_leftovers(target))
    process.send_signal(number)
    done = finish(process)
    assert done.code == code, done.errors
    assert tree(target) == older


def written(path: Path) -> int:
    """Bytes of a file that may be gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_killed_runs_lock_goes_with_it(scene: Scene) -> None:
    (scene.media / "film.mp4").write_bytes(random.randbytes(16 * MIB))
    process = backup(scene, "--limit-upload", SLOW)
    wait_until(scene.partial_files)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        second = finish(backup(scene))
        assert second.code == 6, second.errors
    finally:
        process.kill()
        finish(process)
    check_next_run_cleans_up(scene)
