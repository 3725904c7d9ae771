"""Which copy of a backup is read: whatever ``list`` guarantees by any of them is restored without asking for it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.config import HELD
from archiver.errors import IntegrityError, RefusedError
from archiver.operations.copies import easiest_copy, whole_copy
from archiver.operations.hold import hold
from archiver.operations.promote import promote_due
from archiver.operations.promotion import promote_copy
from archiver.operations.verify import verify
from archiver.progress import Silent
from tests.operations.archives import SOURCE, Site
from tests.operations.backing_up import pass_time
from tests.operations.promoting import (
    DAY,
    WEEKLY,
    commit,
    copy_site,
    objects_in,
    place,
    terms_of,
    trial_site,
    trial_store,
)
from tests.operations.scene import Scene, archiver, check_restored
from tests.operations.test_verify import damage

CLASSES = ("daily", "weekly", "monthly", "held")


@pytest.fixture
def made(scene: Scene) -> str:
    """The id of a backup with copies in ``daily`` and ``held``."""
    backup = scene.backup()
    assert archiver("hold", backup, "--config", str(scene.config)).code == 0
    return backup


def victim(scene: Scene, retention_class: str, kind: str) -> Path:
    return min((scene.destination / retention_class / "data" / SOURCE).glob(f"*.{kind}*"))


def objects(scene: Scene) -> list[Path]:
    found = (scene.destination / "daily/data" / SOURCE).glob("*.age")
    return [path for path in found if ".contents." not in path.name]


def lose_objects(scene: Scene) -> None:
    for path in objects(scene):
        path.unlink()


def shorten_objects(scene: Scene) -> None:
    for path in objects(scene):
        path.write_bytes(b"short")


def spoil_placement(scene: Scene) -> None:
    victim(scene, "daily", "placement").write_bytes(b"garbage")


def spoil_objects_list(scene: Scene) -> None:
    """In its size: that it is another is for its hash to tell."""
    damage(victim(scene, "daily", "objects"), "flip")


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("restore", "--to", "out"),
    ("restore", "ID", "--to", "out"),
    ("verify", "--level", "data"),
    ("verify",),
    ("cat", "latest", "media/album/11.png"),
)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("spoil", [lose_objects, shorten_objects, spoil_placement, spoil_objects_list])
def test_a_copy_that_is_not_whole_is_passed_by(
    scene: Scene,
    made: str,
    monkeypatch: pytest.MonkeyPatch,
    command: Sequence[str],
    spoil: Callable[[Scene], None],
) -> None:
    monkeypatch.chdir(scene.root)
    spoil(scene)
    done = archiver(*(made if word == "ID" else word for word in command), *scene.identity)

    # What cat wrote is right if its exit code is 0.
    assert done.code == (0 if command[0] == "cat" else 3), done.errors
    (warning,) = [line for line in done.errors.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: the copy in daily is damaged (")
    assert warning.endswith("): reading the one in held")
    if command[0] == "restore":
        check_restored(scene, scene.root / "out")
    elif command[0] == "cat":
        assert done.raw == (scene.media / "album/11.png").read_bytes()
    else:
        assert f"{made} in held: verified" in done.output


def test_only_what_is_wanted_must_be_whole(scene: Scene, made: str, tmp_path: Path) -> None:
    victim(scene, "daily", "tar").unlink()
    done = scene.restore("--to", str(tmp_path / "out"), "--only", "vector")
    assert (done.code, "damaged" in done.errors) == (0, False), done.errors


def test_the_class_that_is_named_is_read(scene: Scene, made: str, tmp_path: Path) -> None:
    lose_objects(scene)
    named = archiver("restore", f"daily/{made}", "--to", str(tmp_path / "out"), *scene.identity)
    assert named.code == 4
    assert archiver("verify", f"daily/{made}", *scene.identity).code == 4
    every = archiver("verify", "--all", *scene.identity, "--json")
    assert {item["class"]: item["verified"] for item in every.document} == {"daily": False, "held": True}


@pytest.mark.parametrize("how", ["restore", "dry run", "verify", "cat"])
def test_garbage_that_only_reading_tells_names_the_command_for_the_other_copy(
    scene: Scene, made: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(scene.root)
    damage(victim(scene, "daily", "tar"), "flip")
    damage(victim(scene, "daily", "contents"), "flip") if how == "dry run" else None
    commands = {
        "restore": (("restore", "latest"), ("--to", "an out", "--only", "media")),
        "dry run": (("restore", "latest", "--dry-run"), ("--to", "an out")),
        "verify": (("verify", "latest"), ("--level", "data")),
        "cat": (("cat", "latest"), ("media/album/1.png",)),
    }
    first, options = commands[how]
    done = archiver(*first, *options, *scene.identity)
    assert done.code == 4, done.errors
    quoted = " ".join(f"'{word}'" if " " in word else word for word in options)
    assert f"hint: archiver {first[0]} held/{made} {quoted} reads the copy in held." in done.errors

    again = archiver(first[0], f"held/{made}", *options, *scene.identity)
    assert (again.code, again.errors.count("warning")) == (0, 0), again.errors


def test_where_nothing_is_whole_the_error_says_what_is_wrong_with_each(scene: Scene, made: str, tmp_path: Path) -> None:
    lose_objects(scene)
    victim(scene, "held", "tar").unlink()
    target = str(tmp_path / "out")
    done = scene.restore("--to", target)
    assert done.code == 4
    assert f"none of the 2 copies of {made} is whole: in daily: " in done.errors
    assert "; in held: held/data/prod/" in done.errors
    assert f"archiver restore held/{made} --to {target} reads the copy in held." in done.errors
    assert not (tmp_path / "out").exists()
    done = scene.restore("--to", target, "--only", "vector")
    assert done.code == 3, done.errors


def test_no_other_copy_is_named_for_want_of_a_key(scene: Scene, made: str, tmp_path: Path) -> None:
    archiver("keys", "generate", "--output", str(tmp_path / "other.txt"))
    # Not the card, which holds a key that opens it.
    options = ("--config", str(scene.config), "--identity", str(tmp_path / "other.txt"))
    done = archiver("restore", "--to", str(tmp_path / "out"), *options)
    assert done.code == 4
    assert "reads the copy" not in done.errors


def test_a_copy_past_its_promise_comes_last(scene: Scene, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_time(monkeypatch, 36 * DAY)
    done = archiver("verify", *scene.identity)
    assert (done.code, done.errors) == (0, ""), done.errors
    assert f"{made} in held: verified" in done.output
    victim(scene, "held", "tar").unlink()
    done = archiver("verify", *scene.identity)
    assert done.code == 3
    assert f"{made} in daily: verified" in done.output


def test_a_weekly_copy_that_outlived_what_was_lent_to_it_is_passed_by() -> None:
    """Its class was made longer after the copy was made: the monthly one took its objects along."""
    site = trial_site()
    store = trial_store(site)
    commit(site)
    short = copy_site(site, weekly=WEEKLY)
    promote_due(site.archive(), short.terms, Silent())
    store.now += 5 * DAY
    hold(copy_site(site), "latest", Silent(), dry_run=False)
    store.now += 450 * DAY
    store.expire("daily/", "monthly/")
    archive = site.archive()
    first = archive.find()
    assert first.place == place("weekly")

    chosen = whole_copy(archive, first)

    assert chosen.place == place(HELD)
    verify(archive, chosen, "data", Silent())


@pytest.fixture(scope="module")
def copied() -> Site:
    """A backup in every class, each copy with objects of its own."""
    site = trial_site()
    commit(site)
    for name in CLASSES[1:]:
        site.store.now += DAY
        # As if it were the only one: nothing is lent.
        terms = {name: terms_of(weekly=WEEKLY)[name]}
        promote_copy(site.archive(), site.archive().find(), name, terms, Silent())
    assert all(len(objects_in(site, name)) == 3 for name in CLASSES)
    return site


@given(
    states=st.lists(st.sampled_from(["whole", "missing", "short", "archived"]), min_size=4, max_size=4),
    days=st.sampled_from([4, 40, 80, 500]),
)
def test_the_choice(copied: Site, states: list[str], days: int) -> None:
    """Readable before archived, promised before past it, then the oldest; never what is not whole."""
    store = trial_store(copied)
    objects, classes, now = dict(store._objects), dict(store.storage_classes), store.now
    first = copied.archive().find()
    try:
        store.now = first.manifest.started + days * DAY
        for name, state in zip(CLASSES, states, strict=True):
            key = objects_in(copied, name)[1]
            if state == "missing":
                store.remove(key)
            elif state == "short":
                store._objects[key] = b"short", store.now
            elif state == "archived":
                store.storage_classes[key] = "DEEP_ARCHIVE"
        good = {name: state for name, state in zip(CLASSES, states, strict=True) if state in ("whole", "archived")}
        if not good:
            with pytest.raises(IntegrityError, match="none of the 4 copies"):
                easiest_copy(copied.archive(), first)
            return
        chosen, archived = easiest_copy(copied.archive(), first)
        name = chosen.place.retention_class
        ends = {"daily": 35, "weekly": 70, "monthly": 400, "held": 10**6}

        def rank(name: str) -> tuple[bool, bool, int]:
            return good[name] == "archived", ends[name] <= days, CLASSES.index(name)

        assert name == min(good, key=rank)
        assert len(archived) == (good[name] == "archived")
        damaged = {doubt.split()[3] for doubt in chosen.doubts}
        assert damaged <= set(CLASSES) - set(good)
        passed = [other for other in CLASSES if (ends[other] <= days, CLASSES.index(other)) < rank(name)[1:]]
        assert damaged >= set(passed) - set(good), "what was passed by is told"
    finally:
        store._objects, store.storage_classes, store.now = objects, classes, now


def test_one_copy_costs_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    site = trial_site()
    commit(site)
    archive = site.archive()
    found = archive.find()
    site.store.lists.clear()
    site.store.reads.clear()
    monkeypatch.setattr(site.store, "clock", lambda: pytest.fail("it was asked for the time"))
    assert whole_copy(archive, found) is found
    assert (site.store.lists, site.store.reads) == ([], [])
    easiest_copy(archive, found, {next(iter(archive.placement(found)))})
    assert site.store.lists == [f"daily/data/{SOURCE}/"]


def test_a_first_copy_that_is_whole_is_all_that_is_looked_at(copied: Site) -> None:
    archive = copied.archive()
    found = archive.find()
    copied.store.lists.clear()
    copied.store.reads.clear()
    assert whole_copy(archive, found).place == place("daily")
    assert copied.store.lists == [f"daily/data/{SOURCE}/"]
    assert {key for key, _, _ in copied.store.reads} == {place("daily").objects, place("daily").placement}


def test_what_the_store_refuses_everywhere_is_told_as_it_is(copied: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = copied.archive()
    found = archive.find()

    def refuse(key: str, start: int = 0, length: int | None = None) -> object:
        raise RefusedError(f"{key}: access denied")

    monkeypatch.setattr(copied.store, "read", refuse)
    with pytest.raises(RefusedError, match=r"daily/.*: access denied"):
        whole_copy(archive, found)


def test_what_the_store_refuses_of_one_copy_is_not_called_damage(copied: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, read = copied.archive(), copied.store.read
    found = archive.find()

    def refuse(key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if key == place("daily").placement:
            raise RefusedError(f"{key}: access denied")
        return read(key, start, length)

    monkeypatch.setattr(copied.store, "read", refuse)
    chosen = whole_copy(archive, found)
    key = place("daily").placement
    assert chosen.place == place("weekly")
    assert chosen.doubts == (f"the copy in daily cannot be read ({key}: access denied): reading the one in weekly",)
