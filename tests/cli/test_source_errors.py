"""Sources that cannot be backed up: one clear line, the documented exit code, no traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.checking import backup, check
from tests.operations.privileges import OBEYING_MODES
from tests.operations.scene import Scene, archiver, finish, spawn


def empty_data(data: Path) -> None:
    data.write_bytes(b"")


def zeroed_data(data: Path) -> None:
    data.write_bytes(bytes(len(data.read_bytes())))


def foreign_data(data: Path) -> None:
    data.write_bytes(b"SQLite format 3\0" + bytes(8192))


def truncated_data(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:-4096])


def damaged_data(data: Path) -> None:
    content = bytearray(data.read_bytes())
    for start in range(2 * 4096, len(content), 4096):
        content[start : start + 64] = b"\xff" * 64
    data.write_bytes(content)


def directory_data(data: Path) -> None:
    data.unlink()
    data.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (Path.unlink, 5),
        (empty_data, 4),
        (zeroed_data, 4),
        (foreign_data, 4),
        (truncated_data, 4),
        (damaged_data, None),
        (directory_data, None),
    ],
)
def test_an_environment_that_is_none(scene: Scene, spoil: Callable[[Path], None], code: int | None) -> None:
    spoil(scene.data / "vector/data.mdb")
    # A process of its own: LMDB may abort, or be killed by a signal, on pages that are damaged.
    done = finish(spawn("backup", "--config", str(scene.config)))
    assert code in (None, done.code)
    assert done.code in (1, 4) if code is None else True
    check(done, done.code, str(scene.data / "vector"))
    assert scene.backups() == []
    assert archiver("backup", "--dry-run", "--config", str(scene.config)).code != 0 or spoil is damaged_data


@pytest.mark.parametrize(
    ("spoil", "hint"),
    [(empty_data, "A full disk"), (truncated_data, "restore this environment"), (foreign_data, "MDB_INVALID")],
)
@pytest.mark.parametrize("command", [("backup",), ("backup", "--dry-run"), ("doctor",)], ids=" ".join)
def test_what_to_do_is_the_same_in_every_command(
    scene: Scene, command: tuple[str, ...], spoil: Callable[[Path], None], hint: str
) -> None:
    spoil(scene.data / "vector/data.mdb")
    done = archiver(*command, "--config", str(scene.config))
    (said,) = [line for line in (done.output + done.errors).splitlines() if "hint: " in line and "keys add" not in line]
    assert hint in said


def test_a_missing_environment_directory(scene: Scene) -> None:
    shutil.rmtree(scene.data / "vector")
    check(backup(scene), 5, str(scene.data / "vector"))


def test_a_missing_media_directory(scene: Scene) -> None:
    scene.media.rename(scene.data / "elsewhere")
    check(backup(scene), 5, str(scene.media))
    scene.media.write_text("a file")
    done = backup(scene)
    check(done, done.code, str(scene.media))
    assert scene.backups() == []


@pytest.mark.parametrize("hidden", ["vector/data.mdb", "vector"])
def test_an_environment_that_may_not_be_read(scene: Scene, hidden: str) -> None:
    (scene.data / hidden).chmod(0)
    done = finish(spawn("backup", "--config", str(scene.config), prefix=OBEYING_MODES))
    (scene.data / hidden).chmod(0o700)
    check(done, 1, "vector/data.mdb", "ermission denied", "hint: Run archiver as ")
