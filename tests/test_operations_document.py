"""docs/OPERATIONS.md does what it says: its commands delete one backup, find what no complete backup needs, and change
who can restore."""

import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from archiver.cli.keys import keys as commands_about_keys
from tests.environment.live import make_environment
from tests.operations.scene import Scene, archiver
from tests.vectors.destination import DESTINATION

DOCUMENT = Path(__file__).parent.parent / "docs" / "OPERATIONS.md"
TEXT = DOCUMENT.read_text("utf-8")
DELETE, FIND_ORPHANS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
OPERATORS = TEXT.partition("\n## Operators\n")[2].partition("\n## ")[0]
SEVERAL_HOSTS = TEXT.partition("\n## Several hosts for one source\n")[2].partition("\n## ")[0]
BACKUP = next(DESTINATION.glob("daily/backups/example/*")).name
OLD = time.time() - 3 * 86400


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A destination with one backup in the class ``daily`` and a copy of it, with the same objects, in ``monthly``."""
    store = tmp_path / "a store"
    shutil.copytree(DESTINATION, store)
    shutil.copytree(store / "daily", store / "monthly")
    for path in keys(store):
        os.utime(store / path, (OLD, OLD))
    return store


def keys(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def run(script: str, store: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "STORE": str(store), "SOURCE": "example"} | variables
    return subprocess.run(["bash"], input=script, env=environment, capture_output=True, text=True, timeout=60)


def orphans(store: Path) -> set[str]:
    """What the second block lists."""
    found = store.parent / "orphans"
    result = run(FIND_ORPHANS, store, ORPHANS=str(found))
    assert result.returncode == 0, result.stderr
    return {line.removeprefix("./") for line in found.read_text("utf-8").splitlines()}


def test_a_backup_is_deleted_whole(store: Path) -> None:
    shutil.rmtree(store / "monthly")

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    assert {key.split("/")[0] for key in keys(store)} == {"vault"}


def test_objects_that_another_backup_needs_stay(store: Path) -> None:
    before = keys(store)

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    gone = before - keys(store)
    assert gone
    assert all(BACKUP in key and key.startswith("daily/") for key in gone)


def test_a_placement_cannot_delete_what_is_no_object_of_the_source(store: Path) -> None:
    shutil.rmtree(store / "monthly")
    vault = next(key for key in keys(store) if key.startswith("vault/"))
    lines = "".join(f'{{"id":"0","key":"{key}"}}\n' for key in (vault, f"daily/data/example/../../../{vault}"))
    placement = store / f"daily/data/example/{BACKUP}.placement.jsonl.zst"
    placement.write_bytes(subprocess.run(["zstd", "-c"], input=lines.encode(), capture_output=True, check=True).stdout)

    result = run(DELETE, store, BACKUP=BACKUP)

    assert result.returncode == 0, result.stderr
    assert vault in keys(store)


def test_deleting_what_is_not_there_fails(store: Path) -> None:
    before = keys(store)

    assert run(DELETE, store, BACKUP="20200101T000000Z-000000").returncode != 0
    assert keys(store) == before


def test_orphans_are_what_no_complete_backup_needs(store: Path) -> None:
    shutil.rmtree(store / "monthly")
    assert orphans(store) == set()
    data = store / "daily/data/example"
    left = {data / "20260101T000000Z-abcdef.started", data / f"{'0' * 32}.tar.zst.age", data / ".~0123.partial"}
    for path in left:
        path.touch()
    assert orphans(store) == set()
    for path in left:
        os.utime(path, (OLD, OLD))

    assert orphans(store) == {str(path.relative_to(store)) for path in left}


def test_a_store_without_a_complete_backup_is_not_taken_for_orphans(store: Path) -> None:
    for manifest in store.glob("*/backups/*/*/manifest.json"):
        manifest.unlink()

    assert run(FIND_ORPHANS, store, ORPHANS=str(store.parent / "orphans")).returncode != 0
    assert not (store.parent / "orphans").exists()


def test_the_commands_about_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the section's, in order: Bob is added, the first operator removed, the vault rotated, a card made."""
    make_environment(tmp_path / "vector", 5)
    monkeypatch.chdir(tmp_path)
    scene = Scene(tmp_path, (tmp_path / "destination").as_uri())
    place = ("--to", scene.url, "--source", "prod", "--environment", f"vector={tmp_path}/vector")
    assert archiver("init", *place, "--card", "recovery-card.txt").code == 0
    scene.config.write_text('state_directory = "state"\n' + scene.config.read_text())
    old = scene.backup()
    commands = re.findall(r"^archiver (.*)$", OPERATORS, re.MULTILINE)
    assert len(commands) == 9
    recipient = ""
    for command in commands:
        done = archiver(*shlex.split(command.replace("RECIPIENT", recipient)))
        assert done.code == 0, (command, done.errors)
        if command.startswith("keys generate"):
            recipient = done.output.strip()
    new = scene.backup()
    for name in (old, new):
        done = archiver("verify", name, "--level", "data", "--identity", "new-card.txt")
        assert done.code == 0, done.errors
        assert archiver("verify", name, "--level", "data", "--identity", "recovery-card.txt").code == 4


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, Scene]:
    """Two hosts that back up one source, the second set up as the page says; and a card that knows both."""
    first, second = (Scene(tmp_path / name, (tmp_path / "destination").as_uri()) for name in ("a", "b"))
    for scene in (first, second):
        make_environment(scene.root / "vector", 5)
    monkeypatch.chdir(first.root)
    place = ("--to", first.url, "--source", "prod", "--environment", f"vector={first.root}/vector")
    assert archiver("init", *place, "--card", "card-a.txt").code == 0
    text = 'state_directory = "state"\n' + first.config.read_text()
    own = re.findall(r'"(RW\S+)"', text)[0]
    (command,) = re.findall(r"^archiver (.*)$", SEVERAL_HOSTS, re.MULTILINE)
    monkeypatch.chdir(second.root)
    done = archiver(*shlex.split(command))
    assert done.code == 0, done.errors
    text = text.replace(f'"{own}"', f'"{own}", "{done.output.strip()}"')
    first.config.write_text(text)
    text = text.replace("archiver-signing.key", command.split()[-1])
    second.config.write_text(text.replace(f"{first.root}/vector", f"{second.root}/vector"))
    monkeypatch.chdir(first.root)
    assert archiver("keys", "card", "--output", str(first.card), "--identity", "card-a.txt").code == 0
    return first, second


def test_hosts_with_keys_of_their_own_share_one_chain(hosts: tuple[Scene, Scene]) -> None:
    first, second = hosts
    made = [scene.backup() for scene in (first, second, second, first, second)]

    # Neither a warning nor a code other than 0, which ``backup`` and ``backups`` would not take.
    assert first.backups() == made[::-1]
    documents = archiver("list", *first.identity, "--json").document
    assert len({document["signer"] for document in documents}) == 2
    (first.root.parent / "destination/daily/backups/prod" / made[3] / "manifest.json").unlink()
    done = archiver("list", *first.identity)
    assert done.code == 4
    assert made[3] in done.errors
    assert archiver("list", "--identity", "card-a.txt").code == 4, "the page says that this card refuses the second's"


@pytest.mark.parametrize("goes_on", [0, 1])
def test_runs_that_overlapped_are_told_and_one_of_them_is_never_named(hosts: tuple[Scene, Scene], goes_on: int) -> None:
    first, second = hosts
    first.backup()
    second.backup()
    overlapping = [first.backup()]
    manifest = first.root.parent / "destination/daily/backups/prod" / overlapping[0] / "manifest.json"
    manifest.rename(first.root / "not committed yet")
    overlapping.append(second.backup())
    (first.root / "not committed yet").rename(manifest)

    scenes = (first, second) if goes_on == 0 else (second, first)
    for scene in scenes * 2:
        scene.backup()

    done = archiver("list", *first.identity)
    assert done.code == 3
    assert "expected a greater one" in done.errors
    for name, code in ((overlapping[1 - goes_on], 0), (overlapping[goes_on], 4)):
        (manifest.parent.with_name(name) / "manifest.json").unlink()
        assert archiver("list", *first.identity).code == code, name


def test_the_section_names_every_command_about_keys() -> None:
    for name in commands_about_keys.commands:
        assert re.search(rf"keys {name}\b|`{name}`", OPERATORS), name
