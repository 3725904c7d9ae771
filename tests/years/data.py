"""What is backed up in which night: one small environment and a few media files, all of which a number tells."""

import os
from pathlib import Path
from random import Random

import lmdb

ENVIRONMENT = "main"
_KEYS = 20
_FILES = 4


def write(root: Path, night: int) -> None:
    """Make ``root`` what it is in ``night``: a few records and files differ from the night before."""
    (root / "media").mkdir(parents=True, exist_ok=True)
    records, files = _records(night), _files(night)
    with lmdb.open(str(root / ENVIRONMENT), map_size=1 << 20) as environment, environment.begin(write=True) as changes:
        for key, _ in list(changes.cursor()):
            if key not in records:
                changes.delete(key)
        for key, value in records.items():
            changes.put(key, value)
    for path in (root / "media").iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        path = root / "media" / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            os.utime(path, (1_600_000_000 + night, 1_600_000_000 + night))


def check(restored: Path, night: int) -> None:
    """``restored`` holds exactly what was there in ``night``."""
    with (
        lmdb.open(str(restored / ENVIRONMENT), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        assert dict(transaction.cursor()) == _records(night)
    assert {path.name: path.read_bytes() for path in (restored / "media").iterdir()} == _files(night)


def _records(night: int) -> dict[bytes, bytes]:
    return {b"key %d" % number: b"value of night %d" % _changed(night, number, 7) for number in range(_KEYS)} | {
        b"only of night %d" % night: b""
    }


def _files(night: int) -> dict[str, bytes]:
    names = {f"{number}.jpg": _changed(night, number, 5) for number in range(_FILES)} | {f"of-night-{night}.jpg": night}
    return {name: Random(seed).randbytes(1000 + seed) for name, seed in names.items()}


def _changed(night: int, number: int, period: int) -> int:
    """The last night, up to ``night``, in which the thing with this number changed; it does every ``period``."""
    return max(0, night - (night - number) % period)
