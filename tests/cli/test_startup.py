"""The command line starts fast: nothing heavy is imported before it is needed."""

import os
import subprocess
import sys

import pytest

from tests.operations.scene import finish, spawn
from tests.servers.process import REPOSITORY

HEAVY = ("blake3", "boto3", "botocore", "cryptography", "lmdb", "msgspec", "rich", "zstandard")
_COMMANDS = (
    "init", "doctor", "backup", "list", "show", "ls", "cat", "restore", "verify", "promote", "hold", "release",
    "expire", "lifecycle", "cost", "keys", "demo",
)  # fmt: skip


def imported(*arguments: str) -> set[str]:
    script = (
        "import sys\nfrom archiver.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        f"sys.stderr.write(' '.join(m for m in {HEAVY!r} if m in sys.modules))\n"
        "sys.exit(code)"
    )
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", script, *arguments], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in _COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported(*arguments) == set()


def test_a_file_destination_does_not_import_boto3(tmp_path: str) -> None:
    made = imported("keys", "generate", "--output", f"{tmp_path}/key.txt")
    assert "boto3" not in made
    # Else the checks above could not fail.
    assert "cryptography" in made


def test_as_a_module() -> None:
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-m", "archiver", "--version"], env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "archiver")
    assert finish(spawn("--version")).output == done.stdout
