"""docs/RECOVERY.md does what it says: its commands, as they stand there, restore a real backup with stock tools."""

import json
import os
import re
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path
from random import Random

import lmdb
import pytest

from archiver.config import load_config
from archiver.environment.comparison import compare_environments
from archiver.operations import backup_environments, backup_media, remembered
from archiver.operations.backup_setup import backup_source
from archiver.progress import Silent
from archiver.sources.media import batches
from archiver.sources.packs import Pack
from tests.operations.scene import archiver
from tests.recovering import FRAME_SIZE, back_up, back_up_again, recover

PACK_LIMIT = 20_000
PACK_SIZE = 50_000
EXTENT_LIMIT = FRAME_SIZE
TIME = 1_700_000_000_123_456_789


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``data``, ``destination`` with a backup of it, ``card.txt``; limits so small that every kind of object occurs."""
    monkeypatch.setattr(backup_environments, "EXTENT_LIMIT", EXTENT_LIMIT)
    monkeypatch.setattr(backup_media, "EXTENT_LIMIT", EXTENT_LIMIT)
    monkeypatch.setattr(backup_media, "batches", partial(batches, pack_size=PACK_SIZE, pack_limit=PACK_LIMIT))
    monkeypatch.setattr(backup_media, "Pack", partial(Pack, limit=PACK_LIMIT))
    site = tmp_path / "a site"
    data = site / "data"
    data.mkdir(parents=True)
    write_environments(data)
    write_media(data / "media")
    back_up(site, ["vector", "graph"])
    return site


def write_environments(data: Path) -> None:
    random = Random(7)
    for name, databases in (("vector", [b"nodes", b"index"]), ("graph", [b"edges", b"by type", b"\xff\xfe"])):
        (data / name).mkdir()
        with lmdb.open(str(data / name), map_size=1 << 24, max_dbs=5) as environment:
            for number, database in enumerate(databases):
                handle = environment.open_db(database, dupsort=number == 1)
                with environment.begin(write=True) as transaction:
                    for key in range(300):
                        transaction.put(b"key %d" % key, random.randbytes(300), db=handle)


def write_media(media: Path) -> None:
    """Files below and above the limits, with odd names; links; holes; odd modes and times."""
    random = Random(8)
    contents: dict[bytes, bytes] = {
        b"empty": b"",
        b"-begins with a dash": b"-",
        b"two\nlines": random.randbytes(100),
        b"\xff not utf-8": random.randbytes(PACK_LIMIT),
        b"\xff not utf-8, large": random.randbytes(PACK_LIMIT + 1),
        b"trailing newline\n": random.randbytes(EXTENT_LIMIT + PACK_LIMIT),
        "größe 'quoted' \"twice\" \\ $(false)".encode(): random.randbytes(PACK_LIMIT + 5),
        b"deep/er/file": b"text\n" * 1000,
        b"deep.txt": b"x" * PACK_LIMIT,
        b"n" * 200 + b"/" + b"m" * 200: random.randbytes(3 * EXTENT_LIMIT),
    } | {b"small/%03d" % number: random.randbytes(random.randrange(4000)) for number in range(60)}
    root = os.fsencode(media)
    for number, (path, content) in enumerate(contents.items()):
        whole = os.path.join(root, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "wb") as file:
            file.write(content)
        os.chmod(whole, (0o600, 0o644, 0o4755, 0o440)[number % 4])
        os.utime(whole, ns=(TIME + number, TIME + number))
    write_holes(media / "holes", 3 * EXTENT_LIMIT)
    write_holes(media / "only a hole", 0)
    os.link(media / "deep.txt", media / "small" / "link to a small file")
    os.link(os.path.join(root, b"\xff not utf-8, large"), os.path.join(root, b"\xff\xff link"))
    (media / "to nowhere").symlink_to("../../does not exist\n")
    os.symlink(b"\xff not utf-8", os.path.join(root, b"a link \xfe"))
    os.utime(media / "to nowhere", ns=(TIME, TIME), follow_symlinks=False)
    (media / "empty directory").mkdir(mode=0o2711)
    for directory, mode, time in (("deep/er", 0o555, -1_500_000_000), ("deep", 0o2750, 5), (".", 0o711, TIME)):
        (media / directory).chmod(mode)
        os.utime(media / directory, ns=(time, time))


def write_holes(path: Path, data: int) -> None:
    with path.open("wb") as file:
        for number in range(3):
            file.seek((number * 2 + 1) << 20)
            file.write(bytes([number + 1]) * data)
        file.truncate(9 << 20)


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Every path below ``root`` and what must come back: type, mode, owner, time, content, which names are one file."""
    names: dict[int, list[bytes]] = {}
    found: dict[bytes, tuple[object, ...]] = {}
    paths = [b"."]
    for directory, directories, files in os.walk(os.fsencode(root)):
        paths += [os.path.relpath(os.path.join(directory, name), os.fsencode(root)) for name in directories + files]
    for path in sorted(paths):
        status = os.lstat(os.path.join(os.fsencode(root), path))
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, []).append(path)
    for path in sorted(paths):
        whole = os.path.join(os.fsencode(root), path)
        status = os.lstat(whole)
        content: object = None
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(whole)
        elif stat.S_ISREG(status.st_mode):
            content = (Path(os.fsdecode(whole)).read_bytes(), names[status.st_ino])
        found[path] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def objects(site: Path, kind: str) -> list[Path]:
    return sorted((site / "destination").glob(f"daily/data/example/*.{kind}.zst.age"))


def test_the_page_restores_environments_and_media(site: Path) -> None:
    assert len(objects(site, "mdb")) > 4
    assert len(objects(site, "tar")) > 2
    assert len(objects(site, "file")) > 10

    result = recover(site)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    recovered = site / "recovered"
    assert sorted(path.name for path in recovered.iterdir()) == ["graph", "media", "vector"]
    for name, databases in (("vector", 2), ("graph", 3)):
        counts = compare_environments(site / "data" / name, recovered / name)
        assert list(counts.values()) == [300] * databases
        assert [path.name for path in (recovered / name).iterdir()] == ["data.mdb"]
        assert (recovered / name / "data.mdb").stat().st_mode == (site / "data" / name / "data.mdb").stat().st_mode
    expected, found = describe(site / "data" / "media"), describe(recovered / "media")
    assert found.keys() == expected.keys()
    for path, description in expected.items():
        assert found[path] == description, path
    holes = recovered / "media" / "holes"
    assert holes.stat().st_blocks * 512 < holes.stat().st_size / 4


def test_an_older_backup_can_be_named(site: Path) -> None:
    first = next(path.name for path in (site / "destination/daily/backups/example").iterdir())
    (site / "data/media/deep.txt").write_bytes(b"changed")
    config = site / "archiver.toml"
    backup_source(load_config(config), None, "daily", "", Silent())

    result = recover(site, backup=first)

    assert result.returncode == 0, result.stderr
    assert (site / "recovered/media/deep.txt").read_bytes() == b"x" * PACK_LIMIT


def test_objects_of_earlier_backups_are_restored(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an older pack only what is still so: neither what was deleted or changed since, nor older modes and times."""
    monkeypatch.setattr(remembered, "_RACY", 0)
    media = site / "data/media"
    for number in range(60):
        (media / "small" / f"{number:03}").write_bytes(Random(number).randbytes(2000))
    first = back_up_again(site)
    (media / "small/001").unlink()
    (media / "small/002").write_bytes(b"changed")
    (media / "small/003").unlink()
    (media / "small/003").mkdir()
    (media / "small/003/file").write_bytes(b"where a file was")
    (media / "small/004").chmod(0o4701)
    os.utime(media / "small/005", ns=(-1_500_000_000, -1_500_000_000))
    (media / "holes").chmod(0o600)
    os.utime(media / "small", ns=(TIME, TIME))
    for number in range(3):
        # A pack of which nothing is in the list of members.
        (media / "zz" / f"empty{number}").parent.mkdir(exist_ok=True)
        (media / "zz" / f"empty{number}").touch()
    second = back_up_again(site)
    assert placed(site / "destination", "daily", first) & placed(site / "destination", "daily", second)

    result = recover(site, backup=second)

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert describe(site / "recovered" / "media") == describe(media)


def test_a_backup_without_objects_is_restored(tmp_path: Path) -> None:
    (tmp_path / "data" / "media").mkdir(parents=True, mode=0o750)
    back_up(tmp_path, [])

    result = recover(tmp_path)

    assert result.returncode == 0, result.stderr
    assert describe(tmp_path / "recovered" / "media") == describe(tmp_path / "data" / "media")


def test_copies_in_other_classes_are_restored(site: Path) -> None:
    """Once the original has expired: from keys of a longer class, and from further copies of an object."""
    config = site / "archiver.toml"
    with config.open("a") as file:
        file.write('\n[class.yearly]\nkeep = 800\nlease = 35\nevery = "year"\n')
    destination = site / "destination"
    planted = [destination / "held" / path.relative_to(destination / "daily") for path in objects(site, "tar")]
    for path in planted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of another size, so that the copy needs another key")
    for command in (["promote"], ["hold", "latest"]):
        done = archiver(*command, "--config", str(config))
        assert done.code == 0, done.errors
    shutil.rmtree(destination / "daily")

    for retention_class, lender in (("monthly", "yearly"), ("held", "held"), ("", "yearly")):
        result = recover(site, more={"CLASS": retention_class})

        assert result.returncode == 0, result.stderr
        assert f", class {retention_class or 'yearly'}\n" in result.stdout
        assert describe(site / "recovered" / "media") == describe(site / "data" / "media")
        keys = placed(destination, retention_class or "yearly")
        assert {key.split("/")[0] for key in keys} == {lender}
        further = [key for key in keys if re.search(r"/[0-9a-f]{32}\.[0-9a-f]{8}\.tar\.zst\.age$", key)]
        assert len(further) == (len(planted) if retention_class == "held" else 0)
        shutil.rmtree(site / "recovered")


def placed(destination: Path, retention_class: str, backup: str = "*") -> set[str]:
    """The keys that the placement of a backup names, or of the only one in a class."""
    (placement,) = (destination / retention_class / "data" / "example").glob(f"{backup}.placement.jsonl.zst")
    lines = subprocess.run(["zstd", "-dcq", str(placement)], capture_output=True, check=True).stdout.splitlines()
    return {json.loads(line)["key"] for line in lines}


def test_a_wrong_place_or_card_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "media").mkdir(parents=True)
    back_up(tmp_path, [])
    card = tmp_path / "card.txt"
    text = card.read_text("utf-8")

    result = recover(tmp_path, backup="20200101T000000Z-000000")
    assert result.returncode != 0
    assert "recovery failed: no backup 20200101T000000Z-000000 of source example in " in result.stderr
    card.write_text(text.replace("# source: example", "# source: another"), "utf-8")
    assert "no backup of source another in " in recover(tmp_path).stderr
    card.write_text(text.replace("# source: example\n", ""), "utf-8")
    assert "card.txt is no recovery card" in recover(tmp_path).stderr
    card.unlink()
    assert "card.txt is no file" in recover(tmp_path).stderr
    card.write_text(text, "utf-8")
    (tmp_path / "destination").rename(tmp_path / "moved")
    assert "destination is no directory" in recover(tmp_path).stderr


@pytest.mark.parametrize("kind", ["mdb", "tar", "file"])
def test_a_tampered_object_fails_the_check(site: Path, kind: str) -> None:
    flip_last_byte(objects(site, kind)[-1])

    result = recover(site)

    assert result.returncode != 0
    assert f".{kind}.zst.age: FAILED" in result.stdout + result.stderr
    assert not (site / "recovered" / "media").exists()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("daily/backups/example/*/manifest.json", "no good signature by a key on the card"),
        ("daily/data/example/*.contents.jsonl.zst.age", "contents.jsonl.zst.age: FAILED"),
        ("daily/data/example/*.objects.jsonl.zst", "objects.jsonl.zst: FAILED"),
    ],
)
def test_a_tampered_list_fails_the_check(site: Path, pattern: str, message: str) -> None:
    flip_last_byte(next((site / "destination").glob(pattern)))

    result = recover(site)

    assert result.returncode != 0
    assert message in result.stdout + result.stderr
    assert not (site / "recovered" / "vector").exists()


def test_a_placement_that_names_something_else_fails(site: Path) -> None:
    placement = next((site / "destination").glob("daily/data/example/*.placement.jsonl.zst"))
    lines = subprocess.run(["zstd", "-dcq", str(placement)], capture_output=True, check=True).stdout
    lied = re.sub(rb'"key":"', rb'"key":"../', lines, count=1)
    placement.write_bytes(subprocess.run(["zstd", "-cq"], input=lied, capture_output=True, check=True).stdout)

    result = recover(site)

    assert result.returncode != 0
    assert "the placement names" in result.stderr
    assert not (site / "recovered" / "vector").exists()


def test_another_cards_key_fails(site: Path) -> None:
    other = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    card = (site / "card.txt").read_text("utf-8")
    (site / "card.txt").write_text(re.sub(r"AGE-SECRET-KEY-1\w+", other, card), "utf-8")

    result = recover(site)

    assert result.returncode != 0
    assert "opens vault" in result.stderr


def flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
