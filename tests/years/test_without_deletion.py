"""Nothing but what deletes needs the right to delete: every command, with credentials that lack it, on SeaweedFS."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.iam.policies import Policy, load_policy, without_condition_keys
from tests.iam.territory import Keys, Territory
from tests.operations.scene import Done, Scene, archiver
from tests.security.house import CONTENT, make_house
from tests.servers.seaweed_lifecycle import Time
from tests.years.times import AgedTime

EVERYTHING_BUT_DELETION: Policy = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:DeleteObject*", "Resource": "*"},
    ],
}
Login = Callable[[Keys], None]


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> Login:
    def become(keys: Keys) -> None:
        for name, value in keys.environment.items():
            monkeypatch.setenv(name, value)

    return become


def make_calendar_house(root: Path, url: str) -> Scene:
    """A house whose first backup of the month is copied into the class monthly."""
    scene = make_house(root, url)
    text = scene.config.read_text()
    assert 'every = "never"' in text
    scene.config.write_text(text.replace('every = "never"', 'every = "month"'))
    return scene


def run(scene: Scene, *arguments: str, code: int = 0) -> Done:
    done = archiver(*arguments, "--config", str(scene.config))
    assert done.code == code, (arguments, done)
    return done


def add_operator(scene: Scene, *identity: str) -> None:
    """A second one: with the only one ``doctor`` warns."""
    key = scene.root.with_name("bob.txt")
    generated = archiver("keys", "generate", "--output", str(key), "--json")
    assert generated.code == 0, generated
    run(scene, "keys", "add", "bob", "--recipient", generated.document["recipient"], *identity)


def keys_of(territory: Territory) -> set[tuple[str, object]]:
    listed = territory.client(territory.admin).list_objects_v2(Bucket=territory.bucket)
    return {(item["Key"], item["LastModified"]) for item in listed.get("Contents", [])}


def refused(done: Done) -> None:
    """One line that says what may not be done, and one that says what to do."""
    assert done.code == 7, done
    message, hint = done.errors.splitlines()[-2:]
    assert re.fullmatch(r"archiver: .* refused s3:DeleteObject on .*: access denied", message), message
    assert hint.startswith("hint: "), hint


def test_everything_but_what_deletes(territory: Territory, login: Login, tmp_path: Path) -> None:
    login(territory.user(EVERYTHING_BUT_DELETION))
    scene = make_calendar_house(tmp_path / "house", territory.url)
    scene.card.rename(tmp_path / "card.txt")
    identity = ("--identity", str(tmp_path / "card.txt"))
    run(scene, "lifecycle", "plan")
    run(scene, "lifecycle", "apply")
    run(scene, "lifecycle", "show")
    run(scene, "lifecycle", "check")
    run(scene, "lifecycle", "export", "--format", "json")
    add_operator(scene, *identity)
    run(scene, "doctor")
    first = run(scene, "backup", "--json").document["backup"]
    second = run(scene, "backup", "--json").document["backup"]
    run(scene, "promote")
    run(scene, "hold", second)
    listed = {item["backup"]: set(item["classes"]) for item in run(scene, "list", "--json").document}
    assert listed == {first: {"daily", "monthly"}, second: {"daily", "held"}}
    for arguments in (("show",), ("ls", "latest", *identity), ("verify", "--level", "restore", *identity)):
        run(scene, *arguments)
    assert run(scene, "cat", "latest", "media/note.txt", *identity).raw == CONTENT
    run(scene, "restore", "latest", "--to", str(tmp_path / "restored"), *identity)
    assert (tmp_path / "restored/media/note.txt").read_bytes() == CONTENT
    run(scene, "cost", "--prices", "docs/prices/example.toml")
    run(scene, "expire", "--dry-run")
    run(scene, "release", second, "--dry-run")

    before = keys_of(territory)
    refused(archiver("release", second, "--config", str(scene.config)))
    refused(archiver("keys", "remove", "bob", *identity, "--config", str(scene.config)))
    assert keys_of(territory) == before
    # It is held as before.
    run(scene, "verify", f"held/{second}", "--level", "data", *identity)


def test_expiring_needs_the_right(
    territory: Territory, bucket_time: Time, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_calendar_house(tmp_path / "house", territory.url)
    time = AgedTime(monkeypatch, bucket_time)
    first = run(scene, "backup", "--json").document["backup"]
    second = run(scene, "backup", "--json").document["backup"]
    time.pass_days(50)
    login(territory.user(EVERYTHING_BUT_DELETION))
    before = keys_of(territory)
    refused(archiver("expire", "--config", str(scene.config)))
    assert keys_of(territory) == before
    login(territory.admin)
    gone = run(scene, "expire", "--json").document["backups"]
    assert {(item["backup"], item["class"]) for item in gone} == {(first, "daily"), (second, "daily")}
    assert {item["backup"] for item in run(scene, "list", "--json").document} == {first}


def test_the_backup_host_needs_no_more_than_its_policy(territory: Territory, login: Login, tmp_path: Path) -> None:
    scene = make_calendar_house(tmp_path / "house", territory.url)
    run(scene, "lifecycle", "apply")
    login(territory.user(without_condition_keys(load_policy("backup-host"))))
    backup = run(scene, "backup", "--json").document["backup"]
    run(scene, "promote")
    run(scene, "hold", backup)
    for arguments in (("list",), ("show",), ("lifecycle", "show"), ("lifecycle", "check"), ("expire", "--dry-run")):
        run(scene, *arguments)
    before = keys_of(territory)
    refused(archiver("release", backup, "--config", str(scene.config)))
    done = archiver("lifecycle", "apply", "--config", str(scene.config))
    assert done.code == 0, done  # nothing to change
    assert keys_of(territory) == before
