"""``archiver init``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli.operators import operator_options
from archiver.cli.options import PathArgument, command
from archiver.cli.output import Output
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.crypto.vault import OperatorKey
    from archiver.operations.init import InitResult

_LAST_WORDS = {
    None: "Move the recovery card offline now, to two places, and delete it here: it alone opens the backups.",
    "key": "Keep the recovery card with the operator's secret key: the two together open the backups.",
    "passphrase": "Keep the recovery card, and remember the passphrase: the two together open the backups.",
    "kms": "Keep the recovery card: it and the right to use the KMS key open the backups.",
}


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
@operator_options
@click.option("--post-quantum", is_flag=True, help="Make vault and card such that only age 1.3 or newer reads them.")
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
    operator_key: "OperatorKey | None",
    post_quantum: bool,
    config: Path,
    card: Path | None,
) -> int:
    """Set up a source: its vault, a signing key, the configuration, and the recovery card.

    The operator's key is made and lives on the card, unless --recipient, --kms-key or --new-passphrase names another.
    A card with a key is the one thing that opens the backups: print it or move it offline, and delete it here.
    """
    from archiver.crypto.hybrid import HybridRecipient
    from archiver.operations.init import InitRequest
    from archiver.operations.init import init as initialise

    request = InitRequest(
        config=config,
        destination=destination,
        source=source,
        operator=operator,
        card=card or Path(f"recovery-card-{source}.txt"),
        operator_key=operator_key,
        post_quantum=post_quantum,
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
            "operators": {operator: result.operator_key},
        }
    )
    _describe(output, result, operator_key)
    if isinstance(operator_key, HybridRecipient) and not post_quantum:
        output.line("The operator's key is post-quantum, the vault itself is X25519: --post-quantum makes both so.")
    doctor = f"archiver doctor --config {result.config}"
    if destination.startswith("s3://"):
        output.line(f"Next, with an administrator's credentials: archiver lifecycle apply --config {result.config}")
        output.line(f"Then, with those of the backup host: {doctor}, and archiver backup {source}")
    else:
        output.line(f"Next: {doctor}, then archiver backup {source}")
    if result.warning is not None:
        output.warn(result.warning)
    return output.exit_code()


def _describe(output: Output, result: "InitResult", operator_key: "OperatorKey | None") -> None:
    from archiver.operations.operator_keys import opens_with

    output.line(f"configuration   {result.config}")
    output.line(f"signing key     {result.signing_key} (stays on this host, secret)")
    output.line(f"vault           {result.vault}, sealed at {result.vault_key}")
    output.line(f"recovery card   {result.card}")
    if operator_key is None and sys.stdout.isatty():
        output.line()
        output.line(result.card_text.rstrip())
    output.line()
    output.line(_LAST_WORDS[None if operator_key is None else opens_with(operator_key)])
    output.line("If this operator's key is lost, so are the backups: add a second one with archiver keys add.")


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
