"""The stock ``aws`` command, in an environment of its own."""

from pathlib import Path

from tests.servers.installation import ensure_environment

REQUIREMENTS = ("awscli==1.45.11",)


def install() -> Path:
    """The ``bin`` directory of the environment that holds it; made once."""
    return ensure_environment("aws-venv", REQUIREMENTS)
