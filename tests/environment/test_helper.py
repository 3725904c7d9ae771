"""The helper process: whatever ends it, or the process that started it, its reader slot is free, though the pin itself
would last for an hour."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archiver.environment import snapshot as snapshots
from archiver.environment.messages import COPY, Failed, Pinned, PinRequest, Reply, decode_reply, encode
from archiver.environment.snapshot import Helper, pin
from archiver.errors import ArchiverError, FormatError, SourceError
from tests.environment.live import make_environment
from tests.environment.traces import alive, nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.waiting import PATIENCE, wait_until

MIB = 1 << 20
REPOSITORY = Path(__file__).parents[2]


class Direct:
    """A helper that is spoken to directly."""

    def __init__(self, process: "subprocess.Popen[bytes]", pipe: int) -> None:
        self.process = process
        self.pipe = pipe

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def reply(self) -> Reply | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return decode_reply(line) if line else None

    def pin(self, directory: Path, seconds: float = 3600) -> None:
        self.say(encode(PinRequest(os.fsencode(directory), None, 0.15, seconds)))
        assert isinstance(self.reply(), Pinned)

    def block_in_the_copy(self) -> None:
        """Let it copy; nobody empties the pipe."""
        self.say(COPY)
        assert os.read(self.pipe, 1)


@contextmanager
def direct() -> Iterator[Direct]:
    read_end, write_end = os.pipe()
    command = [*snapshots.COMMAND, str(write_end)]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[write_end],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        ) as process:
            os.close(write_end)
            try:
                yield Direct(process, read_end)
            finally:
                process.kill()
    finally:
        os.close(read_end)


@pytest.fixture
def live(heed_writer: Path, tmp_path: Path) -> Iterator[HeedWriter]:
    """A server whose vector environment does not fit into the copy's pipe and LMDB's buffers."""
    with HeedWriter.start(heed_writer, tmp_path / "live", only="vector", paused=True, nodes=6000) as writer:
        yield writer


@pytest.fixture
def directory(live: HeedWriter) -> Path:
    return live.directory / "vector"


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_frees_the_slot(directory: Path, number: signal.Signals, copying: bool) -> None:
    with direct() as helper:
        helper.pin(directory)
        if copying:
            helper.block_in_the_copy()
        assert len(pins(directory)) == 1
        helper.process.send_signal(number)
        wait_until(lambda: not pins(directory))
        assert helper.process.wait(PATIENCE) == 0
        reply = helper.reply()
        assert isinstance(reply, Failed)
        assert b"was told to end" in reply.message


@pytest.mark.parametrize("copying", [False, True])
def test_the_end_of_its_input_ends_it(directory: Path, copying: bool) -> None:
    with direct() as helper:
        helper.pin(directory)
        if copying:
            helper.block_in_the_copy()
        assert helper.process.stdin is not None
        helper.process.stdin.close()
        assert helper.process.wait(PATIENCE) == 0
        assert pins(directory) == []


def test_one_that_is_asked_for_nothing_ends_quietly() -> None:
    with direct() as helper:
        assert helper.process.stdin is not None
        helper.process.stdin.close()
        assert helper.process.wait(PATIENCE) == 0
        assert helper.reply() is None


_PARENT = """
import sys, time
from pathlib import Path
from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import pin
from tests.environment.traces import children
with pin(Path(sys.argv[1]), name="x") as snapshot:
    if sys.argv[2] == "copying":
        stream = copy_stream(snapshot, 1)
        next(stream)
    print(*children(), flush=True)
    time.sleep(3600)
"""


@contextmanager
def parent(directory: Path, mode: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process that pins and stalls, and the pid of its helper."""
    command = [sys.executable, "-c", _PARENT, str(directory), mode]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("mode", ["waiting", "copying"])
def test_a_parent_that_is_killed(directory: Path, mode: str) -> None:
    with parent(directory, mode) as (process, helper):
        assert len(pins(directory)) == 1
        process.kill()
        wait_until(lambda: not pins(directory))
        wait_until(lambda: not alive(helper))


def test_when_both_are_killed_the_server_reclaims_the_slot(live: HeedWriter, directory: Path) -> None:
    with parent(directory, "copying") as (process, helper):
        assert live.clear_stale() == {"vector": 0}
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(helper, signal.SIGKILL)
        process.kill()
        wait_until(lambda: not alive(helper))
        assert len(pins(directory)) == 1
        assert live.clear_stale() == {"vector": 1}
        assert pins(directory) == []
    with pin(directory, name="x") as again:
        assert again.method == "locked"


def test_ctrl_c_does_not_reach_it(live: HeedWriter, directory: Path) -> None:
    with pin(directory, name="x") as snapshot:
        helper = snapshot.helper._process.pid
        assert os.getpgid(helper) == helper != os.getpgrp()


def test_an_interrupt_while_one_starts_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_environment(tmp_path / "environment")
    start = snapshots._start

    def interrupted(write_end: int) -> "subprocess.Popen[bytes]":
        process = start(write_end)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(snapshots, "_start", interrupted)
    with nothing_left_behind(), pytest.raises(KeyboardInterrupt), pin(directory, name="x"):
        pass


def test_a_helper_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "COMMAND", (str(tmp_path / "missing"),))
    with nothing_left_behind(), pytest.raises(SourceError, match=r"process with .*/missing: no such"):
        Helper()


_SAYS = "import sys, time; sys.stdin.readline(); sys.stdout.write({!r}); sys.stdout.flush(); {}"


@pytest.mark.parametrize(
    ("word", "end", "kind", "message"),
    [
        ("Traceback\n", "time.sleep(3600)", FormatError, "wrote what is no reply"),
        ('{"type": "Pin', "", SourceError, "ended with status 0"),
        ("", "sys.exit(3)", SourceError, "the process that read .*environment ended with status 3"),
        ("", "import os; os.kill(os.getpid(), 9)", SourceError, "was ended by SIGKILL"),
        ("", "import os; os.abort()", FormatError, "is corrupt, or .* was ended by SIGABRT"),
    ],
)
def test_a_helper_that_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, end: str, kind: type[ArchiverError], message: str
) -> None:
    directory = make_environment(tmp_path / "environment")
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-c", _SAYS.format(word, end)))
    # One that does not end by itself is ended, but is given time to.
    monkeypatch.setattr(snapshots, "_PATIENCE", 0.1 if "sleep" in end else PATIENCE)
    with nothing_left_behind(), pytest.raises(kind, match=message), pin(directory, name="x"):
        pass


def test_the_users_modules_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "said.py").write_text("import sys; print('found', file=sys.stderr)")
    (tmp_path / "archiver.py").write_text("raise RuntimeError('not the archiver that runs')")
    monkeypatch.setattr(snapshots, "COMMAND", (sys.executable, "-c", "import archiver.cli, said"))
    with Helper() as helper:
        assert helper._process.wait(PATIENCE) == 0
