"""Virtual environments for test servers, each apart from the project's own. Standard library only."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import ServerError, cache_directory


def ensure_environment(name: str, requirements: Sequence[str], constraints: Sequence[str] = ()) -> Path:
    """The ``bin`` directory of a virtual environment that holds exactly ``requirements``; made once, under a lock."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    home = cache / name
    wanted = "\n".join((sys.version, *requirements, *constraints)) + "\n"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = home / "complete"
        if not complete.is_file() or complete.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            sys.stderr.write(f"Installing {name} into {cache} (once) ...\n")
            _install(home, requirements, constraints)
            complete.write_text(wanted)
    return home / "bin"


def _install(home: Path, requirements: Sequence[str], constraints: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", str(home)])
    listing = home / "constraints.txt"
    listing.write_text("".join(f"{line}\n" for line in constraints))
    pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--constraint", str(listing), *requirements])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ServerError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
