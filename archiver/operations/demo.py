"""``archiver demo``: the whole story on sample data, from an empty directory to a proven restore."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from archiver.config import load_config
from archiver.environment.comparison import compare_environments
from archiver.environment.sample import write_sample
from archiver.errors import IntegrityError
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.backup_request import BackupResult
from archiver.operations.backup_setup import backup_source
from archiver.operations.init import InitRequest, InitResult, init
from archiver.operations.restore import RestoreResult, restore
from archiver.operations.restore_plan import layout_below, plan_restore
from archiver.progress import Reporter

SOURCE = "sample"
_NODES = 4000
_FILES = 300
_EXTENSIONS = ("png", "jpg", "mp3", "pdf", "txt")
_LARGE = 40 * 1024 * 1024


class Compared(msgspec.Struct, frozen=True):
    """What was found equal between the sample and what was restored."""

    databases: int
    entries: int
    files: int
    file_bytes: int


class Demonstration:
    """Everything happens below ``directory``: data, destination, configuration, recovery card and restored copy."""

    def __init__(self, directory: Path, reporter: Reporter) -> None:
        self.data = directory / "data"
        self.media = self.data / "media"
        self.restored = directory / "restored"
        self.destination = (directory / "destination").absolute().as_uri()
        self.config = directory / "archiver.toml"
        self.card = directory / "recovery-card.txt"
        self._reporter = reporter

    def create(self) -> None:
        """Two environments and a media tree of a few hundred files."""
        write_sample(self.data, _NODES, map_size=1 << 30)
        write_media(self.media, _FILES)

    def initialise(self) -> InitResult:
        """A vault, a signing key, a configuration and a recovery card."""
        result = init(
            InitRequest(
                config=self.config,
                destination=self.destination,
                source=SOURCE,
                operator="demo",
                card=self.card,
                environments={name: self.data / name for name in ("vector", "graph")},
                media=self.media,
            )
        )
        text = self.config.read_text("utf-8")
        self.config.write_text(f'state_directory = "state"\n\n{text}', "utf-8")
        return result

    def backup(self, label: str) -> BackupResult:
        """One backup."""
        return backup_source(load_config(self.config), SOURCE, "daily", label, self._reporter)[0]

    def change(self) -> None:
        """A night's work: new values in the databases, new, changed and deleted files."""
        write_sample(self.data, _NODES // 10, seed=2, map_size=1 << 30)
        write_media(self.media, _FILES // 10, seed=2, prefix="new-")
        (self.media / "0.png").write_bytes(b"changed since the first backup\n")
        (self.media / "2.mp3").unlink()

    def restore(self) -> RestoreResult:
        """The newest backup, with nothing but the recovery card."""
        access = resolve_access(AccessOptions(identity=self.card))
        with access.open() as archive:
            plan = plan_restore(archive, archive.find("latest"), layout_below(self.restored))
            return restore(archive, plan, self._reporter)

    def compare(self) -> Compared:
        """Prove that what was restored equals the data, key by key and byte by byte; raises ``IntegrityError``."""
        databases = entries = 0
        for name in ("vector", "graph"):
            counts = compare_environments(self.data / name, self.restored / name)
            databases += len(counts)
            entries += sum(counts.values())
        files = size = 0
        names = list(_files(self.media))
        if names != list(_files(self.restored / "media")):
            raise IntegrityError("the restored media tree has other files than the sample")
        for name in names:
            original, copy = self.media / name, self.restored / "media" / name
            if not filecmp.cmp(original, copy, shallow=False) or _inode(original) != _inode(copy):
                raise IntegrityError(f"{copy} differs from {original}")
            files += 1
            size += original.stat().st_size
        return Compared(databases, entries, files, size)


def write_media(directory: Path, files: int, *, seed: int = 1, prefix: str = "") -> None:
    """``files`` media files of mixed sizes, from empty to tens of megabytes, mostly incompressible as media are."""
    random = Random(seed)  # noqa: S311 - sample data
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = directory / f"{prefix}{number}.{_EXTENSIONS[number % len(_EXTENSIONS)]}"
        size = int(random.lognormvariate(10.5, 1.4)) if number % 50 else 0
        path.write_bytes(
            b"a note about this node\n" * (size // 23) if path.suffix == ".txt" else random.randbytes(size)
        )
        os.utime(path, ns=(1_700_000_000_123_456_789 + number, 1_700_000_000_123_456_789 + number))
    (directory / f"{prefix}video.mp4").write_bytes(random.randbytes(_LARGE))


def _files(directory: Path) -> Iterator[str]:
    return iter(sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()))


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mode, status.st_mtime_ns
