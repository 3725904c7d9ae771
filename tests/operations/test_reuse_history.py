"""Whatever is done to a tree between backups, each of them restores what the tree was."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest

from archiver.operations import backup_media, recognition, remembered
from archiver.sources.media import batches
from tests.operations.scene import Scene, check_restored
from tests.operations.test_reuse import media_keys

LARGEST_PACKED = 3000
SIZES = (0, 1, 511, LARGEST_PACKED - 1, LARGEST_PACKED, LARGEST_PACKED + 1, 9000)
# Around the root's own name, around the slash, not UTF-8, and longer than what is remembered.
LONG = "/".join(["p" * 200] * 3)
NAMES = ("!a", "-b", "-b/c", "+/x", ".h", "d", "d.x", "d/e", "d/e/f", "d0", "z/\udcff", "z/y", "l1", "l2", "m/l3", LONG)
TIMES = (0, 5, 10**18)


def write(random: Random, path: Path, _: Path) -> None:
    path.write_bytes(random.randbytes(random.choice(SIZES)))


def remove(_: Random, path: Path, __: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def rename(_: Random, path: Path, other: Path) -> None:
    path.rename(other)


def link(_: Random, path: Path, other: Path) -> None:
    os.link(path, other)


def touch(random: Random, path: Path, _: Path) -> None:
    os.utime(path, ns=(0, random.choice(TIMES)))


def protect(random: Random, path: Path, _: Path) -> None:
    path.chmod(random.choice((0o600, 0o644, 0o755)))


def reverse_unseen(_: Random, path: Path, __: Path) -> None:
    """In place, with the size and the time that it had."""
    status = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_unseen(random: Random, path: Path, _: Path) -> None:
    """By another file of the same size and time."""
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(random.randbytes(status.st_size))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


OPERATIONS: tuple[Callable[[Random, Path, Path], None], ...] = (
    write,
    write,
    write,
    remove,
    rename,
    link,
    touch,
    protect,
    reverse_unseen,
    reverse_unseen,
    replace_unseen,
    replace_unseen,
)


def change(random: Random, root: Path) -> None:
    """One operation, which may find that there is nothing to be done."""
    operation = random.choice(OPERATIONS)
    paths = [root / name for name in NAMES]
    there = [path for path in paths if path.is_file()]
    path, other = random.choice(paths if operation is write else there or paths), random.choice(paths)
    with suppress(OSError):
        for each in (path, other):
            each.parent.mkdir(parents=True, exist_ok=True)
        operation(random, path, other)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_each_backup_of_a_history_restores_what_the_tree_was(
    scene: Scene, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_RACY", 0)
    monkeypatch.setattr(recognition, "PACK_LIMIT", LARGEST_PACKED)
    small = partial(batches, pack_size=6000, pack_limit=LARGEST_PACKED, max_entries=9)
    monkeypatch.setattr(backup_media, "batches", small)
    random = Random(seed)
    before: set[str] = set()
    shared = 0
    for night in range(8):
        for _ in range(40 if night == 0 else random.randrange(8)):
            change(random, scene.media)
        keys = media_keys(scene, scene.backup())
        shared += len(keys & before)
        before = keys
        target = tmp_path / str(night)
        assert scene.restore("--to", str(target)).code == 0
        check_restored(scene, target)
        shutil.rmtree(target)
    assert shared
