"""archiver restore, when something is wrong or in the way: the target stays as it was, and nothing is left in it."""

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import ArchiverError, StorageError
from archiver.stages.frames import decompress
from tests.environment.live import make_environment, writer
from tests.heed import HeedWriter
from tests.operations.restoring import WatchedStore, first_object, interrupt, occupied_target, refuse, restore_from
from tests.operations.scene import (
    ENVIRONMENTS,
    Scene,
    archiver,
    check_restored,
    tree,
)


@pytest.mark.parametrize("fault", [refuse, interrupt], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("occupied", [False, True], ids=["new", "occupied"])
def test_a_read_that_fails_leaves_the_target_as_it_was(
    scene: Scene, tmp_path: Path, fault: Callable[[], None], occupied: bool
) -> None:
    scene.backup()
    good = WatchedStore(scene.destination)
    restore_from(scene, good, tmp_path / "good")
    target = occupied_target(tmp_path) if occupied else tmp_path / "new"
    before = tree(target) if occupied else None
    for number in range(1, len(good.keys) + 1):
        store = WatchedStore(scene.destination, number, fault)
        with pytest.raises((StorageError, KeyboardInterrupt)):
            restore_from(scene, store, target, force=True)
        assert len(store.keys) >= number, "the fault was never hit"
        if occupied:
            assert tree(target) == before
        else:
            assert not target.exists()
    restore_from(scene, WatchedStore(scene.destination), target, force=True)
    check_restored(scene, target)


def test_a_disk_that_fills_up_meanwhile_leaves_the_target_as_it_was(scene: Scene, small_disk: Path) -> None:
    # All but the last MiB goes when the first object has been fetched: after the plan found enough room.
    scene.backup()
    target = small_disk / "target"
    target.mkdir()
    (target / "media").mkdir()
    (target / "media/old").write_bytes(b"old")
    before = tree(target)

    def fill() -> None:
        status = os.statvfs(small_disk)
        with (small_disk / "filler").open("wb") as file:
            file.write(bytes(max(status.f_bavail * status.f_frsize - (1 << 20), 0)))

    fault = WatchedStore(scene.destination, first_object(scene), fill)
    with pytest.raises(ArchiverError, match="no space left on device") as failure:
        restore_from(scene, fault, target, force=True)
    assert failure.value.exit_code == 1
    assert tree(target) == before
    (small_disk / "filler").unlink()
    restore_from(scene, WatchedStore(scene.destination), target, force=True)
    check_restored(scene, target)


def test_a_disk_that_is_too_small_is_refused_at_once(scene: Scene, small_disk: Path) -> None:
    scene.backup()
    (small_disk / "filler").write_bytes(bytes(60 << 20))
    done = scene.restore("--to", str(small_disk / "out"))
    assert done.code == 1
    assert "too little room" in done.errors
    assert not (small_disk / "out").exists()


@pytest.mark.parametrize("kind", [".mdb.", ".tar.", ".file.", ".contents.", ".objects.", ".placement."])
@pytest.mark.parametrize("damage", ["flip", "truncate", "replace", "remove"])
def test_damaged_data_change_nothing(scene: Scene, tmp_path: Path, kind: str, damage: str) -> None:
    scene.backup()
    store = WatchedStore(scene.destination)
    keys = sorted(item.key for item in store.list() if kind in item.key)
    victim = scene.destination / keys[0]
    data = victim.read_bytes()
    middle = len(data) // 2
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(
            {
                "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
                "truncate": data[:-1],
                "replace": data[::-1],
            }[damage]
        )
    target = occupied_target(tmp_path)
    before = tree(target)
    done = scene.restore("--to", str(target), "--force")
    # The placement is unsigned and has no checksum: a flip there may name another key, which is then missing.
    assert done.code in ((4, 5) if damage == "remove" or kind == ".placement." else (4,)), done.errors
    assert len(done.errors.splitlines()) <= 4, done.errors
    assert tree(target) == before


@pytest.mark.parametrize("server", ["lmdb", "heed"])
def test_a_live_process_in_the_target_is_respected(
    scene: Scene, tmp_path: Path, server: str, heed_writer: Path
) -> None:
    scene.backup()
    target = occupied_target(tmp_path)
    live: AbstractContextManager[object] = (
        writer(target / "graph")
        if server == "lmdb"
        else HeedWriter.start(heed_writer, target, only="graph", paused=True)
    )
    with live:
        before = tree(target)
        done = scene.restore("--to", str(target), "--force")
        assert done.code == 6
        assert f"has the environment in {target}/graph open" in done.errors
        assert tree(target) == before


def test_a_target_with_files_is_refused_without_force(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    target = occupied_target(tmp_path)
    before = tree(target)
    done = scene.restore("--to", str(target))
    assert (done.code, tree(target)) == (6, before)
    assert "is not empty" in done.errors
    assert "--force" in done.errors


@pytest.mark.parametrize("name", ["media", "vector"])
def test_a_landing_that_is_a_link_leads_nowhere_else(scene: Scene, tmp_path: Path, name: str) -> None:
    scene.backup()
    outside = tmp_path / "outside"
    make_environment(outside, 10)
    target = tmp_path / "out"
    target.mkdir()
    (target / name).symlink_to(outside)
    before = tree(tmp_path, leave_out=[b"scene"])
    done = scene.restore("--to", str(target), "--force")
    assert done.code != 0
    assert "symbolic link" in done.errors
    assert tree(tmp_path, leave_out=[b"scene"]) == before


@pytest.mark.parametrize("name", ["media", "vector"])
def test_a_landing_on_another_file_system_is_refused(scene: Scene, small_disk: Path, name: str) -> None:
    scene.backup()
    target = small_disk.parent / "out"
    (target / name).mkdir(parents=True)
    (target / "graph").mkdir()
    subprocess.run(["mount", "--bind", str(small_disk), str(target / name)], check=True)
    try:
        before = tree(target)
        done = scene.restore("--to", str(target), "--force")
        assert done.code == 1
        assert "another file system" in done.errors
        assert tree(target) == before
    finally:
        subprocess.run(["umount", str(target / name)], check=True)


def test_dry_run_shows_the_plan_and_what_is_in_its_way(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    done = scene.restore("--to", str(tmp_path / "out"), "--dry-run", "--json")
    assert (done.code, (tmp_path / "out").exists()) == (0, False)
    assert [item["name"] for item in done.document["environments"]] == list(ENVIRONMENTS)
    target = occupied_target(tmp_path)
    before = tree(target)
    refused = scene.restore("--to", str(target), "--dry-run")
    assert (refused.code, tree(target)) == (6, before)
    assert "would restore" in refused.output


def test_two_restores_into_one_target(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    target = tmp_path / "out"
    refusals: list[int] = []

    def again() -> None:
        refusals.append(scene.restore("--to", str(target), "--force").code)

    restore_from(scene, WatchedStore(scene.destination, first_object(scene), again), target)
    assert refusals == [6]
    check_restored(scene, target)


def test_an_object_that_was_swapped_for_one_that_decrypts_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Anybody can encrypt to the vault: its recipient stands in every manifest. What counts is the signed hash."""
    scene.backup()
    archive = scene.archive(WatchedStore(scene.destination))
    vault = archive.unlock(archive.find().manifest.vaults[0])
    assert isinstance(vault, X25519Identity)
    victim = max(scene.destination.rglob("*.file.zst.age"), key=lambda path: path.stat().st_size)
    frames = bytearray(unseal_bytes(victim.read_bytes(), [vault]))
    # Random bytes are stored as they are, so one of them can be another without a frame noticing.
    frames[4000] ^= 1
    swapped = seal_bytes(bytes(frames), [vault.recipient])
    assert len(swapped) == victim.stat().st_size
    assert b"".join(decompress([bytes(frames)])) != b""
    victim.write_bytes(swapped)
    done = scene.restore("--to", str(tmp_path / "out"))
    assert done.code == 4, done.errors
    assert not (tmp_path / "out").exists()
    for level, code in (("storage", 0), ("data", 4)):
        done = archiver("verify", "--level", level, *scene.identity)
        assert done.code == code, done.errors
    assert "hash" in done.errors
