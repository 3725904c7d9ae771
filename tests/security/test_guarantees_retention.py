"""Guarantees of docs/SECURITY.md, by number: what is kept, for how long, and what nobody can plant against it. Each
test says which change of the code it notices."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.config import DEFAULT_CLASSES, load_config
from archiver.operations.access import configured_keys
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.needs import needs
from archiver.retention.expiry import expired
from archiver.retention.policy import in_force
from archiver.stores.destination import open_store, parse_destination
from tests.operations.scene import SOURCE, Scene, archiver
from tests.security.house import CONTENT, ago, at, backup_from, listed, make_house, restores, run


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.chdir(tmp_path)
    return make_house(tmp_path / "house")


def test_g36_nothing_that_a_promise_needs_goes_before_its_end(house: Scene) -> None:
    """Noticed: a rule that is shorter than the promise, a copy that refers to a class which keeps for less long, an
    expiry that counts from anything but the key's creation."""
    switch_the_calendar_on(house)
    assert archiver("backup", "--config", str(house.config)).code == 0
    config = load_config(house.config)
    store = open_store(parse_destination(house.destination.as_uri()))
    archive = Archive(store, SOURCE, configured_keys(config))
    copies = needs(archive, [item for item in archive.backups() if isinstance(item, Backup)])
    assert sorted(copy.retention_class for copy in copies) == ["daily", "monthly"]
    terms = in_force(DEFAULT_CLASSES, None)
    for copy in copies:
        assert copy.promise is not None
        assert None not in copy.keys.values()
        last = copy.promise - timedelta(seconds=1)
        assert not {item.key for item in expired(store.list(), terms, last)} & copy.keys.keys()
        gone = {item.key for item in expired(store.list(), terms, last + timedelta(days=37))}
        assert copy.keys.keys() <= gone, "or nothing ever expires, and this proves nothing"


@pytest.mark.parametrize("since", [timedelta(seconds=-10), timedelta(0), timedelta(days=2)])
def test_g37_planted_terms_take_nothing_from_a_promise(house: Scene, since: timedelta) -> None:
    """Noticed: terms that are believed where they say less than the manifest that they lie beside: because they are
    older, of the same second, or at all."""
    committed = ago(days=3)
    backup = backup_from(house, committed - timedelta(minutes=1))
    (place,) = house.destination.glob(f"daily/backups/{SOURCE}/{backup}")
    os.utime(place / "manifest.json", (committed.timestamp(), committed.timestamp()))
    _, before = listed(house)
    planted = (committed + since).timestamp()
    for terms in ('{"version":1,"keep_days":1,"lease_days":1}', "{}", "x" * 5000):
        (place / "terms.json").write_text(terms)
        os.utime(place / "terms.json", (planted, planted))
        code, after = listed(house)
        assert code in (0, 3)
        assert [item["backup"] for item in after] == [backup]
        assert after[0]["guaranteed_until"] == before[0]["guaranteed_until"]


@pytest.mark.parametrize("since", [timedelta(0), timedelta(minutes=2), timedelta(days=2)])
@pytest.mark.parametrize(
    ("planted", "kept"), [("monthly", "monthly"), ("yearly", "monthly"), ("daily", "monthly"), ("held", "held")]
)
def test_g38_a_planted_object_is_not_referred_to(house: Scene, planted: str, kept: str, since: timedelta) -> None:
    """Noticed: a promotion or a hold that takes whatever lies there under the right name and with the right size, in a
    longer class, in its own, or as a further key beside the original; because it is as old as the backup, or at all."""
    moment = ago(days=3)
    backup = backup_from(house, moment)
    objects = list(house.destination.glob(f"daily/data/{SOURCE}/*.*.zst.age"))
    genuine = [path for path in objects if not path.name.startswith(backup)]
    assert len(genuine) == 2
    planted_at = (moment + since).timestamp()
    for path in genuine:
        name = path.name.replace(".", ".deadbeef.", 1) if planted == "daily" else path.name
        garbage = house.destination / planted / "data" / SOURCE / name
        garbage.parent.mkdir(parents=True, exist_ok=True)
        garbage.write_bytes(os.urandom(path.stat().st_size))
        os.utime(garbage, (planted_at, planted_at))
    switch_the_calendar_on(house)
    if planted == "yearly":
        house.config.write_text(f"{house.config.read_text()}\n[class.yearly]\nkeep = 800\nlease = 60\n")
    arguments = ("hold", backup) if kept == "held" else ("promote",)
    assert archiver(*arguments, "--config", str(house.config)).code == 0
    (manifest,) = house.destination.glob(f"{kept}/backups/{SOURCE}/*/manifest.json")
    assert manifest.parent.name == backup
    for path in house.destination.rglob("daily/**/*"):
        if path.is_file():
            path.unlink()
    assert restores(house, house.root / "restored", f"{kept}/{backup}")


def test_g39_nothing_that_can_be_planted_has_deleted_what_is_held(house: Scene) -> None:
    """Noticed: an expiry that believes what lies in ``held``, a release without the right to delete."""
    backup = backup_from(house, ago(days=3))
    assert archiver("hold", backup, "--config", str(house.config)).code == 0
    (place,) = house.destination.glob(f"held/backups/{SOURCE}/{backup}")
    held = {path: path.read_bytes() for path in house.destination.glob("held/**/*") if path.is_file()}
    for name in ("released", "released.json", "expired"):
        (place / name).write_text("{}")
    (house.destination / "held/data" / SOURCE / f"{backup}.released").write_text("")
    with at(ago(days=-5000)):
        done = archiver("expire", "--config", str(house.config))
    assert done.code in (0, 3), done.errors
    assert {path: path.read_bytes() for path in held} == held
    with at(ago(days=-5000)):
        done = run(house, "restore", f"held/{backup}", "--to", str(house.root / "restored"))
    assert done.code in (0, 3), done.errors
    assert (house.root / "restored/media/note.txt").read_bytes() == CONTENT


def switch_the_calendar_on(scene: Scene) -> None:
    """The first backup of each month goes into monthly, as it does by default."""
    text = scene.config.read_text()
    assert 'every = "never"' in text
    scene.config.write_text(text.replace('every = "never"', 'every = "month"'))
