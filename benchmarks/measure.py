"""Run one command as a whole process tree and account for it."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds, and the peak of anonymous memory (RssAnon) in bytes, summed over the process tree."""

    wall: float
    cpu: float
    peak: int


def measure(command: Sequence[str], *, cwd: Path) -> Run:
    """Run ``command`` to its end; raises when it fails. Pages of mapped files do not count as memory."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(_INTERVAL):
            peak = max(peak, sum(_anonymous(pid) for pid in _tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    finished.set()
    watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return Run(wall, usage.ru_utime + usage.ru_stime, peak)


def alternate(commands: Mapping[str, Sequence[Sequence[str]]], runs: int, *, cwd: Path) -> dict[str, Run]:
    """Measure the last command of each list ``runs`` times in turn, A B A B …; the ones before it prepare.

    Returns the median of each figure. One more round comes first and is not counted.
    """
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, steps in commands.items():
            for step in steps[:-1]:
                subprocess.run(step, check=True, cwd=cwd)
            run = measure(steps[-1], cwd=cwd)
            if number:
                found[name].append(run)
    return {
        name: Run(
            median(run.wall for run in taken), median(run.cpu for run in taken), int(median(run.peak for run in taken))
        )
        for name, taken in found.items()
    }


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        try:
            found += map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        except OSError:
            continue
    return found


def _anonymous(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
