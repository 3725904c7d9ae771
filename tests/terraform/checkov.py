"""checkov in an environment of its own: its requirements and ours do not go together. Standard library only."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.servers.installation import ensure_environment

REQUIREMENTS = ("checkov==3.3.30",)
_NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: whatever would go online fails at once."""


def install() -> Path:
    """The ``bin`` directory of the environment that holds checkov; made once."""
    return ensure_environment("checkov-venv", REQUIREMENTS)


def scan(directory: Path) -> list[dict[str, Any]]:
    """The failed checks of ``directory``, by its own .checkov.yaml; ``ValueError`` when checkov itself failed."""
    command = [str(install() / "checkov"), "--directory", str(directory), "--output", "json", "--soft-fail"]
    config = directory / ".checkov.yaml"
    offline = ("--skip-download", "--download-external-modules", "false")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "HTTP_PROXY": _NOWHERE,
        "HTTPS_PROXY": _NOWHERE,
        "LOG_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [*command, "--config-file", str(config), *offline],
        env=environment,
        capture_output=True,
        text=True,
    )
    try:
        report = json.loads(done.stdout)
        results: list[dict[str, Any]] = report["results"]["failed_checks"]
        passed, errors = report["summary"]["passed"], report["summary"]["parsing_errors"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"checkov failed: {done.stdout[-1000:]}{done.stderr[-1000:]}") from None
    if done.returncode or errors or not passed:
        raise ValueError(f"checkov ended with {done.returncode}, {errors} files not parsed, {passed} checks passed")
    return results
