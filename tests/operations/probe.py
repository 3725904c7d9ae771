"""Run one archiver command and tell its peak of anonymous memory: ``python probe.py ARGUMENT...``.

Anonymous memory (RssAnon of /proc/PID/status) is what a process really uses: pages of a mapped database file are the
kernel's to drop. That of archiver and of its helper processes at one moment is added. The last line of stderr is the
peak in KiB, how often it was looked at, and the most helpers that were seen at once.
"""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from archiver.buffers import tune_heap
from archiver.cli.main import run
from tests.environment.traces import children

_SECONDS = 0.002


def main(arguments: list[str]) -> int:
    # As the command itself does, before any thread is started.
    tune_heap()
    samples: list[list[int]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS):
            samples.append([_anonymous_memory(pid) for pid in (os.getpid(), *children())])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return run(arguments)
    finally:
        ended.set()
        watcher.join()
        sys.stderr.write(f"{max(map(sum, samples))} {len(samples)} {max(map(len, samples)) - 1}\n")


def _anonymous_memory(pid: int) -> int:
    """In KiB; 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
