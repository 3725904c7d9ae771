"""Killed at any moment of a promotion, a hold or a release: the old or the new state, and the next run goes on."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.operations.crash import dying_at, events
from tests.operations.scene import Done, Scene, archiver, check_restored, finish, spawn

KILLS = 5
LINK = -1
"""In place of a number: killed when the first key has been written and has not got its name. Few operations lie there,
so that none of those that are evenly spread need hit it."""
SLOW_KILLS = pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])


def run(scene: Scene, *arguments: str, before: str = "") -> Done:
    return finish(spawn(*arguments, "--config", str(scene.config), before=before))


def spread(count: int, many: int) -> Sequence[int]:
    """``many`` numbers from 1 to ``count``, evenly spread, the first and the last among them."""
    return sorted({1 + index * (count - 1) // (many - 1) for index in range(many)})


def prepared(scene: Scene) -> str:
    """A backup that is due in ``monthly``."""
    backup = scene.backup()
    scene.config.write_text(scene.config.read_text().replace('every = "never"', 'every = "month"'))
    return backup


def classes(scene: Scene) -> set[str]:
    """Where complete copies lie, each of which is proven; no other state is seen."""
    found = {path.relative_to(scene.destination).parts[0] for path in scene.destination.rglob("manifest.json")}
    (backup,) = scene.backups()
    for name in found:
        done = archiver("verify", f"{name}/{backup}", "--level", "data", *scene.identity)
        assert done.code == 0, done.errors
    return found


def count_of(scene: Scene, *arguments: str) -> int:
    """How many operations on files the command takes; it is carried out."""
    done = run(scene, *arguments, before=dying_at(0, str(scene.root)))
    assert done.code == 0, done.errors
    return events(done.errors)


def kill(scene: Scene, number: int, count: int, *arguments: str) -> None:
    done = run(scene, *arguments, before=dying_at(number, str(scene.root)))
    # The number of operations varies a little: the last ones may not come.
    assert done.code == -signal.SIGKILL or number > count - 10, done.errors


def delete(directory: Path) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("kills", [KILLS, SLOW_KILLS])
@pytest.mark.parametrize(("command", "target"), [("promote", "monthly"), ("hold", "held")])
def test_a_copy_killed_at_any_operation(scene: Scene, kills: int, command: str, target: str, tmp_path: Path) -> None:
    backup = prepared(scene)
    arguments = (command,) if command == "promote" else (command, backup)
    count = count_of(scene, *arguments)
    assert count > 40
    whole = sum(path.is_file() for path in (scene.destination / target).rglob("*"))
    for number in (*spread(count, min(kills, count)), LINK):
        delete(scene.destination / target)
        if number == LINK:
            done = run(scene, *arguments, before=dying_at(1, str(scene.root), ["os.link"]))
            assert done.code == -signal.SIGKILL, done.errors
            assert scene.partial_files(), "this kill left nothing to clean up"
        else:
            kill(scene, number, count, *arguments)
        before = classes(scene)
        assert before in ({"daily"}, {"daily", target})
        again = run(scene, *arguments)
        # What was held is told to be held.
        assert again.code == (6 if target in before and command == "hold" else 0), again.errors
        assert classes(scene) == {"daily", target}
        assert sum(path.is_file() for path in (scene.destination / target).rglob("*")) == whole, "copied twice"
        if before == {"daily"}:
            assert not scene.partial_files()
            assert scene.journal() == ""
    delete(scene.destination / "daily")
    assert scene.restore("--to", str(tmp_path / "restored")).code == 0
    check_restored(scene, tmp_path / "restored")


@pytest.mark.parametrize("kills", [KILLS, SLOW_KILLS])
def test_a_release_killed_at_any_operation(scene: Scene, kills: int) -> None:
    backup = prepared(scene)
    assert run(scene, "hold", backup).code == 0
    count = count_of(scene, "release", backup)
    assert count > 20
    for number in spread(count, min(kills, count)):
        assert run(scene, "hold", backup).code == 0
        kill(scene, number, count, "release", backup)
        assert classes(scene) in ({"daily"}, {"daily", "held"})
        assert run(scene, "release", backup).code in (0, 5)
        assert not any(path.is_file() for path in (scene.destination / "held").rglob("*"))
