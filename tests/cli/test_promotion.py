"""``archiver promote``, ``hold`` and ``release``, on a directory: from a real backup to a restore of a copy of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from archiver.operations.run_lock import run_lock
from tests.operations.scene import SOURCE, Done, Scene, archiver, check_restored, make_scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Configured, with one backup in ``daily`` that was copied nowhere. HOME knows nothing of it."""
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, entries=20)
    scene.backup()
    text = scene.config.read_text()
    assert 'every = "never"' in text
    scene.config.write_text(text.replace('every = "never"', 'every = "month"'))
    return scene


def run(scene: Scene, *arguments: str) -> Done:
    return archiver(*arguments, "--config", str(scene.config))


def document(scene: Scene, *arguments: str) -> Any:
    done = run(scene, *arguments, "--json")
    assert done.code == 0, done.errors
    return done.document


def keys(scene: Scene, name: str) -> set[str]:
    root = scene.destination
    return {str(path.relative_to(root)) for path in (root / name).rglob("*") if path.is_file()}


def test_a_promoted_copy_is_enough_on_a_blank_machine(scene: Scene, tmp_path: Path) -> None:
    (backup,) = scene.backups()
    due = document(scene, "promote", "--dry-run")
    assert [(item["class"], item["backup"]) for item in due] == [("monthly", backup)]
    assert due[0]["reason"].startswith("the first of ")
    assert not keys(scene, "monthly")

    (done,) = document(scene, "promote")

    assert (done["backup"], done["class"], done["objects_used"]) == (backup, "monthly", 0)
    assert done["objects_copied"] == due[0]["objects_copied"] > 3
    assert done["bytes_copied"] == due[0]["bytes_copied"]
    assert document(scene, "promote") == []
    shutil.rmtree(scene.destination / "daily")
    shutil.rmtree(scene.state)
    listed = archiver("list", *scene.identity, "--json")
    assert listed.code == 0, listed.errors
    assert [item["backup"] for item in listed.document] == [backup]
    verified = archiver("verify", "latest", "--level", "restore", *scene.identity)
    assert verified.code == 0, verified.errors
    scene.config.unlink()
    target = tmp_path / "restored"
    restored = scene.restore("--to", str(target))
    assert restored.code == 0, restored.errors
    check_restored(scene, target)


def test_people_are_told_the_same(scene: Scene) -> None:
    (backup,) = scene.backups()

    assert f"would copy {backup} into monthly (the first of " in run(scene, "promote", "--dry-run").output
    assert f"copied {backup} into monthly (the first of " in run(scene, "promote").output
    assert run(scene, "promote").output == "nothing is due\n"
    assert run(scene, "promote", "--dry-run").output == "nothing is due\n"


def test_a_promotion_that_fails_is_a_warning(scene: Scene) -> None:
    lost = next((scene.destination / "daily/data" / SOURCE).glob("*.mdb.zst.age"))
    lost.unlink()
    for arguments in (("promote", "--dry-run"), ("promote",)):
        done = run(scene, *arguments)

        assert done.code == 3
        assert "cannot be copied into monthly: object " in done.errors
    assert run(scene, "promote", "--dry-run", "--json").document[0]["problem"].startswith("object ")


def test_hold_and_release(scene: Scene, tmp_path: Path) -> None:
    (backup,) = scene.backups()
    wanted = document(scene, "hold", "latest", "--dry-run")
    assert wanted["dry_run"]
    assert not keys(scene, "held")

    done = document(scene, "hold", "latest")

    assert done == wanted | {"dry_run": False}
    assert (done["backup"], done["class"]) == (backup, "held")
    shutil.move(scene.destination / "daily", tmp_path / "daily")
    target = tmp_path / "restored"
    assert scene.restore("--to", str(target)).code == 0
    check_restored(scene, target)
    shutil.move(tmp_path / "daily", scene.destination / "daily")
    again = run(scene, "hold", backup)
    assert (again.code, "is held already" in again.errors) == (6, True)
    planned = document(scene, "release", backup, "--dry-run")
    assert set(planned["deleted"]) == keys(scene, "held")
    assert document(scene, "release", backup) == planned | {"dry_run": False}
    assert planned["stays_in"] == ["daily"]
    assert not keys(scene, "held")
    scene.verify()
    assert run(scene, "release", backup).code == 5


def test_the_last_copy_is_told(scene: Scene) -> None:
    (backup,) = scene.backups()
    held = run(scene, "hold", backup)
    assert held.output.startswith(f"{backup} is held until archiver release {backup}; copied ")
    shutil.rmtree(scene.destination / "daily")

    planned, done = run(scene, "release", backup, "--dry-run"), run(scene, "release", backup)

    assert "would be gone: it lies in no other class" in planned.output
    assert "is gone: it lay in no other class" in done.output


@pytest.mark.parametrize("command", [("promote",), ("hold", "latest"), ("release", "2026")])
def test_one_run_at_a_time_and_a_dry_run_always(scene: Scene, command: tuple[str, ...]) -> None:
    run(scene, "hold", "latest") if command[0] == "release" else None
    backup = scene.backups()[0]
    arguments = [backup if argument == "2026" else argument for argument in command]
    with run_lock(scene.state / SOURCE, SOURCE):
        assert run(scene, *arguments).code == 6
        assert run(scene, *arguments, "--dry-run").code == 0


@pytest.mark.parametrize("command", [("promote",), ("hold", "latest"), ("release", "latest")])
def test_a_configuration_is_needed(command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    done = archiver(*command, "--json")

    assert done.code == 2
    assert "archiver.toml" in json.loads(done.errors or done.output)["error"]["message"]
