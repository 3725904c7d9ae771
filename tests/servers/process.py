"""Start a test server, wait until it is ready, leave nothing of it running. Standard library only."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 240
STOP_SECONDS = 2
REPOSITORY = Path(__file__).resolve().parents[2]
_SHARES = 4


@dataclass(frozen=True)
class S3Server:
    """A running server: where it listens and which credentials it takes."""

    endpoint: str
    access_key: str
    secret_key: str


class ServerError(Exception):
    """A test server could not be installed or started; the message holds the end of its output."""


def cache_directory() -> Path:
    """Where server installations are kept between runs: ``$ARCHIVER_CACHE`` or ``.cache`` in the repository."""
    return Path(os.environ.get("ARCHIVER_CACHE") or REPOSITORY / ".cache")


def free_ports(count: int, *, shadow: int = 0) -> int:
    """The first of ``count`` consecutive ports of 127.0.0.1 that are free, and free again at ``shadow`` above.

    They lie below the ephemeral ports, so that no outgoing connection takes one before the server does; and apart for
    each worker of pytest-xdist, so that of two that look at the same time each finds its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    share = 10_000 // _SHARES
    for _ in range(1000):
        first = 11_000 + worker * share + random.randrange(share - count)
        wanted = [first + index + above for index in range(count) for above in {0, shadow}]
        if all(_is_free(port) for port in wanted):
            return first
    raise ServerError(f"no {count} consecutive free ports found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, ready: Callable[[], bool]
) -> Iterator[None]:
    """Run ``command`` in a process group of its own until the block ends; enter once ``ready()`` is true."""
    log = directory / "output.log"
    setpriv = shutil.which("setpriv")
    # A run that is killed outright cannot stop its servers: the kernel does it.
    prefix = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*prefix, *command],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, ready, log)
        yield
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            output = log.read_text(errors="replace")[-2000:]
            raise ServerError(f"{process.args!r} did not become ready (exit status {process.returncode}):\n{output}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(STOP_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def answers(url: str, *, status: int = 200) -> bool:
    """Whether a GET of ``url`` is answered with ``status``."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as response:
            return bool(response.status == status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == status
    except OSError:
        return False
