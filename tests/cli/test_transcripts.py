"""Golden transcripts: what each command prints, for people and as JSON.

``tests/cli/transcripts/<name>.txt`` hold commands and their outputs, with ids, times, sizes and paths replaced by
words. After a change that is meant, write them anew with ``ARCHIVER_UPDATE_TRANSCRIPTS=1 pytest tests/cli`` and read
the difference.
"""

import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from archiver.cli.main import archiver as group
from archiver.operations import remembered
from tests.operations.scene import Done, Scene, archiver, make_scene

RECIPIENT = "age1kau3c7ew3f5t6kaxmn24kuae6rc253ep6cjt8hqd35c4w0682u6sy7nrgh"
DIRECTORY = Path(__file__).parent / "transcripts"
_WORDS = (
    (r"20\d{6}T\d{6}Z-[0-9a-f]{6}", "<backup>"),
    (r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"\bRW[A-Za-z0-9+/]{54}", "<verify key>"),
    (r"\bage1[a-z0-9]{58}", "<recipient>"),
    (r"\b[0-9a-f]{32}\b", "<object>"),
    (r"\b[0-9a-f]{16}\b", "<vault>"),
    (r"\b[0-9A-F]{12,16}\b", "<key number>"),
    (r"\d[\d.,]* (B|KiB|MiB|GiB)\b", "<size>"),
    (r'("(?:[a-z_]*bytes|map_size|seconds|skew_seconds|size|txnid)": )[\d.]+', r"\1<number>"),
    (r"\b\d+(\.\d+)? s\b", "<seconds>"),
    (r"\bstored_bytes \d+", "stored_bytes <number>"),
    (r"transaction \d+", "transaction <number>"),
    (r"\d+ in use, \d+ free, \d+ bytes each", "<number> in use, <number> free, <number> bytes each"),
    (r"\d+\.\d% taken", "<share> taken"),
)


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as help is made for."""
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A configured source, entered: commands need no ``--config``."""
    # Its files are too young to be recognised in the next backup, or not, as fast as this host is.
    monkeypatch.setattr(remembered, "_RACY", 0)
    (tmp_path / "scene").mkdir()
    scene = make_scene(tmp_path / "scene")
    monkeypatch.chdir(scene.root)
    return scene


def transcript(root: Path, *commands: str) -> tuple[str, list[Done]]:
    """Run ``commands``; what a terminal would have shown, normalised."""
    lines, results = [], []
    for command in commands:
        done = archiver(*shlex.split(command))
        results.append(done)
        lines += [f"$ archiver {command}", *(done.output + done.errors).splitlines()]
        if done.code:
            lines.append(f"[exit {done.code}]")
        lines.append("")
    text = "\n".join(lines).replace(str(root), "<root>")
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text)
    # Columns are as wide as what was replaced.
    return re.sub(r"(?<=\S) {2,}", "  ", text), results


def check(name: str, text: str) -> None:
    """Compare with the golden file, or write it."""
    path = DIRECTORY / f"{name}.txt"
    if os.environ.get("ARCHIVER_UPDATE_TRANSCRIPTS"):
        path.write_text(text)
    assert path.read_text() == text


def commands_of(parent: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in sorted(parent.commands.items()):
        found.append((f"{prefix}{name}", command))
        if isinstance(command, click.Group):
            found += commands_of(command, f"{prefix}{name} ")
    return found


def test_help(tmp_path: Path) -> None:
    commands = ["--help", *(f"{name} --help" for name, _ in commands_of(group))]
    text, results = transcript(tmp_path, *commands)
    assert {done.code for done in results} == {0}
    check("help", text)


@pytest.mark.parametrize("name", [name for name, command in commands_of(group) if not isinstance(command, click.Group)])
def test_every_command_has_an_example_and_the_common_options(name: str) -> None:
    output = archiver(*name.split(), "--help").output
    assert f"Example:\n    archiver {name}" in output
    for option in ("--json", "--quiet", "--verbose"):
        assert option in output


def test_the_whole_story(scene: Scene) -> None:
    text, results = transcript(
        scene.root,
        "backup --dry-run",
        "backup --label 'before the upgrade'",
        "backup --verbose",
        "list",
        "show --identity card.txt",
        "show",
        "ls latest --identity card.txt",
        "cat latest media/album/2026/none --identity card.txt",
        "verify",
        "verify --all --level data --identity card.txt",
        "restore --to out --identity card.txt --dry-run",
        "restore --to out --identity card.txt",
        "restore --to out --identity card.txt",
        "restore --to out --identity card.txt --force --only vector",
        "doctor",
    )
    assert [done.code for done in results] == [0] * 12 + [6, 0, 3]
    check("story", text)


def test_quiet(scene: Scene) -> None:
    os.mkfifo(scene.media / "fifo")
    text, results = transcript(
        scene.root,
        "backup --quiet",
        "verify --quiet",
        "restore --to out --identity card.txt --quiet",
        "show nothing --quiet",
    )
    assert [done.code for done in results] == [3, 0, 0, 5]
    check("quiet", text)


def test_init_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    text, _ = transcript(
        tmp_path,
        f"init --to {(tmp_path / 'destination').as_uri()} --source prod --media media",
        f"init --to {(tmp_path / 'destination').as_uri()} --source prod --media media",
        f"init --to {(tmp_path / 'destination').as_uri()} --source other --media media --json",
        "keys generate --output operator.txt",
        "keys generate --output operator.txt",
        "keys generate --output another.txt --json",
    )
    check("init", text)


def test_operators(scene: Scene) -> None:
    recipient = archiver("keys", "generate", "--output", "bob.txt").output.strip()
    scene.backup()
    text, results = transcript(
        scene.root,
        f"keys add bob --recipient {recipient} --identity card.txt --dry-run",
        f"keys add bob --recipient {recipient} --identity card.txt",
        f"keys add bob --recipient {recipient} --identity card.txt",
        "keys show --identity card.txt",
        "keys check --identity bob.txt",
        "keys rotate --dry-run",
        "keys rotate --identity card.txt",
        "keys check --identity bob.txt",
        "keys remove bob --identity bob.txt",
        "keys remove bob --identity card.txt",
        "keys check --identity bob.txt",
        "keys remove test --identity card.txt",
        "keys card --output new-card.txt --identity card.txt",
    )
    assert [done.code for done in results] == [0, 0, 6, 0, 0, 0, 0, 0, 4, 0, 4, 2, 0]
    check("operators", text)


_SIGNED = {"signature", "signer", "dated", "doubts"}
_BACKUP = {
    "backup", "source", "class", "classes", "started", "finished", "promised_until", "guaranteed_until",
    "guaranteed_by", "consistency", "sequence",
    "environments", "files", "objects", "plaintext_bytes", "stored_bytes", "warnings", *_SIGNED,
}  # fmt: skip
_DONE = (_BACKUP - {"sequence", "classes", "guaranteed_by"} - _SIGNED) | {
    "skew_seconds",
    "seconds",
    "requests",
    "promoted",
    "problems",
    "reused_objects",
    "reused_bytes",
}


def one(keys: set[str]) -> Callable[[Any], None]:
    def inspect(document: Any) -> None:
        assert set(document) == keys

    return inspect


def each(keys: set[str]) -> Callable[[Any], None]:
    def inspect(document: Any) -> None:
        assert document
        for item in document:
            assert set(item) == keys

    return inspect


@pytest.mark.parametrize(
    ("command", "inspect"),
    [
        ("backup", one(_DONE)),
        (
            "backup --dry-run",
            one({"dry_run", "source", "environments", "media", "files", "file_bytes", "skipped"}),
        ),
        ("list", each(_BACKUP)),
        ("show", one(_BACKUP)),
        ("show --identity card.txt", one(_BACKUP | {"label", "contents", "problems"})),
        (
            "verify --level data --identity card.txt",
            each(_SIGNED | {
                "backup", "class", "verified", "level", "objects", "stored_bytes", "environments", "files",
            }),
        ),
        (
            "restore --to out --identity card.txt",
            one(_SIGNED | {"backup", "source", "environments", "media", "files", "replaced_kept_in"}),
        ),
        (
            "restore --to out --identity card.txt --dry-run",
            one(_SIGNED | {
                "dry_run", "backup", "environments", "files", "file_bytes", "unchanged_files", "media_to", "obstacle",
                "archived",
            }),
        ),
        ("doctor", each({"severity", "subject", "message", "hint", "facts"})),
        ("keys generate --output new.txt", one({"recipient", "identity_file"})),
        ("keys show --identity card.txt", one({"source", "vaults", "signing_keys"})),
        (
            f"keys add bob --recipient {RECIPIENT} --identity card.txt --dry-run",
            one({"dry_run", "operator", "key", "created", "left_alone", "unopened", "ignored", "config"}),
        ),
        (
            "keys rotate --identity card.txt",
            one({"dry_run", "old_vault", "vault", "recipient", "operators", "created", "opened_by", "config"}),
        ),
        (
            "keys check --identity card.txt",
            each({"vault", "current", "backups", "newest", "opened_by", "problem"}),
        ),
        (
            "keys card --output new.txt --identity card.txt",
            one({"dry_run", "recovery_card", "vault", "has_identity", "opened_by"}),
        ),
        ("show nothing", one({"error"})),
    ],
)  # fmt: skip
def test_json(scene: Scene, command: str, inspect: Callable[[Any], None]) -> None:
    scene.backup()
    done = archiver(*shlex.split(command), "--json")
    assert done.errors == ""
    assert len(done.output.splitlines()) == 1
    inspect(json.loads(done.output))


def test_json_lines_of_ls(scene: Scene) -> None:
    scene.backup()
    done = archiver("ls", "latest", "--identity", "card.txt", "--json")
    records = [json.loads(line) for line in done.output.splitlines()]
    assert len(records) > 20
    for record in records:
        assert set(record) == {"path", "kind", "size", "mode", "modified", "target"}
