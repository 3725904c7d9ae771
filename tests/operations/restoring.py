"""What the tests of restore share: a store that is watched or fails, and a target that is occupied."""

from collections.abc import Callable, Iterator
from pathlib import Path

from archiver.errors import StorageError
from archiver.operations.restore import restore
from archiver.operations.restore_plan import layout_below, plan_restore
from archiver.progress import Silent
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.environment.live import make_environment
from tests.operations.scene import (
    ENVIRONMENTS,
    Scene,
)


class WatchedStore(LocalStore):
    """Counts the reads, remembers their keys, and runs ``fault`` instead of the read numbered ``at``, from 1."""

    def __init__(self, root: Path, at: int = 0, fault: Callable[[], None] | None = None) -> None:
        super().__init__(root, Journal(None))
        self.keys: list[str] = []
        self._at = at
        self._fault = fault

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.keys.append(key)
        if len(self.keys) == self._at and self._fault is not None:
            self._fault()
        return super().read(key, start, length)


def refuse() -> None:
    raise StorageError("the network is gone")


def interrupt() -> None:
    raise KeyboardInterrupt


def restore_from(scene: Scene, store: WatchedStore, target: Path, *, force: bool = False) -> None:
    archive = scene.archive(store)
    plan = plan_restore(archive, archive.find(), layout_below(target))
    restore(archive, plan, Silent(), force=force)


def first_object(scene: Scene) -> int:
    """Which read of a restore is the first of an environment: by then the plan has been made and checked."""
    store = WatchedStore(scene.destination)
    restore_from(scene, store, scene.root / "counted")
    return next(number for number, key in enumerate(store.keys, 1) if ".mdb." in key)


def occupied_target(root: Path) -> Path:
    """A target with an older environment and media, which a restore with ``--force`` replaces."""
    target = root / "occupied"
    for name in ENVIRONMENTS:
        make_environment(target / name, 50)
    (target / "media/album").mkdir(parents=True)
    (target / "media/album/1.png").write_bytes(b"older")
    (target / "media/unknown").write_bytes(b"not in the backup")
    return target
