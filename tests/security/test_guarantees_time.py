"""Guarantees of docs/SECURITY.md, by number: what a thief of the signing key cannot do, and that removed backups are
missed. Each test says which change of the code it notices."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.operations.scene import Scene, archiver
from tests.security.house import (
    ago,
    backup_from,
    forge,
    listed,
    manifest_file,
    restores,
    revoke,
    run,
    write_card,
)


def entry(scene: Scene, backup: str) -> dict[str, object]:
    """What ``archiver list`` says of one backup."""
    _, found = listed(scene, "--all")
    return next(entry for entry in found if entry.get("backup") == backup)


def test_g11_what_a_revoked_key_signs_afterwards_is_refused_whatever_its_date(scene: Scene, tmp_path: Path) -> None:
    """Noticed: a revocation that is compared with the time in the manifest, the thief's word, or not at all."""
    good = backup_from(scene, ago(days=10))
    stolen = revoke(scene, ago(days=5))
    write_card(scene)
    honest = forge(scene, good, ago(hours=1), stolen)
    dated_back = forge(scene, good, ago(days=9), stolen)
    for forged in (honest, dated_back):
        assert not restores(scene, tmp_path / "out", forged)
        assert "is revoked since" in run(scene, "show", forged).errors
        assert "problem" in entry(scene, forged)


def test_g12_what_a_key_signed_before_it_was_revoked_still_counts(scene: Scene, tmp_path: Path) -> None:
    """Noticed: a revocation that takes the old backups with it; a chain that breaks where the key changes."""
    old = backup_from(scene, ago(days=10))
    revoke(scene, ago(days=5))
    assert restores(scene, tmp_path / "with the old card", old)
    new = backup_from(scene, ago(days=1))
    write_card(scene)
    for backup in (old, new):
        assert restores(scene, tmp_path / backup, backup)
        assert entry(scene, backup)["dated"] == "store"
    code, _ = listed(scene)
    assert code == 0


def test_g13_a_backup_that_is_dated_in_the_future_is_refused(scene: Scene, tmp_path: Path) -> None:
    """Noticed: a date that is not compared with the store's. It would be the latest for ever."""
    good = scene.backup()
    forged = forge(scene, good, datetime.now(UTC) + timedelta(days=2))
    assert not restores(scene, tmp_path / "out", forged)
    assert not restores(scene, tmp_path / "out", "latest")
    assert "dated in the future" in run(scene, "show", forged).errors
    assert restores(scene, tmp_path / "good", good)


def test_g14_a_backup_that_is_dated_back_is_told_from_one_that_is_old(scene: Scene, tmp_path: Path) -> None:
    """Noticed: the time of a manifest taken for a proof. Before the key is revoked it is no more than a warning."""
    old = backup_from(scene, ago(days=10))
    forged = backup_from(scene, ago(days=8), stored=False)
    assert entry(scene, old)["dated"] == "store"
    assert entry(scene, forged)["dated"] == "unproven"
    done = run(scene, "verify", forged)
    assert done.code == 3
    assert "nothing vouches for the time" in done.errors
    assert run(scene, "verify", old).code == 0
    assert restores(scene, tmp_path / "out", forged)


@pytest.mark.parametrize("which", [0, 1])
def test_g15_a_backup_that_was_removed_is_missed(scene: Scene, which: int) -> None:
    """Noticed: a chain that nobody looks at. Every later backup names the one before it."""
    backups = [scene.backup() for _ in range(3)]
    assert listed(scene)[0] == 0
    shutil.rmtree(manifest_file(scene, backups[which]).parent)
    code, found = listed(scene)
    assert code == 4
    assert backups[which] in {entry["backup"] for entry in found if "problem" in entry}
    done = run(scene, "list")
    assert "removed" in done.output + done.errors


def test_g16_the_host_misses_the_newest_backup_when_it_was_removed(scene: Scene) -> None:
    """Noticed: a host that remembers nothing. No later backup names the newest one, until the next does."""
    first, newest = scene.backup(), scene.backup()
    shutil.rmtree(manifest_file(scene, newest).parent)
    assert listed(scene)[0] == 0
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3
    assert f"backup {newest} was removed" in done.errors
    code, found = listed(scene)
    assert code == 4
    assert newest in {entry["backup"] for entry in found if "problem" in entry}
    assert first in {entry["backup"] for entry in found if "problem" not in entry}


@pytest.mark.parametrize("reason", ["revoked", "not trusted"])
def test_g17_nothing_is_sent_that_nobody_would_believe(scene: Scene, reason: str) -> None:
    """Noticed: a run that signs with a key that is revoked or not trusted: it would look like a backup until the day it
    is needed."""
    scene.backup()
    before = sorted(scene.destination.rglob("*"))
    text = scene.config.read_text()
    trusted = next(line for line in text.splitlines() if line.startswith("trusted = "))
    key = trusted.split('"')[1]
    changed = f'{trusted}\n\n[signing.revoked]\n"{key}" = 2026-01-01' if reason == "revoked" else "trusted = []"
    scene.config.write_text(text.replace(trusted, changed))
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 2
    assert ("is revoked since" if reason == "revoked" else "is not in signing.trusted") in done.errors
    assert sorted(scene.destination.rglob("*")) == before
