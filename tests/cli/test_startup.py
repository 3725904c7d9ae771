"""The command line starts fast: nothing heavy is imported before it is needed, and no class is made by dataclasses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.operations.scene import finish, make_scene, spawn
from tests.servers.process import REPOSITORY

HEAVY = (
    "blake3", "boto3", "botocore", "cryptography", "lmdb", "msgspec", "rich", "tomlkit", "zstandard",
    "_strptime", "asyncio", "ctypes", "email", "http", "multiprocessing", "ssl", "subprocess", "tarfile", "tempfile",
    "xml",
)  # fmt: skip
_READING = {"blake3", "cryptography", "msgspec", "zstandard"}
"""What it takes to read a manifest and its lists, prove them and open them."""
_WRITING = {*_READING, "ctypes", "lmdb", "subprocess", "tarfile", "tempfile"}
_VERIFYING = {*_READING, "ctypes", "lmdb", "subprocess", "tempfile"}
_ALLOWED = [
    ("list", _READING),
    ("show", _READING),
    ("show --identity card.txt", _READING),
    ("ls latest --identity card.txt", _READING),
    ("cat latest media/album/2026/note.txt --identity card.txt", {*_READING, "ctypes"}),
    ("expire", _READING),
    ("cost --prices prices.toml", _READING),
    ("lifecycle check", _READING),
    ("hold latest --dry-run", _READING),
    ("keys show --identity card.txt", _READING),
    ("verify", _VERIFYING),
    ("restore --to out --identity card.txt", _VERIFYING),
    ("backup", _WRITING),
]
_COMMANDS = (
    "init", "doctor", "backup", "list", "show", "ls", "cat", "restore", "verify", "promote", "hold", "release",
    "expire", "lifecycle", "cost", "keys", "demo",
)  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """Which of ``HEAVY`` a command imports, and the dataclasses in what it imports of archiver: each of those costs
    about a millisecond to define, as its methods are compiled, and a Struct almost nothing."""
    script = (
        "import sys\nfrom archiver.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "ours = [module for name, module in sys.modules.items() if name.startswith('archiver.')]\n"
        "classes = [v for module in ours for v in vars(module).values() if hasattr(v, '__dataclass_fields__')]\n"
        "made = [f'{each.__module__}.{each.__qualname__}' for each in classes]\n"
        f"sys.stderr.write('\\n' + ' '.join([*(m for m in {HEAVY!r} if m in sys.modules), *made]))\n"
        "sys.exit(code)"
    )
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout, done.stderr
    return set(done.stderr.rpartition("\n")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in _COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) == set()


def test_a_file_destination_does_not_import_boto3(tmp_path: str) -> None:
    made = imported("keys", "generate", "--output", f"{tmp_path}/key.txt")
    assert "boto3" not in made
    # Else the checks above could not fail.
    assert "cryptography" in made


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a configured source with a backup."""
    scene = make_scene(tmp_path_factory.mktemp("scene"))
    scene.backup()
    shutil.copy(REPOSITORY / "docs/prices/example.toml", scene.root / "prices.toml")
    return scene.root


@pytest.mark.parametrize(("command", "allowed"), _ALLOWED, ids=[command for command, _ in _ALLOWED])
def test_a_command_imports_what_it_needs_and_no_more(
    backed_up: Path, monkeypatch: pytest.MonkeyPatch, command: str, allowed: set[str]
) -> None:
    monkeypatch.chdir(backed_up)
    found = imported(*command.split())
    assert found <= allowed
    assert "msgspec" in found, "else this could not fail"


def test_as_a_module() -> None:
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-m", "archiver", "--version"], env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "archiver")
    assert finish(spawn("--version")).output == done.stdout


def test_the_end_does_not_go_through_all_that_was_imported() -> None:
    script = (
        "import atexit, gc\nfrom archiver.cli.main import main\n"
        "atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count()))\nmain()"
    )
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script, "--version"], env=settings, capture_output=True, text=True)
    left, frozen = map(int, done.stdout.splitlines()[-1].split())
    assert left < frozen / 10
