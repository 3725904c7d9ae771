"""A process with a terminal of its own, as a person has it, and what that person types and sees."""

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.operations.scene import Done
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE

ARCHIVER = "from archiver.cli.main import main; main()"
_TAKE_TERMINAL = "import fcntl, sys, termios; fcntl.ioctl(int(sys.argv.pop(1)), termios.TIOCSCTTY, 0)\n"


class Terminal:
    """The person's side: ``seen`` is all that the terminal has shown."""

    def __init__(self) -> None:
        self._person, self.line = pty.openpty()
        self.seen = b""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, script: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        """Run Python's ``script`` with this as its terminal; its standard streams lead elsewhere."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL + script, str(self.line), *arguments],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, pass_fds=[self.line], env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip

    def type(self, text: bytes) -> None:
        os.write(self._person, text)

    def answer(self, prompt: str, text: str) -> None:
        """Type a line when ``prompt`` is there."""
        self.expect(prompt)
        self.type(f"{text}\n".encode())

    def expect(self, text: str) -> None:
        """Wait until ``text`` comes into sight after what was expected before."""
        start = len(self.seen)
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen[start:]:
            assert time.monotonic() < deadline, (text, self.seen)
            self._look(1.0)

    def finish(self) -> Done:
        """Wait for the end of the process, and see all that it showed."""
        assert self.process is not None
        output, errors = self.process.communicate(timeout=PATIENCE)
        while self._look(0):
            pass
        return Done(self.process.returncode, output, errors.decode())

    @property
    def shows_what_is_typed(self) -> bool:
        return bool(termios.tcgetattr(self.line)[3] & termios.ECHO)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        os.close(self._person)
        os.close(self.line)

    def _look(self, patience: float) -> bool:
        if not select.select([self._person], [], [], patience)[0]:
            return False
        self.seen += os.read(self._person, 4096)
        return True


@contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal, and the end of what runs in it."""
    it = Terminal()
    try:
        yield it
    finally:
        it.close()


def typed(arguments: Sequence[str], *answers: tuple[str, str]) -> Done:
    """Run archiver in a terminal, and give each answer to its prompt; nothing of them may be shown."""
    with terminal() as person:
        person.start(ARCHIVER, *arguments)
        for prompt, answer in answers:
            person.answer(prompt, answer)
        done = person.finish()
        assert not any(answer.encode() in person.seen for _, answer in answers)
        assert not any(answer in done.output + done.errors for _, answer in answers)
        return done
