"""Hot backups of a live heed server, made as an operator makes them, each restored and judged by heed's own check."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import heed
from tests.heed import CheckResult, HeedWriter
from tests.operations.scene import ENVIRONMENTS, SOURCE, Done, Scene, finish, spawn


@dataclass(frozen=True, slots=True)
class Backup:
    """How ``archiver backup`` ended, and what its backup, if it made one, turned out to be."""

    done: Done
    check: CheckResult | None

    @property
    def made(self) -> bool:
        return self.check is not None

    @property
    def torn(self) -> str | None:
        """Why what was committed as a backup is not one whole commit of each environment."""
        return None if self.check is None else self.check.problem

    @property
    def methods(self) -> set[str]:
        """How the environments of a backup that was made were read."""
        return {environment["method"] for environment in self.done.document["environments"]}


@dataclass(frozen=True, slots=True)
class Site:
    """A source of two environments below the scene's root, which ``server`` has open, and its destination."""

    scene: Scene
    binary: Path

    def server(self, **options: Any) -> AbstractContextManager[HeedWriter]:
        """A live server; options as of ``HeedWriter.start``."""
        return HeedWriter.start(self.binary, self.scene.data, **options)

    def begin(self, before: str = "") -> "subprocess.Popen[bytes]":
        """Start a backup, after the Python code ``before``."""
        return spawn("backup", "--config", str(self.scene.config), "--json", before=before)

    def judge(self, done: Done) -> Backup:
        """Restore and check what a backup that has ended made."""
        made = done.code in (0, 3)
        return Backup(done, self._check(done.document["backup"]) if made else None)

    def backup(self, before: str = "") -> Backup:
        """Make a backup, and judge it."""
        return self.judge(finish(self.begin(before)))

    def written(self, server: HeedWriter) -> int:
        """Bytes that the server has written to files since it started, whether or not they are on the disk yet."""
        counters = Path(f"/proc/{server.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in counters if line.startswith("wchar:"))

    def size(self) -> int:
        """Bytes of the data files together."""
        return sum((self.scene.data / name / "data.mdb").stat().st_size for name in ENVIRONMENTS)

    def _check(self, backup: str) -> CheckResult:
        target = self.scene.root / "restored"
        try:
            done = finish(spawn("restore", backup, *self.scene.identity, "--to", str(target), "--json"))
            if done.code:
                return CheckResult(f"cannot be restored: {done.errors}")
            return heed.check(self.binary, target)
        finally:
            shutil.rmtree(target, ignore_errors=True)


@contextmanager
def make_site(root: Path, binary: Path, *, settings: str = "") -> Iterator[Site]:
    """Set up by ``archiver init`` with ``settings`` for archiver.toml; what it grew to is removed after the block."""
    scene = Scene(root, (root / "destination").as_uri())
    environments = [f"--environment={name}={scene.data / name}" for name in ENVIRONMENTS]
    root.mkdir()
    files = (f"--config={scene.config}", f"--card={scene.card}")
    try:
        done = finish(spawn("init", "--to", scene.url, "--source", SOURCE, *environments, *files))
        assert done.code == 0, done.errors
        text = scene.config.read_text() + settings
        scene.config.write_text(f'state_directory = "state"\n\n{text}')
        yield Site(scene, binary)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def report(text: str) -> None:
    """A figure for docs/BENCHMARKS.md; pytest shows it with -s."""
    sys.stdout.write(f"{text}\n")
