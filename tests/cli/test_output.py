"""What is shown while work is under way."""

import io
import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress

import pytest

from archiver.cli.output import Output


class Screen:
    """The person's side of a terminal; ``seen`` is all that it has shown."""

    def __init__(self, person: int) -> None:
        self._person = person
        self.seen = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # A terminal that nobody has open any more ends so.
        with suppress(OSError):
            while data := os.read(self._person, 4096):
                self.seen += data.decode()

    def close(self) -> None:
        self._reader.join()


@contextmanager
def screen() -> Iterator[Screen]:
    """stderr is a terminal meanwhile."""
    person, line = pty.openpty()
    it = Screen(person)
    try:
        with os.fdopen(line, "w") as stream, redirect_stderr(stream):
            yield it
    finally:
        it.close()
        os.close(person)


def noted(output: Output, *phases: tuple[str, int | None]) -> str:
    errors = io.StringIO()
    with redirect_stderr(errors), output.progress():
        for phase in phases:
            output.phase(*phase)
            output.advance(1)
    return errors.getvalue()


def test_a_log_has_a_line_for_each_phase() -> None:
    said = noted(Output(), ("environment graph", 3 << 20), ("media", None), ("upload", 5 << 30))
    assert said == "environment graph (3.00 MiB)\nmedia\nwaiting for 5.00 GiB to be sent\n"


def test_quiet_and_json_say_nothing() -> None:
    for output in (Output(quiet=True), Output(json=True)):
        assert noted(output, ("media", None), ("upload", 1)) == ""


def test_the_bar_is_full_when_all_is_done_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    output = Output()
    with screen() as shown, output.progress():
        assert output._progress is not None
        output.phase("environment graph", 100)
        output.advance(60)
        output.advance(40)
        (task,) = output._progress.tasks
        assert (task.description, task.percentage) == ("environment graph", 100)
        output.phase("upload", 1 << 20)
        output.advance(1 << 20)
        output._progress.refresh()
        (task,) = output._progress.tasks
        assert task.percentage == 100
    output.advance(1)
    assert "waiting for 1.00 MiB to be sent" in shown.seen
    assert "1.0/1.0 MiB" in shown.seen


def test_threads_that_are_late_do_not_meet_a_phase_that_is_over() -> None:
    output = Output()
    done = threading.Event()
    problems: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                output.advance(1)
        except BaseException as error:  # noqa: BLE001 - it is what the test looks for
            problems.append(error)

    with screen(), output.progress():
        assert output._progress is not None
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(300):
            output.phase(f"phase {number}", 1000)
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
