"""The file that a command about keys creates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from archiver.cli.options import PathArgument
from archiver.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
_STANDARD_OUTPUT = Path("-")


def output_option(function: F) -> F:
    """``--output``, as ``path``. A dash is refused: what it asks for, a secret on a terminal or in a pipe, is not done,
    and a file of that name would be taken for standard input by ``--identity``."""

    def check(_: click.Context, __: click.Parameter, path: Path) -> Path:
        if path == _STANDARD_OUTPUT:
            raise UsageError(
                "expected the name of a file to create for --output, got -",
                hint="A secret goes into a file of mode 0600 only: give its name.",
            )
        return path

    return click.option(
        "--output",
        "path",
        type=PathArgument(),
        required=True,
        callback=check,
        help="The file to create, mode 0600.",
    )(function)
