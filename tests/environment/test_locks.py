"""Who has an environment open, told without disturbing anyone."""

import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from archiver.environment.locks import LockState, inspect_lock, opened_with_locking
from archiver.environment.snapshot import pin
from archiver.errors import SourceError
from tests.environment.live import heed_holder, make_environment, writer


def test_no_lock_file(tmp_path: Path) -> None:
    assert inspect_lock(tmp_path) == LockState()


def test_a_lock_file_left_behind(tmp_path: Path) -> None:
    make_environment(tmp_path)
    state = inspect_lock(tmp_path)
    assert (state.present, state.version, state.live, state.holder, state.writable) == (True, 1, False, None, True)


def test_a_live_process_is_seen_and_stays_seen_until_it_is_killed(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        for _ in range(3):
            state = inspect_lock(tmp_path)
            assert (state.version, state.live, state.holder) == (1, True, live.pid)
            assert f"pid {live.pid}" in state.holder_text
        assert isinstance(live.ask("commit"), int)
        live.kill()
    assert not inspect_lock(tmp_path).live


def test_lock_version_2(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with heed_holder(tmp_path) as live:
        state = inspect_lock(tmp_path)
        assert (state.version, state.live, state.holder) == (2, True, live.pid)
    state = inspect_lock(tmp_path)
    assert (state.version, state.live) == (2, False)


def test_a_process_that_does_not_show_its_pid(tmp_path: Path) -> None:
    make_environment(tmp_path)
    program = (
        "import fcntl, os, struct, sys; fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('@hhqqi4x', fcntl.F_RDLCK, 0, 0, 1, 0))\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock.mdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        state = inspect_lock(tmp_path)
        assert (state.live, state.holder, state.holder_text) == (True, None, "a live process")


@pytest.mark.parametrize("content", [b"", b"short", b"not the magic number of LMDB" * 10])
def test_a_lock_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.mdb").write_bytes(content)
    state = inspect_lock(tmp_path)
    assert (state.present, state.format_word, state.version, state.live) == (True, None, None, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
@pytest.mark.parametrize(("mode", "outcome"), [(0o600, "SourceError"), (0o644, "False"), (0o666, "True")])
def test_permissions_decide_on_writable(tmp_path: Path, mode: int, outcome: str) -> None:
    make_environment(tmp_path)
    (tmp_path / "lock.mdb").chmod(mode)
    tmp_path.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path; from archiver.environment.locks import inspect_lock\n"
        "os.chdir(sys.argv[1]); os.setresuid(65534, 65534, 65534)\n"
        "try: print(inspect_lock(Path('.')).writable)\n"
        "except Exception as error: print(type(error).__name__, error.hint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith(outcome)


def test_the_file_is_never_opened_while_this_process_has_locks_on_it(tmp_path: Path) -> None:
    with writer(tmp_path), pin(tmp_path, name="x"):
        for path in (tmp_path, tmp_path / ".." / tmp_path.name):
            with pytest.raises(AssertionError, match="must not be opened twice"):
                inspect_lock(path)
        with pytest.raises(AssertionError, match="must not be opened twice"), opened_with_locking(tmp_path):
            pass
    assert not inspect_lock(tmp_path).live


def test_this_process_is_seen_by_others_while_it_pins(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from archiver.environment.locks import inspect_lock\n"
    program += "print(inspect_lock(Path(sys.argv[1])).live)"
    with writer(tmp_path) as live, pin(tmp_path, name="x"):
        live.kill()
        answer = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
        assert answer.stdout == "True\n"
    assert not inspect_lock(tmp_path).live


def test_an_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"cannot tell whether .* is in use"):
        inspect_lock(tmp_path / "file")


def test_lmdb_can_open_while_the_state_is_being_asked_for(tmp_path: Path) -> None:
    make_environment(tmp_path)
    inspect_lock(tmp_path)
    with lmdb.open(str(tmp_path), lib_version=0) as environment:
        assert environment.info()["last_txnid"] > 0
