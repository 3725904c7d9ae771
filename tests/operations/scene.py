"""What the end-to-end tests share: a source with everything in it, its destination and card, and the command line."""

import contextlib
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from archiver.cli.main import run
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.archive import Archive
from archiver.operations.init import InitRequest, init
from archiver.stores.base import Store
from tests.environment.live import make_environment, read_content
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE

SOURCE = "prod"
ENVIRONMENTS = ("vector", "graph")
MIB = 1 << 20
SPARSE_SIZE = 40 * MIB
NOT_TEXT = b"caf\xe9 \xff.bin"
OLD = 1_600_000_000_123_456_789
"""A time in nanoseconds that no file gets by being written now."""
_MAIN = "from archiver.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    raw: bytes
    errors: str

    @property
    def output(self) -> str:
        return self.raw.decode()

    @property
    def document(self) -> Any:
        return json.loads(self.raw)


@dataclass(frozen=True, slots=True)
class Scene:
    """A configured source below ``root``; ``url`` is its destination."""

    root: Path
    url: str

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def media(self) -> Path:
        return self.data / "media"

    @property
    def destination(self) -> Path:
        return self.root / "destination"

    @property
    def config(self) -> Path:
        return self.root / "archiver.toml"

    @property
    def card(self) -> Path:
        return self.root / "card.txt"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def identity(self) -> tuple[str, str]:
        """The options that are enough on a blank machine."""
        return "--identity", str(self.card)

    def backup(self, *arguments: str) -> str:
        """Make a backup without a warning; its id."""
        done = archiver("backup", *arguments, "--config", str(self.config), "--json")
        assert done.code == 0, (done.output, done.errors)
        assert not done.errors
        return str(done.document["backup"])

    def backups(self) -> list[str]:
        """The ids that ``archiver list`` shows."""
        done = archiver("list", *self.identity, "--json")
        if done.code == 5:
            return []
        assert done.code == 0, (done.output, done.errors)
        return [backup["backup"] for backup in done.document]

    def verify(self, backup: str = "latest") -> None:
        """Prove all of ``backup``."""
        done = archiver("verify", backup, "--level", "data", *self.identity)
        assert done.code == 0, done.errors

    def restore(self, *arguments: str, backup: str = "latest") -> Done:
        """Restore with the card."""
        return archiver("restore", backup, *self.identity, *arguments)

    def archive(self, store: Store) -> Archive:
        """What a restore reads, from ``store`` instead of the destination."""
        access = resolve_access(AccessOptions(identity=self.card))
        return Archive(store, access.source, access.trusted, access.keyring)

    def partial_files(self) -> list[Path]:
        """Temporary files that are left in the destination."""
        return list(self.destination.rglob("*.partial"))

    def journal(self) -> str:
        """What the journals say is open."""
        return "".join(path.read_text() for path in (self.state / SOURCE).glob("journal-*"))


def make_scene(
    root: Path, url: str | None = None, *, entries: int = 200, calendar: bool = False, rules: bool = True
) -> Scene:
    """Two environments with databases of every kind, a media tree with every kind of entry, set up by ``init``.

    For ``calendar`` and ``rules`` see ``configure``.
    """
    scene = Scene(root, url or (root / "destination").as_uri())
    for number, name in enumerate(ENVIRONMENTS, 1):
        make_environment(scene.data / name, entries * number)
    make_media(scene.media)
    configure(scene, calendar=calendar, rules=rules)
    return scene


def configure(scene: Scene, *, calendar: bool = False, rules: bool = True) -> None:
    """Run ``init``, keep state inside the scene, and make frames small, so that small data cross their boundaries.

    With ``calendar`` the first backup of the month is copied into the class monthly, as it is by default: then it lies
    in two places. With ``rules`` a bucket gets the lifecycle rules without which every backup warns.
    """
    environments = {name: scene.data / name for name in ENVIRONMENTS if (scene.data / name).exists()}
    init(
        InitRequest(
            config=scene.config,
            destination=scene.url,
            source=SOURCE,
            operator="test",
            card=scene.card,
            environments=environments,
            media=scene.media if scene.media.exists() else None,
        )
    )
    text = scene.config.read_text()
    if not calendar:
        assert 'every = "month"' in text
        text = text.replace('every = "month"', 'every = "never"')
    scene.config.write_text(f'state_directory = "state"\n\n{text}\n[tuning]\nframe_size = 262144\n')
    if rules and scene.url.startswith("s3://"):
        done = archiver("lifecycle", "apply", "--config", str(scene.config))
        assert done.code == 0, done.errors


def make_media(root: Path) -> None:
    """Files small and large, empty, sparse and linked, a name that is not text, odd modes and old times."""
    random = Random(5)
    for name in ("album/2026", "empty"):
        (root / name).mkdir(parents=True)
    for number in range(12):
        (root / "album" / f"{number}.png").write_bytes(random.randbytes(number * 7001))
    (root / "album/2026/note.txt").write_text("a note\n" * 9000)
    (root / "album/2026/none").touch()
    (root / os.fsdecode(NOT_TEXT)).write_bytes(b"named in latin-1")
    os.link(root / "album/7.png", root / "again.png")
    (root / "link").symlink_to("album/2026/note.txt")
    (root / "dangling").symlink_to("../nowhere")
    with (root / "sparse.raw").open("wb") as file:
        file.truncate(SPARSE_SIZE)
        for offset in (0, 17 * MIB, SPARSE_SIZE - 5000):
            file.seek(offset)
            file.write(random.randbytes(5000))
    for path, mode in (("album/3.png", 0o640), ("album/4.png", 0o400), ("empty", 0o700), ("album/2026", 0o755)):
        (root / path).chmod(mode)
    for entry in sorted(root.rglob("*"), reverse=True):
        os.utime(entry, ns=(OLD, OLD + len(entry.name)), follow_symlinks=False)
    os.utime(root, ns=(OLD, OLD))


def archiver(*arguments: str) -> Done:
    """Run a command line in this process."""
    raw_output, raw_errors = io.BytesIO(), io.BytesIO()
    output, errors = io.TextIOWrapper(raw_output, "utf-8"), io.TextIOWrapper(raw_errors, "utf-8")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run(list(arguments))
    for stream in (output, errors):
        stream.flush()
    return Done(code, raw_output.getvalue(), raw_errors.getvalue().decode())


def command_line(*arguments: str, before: str = "", prefix: Sequence[str] = ()) -> list[str]:
    """The command that runs archiver in a process of its own, after the Python code ``before``."""
    return [*prefix, sys.executable, "-c", f"{before}\n{_MAIN}", *arguments]


def spawn(*arguments: str, before: str = "", prefix: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """Start archiver in a process of its own."""
    return subprocess.Popen(
        command_line(*arguments, before=before, prefix=prefix),
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: "subprocess.Popen[bytes]") -> Done:
    """Wait for a spawned archiver."""
    output, errors = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, output, errors.decode())


Tree = dict[bytes, tuple[object, ...]]


def tree(root: Path, *, leave_out: Sequence[bytes] = ()) -> Tree:
    """Everything at and below ``root``: kind, mode, time, content hash, link target, and which names share a file.

    The root's own time is left out: a restore stages inside its target. So are names that begin with ``leave_out``.
    """
    first: dict[tuple[int, int], bytes] = {}
    found: Tree = {b".": (stat.S_IMODE(root.stat().st_mode),)}
    for path in _walk(os.fsencode(root), tuple(leave_out)):
        status = os.lstat(path)
        name = os.path.relpath(path, os.fsencode(root))
        common = (stat.filemode(status.st_mode), status.st_mtime_ns, status.st_uid, status.st_gid)
        if stat.S_ISLNK(status.st_mode):
            found[name] = (*common, os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            shared = first.setdefault((status.st_dev, status.st_ino), name)
            found[name] = (*common, status.st_size, _sha256(path), shared)
        else:
            found[name] = common
    return found


def _walk(directory: bytes, leave_out: tuple[bytes, ...]) -> Iterator[bytes]:
    for name in sorted(os.listdir(directory)):
        if leave_out and name.startswith(leave_out):
            continue
        path = os.path.join(directory, name)
        yield path
        if os.path.isdir(path) and not os.path.islink(path):
            yield from _walk(path, leave_out)


def _sha256(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


NOT_IN_THE_BACKUP = (b"unknown", b"old")
"""What tests put into a target's media directory beforehand: a restore never touches it."""


def check_restored(scene: Scene, target: Path, *, media: Tree | None = None) -> None:
    """``target`` holds what the scene's source holds: every pair and flag, every file with its metadata."""
    for name in ENVIRONMENTS:
        assert read_content(target / name / "data.mdb") == read_content(scene.data / name / "data.mdb"), name
        assert not (target / name / "lock.mdb").exists()
    found = tree(target / "media")
    for stays in NOT_IN_THE_BACKUP:
        found.pop(stays, None)
    assert found == (tree(scene.media) if media is None else media)


def restore_leftovers(*targets: Path) -> list[str]:
    """Staging directories of restores, of this or an earlier run."""
    return [str(path) for target in targets if target.exists() for path in target.rglob(".archiver-restore-*")]
