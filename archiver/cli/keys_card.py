"""``archiver keys card``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli.keys_output import output_option
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions


@command("card", example="archiver keys card --output recovery-card-2.txt --identity recovery-card.txt")
@output_option
@click.option("--dry-run", is_flag=True, help="Only try whether it would work.")
@access_options
def card(*, output: Output, access: "AccessOptions", path: Path, dry_run: bool) -> None:
    """Write the recovery card anew, from the configuration: destination, vault and signing keys as they are now.

    With the identity of one operator, who must be able to open the vault, the card holds that identity and is enough on
    a blank machine. Without one it holds no secret.
    """
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_card import write_card

    with open_site(access, for_writing="keys card") as site:
        written = write_card(site, path, dry_run=dry_run)
    output.document(
        {
            "dry_run": dry_run,
            "recovery_card": str(written.path),
            "vault": written.vault,
            "has_identity": written.has_identity,
            "opened_by": written.opened_by,
        }
    )
    output.line(f"{'would write' if dry_run else 'wrote'} {written.path} for vault {written.vault}")
    if written.opened_by is not None:
        output.line(f"proven: the vault opens through {written.opened_by}")
    if dry_run:
        return
    if written.has_identity:
        output.line("Move it offline now, to two places, and delete it here: it opens the backups.")
    else:
        output.line(
            "It holds no secret: keep it with what opens the vault. Keep an older card that holds a secret key, too."
        )
