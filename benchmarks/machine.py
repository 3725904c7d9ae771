"""What the figures were measured on."""

import os
import platform
import subprocess
import tempfile
from pathlib import Path

from tests.servers import seaweed
from tests.servers.process import REPOSITORY


def description() -> str:
    """Processor, memory, system and Python in one line."""
    return (
        f"{_processor()}, {os.cpu_count()} processors, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory, "
        f"{_output('findmnt', '-n', '-o', 'FSTYPE', '-T', tempfile.gettempdir())}, "
        f"Linux {platform.release()}, {platform.freedesktop_os_release()['PRETTY_NAME']}, "
        f"Python {platform.python_version()}"
    )


def own_versions() -> dict[str, str]:
    """Of what is no contender's program: the source tree and the server."""
    git = ("git", "--no-optional-locks", "-C", str(REPOSITORY))
    commit = _output(*git, "rev-parse", "--short", "HEAD")
    changed = _output(*git, "status", "--porcelain", "--", "archiver")
    return {
        "commit": f"{commit} and changes" if changed else commit,
        "SeaweedFS": _output(str(seaweed.install() / "weed"), "version").splitlines()[0],
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
