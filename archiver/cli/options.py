"""Options that commands share."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.crypto.recipients import Identity
    from archiver.operations.access import AccessOptions

F = TypeVar("F", bound=Callable[..., Any])
IDENTITY_VARIABLE = "ARCHIVER_IDENTITY_FILE"


class PathArgument(click.Path):
    """A path. Empty text, as an unset variable of a script gives, is refused: it would mean the working directory."""

    def __init__(self, *, dir_okay: bool = True) -> None:
        super().__init__(path_type=Path, dir_okay=dir_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


def _rate(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """The bytes a second that an option names as the configuration does."""
    from archiver.config import FASTEST, SLOWEST
    from archiver.tables import parse_size, size_text

    if text is None:
        return None
    try:
        rate = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not SLOWEST <= rate <= FASTEST:
        raise click.BadParameter(f"expected a size from {size_text(SLOWEST)} to {size_text(FASTEST)}, got {text!r}")
    return rate


def _limit_option(direction: str) -> Callable[[F], F]:
    return click.option(
        f"--limit-{direction}",
        callback=_rate,
        metavar="SIZE",
        help=f"Bytes a second to {direction} at most, such as 20M.",
    )


def _workers_option(verb: str) -> Callable[[F], F]:
    return click.option("--workers", type=click.IntRange(1, 64), metavar="COUNT", help=f"Threads that {verb}.")


def upload_options(function: F) -> F:
    """``--limit-upload`` and ``--workers``: what counts before the configuration's ``[tuning]``."""
    return _limit_option("upload")(_workers_option("compress")(function))


def download_options(function: F) -> F:
    """``--limit-download`` and ``--workers``, which become part of ``access``: to be applied below
    ``access_options``."""

    @wraps(function)
    def run(*, access: "AccessOptions", workers: int | None, limit_download: int | None, **values: Any) -> Any:
        from msgspec.structs import replace

        return function(access=replace(access, workers=workers, limit_download=limit_download), **values)

    return _limit_option("download")(_workers_option("decompress")(run))  # type: ignore[return-value]


def command(name: str, *, example: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """A click command that takes ``--json``, ``--quiet`` and ``--verbose``, gets an ``output``, and shows an example.

    The function returns an exit code, or None for 0.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @wraps(function)
        def run(*, as_json: bool, quiet: bool, verbose: bool, **values: Any) -> int:
            output = click.get_current_context().ensure_object(Output)
            output.json, output.quiet, output.verbose = as_json, quiet, verbose
            with output.logged():
                return function(output=output, **values) or 0

        for option in (
            click.option("--verbose", is_flag=True, help="Say more."),
            click.option("--quiet", is_flag=True, help="Say only what was asked for, and warnings."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout."),
        ):
            option(run)
        lines = "\n".join(f"  {line}" for line in example.splitlines())
        return click.command(name, epilog=f"\b\nExample:\n{lines}")(run)

    return decorate


def config_option(function: F) -> F:
    """``--config``."""
    return click.option(
        "--config",
        type=PathArgument(dir_okay=False),
        help="The configuration; default: archiver.toml here, then /etc/archiver/archiver.toml.",
    )(function)


def access_options(function: F) -> F:
    """How to reach backups: all a blank machine needs. The function gets one ``access``: an AccessOptions.

    A passphrase is asked for before the function is called.
    """

    @wraps(function)
    def run(
        *,
        config: Path | None,
        source: str | None,
        destination: str | None,
        identity: tuple[Path, ...],
        passphrase: bool,
        kms: bool,
        verify_key: tuple[str, ...],
        trust_unsigned: bool,
        **values: Any,
    ) -> Any:
        from archiver.operations.access import AccessOptions

        options = AccessOptions(
            config=config,
            source=source,
            destination=destination,
            identity=identity or _identity_of_environment(),
            verify_keys=verify_key,
            trust_unsigned=trust_unsigned,
            passphrase=_ask() if passphrase else None,
            kms=kms,
        )
        return function(access=options, **values)

    for option in (
        click.option("--trust-unsigned", is_flag=True, help="Read backups without knowing who wrote them."),
        click.option("--verify-key", multiple=True, metavar="RW…", help="Believe backups signed by this minisign key."),
        click.option("--kms", is_flag=True, help="Open vaults with AWS KMS, with the AWS credentials of this host."),
        click.option("--passphrase", is_flag=True, help="Open vaults with a passphrase; asked for on the terminal."),
        click.option(
            "--identity",
            type=PathArgument(dir_okay=False),
            multiple=True,
            metavar="FILE",
            help="The recovery card, or an age identity file; - is standard input; may be repeated.  "
            f"[env var: {IDENTITY_VARIABLE}]",
        ),
        click.option(
            "--from", "destination", metavar="URL", help="The destination, where no configuration is at hand."
        ),
        click.option("--source", metavar="NAME", help="The source, where there are several or no configuration."),
        config_option,
    ):
        option(run)
    return run  # type: ignore[return-value]


def _identity_of_environment() -> tuple[Path, ...]:
    """The one file that the environment names. Not left to click, which would make several of a name with a space."""
    name = os.environ.get(IDENTITY_VARIABLE)
    return (Path(name),) if name else ()


def _ask() -> "Identity":
    from archiver.cli.secrets import ask_passphrase
    from archiver.crypto.passphrase import PassphraseIdentity

    return PassphraseIdentity(ask_passphrase("Passphrase: "))
