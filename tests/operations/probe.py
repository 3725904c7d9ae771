"""Run one archiver command and tell its peak of anonymous memory: ``python probe.py ARGUMENT...``.

Anonymous memory (RssAnon of /proc/self/status) is what the process really uses: pages of a mapped database file are
the kernel's to drop. The last line of stderr is the peak in KiB and how often it was looked at.
"""

import sys
import threading
from pathlib import Path

from archiver.cli.main import run

_SECONDS = 0.002


def main(arguments: list[str]) -> int:
    samples: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SECONDS):
            samples.append(_anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return run(arguments)
    finally:
        ended.set()
        watcher.join()
        sys.stderr.write(f"{max(samples)} {len(samples)}\n")


def _anonymous_memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("the kernel does not tell RssAnon")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
