"""What is backed up: made, changed by one percent as a live system changes it, and compared with what was restored."""

import math
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Literal

import lmdb

from archiver.environment.sample import DIMENSIONS, write_sample

Kind = Literal["environment", "files", "media"]
FULL = {"environment": 1_080_000, "files": 20_000, "media": 4_000_000_000}
"""Nodes, files and bytes at scale 1: 4.3 GB, 270 MB and 4 GB."""
CHANGED = 0.01
_PER_DIRECTORY = 100
_TYPICAL_FILE = 8_000
_SPREAD = 1.0
_MOST = 400_000
_LARGE_FILES = 8
_PIECE = 1 << 20
_WORDS = b"the quick brown fox jumps over a lazy dog while seven wizards box quietly in June ".split(b" ")
_MAP_SIZE = 64 << 30


def make(kind: Kind, directory: Path, scale: float) -> None:
    """Make ``directory`` with ``scale`` of what ``FULL`` says; the same each time."""
    amount = max(1, int(FULL[kind] * scale))
    random = Random(1)
    if kind == "environment":
        beside = directory.with_name(directory.name + ".sample")
        write_sample(beside, amount, map_size=_MAP_SIZE)
        (beside / "vector").rename(directory)
        shutil.rmtree(beside)
    elif kind == "files":
        for number in range(amount):
            _write_small(directory, number, random)
    else:
        directory.mkdir()
        for number in range(_LARGE_FILES):
            _write_large(directory / f"{number:03}.mp4", amount // _LARGE_FILES, random)


def change(kind: Kind, directory: Path, turn: int) -> None:
    """Change one percent, another in each ``turn``: keys at random, files at random and half as many new ones, or one
    new large file."""
    random = Random(1000 + turn)
    if kind == "environment":
        _change_keys(directory, random)
        return
    if kind == "files":
        existing = sum(1 for path in directory.rglob("*") if path.is_file())
        changed = math.ceil(existing * CHANGED)
        for number in (*random.sample(range(existing), changed), *range(existing, existing + changed // 2)):
            _write_small(directory, number, random)
    else:
        size = sum(path.stat().st_size for path in directory.iterdir())
        _write_large(directory / f"new-{turn:03}.mp4", math.ceil(size * CHANGED), random)


def size(directory: Path) -> int:
    """Bytes of all files; of an environment those of its data file, with the pages that are free."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and path.name != "lock.mdb")


def warm(directory: Path) -> None:
    """Bring all files into the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(_PIECE):
                    pass


def compare(kind: Kind, directory: Path, restored: Path) -> None:
    """Raises ``ValueError`` unless ``restored`` holds what ``directory`` does."""
    if kind == "environment":
        _compare_environments(directory, restored)
        return
    done = subprocess.run(["diff", "-r", "-q", directory, restored], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{restored} is not what was backed up:\n{done.stdout[:2000]}")


def _write_small(directory: Path, number: int, random: Random) -> None:
    """Half of the files is text-like, half random; their sizes are lognormal."""
    path = directory / f"{number // _PER_DIRECTORY:03}" / f"{number}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    length = min(_MOST, int(random.lognormvariate(math.log(_TYPICAL_FILE), _SPREAD)))
    content = random.randbytes(length)
    if number % 2:
        content = b" ".join(_WORDS[byte % len(_WORDS)] for byte in content[: length // 4])[:length]
    path.write_bytes(content)


def _write_large(path: Path, length: int, random: Random) -> None:
    with path.open("wb") as file:
        for start in range(0, length, _PIECE):
            file.write(random.randbytes(min(_PIECE, length - start)))


def _change_keys(directory: Path, random: Random) -> None:
    """Give one percent of the nodes the embedding of another node, in transactions of 100."""
    with lmdb.open(str(directory), map_size=_MAP_SIZE, max_dbs=5, sync=False) as environment:
        database = environment.open_db(b"nodes")
        with environment.begin(db=database) as transaction:
            keys = list(transaction.cursor().iternext(values=False))
        chosen = random.sample(keys, math.ceil(len(keys) * CHANGED))
        for start in range(0, len(chosen), 100):
            with environment.begin(write=True, db=database) as transaction:
                for key in chosen[start : start + 100]:
                    donor = transaction.get(random.choice(keys))
                    old = transaction.get(key)
                    assert old is not None
                    assert donor is not None
                    transaction.put(key, old[: -4 * DIMENSIONS] + donor[-4 * DIMENSIONS :])
        environment.sync(True)


def _compare_environments(directory: Path, restored: Path) -> None:
    with (
        lmdb.open(str(directory), readonly=True, lock=False, max_dbs=5) as ours,
        lmdb.open(str(restored), readonly=True, lock=False, max_dbs=5) as theirs,
    ):
        for name in (b"nodes", b"hnsw_index"):
            with (
                ours.begin(db=ours.open_db(name, create=False), buffers=True) as one,
                theirs.begin(db=theirs.open_db(name, create=False), buffers=True) as other,
            ):
                if one.stat()["entries"] != other.stat()["entries"] or any(
                    found != wanted for found, wanted in zip(other.cursor(), one.cursor(), strict=True)
                ):
                    raise ValueError(f"{restored} differs from what was backed up in database {name.decode()}")
