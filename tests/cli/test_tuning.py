"""What a run may take of the machine and of its line: options, configuration, priority."""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.config import Config
from archiver.operations.access import AccessOptions, resolve_access
from tests.cli.checking import backup, check
from tests.operations.scene import Done, Scene, archiver, finish, spawn
from tests.servers.process import REPOSITORY

RATE = 512 * 1024
SLACK = 64 * 1024
"""More than the burst of a limiter of this rate, and what of a backup is not its data."""


def configure(scene: Scene, line: str) -> None:
    """``line`` as the last of [tuning]."""
    scene.config.write_text(scene.config.read_text() + f"{line}\n")


def seconds(run: Callable[[], Done]) -> float:
    began = time.monotonic()
    done = run()
    assert done.code == 0, done.errors
    return time.monotonic() - began


@pytest.mark.parametrize("where", ["option", "configuration"])
def test_an_upload_keeps_to_its_limit(scene: Scene, where: str) -> None:
    if where == "configuration":
        configure(scene, 'limit_upload = "512K"')
    option = ["--limit-upload", "512K"] if where == "option" else []
    done = backup(scene, "--json", *option)
    assert done.code == 0, done.errors
    assert done.document["seconds"] > (done.document["stored_bytes"] - SLACK) / RATE > 0.5


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("restore latest --to out", "option"),
        ("restore latest --in-place --force", "option"),
        ("restore latest --in-place --force", "configuration"),
        ("verify --level data", "option"),
    ],
)
def test_a_download_keeps_to_its_limit(scene: Scene, monkeypatch: pytest.MonkeyPatch, command: str, where: str) -> None:
    stored = backup(scene, "--json").document["stored_bytes"]
    configure(scene, f'limit_download = "{"512K" if where == "configuration" else "1T"}"')
    monkeypatch.chdir(scene.root)
    place = ["--identity", "card.txt", *(["--config", "archiver.toml"] if "--in-place" not in command else [])]
    option = ["--limit-download", "512k"] if where == "option" else []
    least = (stored - SLACK) / RATE
    assert seconds(lambda: archiver(*command.split(), *place, *option)) > least > 0.5


def test_reading_a_file_keeps_to_its_limit(scene: Scene) -> None:
    scene.backup()
    where = ("cat", "latest", "media/album/11.png", *scene.identity)
    # The frame that it lies in is stored as more than 180 KiB.
    assert seconds(lambda: archiver(*where, "--limit-download", "256K")) > (180 - 32) / 256


def test_an_option_counts_before_the_configuration(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(scene, 'workers = 5\nlimit_upload = "64K"\nlimit_download = "64K"')
    seen: list[Config] = []

    def run_night(config: Config, *_others: object) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("archiver.operations.nightly.run_night", run_night)
    monkeypatch.setattr("archiver.operations.priority.give_way", lambda: None)
    for option in ("", "--workers 3", "--limit-upload 1T"):
        assert backup(scene, *option.split()).code == 130
    assert [(config.tuning.workers, config.tuning.limit_upload) for config in seen] == [
        (5, 1 << 16),
        (3, 1 << 16),
        (5, 1 << 40),
    ]
    for options, expected in (
        (AccessOptions(config=scene.config), (5, 1 << 16)),
        (AccessOptions(config=scene.config, workers=2), (2, 1 << 16)),
        (AccessOptions(config=scene.config, limit_download=1 << 20), (5, 1 << 20)),
    ):
        tuning = resolve_access(options).tuning
        assert (tuning.workers, tuning.limit_download) == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("backup --limit-upload 20X", "expected a size such as 500K, 20M or 8G, got '20X'"),
        ("backup --limit-upload 63K", "expected a size from 64K to 1T, got '63K'"),
        ("restore --limit-download 0", "expected a size from 64K to 1T, got '0'"),
        ("verify --limit-download 2T", "expected a size from 64K to 1T, got '2T'"),
        ("cat latest a --limit-download ''", "expected a size such as 500K, 20M or 8G, got ''"),
        ("cat latest a --workers 0", "0 is not in the range 1<=x<=64"),
        ("backup --workers 65", "65 is not in the range 1<=x<=64"),
    ],
)
def test_an_option_that_makes_no_sense(arguments: str, problem: str) -> None:
    check(archiver(*shlex.split(arguments)), 2, problem)


def shown_priority(tmp_path: Path, *before: str) -> tuple[int, str]:
    """CPU and I/O priority of a child of a process that gives way, and was started with ``before``."""
    script = (
        "import subprocess\nfrom archiver.operations.priority import give_way\n"
        "give_way()\nsubprocess.run('nice; ionice', shell=True, check=True)\n"
    )
    done = subprocess.run(
        [*before, sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    number, _, io_priority = done.stdout.partition("\n")
    return int(number), io_priority.strip()


def test_a_process_that_gives_way_does_so_for_its_children_too(tmp_path: Path) -> None:
    before = int(subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout)
    assert shown_priority(tmp_path) == (min(before + 10, 19), "best-effort: prio 7")


@pytest.mark.parametrize(
    ("chosen", "shown"), [("-c 3", "idle"), ("-c 2 -n 0", "best-effort: prio 0"), ("-c 2 -n 4", "best-effort: prio 4")]
)
def test_what_ionice_has_chosen_stays(tmp_path: Path, chosen: str, shown: str) -> None:
    assert shown_priority(tmp_path, "ionice", *chosen.split())[1] == shown


def test_a_backup_gives_way_with_the_processes_that_it_starts(scene: Scene, tmp_path: Path) -> None:
    seen, data = tmp_path / "seen", scene.data / "vector" / "data.mdb"
    script = f"(nice; ionice) > {seen}; cat {data}"
    configure(scene, f'[source.prod.external]\nvector = ["sh", "-c", "{script}"]')
    before = int(subprocess.run(["nice"], capture_output=True, text=True, check=True).stdout)
    done = finish(spawn("backup", "--config", str(scene.config)))
    assert done.code == 0, done.errors
    assert seen.read_text().splitlines() == [str(min(before + 10, 19)), "best-effort: prio 7"]
