"""``archiver keys rotate``."""

from typing import TYPE_CHECKING

import click

from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions
    from archiver.operations.keys_rotate import Rotated


@command("rotate", example="archiver keys rotate --identity recovery-card.txt")
@click.option(
    "--post-quantum", is_flag=True, help="A vault that only age 1.3 or newer reads; it stays so from then on."
)
@click.option("--dry-run", is_flag=True, help="Only try whether it would work.")
@access_options
def rotate(*, output: Output, access: "AccessOptions", post_quantum: bool, dry_run: bool) -> int:
    """Begin a new vault for new backups, sealed to every operator of the configuration.

    Old backups stay as they are: who could read them can do so still. Needs no identity; one that is given must open
    the new vault before the configuration names it.
    """
    from archiver.cli.secrets import ask_new_passphrase
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_rotate import rotate_vault

    def ask(operator: str) -> str:
        return ask_new_passphrase(f"Passphrase of {operator} for the new vault: ")

    with open_site(access, for_writing="keys rotate") as site:
        rotated = rotate_vault(site, ask, output, post_quantum=post_quantum, dry_run=dry_run)
        source = site.source
    output.document(
        {
            "dry_run": dry_run,
            "old_vault": rotated.old,
            "vault": None if dry_run else rotated.new,
            "recipient": None if dry_run else rotated.recipient,
            "operators": list(rotated.operators),
            "created": [] if dry_run else list(rotated.created),
            "opened_by": rotated.opened_by,
            "config": str(rotated.config),
        }
    )
    if dry_run:
        output.line(f"would make a vault for {', '.join(rotated.operators)} in place of {rotated.old}")
    else:
        _describe(output, rotated, source)
    return output.exit_code()


def _describe(output: Output, rotated: "Rotated", source: str) -> None:
    for key in rotated.created:
        output.line(f"created {key}")
    if rotated.opened_by is not None:
        output.line(f"proven: the given identity opens it through {rotated.opened_by}")
    output.line(f"{rotated.config} names vault {rotated.new} in place of {rotated.old}")
    output.line("Next:")
    output.line(
        f"- on other hosts that back up {source}, put this into archiver.toml, in place of the vault line there:"
    )
    output.line(f'  vault = "{rotated.recipient}"')
    output.line("  and this in place of the whole table of operators, so that nobody stays whose key was replaced:")
    output.line(f"  [source.{source}.operators]")
    for name, key in rotated.operators.items():
        output.line(f'  {name} = "{key}"')
    output.line("- archiver keys card --output FILE, for a card that knows the new vault")
    output.line("- let every operator run archiver keys check")
