"""Run one command as a whole process tree and account for it."""

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.02
_SAMPLES_PER_TREE = 5
"""To look for processes costs far more than to look at them, and this machine is measured."""
_GRACE = 5.0
"""Seconds from asking a command to end to killing it."""


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds, and the peak of anonymous memory (RssAnon) in bytes, summed over the process tree."""

    wall: float
    cpu: float
    peak: int


class CommandError(Exception):
    """A command failed; the message holds the end of what it wrote."""


def measure(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> Run:
    """Run ``command`` to its end; pages of mapped files do not count as memory.

    Its output goes to ``cwd/output.log``. Raises ``CommandError`` when it fails. When the caller is interrupted, all
    that it started is ended.
    """
    log = cwd / "output.log"
    began = time.monotonic()
    with log.open("wb") as output, _tree_of(command, output.fileno(), cwd, environment) as process:
        peak = 0
        finished = threading.Event()

        def watch() -> None:
            nonlocal peak
            processes: list[int] = []
            for sample in itertools.count():
                if finished.wait(_INTERVAL):
                    return
                if sample % _SAMPLES_PER_TREE == 0:
                    processes = tree(process.pid)
                peak = max(peak, sum(_anonymous(pid) for pid in processes))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            finished.set()
            watcher.join()
    if process.returncode:
        said = log.read_text(errors="replace")[-2000:]
        raise CommandError(f"{' '.join(command)} ended with {process.returncode}:\n{said}")
    return Run(wall, usage.ru_utime + usage.ru_stime, peak)


@contextmanager
def _tree_of(
    command: Sequence[str], output: int, cwd: Path, environment: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, of which nothing is left when the block fails."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End all that is left of the command's process group, and wait for it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if _has_ended(process, time.monotonic() + _GRACE):
            return


def _has_ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    while time.monotonic() < deadline:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def tree(pid: int) -> list[int]:
    """``pid`` and all processes below it, as they are now."""
    found = [pid]
    for parent in found:
        # A process belongs to the thread that started it.
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def processor_seconds(pid: int) -> float:
    """What a process has used until now, user and system, its threads included."""
    # The name stands in parentheses and may hold spaces; utime and stime are the fields 14 and 15 of proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _anonymous(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
