"""Archived objects: what a restore needs of them is asked for, waited for, and read; nothing else is."""

from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from archiver.catalog.names import parse_object_key
from archiver.errors import RefusedError, StorageError
from archiver.operations.archive import Archive
from archiver.operations.listing import read_file
from archiver.operations.restore import restore
from archiver.operations.restore_plan import Plan, layout_below, plan_restore
from archiver.operations.thaw import thaw
from archiver.operations.verify import verify
from archiver.progress import Silent
from archiver.stores.base import Availability, StoredObject
from archiver.stores.destination import open_store, parse_destination
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.operations.scene import Scene, archiver, check_restored, make_scene, restore_leftovers


class ColdStore(LocalStore):
    """A directory whose objects, those with ``cold`` in their keys, must be thawed: readable after ``looks`` looks."""

    def __init__(self, root: Path, *, cold: str = ".age", looks: int = 0) -> None:
        super().__init__(root, Journal(None))
        self._cold = cold
        self._looks = looks
        self.asked: dict[str, int] = {}
        """By key how often it was asked for."""
        self.days: set[int] = set()
        self.looked: dict[str, int] = {}
        self.pauses: MutableSequence[float] = []
        """Seconds."""
        self.fail: BaseException | None = None
        """What the next look raises."""

    def is_cold(self, key: str) -> bool:
        return parse_object_key(key) is not None and self._cold in key

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        for item in super().list(prefix):
            yield replace(item, storage_class="DEEP_ARCHIVE") if self.is_cold(item.key) else item

    def availability(self, key: str) -> Availability:
        self.stat(key)
        if self.fail is not None:
            fail, self.fail = self.fail, None
            raise fail
        if not self.is_cold(key):
            return "ready"
        if key not in self.asked:
            return "archived"
        return "ready" if self.looked.get(key, 0) >= self._looks else "thawing"

    def thaw(self, key: str, days: int) -> None:
        self.stat(key)
        self.asked[key] = self.asked.get(key, 0) + 1
        self.days.add(days)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if self.availability(key) != "ready":
            raise RefusedError(f"{key}: InvalidObjectState")
        return super().read(key, start, length)

    def hours_pass(self, seconds: float) -> None:
        """Instead of a pause."""
        self.pauses.append(seconds)
        for key in self.asked:
            self.looked[key] = self.looked.get(key, 0) + 1


def plan_of(archive: Archive, target: Path, only: Sequence[str] = ()) -> Plan:
    return plan_restore(archive, archive.find(), layout_below(target), only)


def test_a_restore_of_archived_objects_is_refused_before_anything_is_written(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination)
    archive = scene.archive(store)
    objects = [item for item in store.list("daily/data/") if item.storage_class]
    target = tmp_path / "out"

    with pytest.raises(RefusedError) as caught:
        restore(archive, plan_of(archive, target), Silent())

    assert f"{len(objects)} objects" in caught.value.message
    assert "DEEP_ARCHIVE" in caught.value.message
    assert "--thaw" in str(caught.value.hint)
    assert caught.value.exit_code == 7
    assert not target.exists()
    assert store.asked == {}


def test_with_thaw_all_is_asked_for_once_waited_for_and_restored(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination, looks=9)
    archive = scene.archive(store)
    target = tmp_path / "out"

    restore(archive, plan_of(archive, target), Silent(), thaw_days=3, sleep=store.hours_pass)

    check_restored(scene, target)
    assert set(store.asked) == {item.key for item in store.list("daily/data/") if item.storage_class}
    assert set(store.asked.values()) == {1}
    assert store.days == {3}
    assert len(store.pauses) == 9
    assert store.pauses[0] == 60
    assert store.pauses[-1] == 600
    assert list(store.pauses) == sorted(store.pauses)
    assert restore_leftovers(target) == []


def test_only_what_is_selected_and_not_in_place_is_thawed(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination)
    archive = scene.archive(store)
    target = tmp_path / "out"
    assert scene.restore("--to", str(target), "--only", "media").code == 0

    assert plan_of(archive, target, ["media/album/3.png"]).objects == set()
    plan = plan_of(archive, target, ["vector", "media"])
    restore(archive, plan, Silent(), force=True, thaw_days=1, sleep=store.hours_pass)

    environment = {record.object for item in plan.environments for record in item.extents}
    # A file with a hard link is always fetched.
    linked = plan.objects - environment
    assert len(linked) == 1
    assert {key.rpartition("/")[2].partition(".")[0] for key in store.asked} == environment | linked
    assert not any(".file." in key for key in store.asked)


def test_what_is_not_archived_is_not_thawed(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination, cold=".mdb.")
    archive = scene.archive(store)

    restore(archive, plan_of(archive, tmp_path / "media", ["media"]), Silent())
    restore(archive, plan_of(archive, tmp_path / "all"), Silent(), thaw_days=7, sleep=store.hours_pass)

    assert store.asked
    assert all(".mdb." in key for key in store.asked)
    check_restored(scene, tmp_path / "all")


def test_what_is_only_infrequently_read_is_not_asked_about(scene: Scene, tmp_path: Path) -> None:
    scene.backup()

    class Infrequent(ColdStore):
        def list(self, prefix: str = "") -> Iterator[StoredObject]:
            for item in super().list(prefix):
                yield replace(item, storage_class=item.storage_class and "STANDARD_IA")

        def availability(self, key: str) -> Availability:
            raise AssertionError(key)

        def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            return LocalStore.read(self, key, start, length)

    archive = scene.archive(Infrequent(scene.destination))
    restore(archive, plan_of(archive, tmp_path / "out"), Silent())
    check_restored(scene, tmp_path / "out")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), StorageError("the network is gone")])
def test_an_interrupted_wait_goes_on_when_it_is_run_again(scene: Scene, tmp_path: Path, end: BaseException) -> None:
    scene.backup()
    store = ColdStore(scene.destination, looks=3)
    archive = scene.archive(store)
    target = tmp_path / "out"

    def fail(_: float) -> None:
        store.fail = end

    warnings = Warnings()
    with pytest.raises(type(end)):
        restore(archive, plan_of(archive, target), warnings, thaw_days=7, sleep=fail)

    assert not target.exists()
    if isinstance(end, StorageError):
        assert "same restore again" in str(end.hint)
    else:
        assert "same restore again" in warnings.heard[0]
    asked = dict(store.asked)
    restore(archive, plan_of(archive, target), Silent(), thaw_days=7, sleep=store.hours_pass)
    check_restored(scene, target)
    assert store.asked == asked, "what is being thawed need not be asked for again"


class Warnings(Silent):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, message: str) -> None:
        self.heard.append(message)


def test_what_is_archived_again_during_the_wait_is_asked_for_again(scene: Scene) -> None:
    scene.backup()
    store = ColdStore(scene.destination, looks=2)
    archive = scene.archive(store)
    plan = plan_of(archive, scene.root / "out")
    archived = plan.archived
    forgotten = archived[0].key

    def lapse(seconds: float) -> None:
        if len(store.pauses) == 0:
            del store.asked[forgotten]
        store.hours_pass(seconds)

    thaw(store, archived, Silent(), sleep=lapse)

    assert store.availability(forgotten) == "ready"
    assert plan_of(archive, scene.root / "out").archived == []


def test_the_target_is_checked_again_after_the_wait(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination, looks=1)
    archive = scene.archive(store)
    target = tmp_path / "out"

    def fill(seconds: float) -> None:
        store.hours_pass(seconds)
        target.mkdir()
        (target / "somebody's").touch()

    with pytest.raises(Exception, match="is not empty"):
        restore(archive, plan_of(archive, target), Silent(), thaw_days=7, sleep=fill)
    assert [path.name for path in target.iterdir()] == ["somebody's"]


def test_an_obstacle_is_told_before_anything_is_asked_for(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    store = ColdStore(scene.destination)
    archive = scene.archive(store)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()

    with pytest.raises(Exception, match="is not empty"):
        restore(archive, plan_of(archive, tmp_path / "out"), Silent(), thaw_days=7, sleep=store.hours_pass)
    assert store.asked == {}


@pytest.mark.parametrize("damage", ["", "missing", "another size", "placement"])
def test_a_copy_that_is_readable_is_restored_instead(scene: Scene, tmp_path: Path, damage: str) -> None:
    """But only a whole one: anybody who may create keys could put a copy into another class."""
    backup = scene.backup()
    assert archiver("hold", backup, "--config", str(scene.config)).code == 0
    store = ColdStore(scene.destination, cold="daily/")
    archive = scene.archive(store)
    assert archive.find().place.retention_class == "daily", "the older one"
    victim = next(path for path in (scene.destination / "held").rglob("*.age") if ".mdb." in path.name)
    if damage == "missing":
        victim.unlink()
    elif damage == "another size":
        victim.write_bytes(b"short")
    elif damage == "placement":
        next((scene.destination / "held").rglob("*.placement.*")).write_bytes(b"damaged")

    plan = plan_of(archive, tmp_path / "out")

    assert plan.backup.place.retention_class == ("daily" if damage else "held")
    assert bool(plan.archived) == bool(damage)
    assert ["the copy in held is damaged" in doubt for doubt in plan.backup.doubts] == [True] * bool(damage)
    restore(archive, plan, Silent(), thaw_days=1 if damage else None, sleep=store.hours_pass)
    check_restored(scene, tmp_path / "out")
    assert bool(store.asked) == bool(damage)
    assert plan_restore(archive, archive.find(f"daily/{backup}"), layout_below(tmp_path / "other")).archived or damage


def test_verify_and_cat_say_what_to_do(scene: Scene) -> None:
    scene.backup()
    archive = scene.archive(ColdStore(scene.destination))
    backup = archive.find()

    verify(archive, backup, "storage", Silent())
    for read in (
        lambda: verify(archive, backup, "data", Silent()),
        lambda: list(read_file(archive, backup, "media/album/3.png", Silent().warn)),
    ):
        with pytest.raises(RefusedError, match="is archived") as caught:
            read()
        assert "restore --thaw" in str(caught.value.hint)


def test_another_refusal_is_told_as_it_is(scene: Scene) -> None:
    scene.backup()

    class Denied(ColdStore):
        def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            if ".png" in key or self.is_cold(key):
                raise RefusedError("access denied")
            return LocalStore.read(self, key, start, length)

        def availability(self, key: str) -> Availability:
            raise StorageError(f"{key}: and this as well")

    archive = scene.archive(Denied(scene.destination))
    with pytest.raises(RefusedError, match="access denied"):
        list(read_file(archive, archive.find(), "media/album/3.png", Silent().warn))


def test_the_command_lists_what_must_be_thawed(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    store = ColdStore(scene.destination)
    monkeypatch.setattr("archiver.operations.access.open_store", lambda *_, **__: store)
    store.close = lambda: None  # type: ignore[method-assign]
    arguments = ("restore", *scene.identity, "--to", str(tmp_path / "out"))

    plain = archiver(*arguments, "--dry-run")
    assert plain.code == 7
    assert "must be thawed first" in plain.output
    assert "in DEEP_ARCHIVE, archived" in plain.output
    assert archiver(*arguments, "--dry-run", "--thaw").code == 0
    document = archiver(*arguments, "--dry-run", "--json").document
    assert {item["key"] for item in document["archived"]} == {
        item.key for item in store.list("daily/data/") if item.storage_class
    }
    assert {(item["storage_class"], item["state"]) for item in document["archived"]} == {("DEEP_ARCHIVE", "archived")}
    assert document["obstacle"]["hint"].startswith("Add --thaw")
    assert archiver(*arguments).code == 7
    assert store.asked == {}

    done = archiver(*arguments, "--thaw", "--thaw-days", "2")

    assert done.code == 0, done.errors
    assert store.days == {2}
    check_restored(scene, tmp_path / "out")


def test_in_s3(localstack_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LocalStack thaws at once."""
    monkeypatch.chdir(tmp_path)
    scene = make_scene(tmp_path / "scene", localstack_url)
    text = scene.config.read_text()
    text = text.replace("[class.daily]\n", '[class.daily]\nstorage_class = "DEEP_ARCHIVE"\n')
    text = text.replace('every = "month"', 'every = "never"')
    scene.config.write_text(text)
    # The bucket has no lifecycle rules for a destination of this test alone, which a backup warns of.
    assert archiver("backup", "--config", str(scene.config)).code in (0, 3)
    with closing(open_store(parse_destination(localstack_url))) as store:
        objects = {item.key for item in store.list("daily/data/") if parse_object_key(item.key)}
        assert {item.storage_class for item in store.list() if item.key not in objects} == {None}
        arguments = ("--to", str(tmp_path / "out"))

        rehearsed = scene.restore(*arguments, "--dry-run", "--json")
        refused = scene.restore(*arguments)
        verified = archiver("verify", "--level", "data", *scene.identity)
        printed = archiver("cat", "latest", "media/album/3.png", *scene.identity)

        assert {item["key"] for item in rehearsed.document["archived"]} == objects
        assert (rehearsed.code, refused.code, verified.code, printed.code) == (7, 7, 7, 7)
        assert f"{len(objects)} objects" in refused.errors
        assert "--thaw" in refused.errors
        for done in (verified, printed):
            assert "is archived" in done.errors
            assert "restore --thaw" in done.errors
        assert {store.availability(key) for key in objects} == {"archived"}

        thawed = scene.restore(*arguments, "--thaw")

        assert thawed.code == 0, thawed.errors
        assert {store.availability(key) for key in objects} == {"ready"}
    check_restored(scene, tmp_path / "out")
    scene.verify()
