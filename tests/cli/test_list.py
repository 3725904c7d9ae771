"""``archiver list``: copies, guarantees, and what is worth an exit code."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from archiver.catalog.names import BackupPlace
from archiver.retention.rules import Rule
from archiver.stores.local import LocalStore
from tests.operations.backing_up import pass_time
from tests.operations.scene import SOURCE, Done, Scene, archiver

DAY = timedelta(days=1)


@pytest.fixture
def made(scene: Scene) -> str:
    """The id of a backup with copies in ``daily`` and ``held``."""
    backup = scene.backup()
    done = archiver("hold", backup, "--config", str(scene.config))
    assert done.code == 0, done.errors
    return backup


def listed(scene: Scene, *arguments: str) -> Done:
    return archiver("list", *scene.identity, *arguments)


def path(scene: Scene, key: str) -> Path:
    return scene.destination / key


@pytest.mark.parametrize("lost", ["contents.jsonl.zst.age", "objects.jsonl.zst", "placement.jsonl.zst", "minisig"])
def test_a_promised_copy_that_is_not_whole_is_told(scene: Scene, made: str, lost: str) -> None:
    """It would be missed only when the others have expired."""
    (found,) = [item for item in scene.destination.glob("held/**/*") if made in str(item) and item.name.endswith(lost)]
    found.unlink()
    done = listed(scene)
    assert done.code == 3
    assert (
        f"warning: the copy in held is not whole, and is ignored: archiver hold {made} makes it anew, where it can"
        in done.errors
    )
    assert archiver("verify", "--all", *scene.identity).code == 3
    again = archiver("hold", made, "--config", str(scene.config))
    assert again.code == 3, again.errors
    assert (listed(scene).code, listed(scene).errors) == (0, "")


def test_damage_in_every_copy_is_no_absence(scene: Scene, made: str) -> None:
    """Exit code 5 would say that there is no backup."""
    for found in scene.destination.glob(f"*/data/{SOURCE}/{made}.objects.jsonl.zst"):
        found.unlink()
    assert listed(scene).code == 4
    assert archiver("verify", "--all", *scene.identity).code == 4


def test_all_classes_are_shown_and_what_is_held_is_for_ever(scene: Scene, made: str) -> None:
    done = listed(scene)
    assert (done.code, done.errors) == (0, "")
    header, row = done.output.splitlines()
    assert "GUARANTEED UNTIL" in header
    assert row.split()[:2] == [made, "daily,held"]
    assert " for ever " in row
    (document,) = listed(scene, "--json").document
    assert document["classes"] == ["daily", "held"]
    assert (document["promised_until"], document["guaranteed_until"], document["guaranteed_by"]) == (None, None, "held")


def test_what_is_held_stays_listed(scene: Scene, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    later = scene.backup()
    pass_time(monkeypatch, 36 * DAY)
    done = listed(scene, "--json")
    assert [item["backup"] for item in done.document] == [made]
    assert [item["backup"] for item in listed(scene, "--json", "--all").document] == [later, made]


@pytest.mark.parametrize("retention_class", ["daily", "held"])
def test_a_copy_that_lacks_something_is_damage(scene: Scene, made: str, retention_class: str) -> None:
    victim = next(path(scene, f"{retention_class}/data/{SOURCE}").glob("*.mdb.zst.age"))
    victim.unlink()
    done = listed(scene)
    assert done.code == 4
    key = victim.relative_to(scene.destination)
    assert f"warning: the copy of {made} in class {retention_class} is damaged: {key} is missing" in done.errors
    assert made in done.output
    (document,) = listed(scene, "--json").document
    assert len(document["doubts"]) == 1
    # The other copy is as good as ever.
    assert (document["guaranteed_until"] is None) == (retention_class == "daily")
    assert str(key) in archiver("show", *scene.identity).output


def test_damage_of_the_only_copy_ends_its_guarantee_now(scene: Scene) -> None:
    scene.backup()
    next(path(scene, f"daily/data/{SOURCE}").glob("*.tar.zst.age")).unlink()
    done = listed(scene, "--json")
    assert done.code == 4
    (document,) = done.document
    assert document["guaranteed_by"].endswith(" is missing, or not what it should be")
    assert datetime.fromisoformat(document["guaranteed_until"]) < datetime.fromisoformat(document["promised_until"])


def test_damage_past_the_promise_is_no_news(scene: Scene, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    next(path(scene, f"daily/data/{SOURCE}").glob("*.mdb.zst.age")).unlink()
    pass_time(monkeypatch, 36 * DAY)
    assert listed(scene).code == 0


def test_terms_that_are_damaged_are_a_warning(scene: Scene, made: str) -> None:
    path(scene, BackupPlace("held", SOURCE, made).terms).write_bytes(b"garbage")
    done = listed(scene)
    assert done.code == 3
    assert f"warning: held/backups/{SOURCE}/{made}/terms.json is ignored: " in done.errors
    assert made in done.output


def test_an_expiring_backup_is_not_an_alarm(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's rules have taken the signature, which is older, and not yet the manifest."""
    expiring, later = scene.backup(), scene.backup("--class", "monthly")
    path(scene, BackupPlace("daily", SOURCE, expiring).signature).unlink()
    assert listed(scene).code == 4
    pass_time(monkeypatch, 36 * DAY)
    done = listed(scene, "--json")
    assert (done.code, [item["backup"] for item in done.document]) == (0, [later])
    done = listed(scene, "--json", "--all")
    assert (done.code, [item["backup"] for item in done.document]) == (4, [later, expiring])


def test_what_expires_sooner_than_it_should_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a rule of the bucket, or by a configuration that promises less than it did."""
    scene.backup()
    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "rules", lambda _: [Rule("short", "daily/data/", expires_days=3)])
        check_guarantee(scene, 3 * DAY, "daily/data/")
    scene.config.write_text(scene.config.read_text().replace("keep = 35", "keep = 20"))
    check_guarantee(scene, 20 * DAY, "daily/backups/", "--config", str(scene.config))
    # The card knows nothing of the configuration.
    check_guarantee(scene, 35 * DAY, "")


def check_guarantee(scene: Scene, kept: timedelta, prefix: str, *arguments: str) -> None:
    (document,) = listed(scene, "--json", *arguments).document
    until = datetime.fromisoformat(document["guaranteed_until"])
    assert timedelta() <= until - datetime.fromisoformat(document["started"]) - kept < timedelta(minutes=5)
    assert document["guaranteed_by"].startswith(prefix)
    assert document["guaranteed_by"].endswith(" expires" if prefix else "promised")


def test_where_all_are_hidden_it_says_how_to_see_them(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = scene.backup()
    pass_time(monkeypatch, 36 * DAY)
    for done in (listed(scene), archiver("verify", "--all", *scene.identity)):
        assert done.code == 5
        assert "has no backup of source 'prod' within its promise\nhint: archiver list --all " in done.errors
    assert backup in listed(scene, "--all").output
    assert "hint: archiver list --all shows " in archiver("show", "nothing", *scene.identity).errors


def test_where_there_is_none_it_says_what_else_there_is(scene: Scene) -> None:
    done = listed(scene)
    assert (done.code, "hint: Sources of this destination: prod." in done.errors) == (5, True)


def test_a_vault_without_a_key_file_is_damage_of_every_backup(scene: Scene) -> None:
    """Nobody would open them; each is listed all the same, and what to do is said once."""
    backups = [scene.backup(), scene.backup()]
    files = list(path(scene, f"vault/{SOURCE}").rglob("*.age"))
    assert files
    for file in files:
        file.unlink()
    done = listed(scene)
    assert done.code == 4
    for backup in backups:
        assert backup in done.output
        assert f"warning: {backup}: {scene.url} holds no key file of vault " in done.errors
    assert done.errors.count(f"hint: Put what was below vault/{SOURCE}/") == 1
    assert "only sure until" not in done.errors
    machine = listed(scene, "--json")
    assert machine.code == 4
    for document in machine.document:
        assert document["guaranteed_until"] < document["promised_until"]
        assert document["guaranteed_by"].endswith(" has no key file")
        assert any("nobody could restore" in doubt for doubt in document["doubts"])


@pytest.mark.parametrize("prefix", [f"vault/{SOURCE}/", "daily/data/"])
def test_what_is_sure_for_less_long_than_promised_is_a_warning(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    backups = [scene.backup(), scene.backup()]
    monkeypatch.setattr(LocalStore, "rules", lambda _: [Rule("short", prefix, expires_days=2)])
    done = listed(scene)
    assert done.code == 3
    for backup in backups:
        (line,) = [line for line in done.errors.splitlines() if line.startswith(f"warning: {backup} ")]
        assert " is promised until " in line
        assert ", and only sure until " in line
        assert f": {prefix}" in line
        assert line.endswith(" expires")
    assert done.errors.count("hint: archiver lifecycle check ") == 1


def test_a_backup_past_its_promise_is_sure_of_nothing_and_no_news(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.backup()
    monkeypatch.setattr(LocalStore, "rules", lambda _: [Rule("short", "daily/", expires_days=2)])
    pass_time(monkeypatch, 36 * DAY)
    assert (listed(scene, "--all").code, listed(scene, "--all").errors.count("only sure until")) == (0, 0)
