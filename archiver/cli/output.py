"""What the commands print, for people and for machines, and how errors become exit codes.

People: results on stdout; progress, events and warnings on stderr. Machines (``--json``): one document on stdout, or
JSON lines where a command reports events.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from archiver.cli import human
from archiver.cli.redaction import MISPLACED, redacted
from archiver.errors import ArchiverError
from archiver.progress import UPLOAD

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

WARNINGS_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything that cleans up after Ctrl-C cleans up after this too."""


class Output:
    """Prints for one command; implements archiver.progress.Reporter.

    ``withheld`` is what no message repeats, beside secret keys.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        withheld: re.Pattern[str] | None = None,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.withheld = withheld
        self.warnings = 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._lock = threading.Lock()

    def line(self, text: str = "") -> None:
        """A line of the result, for people."""
        if not self.json:
            self._write(sys.stdout, text)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Aligned columns, those in ``right`` to the right."""
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        for row in (header, *rows):
            cells = [
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.line("  ".join(cells).rstrip())

    def document(self, value: object) -> None:
        """The result, for machines."""
        if self.json:
            self._write(sys.stdout, json.dumps(value, default=str))

    def note(self, text: str) -> None:
        """A line on stderr for people who did not ask for quiet."""
        if not self.json and not self.quiet:
            self._write(sys.stderr, text)

    def detail(self, text: str) -> None:
        """A line on stderr for people who asked for more."""
        if self.verbose:
            self.note(text)

    def error(self, message: str, hint: str | None, exit_code: int) -> None:
        """Why the command failed: one line, and what to do next."""
        if redacted(message) != message:
            hint = MISPLACED
        message, hint = self._without_secrets(message), hint and self._without_secrets(hint)
        if self.json:
            problem = {"message": message, "hint": hint, "exit_code": exit_code}
            self._write(sys.stdout, json.dumps({"error": problem}))
            return
        self._write(sys.stderr, f"archiver: {message}")
        if hint:
            self._write(sys.stderr, f"hint: {hint}")

    def trace(self, error: BaseException) -> None:
        """Where a bug showed itself."""
        import traceback

        self._write(sys.stderr, "".join(traceback.format_exception(error)).rstrip())

    # The Reporter protocol.

    def phase(self, name: str, total: int | None = None) -> None:
        line = _phase_line(name, total)
        with self._lock:
            if self._progress is not None:
                if self._task is not None:
                    self._progress.remove_task(self._task)
                self._task = self._progress.add_task(line if name == UPLOAD else name, total=total)
                return
        self.note(line)

    def advance(self, count: int) -> None:
        # Locked, because a thread that is late may meet the beginning of the next phase.
        with self._lock:
            if self._progress is not None and self._task is not None:
                self._progress.advance(self._task, count)

    def event(self, name: str, **details: object) -> None:
        if self.json and self.verbose:
            self._write(sys.stderr, json.dumps({"event": name, **details}, default=str))
        else:
            self.detail(f"{name}: " + ", ".join(f"{key} {value}" for key, value in details.items()))

    def warn(self, message: str) -> None:
        self.warnings += 1
        self._write(sys.stderr, f"warning: {message}")

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a progress bar on stderr meanwhile, if a person watches."""
        if self.json or self.quiet or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            self._progress = progress
            try:
                yield
            finally:
                with self._lock:
                    self._progress = self._task = None

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Meanwhile note what archiver's own modules log as a warning, such as a request that fails again and again."""
        handler = _Notes(self)
        logger = logging.getLogger("archiver")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)

    def exit_code(self) -> int:
        """0, or 3 when there were warnings."""
        return WARNINGS_EXIT_CODE if self.warnings else 0

    def _without_secrets(self, text: str) -> str:
        text = redacted(text)
        return text if self.withheld is None else self.withheld.sub("[not shown]", text)

    def _write(self, stream: TextIO, text: str) -> None:
        if stream is sys.stderr:
            text = self._without_secrets(text)
        printable = _printable(text, stream.encoding or "utf-8")
        if self._progress is not None and stream is sys.stderr:
            self._progress.console.print(printable, markup=False, highlight=False)
            return
        stream.write(printable + "\n")
        stream.flush()


class _Notes(logging.Handler):
    """Hands what is logged to an Output."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(record.getMessage())


def _phase_line(name: str, total: int | None) -> str:
    """The beginning of a phase, for people; ``total`` are its bytes."""
    if total is None:
        return name
    return f"waiting for {human.size(total)} to be sent" if name == UPLOAD else f"{name} ({human.size(total)})"


def _printable(text: str, encoding: str) -> str:
    """``text`` with escapes for what a terminal cannot show, or would obey: a file name in a backup may be anything."""
    encodable = text.encode(encoding, "backslashreplace").decode(encoding)
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in encodable)


def report(output: Output, error: BaseException) -> int:
    """Print what went wrong; returns the exit code."""
    if isinstance(error, Terminated):
        output.error("terminated", None, TERMINATED_EXIT_CODE)
        return TERMINATED_EXIT_CODE
    if isinstance(error, KeyboardInterrupt):
        output.error("interrupted", None, INTERRUPTED_EXIT_CODE)
        return INTERRUPTED_EXIT_CODE
    if isinstance(error, ArchiverError):
        output.error(error.message, error.hint, error.exit_code)
        return error.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        output.error(f"{where}{error.strerror.lower()}", None, 1)
        return 1
    if output.verbose:
        output.trace(error)
    output.error(
        f"internal error: {type(error).__name__}: {error}",
        "This is a bug in archiver: run again with --verbose and report what it prints.",
        1,
    )
    return 1
