"""archiver backup: what it commits, what it leaves behind when it fails, and what does not stop it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from archiver.buffers import Buffer
from archiver.crypto.minisign import SigningKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import StorageError
from archiver.operations.backup import backup
from archiver.operations.run_lock import run_lock
from archiver.progress import Silent
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.environment.live import read_content, writer
from tests.operations.backing_up import request_for
from tests.operations.faults import forget
from tests.operations.privileges import OBEYING_MODES
from tests.operations.scene import SOURCE, Scene, archiver, finish, spawn, tree


class FailingStore(LocalStore):
    """Fails the creation numbered ``at``, from 1: before its body, in the middle of it, or after all of it."""

    def __init__(self, root: Path, journal: Path, at: int = 0, moment: str = "") -> None:
        super().__init__(root, Journal(journal))
        self.keys: list[str] = []
        self._at = at
        self._moment = moment

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        self.keys.append(key)
        if len(self.keys) != self._at:
            return super().create(key, body)
        if self._moment == "before":
            raise StorageError("the network is gone")
        return super().create(key, self._cut(body))

    def _cut(self, body: Iterable[Buffer]) -> Iterable[Buffer]:
        for buffer in body:
            yield buffer
            if self._moment == "middle":
                break
        raise StorageError("the network is gone")


def backup_with(scene: Scene, store: LocalStore) -> None:
    backup(store, request_for(scene), Silent())


def manifests(scene: Scene) -> list[Path]:
    return sorted(scene.destination.glob("daily/backups/*/*/manifest.json"))


def test_every_creation_that_fails_leaves_no_backup_and_nothing_open(scene: Scene) -> None:
    journal = scene.state / SOURCE / "journal-test"
    counted = FailingStore(scene.destination, journal)
    backup_with(scene, counted)
    good = scene.backups()
    # Started, two environments, a pack, a large file, three lists, signature, manifest.
    assert len(counted.keys) == 10
    for number in range(1, 11):
        for moment in ("before", "middle", "after"):
            # A run that knows what is in the store already would create less.
            forget(scene)
            store = FailingStore(scene.destination, journal, number, moment)
            with pytest.raises(StorageError, match="the network is gone"):
                backup_with(scene, store)
            assert len(store.keys) >= number, "the fault was never hit"
            assert scene.partial_files() == []
            assert journal.read_text() == ""
            assert scene.backups() == good
    backup_with(scene, LocalStore(scene.destination, Journal(journal)))
    assert len(scene.backups()) == 2
    scene.verify()


def test_a_full_destination_is_one_error_and_leaves_nothing_open(scene: Scene, small_disk: Path) -> None:
    scene.config.write_text(scene.config.read_text().replace(scene.url, (small_disk / "destination").as_uri()))
    shutil.copytree(scene.destination, small_disk / "destination")
    status = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(status.f_bavail * status.f_frsize - (1 << 18)))
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 7
    assert "no space left on device" in done.errors
    assert list(small_disk.rglob("*.partial")) == []
    assert list(small_disk.rglob("manifest.json")) == []
    (small_disk / "filler").unlink()
    scene.backup()


def test_a_run_of_the_same_source_is_in_the_way(scene: Scene) -> None:
    scene.backup()
    with run_lock(scene.state / SOURCE, SOURCE):
        done = archiver("backup", "--config", str(scene.config))
    assert done.code == 6
    assert "another run of source 'prod' is under way" in done.errors
    assert len(scene.backups()) == 1


def test_two_runs_at_once_make_one_backup_or_two_but_never_half_a_one(scene: Scene) -> None:
    processes = [spawn("backup", "--config", str(scene.config)) for _ in range(3)]
    results = [finish(process) for process in processes]
    codes = [done.code for done in results]
    assert set(codes) <= {0, 6}, [done.errors for done in results]
    assert codes.count(0) >= 1
    assert len(scene.backups()) == codes.count(0)
    scene.verify()


@pytest.mark.parametrize("kind", ["garbage", "unsigned", "other key", "replayed", "empty"])
def test_a_forged_newest_manifest_does_not_stop_a_backup(scene: Scene, kind: str) -> None:
    first = scene.backup()
    source = manifests(scene)[0]
    forged = source.parent.with_name("29991231T235959Z-abcdef") / "manifest.json"
    shutil.copytree(source.parent, forged.parent)
    data = source.read_bytes().replace(first.encode(), forged.parent.name.encode())
    if kind == "garbage":
        forged.write_bytes(b"{")
    elif kind == "empty":
        forged.write_bytes(b"")
    elif kind != "replayed":
        forged.write_bytes(data)
    signature = forged.with_name("manifest.json.minisig")
    if kind == "unsigned":
        signature.unlink()
    elif kind == "other key":
        signature.write_text(SigningKey.generate().sign(data, "forged"))
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3, done.errors
    assert f"warning: not continuing from {forged.parent.name}: " in done.errors
    manifest = json.loads((source.parent.with_name(done.document["backup"]) / "manifest.json").read_bytes())
    assert (manifest["sequence"], manifest["previous"]["backup"]) == (2, first)


def test_backups_are_chained(scene: Scene) -> None:
    ids = [scene.backup() for _ in range(3)]
    chain = [json.loads((manifests(scene)[0].parent.with_name(name) / "manifest.json").read_bytes()) for name in ids]
    assert [manifest["sequence"] for manifest in chain] == [1, 2, 3]
    assert chain[0].get("previous") is None
    assert [manifest["previous"]["backup"] for manifest in chain[1:]] == ids[:2]
    hashed = subprocess.run(["b3sum", "--no-names", *manifests(scene)[:2]], capture_output=True, text=True, check=True)
    assert [manifest["previous"]["blake3"] for manifest in chain[1:]] == hashed.stdout.split()
    for before, manifest in pairwise(chain):
        until = datetime.fromisoformat(before["started"]) + timedelta(days=before["keep_days"])
        assert datetime.fromisoformat(manifest["previous"]["promised_until"]) == until


def test_the_newest_of_quick_backups_is_the_latest(scene: Scene) -> None:
    # Ids tell the second; what follows it is random.
    ids = [scene.backup() for _ in range(4)]
    assert ids == sorted(ids)
    assert scene.backups() == ids[::-1]


def test_a_key_whose_number_begins_with_zeros_signs_as_well(scene: Scene) -> None:
    # A random key's number has a leading zero one time in sixteen, which the manifest's format refused.
    key = scene.root / "archiver-signing.key"
    old, new = SigningKey.parse(key.read_text()), SigningKey(b"\x01\x02\x03\x04\x05\x06\x07\x00", bytes(32))
    key.write_text(new.encode())
    for path in (scene.config, scene.card):
        path.write_text(path.read_text().replace(str(old.verify_key), str(new.verify_key)))
    backup_id = scene.backup()
    assert scene.backups() == [backup_id]
    assert json.loads(manifests(scene)[0].read_bytes())["signer"] == "7060504030201"


def replace_key(scene: Scene) -> SigningKey:
    """A new signing key for the host, not trusted yet; returns the old one."""
    path = scene.root / "archiver-signing.key"
    old = SigningKey.parse(path.read_text())
    path.write_text(SigningKey.generate().encode())
    return old


def trust(scene: Scene, *keys: SigningKey, revoked: str = "") -> None:
    """Write the configuration's ``[signing]`` anew; ``revoked`` is since when the first one is."""
    trusted = ", ".join(f'"{key.verify_key}"' for key in keys)
    text = re.sub(r"(?m)^trusted = .*$", f"trusted = [{trusted}]", scene.config.read_text())
    text = text.partition("\n[signing.revoked]")[0]
    if revoked:
        text += f'\n[signing.revoked]\n"{keys[0].verify_key}" = {revoked}\n'
    scene.config.write_text(text)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_key_that_nobody_would_believe_signs_nothing(scene: Scene, dry_run: tuple[str, ...]) -> None:
    old = replace_key(scene)
    before = tree(scene.destination)
    done = archiver("backup", *dry_run, "--config", str(scene.config))
    assert done.code == 2
    assert "is not in signing.trusted" in done.errors
    assert "hint: Add it there, and write the recovery card anew with archiver keys card" in done.errors
    (scene.root / "archiver-signing.key").write_text(old.encode())
    trust(scene, old, revoked="2026-11-20T00:00:00Z")
    done = archiver("backup", *dry_run, "--config", str(scene.config))
    assert done.code == 2
    assert f"key {old.verify_key.key_id} is revoked since 2026-11-20T00:00:00Z" in done.errors
    assert "archiver keys generate --signing" in done.errors
    assert tree(scene.destination) == before


def test_the_chain_goes_on_across_a_change_of_signing_keys(scene: Scene) -> None:
    first = scene.backup()
    old = replace_key(scene)
    new = SigningKey.parse((scene.root / "archiver-signing.key").read_text())
    trust(scene, old, new, revoked="9999-01-01")
    second = scene.backup()
    manifest = json.loads((manifests(scene)[0].parent.with_name(second) / "manifest.json").read_bytes())
    assert (manifest["sequence"], manifest["previous"]["backup"]) == (2, first)
    listed = archiver("list", "--config", str(scene.config), "--json")
    assert listed.code == 0
    assert [(item["backup"], item["signer"], item["dated"]) for item in listed.document] == [
        (second, new.verify_key.key_id, "store"),
        (first, old.verify_key.key_id, "store"),
    ]
    # A card that was not written anew does not know the new key.
    stale = archiver("restore", "--dry-run", "--to", str(scene.root / "out"), *scene.identity)
    assert stale.code == 4
    assert f"signed by key {new.verify_key.key_id}, expected key {old.verify_key.key_id}" in stale.errors


def test_a_first_run_on_a_new_key_alone_begins_a_chain(scene: Scene) -> None:
    first = scene.backup()
    replace_key(scene)
    shutil.rmtree(scene.state)
    trust(scene, SigningKey.parse((scene.root / "archiver-signing.key").read_text()))
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3, done.errors
    assert f"warning: not continuing from {first}: " in done.errors
    manifest = json.loads(
        (manifests(scene)[0].parent.with_name(done.document["backup"]) / "manifest.json").read_bytes()
    )
    assert (manifest["sequence"], manifest["previous"]) == (1, None)


def test_an_operator_whose_file_is_missing_is_told_of_in_each_run(scene: Scene) -> None:
    key = X25519Identity.generate().recipient
    table = "[source.prod.operators]\n"
    assert table in scene.config.read_text()
    scene.config.write_text(scene.config.read_text().replace(table, f'{table}bob = "{key}"\n'))
    for _ in range(2):
        done = archiver("backup", "--config", str(scene.config))
        assert done.code == 3, done.errors
        assert done.errors.count("warning: ") == 1
        assert "warning: operator 'bob' cannot open this backup: " in done.errors
        assert "archiver keys add" in done.errors
    assert len(scene.backups()) == 2
    for path in (scene.destination / "vault").rglob("*.age"):
        path.unlink()
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 2
    assert "nobody could restore" in done.errors


def test_a_destination_that_takes_no_keys_is_refused_before_anything_is_pinned(scene: Scene) -> None:
    # The environment is missing too: whichever is looked at first is what the message is about.
    (scene.data / "vector/data.mdb").unlink()
    (scene.destination / "vault").chmod(0o500)
    scene.destination.chmod(0o500)
    try:
        done = finish(spawn("backup", "--config", str(scene.config), prefix=OBEYING_MODES))
    finally:
        scene.destination.chmod(0o700)
    assert done.code == 7, done.errors
    assert f"archiver: {scene.destination}/daily" in done.errors
    assert "permission denied" in done.errors
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 5, done.errors


def test_what_is_skipped_is_said_and_recorded(scene: Scene) -> None:
    os.mkfifo(scene.media / "fifo")
    (scene.media / "album/5.png").chmod(0)
    done = finish(spawn("backup", "--config", str(scene.config), "--json", prefix=OBEYING_MODES))
    assert done.code == 3, done.errors
    assert done.document["warnings"] == 2
    warnings = sorted(done.errors.splitlines())
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: media/album/5.png: ")
    assert warnings[1].startswith("warning: media/fifo: ")
    shown = archiver("show", *scene.identity, "--json").document
    assert sorted(problem["path"] for problem in shown["problems"]) == ["album/5.png", "fifo"]
    scene.verify()


def test_nothing_private_is_readable_in_the_destination(scene: Scene) -> None:
    scene.backup("--label", "before-the-upgrade")
    secrets = (b"before-the-upgrade", b"note.txt", b"a note", b"ordinary", b"duplicates", b"album", b"AGE-SECRET")
    for path in scene.destination.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [secret for secret in secrets if secret in data], path
    assert archiver("show", *scene.identity, "--json").document["label"] == "before-the-upgrade"


def test_a_live_writer_is_backed_up_under_its_lock(scene: Scene, tmp_path: Path) -> None:
    shutil.rmtree(scene.data / "graph")
    with writer(scene.data / "graph", "busy"):
        done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 0, done.errors
    assert {item["name"]: item["method"] for item in done.document["environments"]} == {
        "vector": "cold",
        "graph": "locked",
    }
    assert done.document["consistency"] in ("cold", "locked")
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    content = read_content(tmp_path / "out/graph/data.mdb")
    assert dict(content[b"left"])[b"counter"] == dict(content[b"right"])[b"counter"]


def test_a_source_is_not_changed_by_a_backup(scene: Scene) -> None:
    before = tree(scene.data)
    scene.backup()
    assert tree(scene.data) == before


def test_dry_run_stores_nothing(scene: Scene) -> None:
    before = tree(scene.root)
    done = archiver("backup", "--dry-run", "--config", str(scene.config), "--json")
    assert done.code == 0
    assert done.document["files"] == 17
    assert [item["method"] for item in done.document["environments"]] == ["cold", "cold"]
    assert tree(scene.root) == before


def test_the_configured_class_decides_how_long(scene: Scene) -> None:
    scene.config.write_text(scene.config.read_text() + "\n[class.weekly]\nkeep = 100\nlease = 14\n")
    scene.backup("--class", "weekly")
    found = archiver("list", *scene.identity, "--json").document
    assert [item["class"] for item in found] == ["weekly"]
    manifest = json.loads(next(scene.destination.rglob("manifest.json")).read_bytes())
    assert (manifest["keep_days"], manifest["lease_days"]) == (100, 14)


def test_an_interrupted_upload_is_removed_by_the_next_run_only_of_its_own(scene: Scene) -> None:
    scene.backup()
    foreign = scene.destination / "daily/data/.~0123456789abcdef.partial"
    foreign.write_bytes(b"of another host's run")
    own = scene.destination / "daily/data/.~fedcba9876543210.partial"
    own.write_bytes(b"left by a killed run")
    journal = next((scene.state / SOURCE).glob("journal-*"))
    journal.write_text("+daily/data/.~fedcba9876543210.partial\n")
    scene.backup()
    assert (own.exists(), foreign.exists()) == (False, True)
