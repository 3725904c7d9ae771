"""archiver verify: what each level proves, and that it says so when something is wrong."""

import os
import shutil
from pathlib import Path

import pytest

from tests.operations.scene import SOURCE, Scene, archiver

LEVELS = ("storage", "data", "restore")


@pytest.mark.parametrize("level", LEVELS)
def test_a_sound_backup_passes(scene: Scene, tmp_path: Path, level: str) -> None:
    name = scene.backup()
    work = tmp_path / "work"
    work.mkdir()
    done = archiver("verify", *scene.identity, "--level", level, "--work", str(work), "--json")
    assert done.code == 0, done.errors
    (result,) = done.document
    assert (result["backup"], result["verified"], result["level"], result["objects"]) == (name, True, level, 4)
    assert (result["environments"], result["files"]) == ((None, None) if level == "storage" else (2, 16))
    assert os.listdir(work) == []


def test_level_storage_needs_no_secret(scene: Scene) -> None:
    scene.backup()
    key = archiver("list", *scene.identity, "--json").document[0]["signer"]
    text = scene.card.read_text()
    verify_key = next(line.split(": ")[1] for line in text.splitlines() if line.startswith("# verify-key"))
    options = ("--from", scene.url, "--source", SOURCE, "--verify-key", verify_key)
    assert archiver("verify", *options).code == 0
    refused = archiver("verify", *options, "--level", "data")
    assert refused.code == 2
    assert "needs an operator's identity" in refused.errors
    assert "--identity" in refused.errors
    assert key


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "remove":
        path.unlink()
    elif how == "grow":
        path.write_bytes(data + b"\0")
    else:
        path.write_bytes(data[:-100] + bytes([data[-100] ^ 0x10]) + data[-99:])


@pytest.mark.parametrize("kind", ["mdb", "tar", "file", "contents", "objects"])
@pytest.mark.parametrize("how", ["remove", "grow", "flip"])
def test_damage_is_found(scene: Scene, kind: str, how: str) -> None:
    scene.backup()
    victim = min(path for path in scene.destination.rglob("*.zst*") if f".{kind}." in path.name)
    damage(victim, how)
    data = archiver("verify", *scene.identity, "--level", "data")
    assert data.code == 4, data.errors
    assert victim.name in data.errors or victim.name.partition(".")[0] in data.errors
    storage = archiver("verify", *scene.identity)
    # A flipped bit of an object keeps its size: only reading it tells. The lists are read at every level.
    assert storage.code == (0 if how == "flip" and kind not in ("objects", "contents") else 4)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.minisig"])
@pytest.mark.parametrize("how", ["remove", "grow", "flip"])
def test_a_tampered_manifest_is_refused_by_every_command(scene: Scene, tmp_path: Path, name: str, how: str) -> None:
    backup = scene.backup()
    damage(next(scene.destination.rglob(name)), how)
    expected = 5 if (name, how) == ("manifest.json", "remove") else 4
    for command in (
        ("verify", backup),
        ("show", backup),
        ("ls", backup),
        ("cat", backup, "media/link"),
        ("restore", backup, "--to", str(tmp_path / "out")),
    ):
        done = archiver(*command, *scene.identity)
        assert done.code == expected, (command, done.errors)
        assert len(done.errors.splitlines()) <= 2, done.errors
    assert not (tmp_path / "out").exists()


def test_all_tries_every_backup_and_the_worst_counts(scene: Scene) -> None:
    names = [scene.backup() for _ in range(3)]
    damage(scene.destination / f"daily/data/{SOURCE}/{names[1]}.contents.jsonl.zst.age", "flip")
    done = archiver("verify", "--all", "--level", "data", *scene.identity, "--json")
    assert done.code == 4
    assert {item["backup"]: item["verified"] for item in done.document} == {
        names[0]: True,
        names[1]: False,
        names[2]: True,
    }
    people = archiver("verify", "--all", "--level", "data", *scene.identity)
    assert people.code == 4
    assert len(people.output.splitlines()) == 2
    assert len([line for line in people.errors.splitlines() if line.startswith("archiver: ")]) == 1


def test_all_goes_on_after_a_forged_manifest(scene: Scene) -> None:
    good = scene.backup()
    place = scene.destination / f"daily/backups/{SOURCE}/{good}"
    shutil.copytree(place, place.with_name("29991231T235959Z-abcdef"))
    done = archiver("verify", "--all", *scene.identity, "--json")
    assert done.code == 4
    assert [item["verified"] for item in done.document] == [False, True]


def test_without_backups(scene: Scene) -> None:
    every = archiver("verify", "--all", *scene.identity, "--json")
    assert (every.code, set(every.document)) == (5, {"error"})
    assert archiver("verify", *scene.identity).code == 5
    typo = archiver("list", *scene.identity, "--from", scene.url, "--source", "typo")
    assert typo.code == 2
    assert archiver("list", "--from", scene.url, "--source", "typo", "--trust-unsigned").code == 5


def test_a_vault_without_a_key_file_fails_each_copy_by_name(scene: Scene) -> None:
    """What is called otherwise does not count."""
    names = [scene.backup() for _ in range(2)]
    for file in (scene.destination / f"vault/{SOURCE}").rglob("*.age"):
        file.with_name("README").write_bytes(b"garbage")
        file.unlink()
    done = archiver("verify", "--all", *scene.identity)
    assert done.code == 4
    for name in names:
        (line,) = [line for line in done.errors.splitlines() if line.startswith(f"archiver: {name} in daily: ")]
        assert "holds no key file of vault" in line
    assert f"hint: Put what was below vault/{SOURCE}/" in done.errors
    machine = archiver("verify", "--all", *scene.identity, "--json")
    assert {item["backup"] for item in machine.document} == set(names)
    assert not any(item["backup"] in item["problem"] for item in machine.document)
    for command in (("verify", "latest"), ("verify", "latest", "--level", "data")):
        one = archiver(*command, *scene.identity)
        assert (one.code, "hint: Put what was below vault/" in one.errors) == (4, True)
