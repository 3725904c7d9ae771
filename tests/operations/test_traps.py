"""What an attack on the code and a tired operator's walk through it once found: each cost data, or trust, or hours."""

import os
import shutil
from pathlib import Path

import lmdb
import pytest

from archiver.config import load_config
from archiver.operations.doctor import examine
from archiver.operations.findings import Finding
from archiver.sources.entries import OUT_OF_TIME
from archiver.stores.destination import parse_destination, with_surroundings
from tests.operations.scene import SOURCE, Scene, archiver, check_restored, restore_leftovers, tree


def back_up(scene: Scene) -> tuple[int, str]:
    done = archiver("backup", "--config", str(scene.config))
    return done.code, done.errors


def test_a_database_that_lost_a_tree_of_duplicates_can_be_restored(scene: Scene, tmp_path: Path) -> None:
    directory = scene.data / "vector"
    with lmdb.open(str(directory), map_size=1 << 26, max_dbs=9, lib_version=0) as environment:
        database = environment.open_db(b"trapped", dupsort=True)
        for step in ("put", "delete"):
            with environment.begin(write=True, db=database) as transaction:
                for number in range(2000 if step == "put" else 0):
                    transaction.put(b"key", b"%08d" % number)
                if step == "delete":
                    transaction.delete(b"key")
    (directory / "lock.mdb").unlink()
    scene.backup()
    assert archiver("verify", "--level", "restore", *scene.identity).code == 0
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    check_restored(scene, tmp_path / "out")


def test_a_time_that_64_bits_cannot_hold_is_a_warning(scene: Scene, tmp_path: Path) -> None:
    path = scene.media / "from-the-future"
    path.write_bytes(b"x")
    os.utime(path, (2**34, 2**34))
    if path.stat().st_mtime_ns < 2**63:
        pytest.skip("this file system knows no times after 2262")
    code, errors = back_up(scene)
    assert (code, errors) == (3, f"warning: media/{path.name}: {OUT_OF_TIME}\n") or OUT_OF_TIME in errors
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/media" / path.name).read_bytes() == b"x"


def test_a_sparse_file_needs_only_the_room_of_its_data(scene: Scene, small_disk: Path) -> None:
    shutil.rmtree(scene.media)
    scene.media.mkdir()
    with (scene.media / "sparse").open("wb") as file:
        file.truncate(4 << 30)
        file.write(b"data")
    scene.backup()
    done = scene.restore("--to", str(small_disk / "out"), "--only", "media")
    assert done.code == 0, done.errors
    assert (small_disk / "out/media/sparse").stat().st_size == 4 << 30


def test_unchanged_files_are_left_alone_time_after_time(scene: Scene) -> None:
    scene.backup()
    inodes = {
        path: path.stat().st_ino for path in scene.media.rglob("*") if path.is_file() and path.stat().st_nlink == 1
    }
    for _ in range(2):
        done = scene.restore("--in-place", "--force", "--only", "media", "--config", str(scene.config))
        assert done.code == 0, done.errors
    assert {path: path.stat().st_ino for path in inodes} == inodes
    kept = [path for path in scene.media.glob(".archiver-before-*/media/**/*") if path.is_file()]
    # Only a file with several names is put in place anew: its other names could otherwise be forgotten.
    assert {path.name for path in kept} <= {"7.png", "again.png", "link", "dangling"}


def test_the_card_is_enough_in_place_beside_the_configuration(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    monkeypatch.chdir(scene.root)
    (scene.media / "album/1.png").write_bytes(b"changed")
    assert scene.restore("--in-place", "--force").code == 0
    assert (scene.media / "album/1.png").read_bytes() != b"changed"


def test_a_link_planted_where_staging_is_looked_for_is_not_followed(scene: Scene, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "below").mkdir(parents=True)
    (victim / "below").chmod(0o755)
    target = tmp_path / "target"
    target.mkdir()
    (target / ".archiver-restore-x").symlink_to(victim)
    scene.backup()
    done = scene.restore("--to", str(target))
    assert done.code == 0, done.errors
    assert (victim / "below").stat().st_mode & 0o777 == 0o755
    assert restore_leftovers(target) == []


def test_a_destination_inside_the_media_tree_is_refused(scene: Scene) -> None:
    text = scene.config.read_text().replace(scene.url, (scene.media / "backups").as_uri())
    scene.config.write_text(text)
    code, errors = back_up(scene)
    assert code == 2
    assert "lies inside the media directory" in errors


def test_an_empty_media_directory_after_a_full_one_is_a_warning(scene: Scene) -> None:
    scene.backup()
    scene.media.rename(scene.data / "elsewhere")
    scene.media.mkdir()
    code, errors = back_up(scene)
    assert code == 3
    assert "holds no file, the previous backup had 16: is its volume mounted?" in errors
    assert "is empty" in " ".join(finding.message for finding in findings(scene, "warning"))


def test_a_missing_media_directory_is_noticed_before_anything_is_copied(scene: Scene) -> None:
    scene.media.rename(scene.data / "elsewhere")
    code, errors = back_up(scene)
    assert (code, errors.count("environment ")) == (5, 0), errors
    assert not list(scene.destination.rglob("*.mdb.zst.age"))


def test_a_source_has_one_vault(scene: Scene, tmp_path: Path) -> None:
    other = ("--config", str(tmp_path / "other.toml"), "--card", str(tmp_path / "other.txt"))
    done = archiver("init", "--to", scene.url, "--source", SOURCE, "--media", str(scene.media), *other)
    assert done.code == 6
    assert f"holds a vault of source '{SOURCE}' already" in done.errors
    assert not list(tmp_path.glob("other.*"))


def test_the_card_names_the_endpoint_that_the_environment_gave() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_DEFAULT_REGION": "eu-central-1"}
    plain = parse_destination("s3://bucket/prefix")
    shown = with_surroundings(plain, environ).display
    assert parse_destination(shown) == with_surroundings(plain, environ) != plain
    assert "127.0.0.1:9000" in shown
    assert "eu-central-1" in shown
    given = parse_destination("s3://bucket?endpoint=http://127.0.0.1:1&region=us-west-2")
    assert with_surroundings(given, environ) == given


def test_only_a_second_name_of_a_file_brings_the_file(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    done = scene.restore("--to", str(tmp_path / "out"), "--only", "media/again.png")
    assert done.code == 0, done.errors
    assert (tmp_path / "out/media/again.png").read_bytes() == (scene.media / "album/7.png").read_bytes() or (
        tmp_path / "out/media/album/7.png"
    ).exists()


def test_a_card_without_its_key_lists_and_verifies(scene: Scene) -> None:
    name = scene.backup()
    lines = [line for line in scene.card.read_text().splitlines() if not line.startswith("AGE-SECRET-KEY-")]
    scene.card.write_text("\n".join(lines) + "\n")
    assert scene.backups() == [name]
    assert archiver("verify", *scene.identity).code == 0
    assert scene.restore("--to", str(scene.root / "out")).code == 2


def test_doctor_sees_a_destination_that_is_read_only(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: real(path, mode) and not (Path(path) == scene.destination and mode & os.W_OK)
    )
    assert any(finding.subject.startswith("destination") for finding in findings(scene, "error"))


def test_a_vault_that_is_gone_is_found_by_verify(scene: Scene) -> None:
    scene.backup()
    shutil.rmtree(scene.destination / "vault")
    done = archiver("verify", *scene.identity)
    assert done.code == 4
    assert "nobody could restore" in done.errors


def test_a_file_that_the_backup_left_out_survives_a_restore_in_place(scene: Scene) -> None:
    scene.config.write_text(scene.config.read_text().replace("[source.prod]", '[source.prod]\nexclude = ["*.tmp"]'))
    (scene.media / "work.tmp").write_bytes(b"not backed up")
    scene.backup()
    before = tree(scene.media)
    done = scene.restore("--in-place", "--force", "--discard-replaced", "--config", str(scene.config))
    assert done.code == 0, done.errors
    assert tree(scene.media) == before


def findings(scene: Scene, severity: str) -> list[Finding]:
    return [finding for finding in examine(load_config(scene.config)) if finding.severity == severity]
