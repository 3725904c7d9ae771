"""archiver backup: what it commits, what it leaves behind when it fails, and what does not stop it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.buffers import Buffer
from archiver.catalog.names import check_class
from archiver.config import PinLimits, RetentionClass, Tuning, load_config
from archiver.crypto.minisign import SigningKey
from archiver.crypto.x25519 import X25519Recipient
from archiver.errors import StorageError
from archiver.operations.backup import BackupRequest, backup
from archiver.operations.run_lock import run_lock
from archiver.operations.sources import resolve_source
from archiver.progress import Silent
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.environment.live import read_content, writer
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


def request_for(scene: Scene) -> BackupRequest:
    config = load_config(scene.config)
    source = config.source(None)
    assert config.signing_key is not None
    return BackupRequest(
        source=resolve_source(source),
        retention_class=check_class("daily"),
        retention=RetentionClass(),
        vault=X25519Recipient.parse(source.vault),
        signing_key=SigningKey.parse(config.signing_key.read_text()),
        state_directory=scene.state / SOURCE,
        tuning=replace(Tuning(), frame_size=1 << 18),
        pin=PinLimits(),
    )


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
