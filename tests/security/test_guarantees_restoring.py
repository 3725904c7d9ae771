"""Guarantees of docs/SECURITY.md, by number: what a hostile destination can do to the machine that restores from it,
even if its backups are rightly signed. Each test says which change of the code it notices."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from archiver.crypto.age import seal_bytes
from archiver.crypto.header import Stanza
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.errors import FormatError
from tests.operations.scene import Done, Scene, archiver, finish, spawn, tree
from tests.security.house import run
from tests.vectors.destination import CARD, DESTINATION
from tests.vectors.mutations import (
    Files,
    edit_lines,
    edit_placement,
    edit_record,
    find,
    replace_list,
    reseal_object,
    vault_identity,
)

GIB = 1 << 30
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({GIB // 2}, {GIB // 2}))"
"""What a command may take of memory: a little more than it needs."""


def hostile(directory: Path, *changes: Callable[[Files], object]) -> Path:
    """The destination of the format's vectors, changed by somebody who has its signing key."""
    files = {str(path.relative_to(DESTINATION)): path.read_bytes() for path in DESTINATION.rglob("*") if path.is_file()}
    for change in changes:
        change(files)
    root = directory / "hostile"
    for key, data in files.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return root


def restore(root: Path, target: Path, *arguments: str) -> Done:
    return archiver("restore", "--to", str(target), "--identity", str(CARD), "--from", root.as_uri(), *arguments)


def put(*records: dict[str, Any]) -> Callable[[Files], None]:
    """Add media records, each in its place in the order of paths."""

    def change(files: Files) -> None:
        def edit(lines: list[dict[str, Any]]) -> None:
            lines += records
            header, *rest = lines
            lines[:] = [header, *sorted(rest, key=lambda line: (line["type"] != "environment", line.get("path", "")))]

        edit_lines(files, "contents", edit)

    return change


COMMON = {"mode": 0o777, "mtime_ns": 0, "uid": 0, "gid": 0}


@pytest.mark.parametrize(
    "attack",
    ["parent", "absolute", "through a link", "hard link", "link to it", "placement", "target", "in the target"],
)
def test_g29_nothing_outside_the_target_is_written_or_linked_to(tmp_path: Path, attack: str) -> None:
    """Noticed: a path that is joined without a look at it; a directory that is opened through a symbolic link, one of
    the backup's or one that is in the target."""
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    target.mkdir()
    link = {"type": "symlink", "path": "a", "target": str(outside), **COMMON}
    inside = {"type": "directory", "path": "a/inside", **COMMON}
    changes: dict[str, Callable[[Files], object]] = {
        "parent": lambda files: edit_record(files, "photo.jpg", path="../../../outside/photo.jpg"),
        "absolute": lambda files: edit_record(files, "photo.jpg", path=f"{outside}/photo.jpg"),
        "through a link": put(link, inside),
        "hard link": put({"type": "hardlink", "path": "z", "target": "../../../outside/precious"}),
        "link to it": put(link),
        "placement": lambda files: edit_placement(files, lambda lines: lines[0].update(key="../../outside/precious")),
        "target": lambda _: None,
        "in the target": lambda _: None,
    }
    root = hostile(tmp_path, changes[attack])
    before = tree(outside)
    if attack == "target":
        (target / "media").symlink_to(outside)
    elif attack == "in the target":
        (target / "media").mkdir()
        (target / "media/notes").symlink_to(outside)
    done = restore(root, target, "--force")
    # A symbolic link as such is data like any other: it is made, or moved out of the way, and not followed.
    harmless = ("link to it", "in the target")
    assert done.code in ((0, 3) if attack in harmless else (1, 4)), done.errors
    assert tree(outside) == before


@pytest.mark.parametrize("kind", ["mdb", "tar", "contents", "objects"])
def test_g30_until_all_is_proven_the_target_is_as_it_was(scene: Scene, tmp_path: Path, kind: str) -> None:
    """Noticed: a file that is replaced before the last one is proven; leftovers of a restore that was refused."""
    scene.backup()
    target = tmp_path / "target"
    assert run(scene, "restore", "--to", str(target)).code == 0
    (target / "media/note.txt").write_bytes(b"what is there now")
    before = tree(target)
    (path,) = scene.destination.glob(f"daily/data/*/*.{kind}.*")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run(scene, "restore", "--to", str(target), "--force").code == 4
    assert tree(target) == before


def zeros(size: int) -> bytes:
    """A zstd frame of so many zero bytes."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    piece = bytes(1 << 22)
    return b"".join([*(compressor.compress(piece) for _ in range(size >> 22)), compressor.flush()])


def bomb_in_a_list(files: Files) -> None:
    """A line of 4 GiB in contents."""
    replace_list(files, "contents", seal_bytes(zeros(4 * GIB), [vault_identity().recipient]))


def bomb_in_an_object(files: Files) -> None:
    """A frame of 2 GiB, whose seek table says that it is as large as the one that was there."""

    def change(data: bytes) -> bytes:
        frame = zeros(2 * GIB)
        table = bytearray(data[-25:])
        table[8:12] = len(frame).to_bytes(4, "little")
        return frame + table

    reseal_object(files, "tar", change, restate=True)


def endless_manifest(files: Files) -> None:
    key = find(files, r"manifest\.json$")
    files[key] = files[key] + b" " * (1 << 24)


@pytest.mark.parametrize("bomb", [bomb_in_a_list, bomb_in_an_object, endless_manifest])
def test_g31_hostile_sizes_cost_bounded_memory(tmp_path: Path, bomb: Callable[[Files], None]) -> None:
    """Noticed: whatever is read or decompressed before a limit is looked at. The command has half a GiB of memory."""
    root = hostile(tmp_path, bomb)
    arguments = ["restore", "--to", str(tmp_path / "out"), "--identity", str(CARD), "--from", root.as_uri()]
    done = finish(spawn(*arguments, before=LIMITED))
    assert done.code == 4, done.errors
    assert "internal error" not in done.errors
    assert not (tmp_path / "out").exists()


def test_a_passphrase_that_costs_too_much_is_not_tried() -> None:
    """A vault file that would take scrypt an hour, and 256 GiB of memory."""
    stanza = Stanza("scrypt", ("A" * 22, "28"), bytes(32))
    with pytest.raises(FormatError, match="work factor"):
        PassphraseIdentity("anything").unwrap(stanza)


def test_the_memory_is_limited(tmp_path: Path) -> None:
    """The test above could not fail otherwise."""
    script = f"{LIMITED}\ntry:\n    bytearray({GIB})\nexcept MemoryError:\n    raise SystemExit(7)"
    assert subprocess.run(["python3", "-c", script]).returncode == 7
    done = finish(spawn("verify", "--identity", str(CARD), "--from", DESTINATION.as_uri(), before=LIMITED))
    assert done.code in (0, 3), done.errors


@pytest.mark.parametrize("mode", [(), ("--json",)], ids=["plain", "json"])
def test_g32_names_cannot_command_a_terminal(tmp_path: Path, mode: tuple[str, ...]) -> None:
    """Noticed: a name or a label that is printed as it is. It may hold the codes that set a terminal's title."""
    evil = "\x1b]0;owned\x07\x1b[2Jphoto\u202e.jpg\x9b31m"
    root = hostile(
        tmp_path,
        lambda files: edit_record(files, "photo.jpg", path=evil),
        lambda files: edit_lines(files, "contents", lambda lines: lines[0].update(label=evil)),
    )
    for command in (["ls", "latest"], ["show"], ["restore", "--to", str(tmp_path / "out"), "--only", "media/nothing"]):
        done = archiver(*command, "--identity", str(CARD), "--from", root.as_uri(), *mode)
        text = done.output + done.errors
        assert all(letter.isprintable() or letter == "\n" for letter in text), ascii(text)
        if command[0] != "restore":
            assert "owned" in text
        if mode and command[0] == "show":
            assert json.loads(done.output)["label"] == evil
