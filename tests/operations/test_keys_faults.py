"""A command about keys that fails or is killed at any step leaves the old state usable, or the new one, and can be run
again."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import StorageError
from archiver.stores.local import LocalStore
from tests.environment.live import make_environment
from tests.operations.operators import Operator, add, can_open, can_read, current_vault, keys, make_operator, operators
from tests.operations.scene import Done, Scene, archiver, configure


@dataclass
class Fault:
    """What happens at one of the steps by which a command changes something."""

    step: int
    """From 1 on."""
    error: type[BaseException]
    happens: str
    """``before`` the step is done, or ``after`` it."""
    seen: int = 0

    @property
    def hit(self) -> bool:
        return self.seen >= self.step

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            self.seen += 1
            if self.seen == self.step and self.happens == "before":
                raise self.error("a fault")
            result = function(*arguments)
            if self.seen == self.step:
                raise self.error("a fault")
            return result

        return step


@contextmanager
def faulty(fault: Fault) -> Iterator[None]:
    """Within the block every change of the destination or of the configuration is a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "create", fault.around(LocalStore.create))
        patch.setattr(LocalStore, "delete", fault.around(LocalStore.delete))
        patch.setattr(Path, "replace", fault.around(Path.replace))
        yield


@dataclass(frozen=True)
class Case:
    """A small source with a backup in each of two vaults, that the owner and Bob can read."""

    scene: Scene
    bob: Operator
    carol: Operator
    backups: tuple[str, str]

    def keep(self) -> None:
        shutil.copytree(self.scene.destination, self.scene.root / "kept")
        shutil.copy2(self.scene.config, self.scene.root / "kept.toml")

    def bring_back(self) -> None:
        shutil.rmtree(self.scene.destination)
        shutil.copytree(self.scene.root / "kept", self.scene.destination)
        shutil.copy2(self.scene.root / "kept.toml", self.scene.config)
        shutil.rmtree(self.scene.state, ignore_errors=True)

    def run(self, command: str) -> Done:
        if command == "add":
            return add(self.scene, self.carol)
        return keys(self.scene, *{"remove": ["remove", "bob"], "rotate": ["rotate"]}[command], *self.scene.identity)

    def is_done(self, command: str, vault: str) -> bool:
        """Whether all that ``command`` is to do was done; ``vault`` is what was current before."""
        if command == "add":
            return "carol" in operators(self.scene) and can_open(self.scene, self.carol.identity)
        if command == "remove":
            return "bob" not in operators(self.scene) and not can_open(self.scene, self.bob.identity)
        return current_vault(self.scene) != vault

    def check(self, command: str) -> None:
        """Nobody who stays has lost anything, and backups go on."""
        staying = [self.scene.identity] if command == "remove" else [self.scene.identity, self.bob.identity]
        for identity in staying:
            assert can_open(self.scene, identity)
            assert all(can_read(self.scene, identity, backup) for backup in self.backups)
        done = archiver("backup", "--config", str(self.scene.config), "--json")
        # A backup warns while somebody is in the configuration and has no file any more.
        assert done.code == 0 or (done.code == 3 and "'bob' cannot open this backup" in done.errors), done.errors
        assert all(can_read(self.scene, identity, done.document["backup"]) for identity in staying)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    root = tmp_path / "scene"
    scene = Scene(root, (root / "destination").as_uri())
    make_environment(scene.data / "vector", 5)
    monkeypatch.chdir(tmp_path)
    configure(scene)
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    first = scene.backup()
    assert keys(scene, "rotate").code == 0
    case = Case(scene, bob, make_operator(scene, "carol"), (first, scene.backup()))
    case.keep()
    return case


@pytest.mark.parametrize(
    ("error", "happens"),
    [(StorageError, "before"), (StorageError, "after"), (KeyboardInterrupt, "after")],
    ids=["refused", "answer lost", "killed"],
)
@pytest.mark.parametrize(("command", "steps", "again"), [("add", 3, 6), ("remove", 3, 5), ("rotate", 3, 0)])
def test_a_fault_at_every_step(
    case: Case, command: str, steps: int, again: int, error: type[BaseException], happens: str
) -> None:
    """``again`` is how the command ends when there is nothing left to do."""
    vault = current_vault(case.scene)
    step = 0
    while True:
        step += 1
        case.bring_back()
        fault = Fault(step, error, happens)
        with faulty(fault):
            done = case.run(command)
        if not fault.hit:
            break
        assert done.code == (130 if error is KeyboardInterrupt else 7), done.errors
        was_done = case.is_done(command, vault)
        assert was_done == (step == steps and happens == "after")
        case.check(command)
        repeated = case.run(command)
        # A file that the first run has made is left alone, with a warning: it may be of another key.
        begun = 3 if command == "add" and (step, happens) != (1, "before") else 0
        assert repeated.code == (again if was_done else begun), repeated.errors
        assert case.is_done(command, vault)
        case.check(command)
    assert step == steps + 1
    assert done.code == 0
    assert case.is_done(command, vault)
