"""Secrets that a person types: asked for on the terminal itself, and never shown on it."""

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from archiver.errors import UsageError

TERMINAL = "/dev/tty"
_MAX_LINE = 4096
"""Bytes; the kernel hands over no longer line of a terminal."""


def ask_passphrase(prompt: str) -> str:
    """Ask for a passphrase on the terminal, whatever standard input and output are, without showing what is typed.

    Nothing is ever read from standard input instead. Raises ``UsageError`` where there is no terminal, and for an
    answer that is empty or not UTF-8.
    """
    with _terminal() as terminal:
        answer = _ask(terminal, prompt)
    if not answer:
        raise UsageError("no passphrase was given")
    return answer


def ask_new_passphrase(prompt: str) -> str:
    """Ask for a passphrase that is to be used from now on: twice, and both answers must be the same.

    Raises ``UsageError`` as ``ask_passphrase`` does, for one that is too short, and for two that differ.
    """
    from archiver.crypto.passphrase import PassphraseRecipient

    with _terminal() as terminal:
        answer = _ask(terminal, prompt)
        # One that is too short is refused before it is asked for again.
        PassphraseRecipient(answer)
        again = _ask(terminal, "The same again: ")
    if answer != again:
        raise UsageError("the two passphrases differ", hint="Run the command again.")
    return answer


@contextmanager
def _terminal() -> Iterator[int]:
    """The terminal of this process, which shows nothing that is typed meanwhile."""
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise UsageError(
            "cannot ask for a passphrase: there is no terminal",
            hint="Run archiver in a terminal (docker run -it, ssh -t), or use an identity file, which needs none.",
        ) from None
    try:
        before = termios.tcgetattr(terminal)
        silent = termios.tcgetattr(terminal)
        silent[3] &= ~termios.ECHO
        # TCSAFLUSH drops what was typed before the question: it was shown, and may be meant for something else.
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        try:
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    finally:
        os.close(terminal)


def _ask(terminal: int, prompt: str) -> str:
    os.write(terminal, prompt.encode())
    try:
        typed = os.read(terminal, _MAX_LINE)
    finally:
        # The line feed that was typed is not shown either; after Ctrl-C the message is to begin a line.
        os.write(terminal, b"\n")
    answer = None
    # Outside of the block, so that our error does not carry what was typed.
    with suppress(UnicodeDecodeError):
        answer = typed.removesuffix(b"\n").decode()
    if answer is None:
        raise UsageError("the passphrase is not utf-8 text", hint="Set the terminal to UTF-8.")
    return answer
