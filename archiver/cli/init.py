"""``archiver init``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli.options import PathArgument, command
from archiver.cli.output import Output
from archiver.errors import FormatError, UsageError

if TYPE_CHECKING:
    from archiver.crypto.keys import PublicKey


@command(
    "init",
    example="archiver init --to 's3://backups/prod?region=eu-central-1' --source ucotron-prod \\\n"
    "  --ucotron-config /etc/ucotron/ucotron.toml",
)
@click.option("--to", "destination", required=True, metavar="URL", help="file:///path or s3://bucket/prefix?region=….")
@click.option("--source", required=True, metavar="NAME", help="What to call the thing that is backed up.")
@click.option(
    "--environment", "environments", multiple=True, metavar="NAME=DIR", help="An LMDB environment; may be repeated."
)
@click.option("--media", type=PathArgument(), help="The directory of media files.")
@click.option("--ucotron-config", type=PathArgument(), help="Take all of this from a ucotron.toml.")
@click.option("--operator", default="operator", show_default=True, help="A name for who may restore.")
@click.option("--recipient", metavar="age1…", help="The operator's recipient; default: make a new key for the card.")
@click.option("--config", type=PathArgument(), default=Path("archiver.toml"), show_default=True, help="What to write.")
@click.option("--card", type=PathArgument(), help="Where; default: recovery-card-SOURCE.txt.")
def init(
    *,
    output: Output,
    destination: str,
    source: str,
    environments: tuple[str, ...],
    media: Path | None,
    ucotron_config: Path | None,
    operator: str,
    recipient: str | None,
    config: Path,
    card: Path | None,
) -> None:
    """Set up a source: its vault, a signing key, the configuration, and the recovery card.

    The recovery card is the one thing that opens the backups: print it or move it offline, and delete it here.
    """
    from archiver.operations.init import InitRequest
    from archiver.operations.init import init as initialise

    request = InitRequest(
        config=config,
        destination=destination,
        source=source,
        operator=operator,
        card=card or Path(f"recovery-card-{source}.txt"),
        recipient=None if recipient is None else _recipient(recipient),
        environments=_environments(environments),
        media=None if media is None else media.absolute(),
        ucotron_config=None if ucotron_config is None else ucotron_config.absolute(),
    )
    result = initialise(request)
    output.document(
        {
            "config": str(result.config),
            "signing_key": str(result.signing_key),
            "recovery_card": str(result.card),
            "vault": result.vault,
            "vault_key": result.vault_key,
        }
    )
    output.line(f"configuration   {result.config}")
    output.line(f"signing key     {result.signing_key} (stays on this host, secret)")
    output.line(f"vault           {result.vault}, sealed at {result.vault_key}")
    output.line(f"recovery card   {result.card}")
    if recipient is None and sys.stdout.isatty():
        output.line()
        output.line(result.card_text.rstrip())
    output.line()
    if recipient is None:
        output.line(
            "Move the recovery card offline now, to two places, and delete it here: it alone opens the backups."
        )
    else:
        output.line("Keep the recovery card with the operator's secret key: the two together open the backups.")
    output.line(f"Next: archiver doctor --config {result.config}, then archiver backup {source}")


def _recipient(text: str) -> "PublicKey":
    from archiver.crypto.keys import parse_recipient

    try:
        return parse_recipient(text)
    except FormatError as error:
        raise UsageError(
            f"invalid --recipient: {error.message}", hint="Give the age1… line that archiver keys generate prints."
        ) from None


def _environments(texts: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path or name in found:
            raise UsageError(
                f"invalid --environment {text!r}", hint="Write NAME=DIR, each name once, such as vector=/app/data."
            )
        found[name] = Path(path).absolute()
    return found
