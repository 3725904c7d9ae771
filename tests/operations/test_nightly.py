"""archiver backup, from the pin to the last look at the bucket's rules; and what a failed run saves."""

import json
import random
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from archiver.errors import RefusedError, StorageError
from archiver.retention.rules import Rule
from archiver.stores.base import StoredObject
from archiver.stores.local import LocalStore
from tests.operations.crash import dying_at, events
from tests.operations.scene import MIB, SOURCE, Done, Scene, archiver, check_restored, finish, make_scene, spawn

DAY = timedelta(days=1)


@pytest.fixture
def calendar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """As init configures it: the first backup of the month is copied into ``monthly``."""
    root = tmp_path / "calendar"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(root))
    return make_scene(root, calendar=True, entries=20)


def backup(scene: Scene, *arguments: str) -> Done:
    return archiver("backup", "--config", str(scene.config), *arguments)


def document(scene: Scene) -> dict[str, object]:
    done = backup(scene, "--json")
    assert (done.code, done.errors) == (0, "")
    found = done.document
    assert isinstance(found, dict)
    return found


def listed(scene: Scene, *arguments: str) -> list[dict[str, object]]:
    done = archiver("list", *scene.identity, "--json", *arguments)
    assert done.code in (0, 3), done.errors
    found = done.document
    assert isinstance(found, list)
    return found


def manifest(scene: Scene, retention_class: str = "daily") -> dict[str, object]:
    """The only one of a class."""
    (path,) = scene.destination.glob(f"{retention_class}/backups/{SOURCE}/*/manifest.json")
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


def days(scene: Scene, moment: object) -> timedelta:
    """From the backup's start to the time that a document tells."""
    started = datetime.fromisoformat(str(manifest(scene)["started"])).replace(microsecond=0)
    return datetime.fromisoformat(str(moment)) - started


# Promotion.


def test_the_first_of_the_month_lives_on_when_the_original_has_expired(calendar: Scene, tmp_path: Path) -> None:
    first = document(calendar)
    (promoted,) = first["promoted"]  # type: ignore[misc]
    assert (promoted["backup"], promoted["class"]) == (first["backup"], "monthly")  # type: ignore[has-type]
    assert promoted["objects_copied"] == first["objects"]  # type: ignore[has-type]
    assert days(calendar, first["guaranteed_until"]) == 400 * DAY
    assert days(calendar, first["promised_until"]) == 35 * DAY
    (shown,) = listed(calendar)
    assert (shown["class"], shown["classes"]) == ("daily", ["daily", "monthly"])
    assert (shown["guaranteed_until"], shown["guaranteed_by"]) == (first["guaranteed_until"], "promised")

    shutil.rmtree(calendar.destination / "daily")
    (shown,) = listed(calendar)
    assert (shown["class"], shown["classes"], shown["dated"]) == ("monthly", ["monthly"], "store")
    done = archiver("verify", "--level", "restore", *calendar.identity)
    assert done.code == 0, done.errors
    assert calendar.restore("--to", str(tmp_path / "out")).code == 0
    check_restored(calendar, tmp_path / "out")


@pytest.mark.parametrize("server", ["localstack", "seaweed"])
def test_the_same_in_a_bucket(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Copied within the store, under rules that are as they should be; a second run has nothing to copy."""
    root = tmp_path / "bucket"
    root.mkdir()
    url = str(request.getfixturevalue(f"{server}_url"))
    scene = make_scene(root, f"{url}&part_size={5 * MIB}", calendar=True, entries=20)
    # An object of two parts.
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(6 * MIB))
    first = document(scene)
    assert first["requests"]["CopyObject"] == first["objects"] + 2  # type: ignore[index, operator]
    assert "DeleteObject" not in first["requests"]  # type: ignore[operator]
    second = document(scene)
    assert "CopyObject" not in second["requests"]  # type: ignore[operator]
    assert [item["classes"] for item in listed(scene)] == [["daily"], ["daily", "monthly"]]
    assert [item["guaranteed_by"] for item in listed(scene)] == ["promised", "promised"]
    scene.verify(f"monthly/{first['backup']}")


def test_the_second_of_the_month_is_not_copied(calendar: Scene) -> None:
    document(calendar)
    assert document(calendar)["promoted"] == []
    assert [item["classes"] for item in listed(calendar)] == [["daily"], ["daily", "monthly"]]


def test_a_backup_straight_into_the_class_covers_its_month(calendar: Scene) -> None:
    done = backup(calendar, "--class", "monthly", "--json")
    assert done.code == 0, done.errors
    assert done.document["promoted"] == []
    assert done.document["guaranteed_until"] == done.document["promised_until"]
    assert document(calendar)["promoted"] == []


def test_promotions_that_fail_do_not_take_the_backup_away(calendar: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: LocalStore, source: str, key: str) -> StoredObject:
        raise RefusedError("copies are denied")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "copy", failing)
        done = backup(calendar)
    assert done.code == 3
    assert " cannot be copied into monthly: copies are denied" in done.errors
    assert "\n  guaranteed until " in done.output
    (shown,) = listed(calendar)
    assert shown["classes"] == ["daily"]
    # It is due still.
    assert [item["backup"] for item in document(calendar)["promoted"]] == [shown["backup"]]  # type: ignore[attr-defined]


def test_what_cannot_be_looked_at_afterwards_is_a_warning(calendar: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> object:
        raise StorageError("the network is gone")

    monkeypatch.setattr("archiver.operations.nightly.promote_due", failing)
    monkeypatch.setattr("archiver.operations.nightly.examine_rules", failing)
    done = backup(calendar)
    assert done.code == 3
    assert done.errors.count("cannot be looked at: the network is gone") == 2
    assert len(listed(calendar)) == 1


def test_an_interruption_after_the_commit_says_so(calendar: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("archiver.operations.nightly.promote_due", interrupted)
    done = backup(calendar)
    assert done.code == 130
    assert " is stored; archiver promote copies what is due" in done.errors
    assert len(listed(calendar)) == 1


def test_nothing_is_backed_up_into_held(calendar: Scene) -> None:
    for arguments in ((), ("--dry-run",)):
        done = backup(calendar, "--class", "held", *arguments)
        assert done.code == 2
        assert "hint: Back up into another class, then run archiver hold latest." in done.errors
    assert not calendar.destination.joinpath("held").exists()


# The look before the commit.


class Losing(LocalStore):
    """What was stored under the first key that contains ``part`` is gone, or cut short, before anything is signed."""

    part = ""
    cut = False

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        if "/data/" not in prefix:
            return super().list(prefix)
        victims = [item.key for item in super().list(prefix) if self.part in item.key]
        assert victims, "the fault was never hit"
        path = self._root / victims[0]
        path.write_bytes(path.read_bytes()[:-1]) if self.cut else path.unlink()
        return super().list(prefix)


@pytest.mark.parametrize("part", [".mdb.zst.age", ".tar.zst.age", ".contents.", ".objects.", ".placement."])
@pytest.mark.parametrize("cut", [False, True])
def test_what_the_store_has_lost_is_not_signed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, part: str, cut: bool
) -> None:
    monkeypatch.setattr(Losing, "part", part)
    monkeypatch.setattr(Losing, "cut", cut)
    monkeypatch.setattr("archiver.stores.destination.LocalStore", Losing)
    done = backup(scene)
    assert done.code == 4
    assert part in done.errors
    assert "hint: The backup was not committed: run it again" in done.errors
    assert list(scene.destination.glob("daily/backups/*/*/*")) == []


def ruled(monkeypatch: pytest.MonkeyPatch, *rules: Rule) -> None:
    """Let the directory be a bucket with these rules; what they do is what they say, and no more."""
    monkeypatch.setattr(LocalStore, "rules", lambda _: list(rules))


GOOD = (
    Rule("a", "daily/backups/", expires_days=35),
    Rule("b", "daily/data/", expires_days=42),
    Rule("c", "monthly/backups/", expires_days=400),
    Rule("d", "monthly/data/", expires_days=435),
    Rule("e", "", aborts_days=7),
)


def test_good_rules_are_not_worth_a_word(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ruled(monkeypatch, *GOOD)
    done = backup(scene, "--json")
    assert (done.code, done.errors, done.document["problems"]) == (0, "", [])
    assert (manifest(scene)["keep_days"], manifest(scene)["lease_days"]) == (35, 7)


@pytest.mark.parametrize(
    ("rule", "keep", "lease"),
    [
        (Rule("short", "daily/backups/", expires_days=10), 10, 32),
        (Rule("short", "daily/", expires_days=10), 9, 1),
        (Rule("short", "daily/data/", expires_days=36), 35, 1),
        (Rule("short", "", expires_days=1), 1, 1),
    ],
)
def test_a_rule_that_deletes_too_soon_shortens_the_promise_and_fails_the_command(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, rule: Rule, keep: int, lease: int
) -> None:
    ruled(monkeypatch, *GOOD, rule)
    done = backup(scene)
    assert done.code == 1
    assert f"warning: {manifest(scene)['backup']} is stored, but not safe: lifecycle rule 'short' " in done.errors
    assert (manifest(scene)["keep_days"], manifest(scene)["lease_days"]) == (keep, lease)
    assert f"guaranteed until {listed(scene)[0]['guaranteed_until']}" in done.output
    (again,) = [item for item in listed(scene) if item["backup"] == manifest(scene)["backup"]]
    assert days(scene, again["guaranteed_until"]) <= keep * DAY
    scene.verify()


def test_a_rule_that_is_gone_later_has_cost_no_copy_anything(
    calendar: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While it is there nothing can be sure. What is copied is as it would be without it."""
    with monkeypatch.context() as patched:
        ruled(patched, *GOOD, Rule("somebody else's", "", expires_days=30))
        done = backup(calendar, "--json")
        assert done.code == 1
        first = done.document["backup"]
        assert days(calendar, done.document["guaranteed_until"]) == 29 * DAY
        assert (done.document["promoted"][0]["objects_used"], done.document["problems"] != []) == (0, True)
        held = archiver("hold", "latest", "--config", str(calendar.config), "--json")
        assert held.code == 3
        assert held.document["objects_copied"] == done.document["objects"]
        assert "a rule of the bucket deletes what lies in held after 29 days" in held.errors
        shutil.rmtree(calendar.destination / "monthly")
        promoted = archiver("promote", "--config", str(calendar.config), "--json")
        assert (promoted.code, promoted.document[0]["objects_used"]) == (3, 0)
        assert "a rule of the bucket deletes what lies in monthly after 29 days" in promoted.errors
    shutil.rmtree(calendar.destination / "daily")
    for name in ("monthly", "held"):
        calendar.verify(f"{name}/{first}")
    shutil.move(calendar.destination / "held", tmp_path / "held")
    (shown,) = listed(calendar)
    assert days_of(shown, manifest(calendar, "monthly")) == 400 * DAY
    shutil.rmtree(calendar.destination / "monthly")
    shutil.move(tmp_path / "held", calendar.destination / "held")
    (shown,) = listed(calendar)
    assert (shown["classes"], shown["guaranteed_until"]) == (["held"], None)


def days_of(shown: dict[str, object], told: dict[str, object]) -> timedelta:
    started = datetime.fromisoformat(str(told["started"])).replace(microsecond=0)
    return datetime.fromisoformat(str(shown["guaranteed_until"])) - started


def test_what_stays_too_long_is_a_warning(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    ruled(monkeypatch, *GOOD[:4])
    done = backup(scene)
    assert done.code == 3
    assert "no lifecycle rule aborts incomplete uploads" in done.errors
    assert "not safe" not in done.errors


def test_what_goes_on_a_day_before_the_promise_is_not_signed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terms say: the last look is at what the rules do to each key."""
    ruled(monkeypatch, Rule("date", "daily/data/", expires_at=datetime.fromisoformat("2020-01-01T00:00:00Z")))
    done = backup(scene)
    assert done.code == 4
    assert "expected to last until " in done.errors
    assert "it goes at 2020-01-01T00:00:00Z" in done.errors
    assert list(scene.destination.glob("daily/backups/*/*/*")) == []


def test_rules_that_may_not_be_read_stop_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: LocalStore) -> list[Rule]:
        raise RefusedError("denied")

    monkeypatch.setattr(LocalStore, "rules", denied)
    done = backup(scene)
    assert (done.code, manifest(scene)["keep_days"]) == (0, 35)


# Killed at any moment.


def test_a_run_killed_while_it_promotes_is_gone_on_with(calendar: Scene) -> None:
    arguments = ("backup", "--config", str(calendar.config))
    done = finish(spawn(*arguments, before=dying_at(0, str(calendar.root))))
    assert done.code == 0, done.errors
    promoting = _operations(calendar)
    count = events(done.errors)
    shutil.rmtree(calendar.destination / "monthly")
    for number in range(count - promoting, count, promoting // 5):
        finish(spawn(*arguments, before=dying_at(number, str(calendar.root))))
        before = listed(calendar)
        assert all(item["problem"] is None for item in before if "problem" in item)
        for item in before:
            for name in item["classes"]:  # type: ignore[attr-defined]
                calendar.verify(f"{name}/{item['backup']}")
        after = document(calendar)
        (copy,) = [item for item in listed(calendar) if "monthly" in item["classes"]]  # type: ignore[operator]
        calendar.verify(f"monthly/{copy['backup']}")
        assert after["problems"] == []
        assert calendar.partial_files() == []
        assert calendar.journal() == ""
        shutil.rmtree(calendar.destination / "monthly")


def _operations(scene: Scene) -> int:
    """About how many file-system operations a promotion takes."""
    shutil.rmtree(scene.destination / "monthly")
    done = finish(spawn("promote", "--config", str(scene.config), before=dying_at(0, str(scene.root))))
    assert done.code == 0, done.errors
    return events(done.errors)
