"""Answer a command that asks for passphrases on its terminal, as ``age`` does. Standard library only."""

import os
import select
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import PATIENCE


def answer_prompts(command: Sequence[str | Path], answers: Sequence[str], directory: Path) -> int:
    """Run ``command`` on a terminal of its own, and type an answer to each line that ends with ``: ``.

    Returns the exit status. Fails when fewer questions are asked, and after some minutes.
    """
    terminal, end = os.openpty()
    # Python's pty.fork is not for a process with threads; setsid makes the terminal the one that /dev/tty names.
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=end, stdout=end, stderr=end, cwd=directory
    ) as process:
        try:
            os.close(end)
            for answer in answers:
                _wait_for_prompt(terminal)
                os.write(terminal, answer.encode("utf-8") + b"\n")
            return process.wait(PATIENCE)
        finally:
            process.kill()
            os.close(terminal)


def _wait_for_prompt(terminal: int) -> None:
    shown = b""
    deadline = time.monotonic() + PATIENCE
    while not shown.endswith(b": "):
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no question within {PATIENCE} seconds after {shown!r}"
        shown += os.read(terminal, 4096)
