"""Copies that a command makes: what it writes is kept, private, for the block, and however it ends nothing is left."""

import os
import resource
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from archiver.environment import external
from archiver.environment.external import external_copy, remove_leftovers
from archiver.environment.verification import verify_structure
from archiver.errors import ArchiverError, PinGivenUpError, SourceError
from tests.environment.live import counters, make_environment, open_descriptors, read_content, writer
from tests.waiting import PATIENCE, wait_until

ORIGINAL = Path("/srv/graph")
SECRET = "password=do-not-show-this"
LONG = 600
"""Seconds that nothing here takes."""


def never() -> str | None:
    return None


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script, SECRET)


def copy(command: tuple[str, ...], workspace: Path, seconds: int = LONG) -> bytes:
    with external_copy(command, ORIGINAL, workspace, seconds=seconds, give_way=never) as directory:
        return (directory / "data.mdb").read_bytes()


def refusal(
    command: tuple[str, ...], workspace: Path, seconds: int = LONG, give_way: Callable[[], str | None] = never
) -> ArchiverError:
    """The error that ``command`` leads to; the block must not be entered."""
    with (
        pytest.raises(ArchiverError) as caught,
        external_copy(command, ORIGINAL, workspace, seconds=seconds, give_way=give_way),
    ):
        pytest.fail("there is no copy")
    return caught.value


def running(marker: str) -> list[int]:
    """Pids of the living processes that have ``marker`` among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            alive = path.joinpath("stat").read_text().rpartition(") ")[2][0] != "Z"
            if alive and marker.encode() in path.joinpath("cmdline").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def children() -> set[int]:
    """Pids of the processes that this one has started and not waited for: a server of other tests may be among them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(path.joinpath("stat").read_text().rpartition(") ")[2].split()[1]) == os.getpid():
                found.add(int(path.name))
    return found


def once_there(path: Path) -> Callable[[], str | None]:
    """A reason to give way, as soon as the command has made ``path``."""
    return lambda: "it is ready" if path.exists() else None


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    descriptors, processes = open_descriptors(), children()
    yield
    assert list(tmp_path.glob("external-*")) == []
    assert open_descriptors() == descriptors
    assert children() <= processes


def test_what_mdb_copy_writes_is_the_environment(tmp_path: Path) -> None:
    original = make_environment(tmp_path / "environment", entries=4000, value_size=300)
    command = ("mdb_copy", "-c", str(original))
    with external_copy(command, original, tmp_path, seconds=LONG, give_way=never) as directory:
        assert directory.parent == tmp_path
        assert [path.name for path in directory.iterdir()] == ["data.mdb"]
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "data.mdb").stat().st_mode) == 0o600
        verify_structure(directory / "data.mdb")
        assert read_content(directory / "data.mdb") == read_content(original / "data.mdb")
    assert not directory.exists()


def test_beside_a_busy_writer_it_is_a_snapshot(tmp_path: Path) -> None:
    original = tmp_path / "environment"
    with writer(original, "busy") as live:
        for _ in range(3):
            before = int(str(live.ask("commit")))
            command = ("mdb_copy", "-c", str(original))
            with external_copy(command, original, tmp_path, seconds=LONG, give_way=never) as directory:
                verify_structure(directory / "data.mdb")
                left, right, newest = counters(directory / "data.mdb")
            assert left == right == newest
            assert before <= left <= int(str(live.ask("commit")))


def test_every_byte_arrives_in_order_and_a_flood_of_messages_does_not_block(tmp_path: Path) -> None:
    script = """
import sys
for n in range(300):
    sys.stdout.buffer.write(bytes([n % 251]) * 9999)
    sys.stderr.write("x" * 9999)
"""
    assert copy((sys.executable, "-c", script), tmp_path) == b"".join(bytes([n % 251]) * 9999 for n in range(300))


def test_the_block_decides_how_long_the_copy_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError, match="of the block"),
        external_copy(shell("echo data"), ORIGINAL, tmp_path, seconds=LONG, give_way=never) as directory,
    ):
        assert (directory / "data.mdb").read_bytes() == b"data\n"
        raise KeyError("of the block")


def test_a_background_process_that_still_writes_is_waited_for(tmp_path: Path) -> None:
    assert copy(shell("(sleep 0.5; echo late) & echo early"), tmp_path) == b"early\nlate\n"


def test_a_background_process_that_only_keeps_stderr_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "_GRACE", float(LONG))
    assert copy(("sh", "-c", "tail -f /dev/null external-marker-1 >/dev/null & echo data"), tmp_path) == b"data\n"
    assert running("external-marker-1") == []


def test_a_background_process_in_a_group_of_its_own_is_ended(tmp_path: Path) -> None:
    script = "set -m; tail -f /dev/null external-marker-6 >/dev/null 2>&1 & echo data"
    assert copy(("bash", "-c", script), tmp_path) == b"data\n"
    # The system takes a moment to end what was killed.
    wait_until(lambda: running("external-marker-6") == [])


def test_a_process_is_told_once_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal could cut its clean-up short."""
    monkeypatch.setattr(external, "_GRACE", PATIENCE)
    trace = tmp_path / "trace"
    until_told = f"until [ $(grep -c told {trace}) -ge 2 ]; do sleep 0.1; done; sleep 0.5"
    loop = f"trap 'echo told >> {trace}' TERM; echo ready >> {trace}; {until_told}"

    def ready() -> str | None:
        return "they are ready" if trace.exists() and trace.read_text() == "ready\nready\n" else None

    refusal(("bash", "-c", f"set -m; ({loop}) & {loop}"), tmp_path, give_way=ready)
    assert trace.read_text() == "ready\nready\ntold\ntold\n"


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo partial; echo first >&2; echo 'no such host' >&2; echo >&2; exit 3", "got 3: no such host"),
        ("echo partial; exit 1", "got 1"),
        ("echo partial; exec >&-; sleep 0.3; exit 4", "got 4"),
        ("echo partial; kill -9 $$", "got signal 9"),
        (r"printf 'a\033[31m\377b' >&2; exit 1", r"got 1: a\x1b[31m\xffb"),
    ],
)
def test_a_command_that_fails(tmp_path: Path, script: str, found: str) -> None:
    error = refusal(shell(script), tmp_path)
    assert isinstance(error, SourceError)
    assert error.message == (f"'sh', the external command for {ORIGINAL}, failed: expected exit status 0, {found}")


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("error -30794 (MDB_VERSION_MISMATCH: Database environment version mismatch)", "the server's own LMDB"),
        ("failed: MDB_VERSION_MISMATCH", "the server's own LMDB"),
        ("mdb_copy: error -30794", "the server's own LMDB"),
        ("no such host", "Run it by hand"),
    ],
)
def test_what_to_do_about_a_command_that_fails(tmp_path: Path, said: str, hint: str) -> None:
    assert hint in (refusal(shell(f"echo {shlex.quote(said)} >&2; exit 1"), tmp_path).hint or "")


def test_a_failure_is_told_at_once_whatever_the_command_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "_GRACE", float(LONG))
    assert "got 1" in refusal(("sh", "-c", "tail -f /dev/null external-marker-2 & exit 1"), tmp_path).message
    assert running("external-marker-2") == []


def test_only_the_end_of_what_it_says_is_kept(tmp_path: Path) -> None:
    error = refusal(shell("(echo first; yes 0123456789 | head -c 200000) | tr -d '\\n' >&2; exit 1"), tmp_path)
    assert len(error.message) < 500
    assert "first" not in error.message


def test_a_command_that_writes_nothing(tmp_path: Path) -> None:
    error = refusal(shell("echo 'nothing to do' >&2"), tmp_path)
    assert isinstance(error, SourceError)
    assert "wrote nothing to its standard output, expected a copy: nothing to do" in error.message
    assert "mdb_copy -c" in str(error.hint)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("no-such-program-anywhere", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("sh", "a character that cannot be passed on"),
    ],
)
def test_a_command_that_cannot_be_started_is_named_without_its_arguments(
    tmp_path: Path, program: str, reason: str
) -> None:
    error = refusal((program, SECRET, "\0"[: program == "sh"]), tmp_path)
    assert isinstance(error, SourceError)
    assert f"{program!r}, the external command for {ORIGINAL}, cannot be started: " in error.message
    assert reason in error.message
    assert error.__context__ is None


@pytest.mark.parametrize("script", ["exit 1", "true", f"sleep {LONG}"])
def test_no_message_shows_an_argument(tmp_path: Path, script: str) -> None:
    error = refusal(shell(script), tmp_path, seconds=1)
    assert SECRET not in f"{error.message} {error.hint}"
    assert script not in f"{error.message} {error.hint}"


def test_a_reason_to_give_way_ends_the_command(tmp_path: Path) -> None:
    asked = 0

    def third_time() -> str | None:
        nonlocal asked
        asked += 1
        return "the map is nearly full" if asked == 3 else None

    command = ("sh", "-c", "yes external-marker-3 external-marker-3")
    error = refusal(command, tmp_path, give_way=third_time)
    assert isinstance(error, PinGivenUpError)
    assert error.message == f"'sh', the external command for {ORIGINAL}, was ended: the map is nearly full"
    assert asked == 3
    assert running("external-marker-3") == []


def test_a_command_that_is_silent_is_asked_about_too(tmp_path: Path) -> None:
    answers = iter([None] * 5)
    error = refusal(shell(f"sleep {LONG}"), tmp_path, give_way=lambda: next(answers, "now"))
    assert isinstance(error, PinGivenUpError)


def test_the_time_limit_ends_the_command(tmp_path: Path) -> None:
    error = refusal(shell(f"sleep {LONG}"), tmp_path, seconds=1)
    assert isinstance(error, PinGivenUpError)
    assert "expected a copy within 1 seconds" in error.message


def test_what_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "_GRACE", 0.5)
    script = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); open(sys.argv[1], 'w'); time.sleep(600)"
    ready = tmp_path / "ready"
    refusal((sys.executable, "-c", script, str(ready), "external-marker-4"), tmp_path, give_way=once_there(ready))
    assert running("external-marker-4") == []


def test_the_command_may_clean_up_when_it_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "_GRACE", PATIENCE)
    trace, ready = tmp_path / "trace", tmp_path / "ready"
    clean_up = f"sleep 0.3; echo cleaned > {trace}; exit"
    command = ("sh", "-c", f"trap '{clean_up}' TERM; touch {ready}; while :; do sleep 0.1; done")
    refusal(command, tmp_path, give_way=once_there(ready))
    assert trace.read_text() == "cleaned\n"


def test_a_disk_that_is_full_is_told_as_such(tmp_path: Path) -> None:
    """The limit on the size of files stands for the disk: the same system call fails in the same place."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        error = refusal(("yes", SECRET), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(error, SourceError)
    assert f"was ended: cannot write its copy to {tmp_path}: file too large" in error.message
    assert "Make room" in str(error.hint)


def test_a_disk_that_is_nearly_full_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    looks = 0

    def fill(path: Path) -> object:
        nonlocal looks
        assert path == tmp_path
        looks += 1
        free = disk.f_blocks // 20 + (1 if looks < 10 else -1)
        return SimpleNamespace(f_blocks=disk.f_blocks, f_bavail=free)

    monkeypatch.setattr(os, "statvfs", fill)
    error = refusal(("yes", "external-marker-7"), tmp_path)
    assert type(error) is SourceError
    assert f"was ended: less than 5 % of the disk of {tmp_path} is left free" in error.message
    assert looks == 10
    assert running("external-marker-7") == []


def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(shell("echo data"), tmp_path / "nowhere")
    assert isinstance(error, SourceError)
    assert f"cannot make a directory for an external copy in {tmp_path / 'nowhere'}" in error.message


def test_it_has_a_session_of_its_own_no_input_and_none_of_our_descriptors(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', os.listdir('/proc/self/fd'))"
    with (tmp_path / "ours").open("wb") as ours:
        os.set_inheritable(ours.fileno(), True)
        seen = copy((sys.executable, "-c", script), tmp_path).decode()
    # The fourth is the listing's own.
    assert seen == "True True ['0', '1', '2', '3']\n"


KILLED = """
import sys
from pathlib import Path
from archiver.environment.external import external_copy

command = ("sh", "-c", "while :; do echo data; sleep 0.05; done", sys.argv[2])
with external_copy(command, Path("/srv/graph"), Path(sys.argv[1]), seconds=600, give_way=lambda: None):
    pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_when_archiver_ends_so_does_the_command(tmp_path: Path, number: signal.Signals) -> None:
    marker = f"external-marker-5-{number}"
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), marker]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as archiver:
        # archiver itself has the marker among its arguments too.
        try:
            wait_until(lambda: len(running(marker)) == 2 and any(tmp_path.glob("external-*/data.mdb")))
            archiver.send_signal(number)
            archiver.wait(PATIENCE)
        finally:
            archiver.kill()
    wait_until(lambda: running(marker) == [])
    assert [path.is_dir() for path in tmp_path.glob("external-*")] == [True] * (number == signal.SIGKILL)
    remove_leftovers(tmp_path)


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("external-a", "external-b", "internal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(b"x")
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["internal"]
    remove_leftovers(tmp_path / "nowhere")


def test_a_leftover_that_cannot_be_removed_is_an_error(tmp_path: Path) -> None:
    link = tmp_path / "external-link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"cannot remove .*external-link"):
        remove_leftovers(tmp_path)
    link.unlink()
