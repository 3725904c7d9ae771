"""What ``ps`` shows of a process and of all that it starts."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import PATIENCE

_PAUSE = 0.002


class Watch:
    """Samples command lines and names of ``process`` and its descendants until it has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._seen: set[str] = set()
        self._done = threading.Event()
        # At once: a short process might be over before the thread gets its turn.
        self._look()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    @property
    def seen(self) -> str:
        """All command lines and names so far, one a line."""
        return "\n".join(sorted(self._seen))

    def wait_for(self, text: str) -> None:
        """Until ``text`` was seen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} was never seen in {self.seen}"
            time.sleep(_PAUSE)

    def end(self) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.is_set():
            self._look()
            time.sleep(_PAUSE)

    def _look(self) -> None:
        for pid in descendants(self.process.pid):
            for name in ("cmdline", "comm"):
                with contextlib.suppress(OSError):
                    data = Path(f"/proc/{pid}/{name}").read_bytes()
                    self._seen.add(data.replace(b"\0", b" ").decode("utf-8", "surrogateescape"))


def descendants(pid: int) -> Iterator[int]:
    """``pid`` and all processes below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from descendants(int(child))


@contextlib.contextmanager
def watched(process: "subprocess.Popen[bytes]") -> Iterator[Watch]:
    """Watch ``process`` during the block, at the end of which it is waited for."""
    watch = Watch(process)
    try:
        with process:
            yield watch
    finally:
        watch.end()
