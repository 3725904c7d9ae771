"""Memory does not grow with the data: four times the environment, the same peak."""

import os
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from tests.operations.scene import MIB, Scene, configure
from tests.servers.process import REPOSITORY

LIMIT_KIB = 300 * 1024
TOLERANCE_KIB = 24 * 1024
"""What allocators and the timing of threads make of the same run."""
_VALUE = 1500


def make_large(scene: Scene, size: int) -> None:
    """One environment of about ``size`` bytes: many small records that do not compress, so that all queues fill."""
    chance = random.Random(size)
    directory = scene.data / "vector"
    directory.mkdir(parents=True)
    with lmdb.open(str(directory), map_size=size * 3, max_dbs=2, sync=False, lib_version=0) as environment:
        database = environment.open_db(b"nodes", integerkey=True)
        with environment.begin(write=True, db=database) as transaction:
            for key in range(size // (4096 // 2)):
                transaction.put(struct.pack("=Q", key), chance.randbytes(_VALUE), append=True)
        environment.sync(True)


def peak(scene: Scene, *arguments: str, helpers: int) -> int:
    command = [sys.executable, str(REPOSITORY / "tests/operations/probe.py"), *arguments, "--quiet"]
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kib, samples, seen = (int(word) for word in done.stderr.split()[-3:])
    assert samples > 20
    assert seen == helpers
    assert kib > 0
    return kib


def peaks(root: Path, size: int, destination: str | None = None) -> dict[str, int]:
    """The peak in KiB of each command on an environment of ``size`` bytes."""
    root.mkdir()
    scene = Scene(root, destination or (root / "destination").as_uri())
    make_large(scene, size)
    configure(scene)
    scene.config.write_text(scene.config.read_text().replace("frame_size = 262144", ""))
    stored = (scene.data / "vector/data.mdb").stat().st_size
    assert 0.9 * size < stored < 1.2 * size
    result = {
        "backup": peak(scene, "backup", "--config", str(scene.config), helpers=1),
        "restore": peak(scene, "restore", *scene.identity, "--to", str(root / "out"), helpers=0),
    }
    shutil.rmtree(root)
    return result


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(150 * MIB, id="150 MiB"),
        pytest.param(1024 * MIB, id="1 GiB", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_four_times_the_data_take_the_same_memory(tmp_path: Path, size: int) -> None:
    small, large = peaks(tmp_path / "small", size), peaks(tmp_path / "large", 4 * size)
    for verb in small:
        assert large[verb] <= small[verb] + TOLERANCE_KIB, (verb, small, large)
        assert max(small[verb], large[verb]) <= LIMIT_KIB, (verb, small, large)
    sys.stdout.write(f"peaks in KiB: {small} and {large}\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_bounded_over_s3_as_well(tmp_path: Path, seaweed_url: str) -> None:
    found = peaks(tmp_path / "s3", 1024 * MIB, seaweed_url)
    assert max(found.values()) <= LIMIT_KIB, found
    sys.stdout.write(f"peaks in KiB over S3: {found}\n")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_eight_workers_are_bounded_over_s3_as_well(tmp_path: Path, seaweed_url: str) -> None:
    """The default of a large machine, and what does not compress."""
    scene = Scene(tmp_path, seaweed_url)
    make_large(scene, 300 * MIB)
    scene.media.mkdir()
    for number in range(32):
        (scene.media / f"packed-{number}").write_bytes(os.urandom(7 * MIB))
    for number in range(2000):
        (scene.media / f"small-{number}").write_bytes(os.urandom(20_000))
    configure(scene)
    scene.config.write_text(scene.config.read_text().replace("frame_size = 262144", ""))
    kib = peak(scene, "backup", "--workers", "8", "--config", str(scene.config), helpers=1)
    assert kib <= LIMIT_KIB
    sys.stdout.write(f"peak in KiB with 8 workers over S3: {kib}\n")
