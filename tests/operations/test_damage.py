"""What a verification finds damaged, later backups do not refer to: they store anew what lies in it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from archiver.buffers import Buffer
from archiver.catalog.names import parse_object_key
from archiver.errors import StorageError
from archiver.operations import remembered
from archiver.operations.damage_notes import damage_notes, note_damage, note_of
from archiver.operations.reuse import Reuse
from archiver.operations.run_lock import run_lock
from archiver.operations.verify import _Check
from archiver.sinks.hashing import HashedFile
from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.local import LocalStore
from tests.operations.privileges import OBEYING_MODES
from tests.operations.scene import SOURCE, Scene, archiver, finish, make_scene, spawn
from tests.operations.test_reuse import media_keys, restored, watched

ANEW = "Run archiver backup: it stores anew what it needs of "


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as written long ago."""
    monkeypatch.setattr(remembered, "_RACY", 0)


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """With two large files, so that its media are four objects."""
    for number in range(2):
        (scene.media / f"large-{number}").write_bytes(bytes([number]) * (33 << 20))
    return scene


def media_objects(scene: Scene, backup: str) -> list[Path]:
    found = sorted(scene.destination / key for key in media_keys(scene, backup))
    assert len(found) == 4
    return found


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 0x10
    path.write_bytes(data)


def verify(scene: Scene, *arguments: str) -> tuple[int, str]:
    """With the card and the configuration, as on the host that makes the backups."""
    done = archiver("verify", *arguments, *scene.identity, "--config", str(scene.config))
    return done.code, done.errors


def notes(scene: Scene) -> list[Path]:
    return list((scene.state / SOURCE).glob("media-*/damaged-*"))


@pytest.mark.parametrize("level", ["data", "restore"])
def test_one_verification_heals_all_that_is_damaged(scene: Scene, tmp_path: Path, level: str) -> None:
    first = scene.backup()
    objects = media_objects(scene, first)
    sound = objects.pop(1)
    for path in objects:
        flip(path)
    code, errors = verify(scene, "--level", level)
    assert code == 4, errors
    assert "; 3 objects of media are damaged\n" in errors
    assert f"{ANEW}3 objects.\n" in errors
    second = scene.backup()
    assert media_keys(scene, first) & media_keys(scene, second) == {str(sound.relative_to(scene.destination))}
    assert verify(scene, "--level", "data")[0] == 0
    restored(scene, tmp_path / "out")
    assert notes(scene) == []
    with watched() as work:
        scene.backup()
    assert (work.opened, work.media) == ([], [])


@pytest.mark.parametrize("level", ["storage", "data"])
def test_all_that_is_not_there_is_told_and_stored_anew(scene: Scene, tmp_path: Path, level: str) -> None:
    """That needs no note: a backup refers to what LIST shows."""
    first = scene.backup()
    objects = media_objects(scene, first)
    objects[0].unlink()
    with objects[2].open("r+b") as file:
        file.truncate(1000)
    code, errors = verify(scene, "--level", level)
    assert code == 4, errors
    assert "; 2 objects are missing or have another size\n" in errors
    assert f"{ANEW}2 objects.\n" in errors
    assert notes(scene) == []
    second = scene.backup()
    kept = {str(path.relative_to(scene.destination)) for path in (objects[1], objects[3])}
    assert media_keys(scene, first) & media_keys(scene, second) == kept
    assert verify(scene, "--level", "data")[0] == 0
    restored(scene, tmp_path / "out")


def test_what_is_missing_is_stored_anew_without_a_verification(scene: Scene, tmp_path: Path) -> None:
    first = scene.backup()
    for path in media_objects(scene, first):
        path.unlink()
    second = scene.backup()
    assert not media_keys(scene, first) & media_keys(scene, second)
    restored(scene, tmp_path / "out")


def test_damage_to_an_environment_is_nothing_to_forget(scene: Scene) -> None:
    scene.backup()
    flip(min(scene.destination.rglob("*.mdb.*")))
    code, errors = verify(scene, "--level", "data")
    assert (code, ANEW in errors) == (4, False)
    assert notes(scene) == []


def test_a_file_that_is_not_what_it_was_is_stored_anew_though_its_object_is_sound(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scene.backup()
    finish_file = HashedFile.finish

    def altered(file: HashedFile, blake3: str) -> None:
        finish_file(file, "0" * 64 if file._name == "media/large-1" else blake3)

    with monkeypatch.context() as patched:
        patched.setattr(HashedFile, "finish", altered)
        code, errors = verify(scene, "--level", "data")
    assert code == 4
    assert f"hint: {ANEW}1 object.\n" in errors
    with watched() as work:
        second = scene.backup()
    assert work.opened == [b"large-1"]
    assert len(media_keys(scene, first) & media_keys(scene, second)) == 3


def test_another_machine_fails_as_ever(scene: Scene) -> None:
    first = scene.backup()
    for path in media_objects(scene, first):
        flip(path)
    done = archiver("verify", "--level", "data", *scene.identity)
    assert done.code == 4
    assert "archiver backup" not in done.errors
    assert "are damaged" not in done.errors
    assert notes(scene) == []
    # Nor does this host believe what nobody needs to have signed.
    assert verify(scene, "--level", "data", "--trust-unsigned")[0] == 4
    assert notes(scene) == []
    # With a copy of the configuration, and no backup made there.
    shutil.rmtree(scene.state)
    code, errors = verify(scene, "--level", "data")
    assert (code, ANEW in errors) == (4, False)
    assert not scene.state.exists()


def test_the_card_alone_is_enough_where_the_configuration_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene.backup()
    flip(media_objects(scene, first)[0])
    monkeypatch.chdir(scene.root)
    done = archiver("verify", "--level", "data", "--json", *scene.identity)
    assert done.code == 4
    assert f"{ANEW}1 object." in done.document["error"]["hint"]
    assert len(notes(scene)) == 1
    every = archiver("verify", "--all", "--level", "data", "--json", *scene.identity)
    assert every.code == 4
    assert f"{ANEW}1 object." in every.document[0]["hint"]


def test_a_backup_under_way_neither_fails_nor_forgets_what_is_found_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scene.backup()
    victim = media_objects(scene, first)[0]
    key = str(victim.relative_to(scene.destination))
    flip(victim)
    told: list[str] = []
    finish_media = Reuse.finish

    def meanwhile(reuse: Reuse) -> None:
        done = finish(spawn("verify", first, "--level", "data", *scene.identity, "--config", str(scene.config)))
        assert done.code == 4
        told.append(done.errors)
        finish_media(reuse)

    with monkeypatch.context() as patched:
        patched.setattr(Reuse, "finish", meanwhile)
        second = scene.backup()
    assert ANEW in told[0]
    assert key in media_keys(scene, second)
    third = scene.backup()
    assert key not in media_keys(scene, third)
    scene.verify(third)


def test_a_verification_is_in_no_ones_way(scene: Scene) -> None:
    first = scene.backup()
    flip(media_objects(scene, first)[0])
    with run_lock(scene.state / SOURCE, SOURCE):
        code, errors = verify(scene, "--level", "data")
    assert (code, ANEW in errors) == (4, True)


@pytest.mark.parametrize("mode", [0o500, 0])
def test_damage_that_cannot_be_noted_is_told(scene: Scene, mode: int) -> None:
    first = scene.backup()
    flip(media_objects(scene, first)[0])
    (memory,) = (scene.state / SOURCE).glob("media-*")
    closed = memory if mode else scene.state / SOURCE
    closed.chmod(mode)
    arguments = ("--level", "data", *scene.identity, "--config", str(scene.config))
    done = finish(spawn("verify", *arguments, prefix=OBEYING_MODES))
    closed.chmod(0o700)
    assert done.code == 4
    assert "which cannot be noted: permission denied. Delete " in done.errors
    assert str(memory) in done.errors
    assert ANEW not in done.errors


def test_a_note_is_made_through_no_link_and_waits_for_no_reader(tmp_path: Path) -> None:
    """Where root verifies, the user who makes the backups may have put anything there."""
    outside = tmp_path / "outside"
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / note_of("linked")).symlink_to(outside)
    os.mkfifo(memory / note_of("pipe"))
    note_damage(memory, ["linked", "pipe"])
    assert not outside.exists()
    assert {note.name for note in damage_notes(memory)} == {note_of("linked"), note_of("pipe")}


@pytest.mark.parametrize("linked", [True, False])
def test_notes_that_cannot_be_looked_for_cost_a_backup_that_reads_everything(
    scene: Scene, tmp_path: Path, *, linked: bool
) -> None:
    first = scene.backup()
    (memory,) = (scene.state / SOURCE).glob("media-*")
    closed = memory
    if linked:
        closed = tmp_path / "closed"
        closed.mkdir()
        memory.rename(closed / "memory")
        memory.symlink_to(closed / "memory")
    closed.chmod(0 if linked else 0o300)
    done = finish(spawn("backup", "--config", str(scene.config), prefix=OBEYING_MODES))
    closed.chmod(0o700)
    assert done.code == 3, done.errors
    assert "unchanged files cannot be remembered: " in done.errors
    assert not media_keys(scene, first) & media_keys(scene, scene.backups()[0])


def test_what_this_host_has_not_put_there_is_not_forgotten(scene: Scene) -> None:
    """Who may create keys can plant a copy of a backup that leads to garbage."""
    first = scene.backup()
    for kind in ("backups", "data"):
        shutil.copytree(scene.destination / "daily" / kind, scene.destination / "monthly" / kind)
    placement = scene.destination / "monthly/data" / SOURCE / f"{first}.placement.jsonl.zst"
    replant(placement)
    for path in media_objects(scene, first):
        flip(Path(str(path).replace("/daily/", "/monthly/")))
    code, errors = verify(scene, f"monthly/{first}", "--level", "data")
    assert code == 4, errors
    assert notes(scene)
    with watched() as work:
        scene.backup()
    assert (work.opened, work.media) == ([], [])
    assert notes(scene) == []


def replant(placement: Path) -> None:
    """Let it lead into its own class."""
    plain = subprocess.run(["zstd", "-dcq", placement], capture_output=True, check=True).stdout
    plain = plain.replace(b"daily/", b"monthly/")
    placement.write_bytes(subprocess.run(["zstd", "-cq"], input=plain, capture_output=True, check=True).stdout)


def test_bytes_that_were_altered_on_their_way_are_not_damage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene.backup()
    victim = str(media_objects(scene, first)[0].relative_to(scene.destination))
    read = LocalStore.read
    altered: list[str] = []

    def once(store: LocalStore, key: str, *arguments: int) -> Iterator[Buffer]:
        for buffer in read(store, key, *arguments):
            if key == victim and not altered:
                altered.append(key)
                yield bytes(len(buffer))
            else:
                yield buffer

    monkeypatch.setattr(LocalStore, "read", once)
    code, errors = verify(scene, "--level", "data")
    assert altered
    assert (code, ANEW in errors) == (4, False), errors
    assert notes(scene) == []


def test_a_store_that_fails_meanwhile_hides_no_damage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene.backup()
    for path in media_objects(scene, first):
        flip(path)
    read, damaged = LocalStore.read, _Check.damaged
    looked_at: list[str] = []

    def failing(store: LocalStore, key: str, *arguments: int) -> Iterator[Buffer]:
        looked_at.extend({key} - set(looked_at))
        if len(looked_at) > 2:
            raise StorageError("the cable is out")
        return read(store, key, *arguments)

    def looking(check: _Check) -> list[str]:
        monkeypatch.setattr(LocalStore, "read", failing)
        return damaged(check)

    monkeypatch.setattr(_Check, "damaged", looking)
    code, errors = verify(scene, "--level", "data")
    assert code == 4, errors
    assert len(looked_at) == 3
    assert f"{ANEW}2 objects.\n" in errors
    assert len(notes(scene)) == 2


def test_damage_in_a_bucket_heals_with_the_card_alone(
    seaweed_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, seaweed_url)
    scene.backup()
    place = parse_destination(seaweed_url)
    assert isinstance(place, S3Destination)
    client = boto3.session.Session().client("s3", endpoint_url=place.options.endpoint, region_name=place.options.region)
    prefix = f"{place.prefix}/daily/data/{SOURCE}/"
    for item in client.list_objects_v2(Bucket=place.bucket, Prefix=prefix)["Contents"]:
        if ".mdb." not in item["Key"] and parse_object_key(item["Key"].removeprefix(f"{place.prefix}/")):
            client.put_object(Bucket=place.bucket, Key=item["Key"], Body=bytes(item["Size"]))
    client.close()
    monkeypatch.chdir(root)
    done = archiver("verify", "--level", "data", *scene.identity)
    assert (done.code, f"{ANEW}2 objects." in done.errors) == (4, True), done.errors
    scene.backup()
    scene.verify()
