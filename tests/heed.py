"""The real heed writer of tests/heed_writer: build it, drive it, check copies with it.

``python -m tests.heed`` builds it and reports failure by its exit status. Standard library only.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tests.servers.process import cache_directory

CRATE = Path(__file__).with_name("heed_writer")
ANSWER_SECONDS = 120
CHECK_SECONDS = 240


class HeedError(Exception):
    """The writer could not be built or started, or did not answer; the message says what it said."""


def build() -> Path:
    """The writer's binary, built with cargo unless nothing has changed; one process at a time."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "heed_writer.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        target = (cache / "heed_writer").resolve()
        done = subprocess.run(
            [_cargo(), "build", "--quiet", "--release", f"--manifest-path={CRATE / 'Cargo.toml'}"],
            env={**os.environ, "CARGO_TARGET_DIR": str(target)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise HeedError(f"the heed writer cannot be built:\n{done.stdout[-2000:]}")
    return target / "release" / "heed_writer"


def _cargo() -> str:
    # Where rustup puts it, even if the shell has not been told.
    found = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if not found:
        raise HeedError("the heed writer needs cargo 1.80 or newer: from rustup, or the package cargo of Debian 13")
    return found


@dataclass(frozen=True)
class Stats:
    """What a writer did since it was last asked, or since it was ready."""

    seconds: float
    commits: int
    """Rounds in which every environment was committed."""
    errors: int
    """Transactions that failed, those for a full map among them."""
    map_full: int
    p50_us: int
    """Latency of the transactions that succeeded, each environment's for itself, from begin to the commit's end."""
    p99_us: int
    max_us: int
    counter: int
    """The last commit of the first environment that is open."""
    vector_file_bytes: int | None
    graph_file_bytes: int | None


@dataclass(frozen=True)
class Reader:
    """A reader slot in use, of a live process or of one that is gone."""

    pid: int
    thread: int
    txnid: int | None
    """None while the slot holds no snapshot."""


class HeedWriter:
    """A live heed process that has environments open in ``directory``/vector and ``directory``/graph."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        self.directory = directory
        self.process = process
        ready = self._answer()
        if ready.get("event") != "ready":
            raise HeedError(f"the heed writer did not start: {ready.get('problem')}")
        self.pid: int = ready["pid"]
        self.counter_at_start: int = ready["counter"]

    @classmethod
    @contextmanager
    def start(
        cls,
        binary: Path,
        directory: Path,
        *,
        only: Literal["vector", "graph"] | None = None,
        paused: bool = False,
        sync: bool = True,
        rate: float = 0,
        map_size: int = 1 << 30,
        index_size: int = 200_000,
        nodes: int = 2000,
        max_readers: int = 126,
        seed: int = 1,
    ) -> Iterator[Self]:
        """A writer that has made its first commit, and goes on at ``rate`` commits a second (0: all it can) unless
        ``paused``; killed at the end of the block if it still runs.

        It makes what is missing in ``directory`` and else continues from what it finds. The HNSW value has about
        ``index_size`` bytes. Raises HeedError if it does not start.
        """
        numbers = {
            "--rate": rate,
            "--map-size": map_size,
            "--index-size": index_size,
            "--nodes": nodes,
            "--max-readers": max_readers,
            "--seed": seed,
        }
        command = [str(binary), "write", "--directory", str(directory)]
        for name, value in numbers.items():
            command += [name, str(value)]
        command += ["--only", only] if only else []
        command += ["--paused"] if paused else []
        command += [] if sync else ["--no-sync"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                yield cls(directory, process)
            finally:
                process.kill()

    def stats(self) -> Stats:
        """What happened since the last call; the next window begins."""
        return Stats(**self._ask("stats"))

    def commit(self) -> int:
        """Commit once in each environment, also while paused; returns the counter."""
        return int(self._ask("commit")["counter"])

    def wait_for_commits(self, number: int) -> None:
        """Return after so many more commits; the window of ``stats`` then began a moment ago."""
        deadline = time.monotonic() + ANSWER_SECONDS
        wanted = self.stats().counter + number
        while self.stats().counter < wanted:
            if time.monotonic() > deadline:
                raise HeedError(f"the heed writer did not commit {number} times within {ANSWER_SECONDS} seconds")
            time.sleep(0.02)

    def set_rate(self, rate: float) -> None:
        """Commits a second; 0: all it can."""
        self._ask(f"rate {rate}")

    def pause(self) -> int:
        """Commit no more; returns the counter of the last commit."""
        return int(self._ask("pause")["counter"])

    def resume(self) -> None:
        self._ask("resume")

    def readers(self) -> dict[str, list[Reader]]:
        """The slots in use, for each environment by its name."""
        answer = self._ask("readers")
        return {name: [Reader(**slot) for slot in slots] for name, slots in answer.items()}

    def clear_stale(self) -> dict[str, int]:
        """Let LMDB clear the slots of processes that are gone; their number, for each environment by its name."""
        return self._ask("check-readers")

    def stop(self) -> Stats:
        """End it in the orderly way; returns the last window."""
        stats = Stats(**self._ask("stop"))
        status = self.process.wait(ANSWER_SECONDS)
        if status:
            raise HeedError(f"the heed writer ended with status {status}")
        return stats

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "problem" in answer:
            raise HeedError(f"the heed writer answered {line!r}: {answer['problem']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        # A writer that waits for a lock of ours would otherwise hold up the test until its time limit.
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            raise HeedError(f"no answer from the heed writer (exit status {self.process.poll()})")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Checked:
    """An environment that proved to be one whole commit."""

    counter: int
    entries: int
    vector_counter: int | None = None
    """In a graph: the vector environment's counter when it was committed; 0 if that was not open."""


@dataclass(frozen=True)
class CheckResult:
    """What ``heed_writer check`` found in a directory that holds ``vector`` or ``graph`` or both."""

    problem: str | None
    vector: Checked | None = None
    graph: Checked | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def check(binary: Path, directory: Path) -> CheckResult:
    """Scan the environments in ``directory``, which nobody writes to, through heed; makes ``lock.mdb`` there.

    A damaged file can crash or stall the check: that too is a problem found.
    """
    command = [str(binary), "check", str(directory)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return CheckResult(f"the check did not end within {CHECK_SECONDS} seconds")
    if done.returncode < 0:
        return CheckResult(f"the check was ended by {signal.Signals(-done.returncode).name}")
    answer = json.loads(done.stdout)
    if not answer.pop("ok"):
        return CheckResult(answer["problem"])
    return CheckResult(None, **{name: Checked(**found) for name, found in answer.items()})


def main() -> int:
    try:
        build()
    except HeedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
