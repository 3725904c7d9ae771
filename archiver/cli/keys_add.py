"""``archiver keys add``."""

from typing import TYPE_CHECKING

import click

from archiver.cli.operators import operator_options
from archiver.cli.options import access_options, command
from archiver.cli.output import Output
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.crypto.vault import OperatorKey
    from archiver.operations.access import AccessOptions
    from archiver.operations.keys_add import Added


@command("add", example="archiver keys add bob --recipient age1… --identity recovery-card.txt")
@click.argument("operator")
@operator_options
@click.option("--dry-run", is_flag=True, help="Only try whether it would work.")
@access_options
def add(
    *, output: Output, access: "AccessOptions", operator: str, operator_key: "OperatorKey | None", dry_run: bool
) -> int:
    """Let OPERATOR restore, old backups and new ones.

    Opens every vault of the source with the identity, passphrase or KMS key of somebody who is an operator already,
    and creates one small file in each. Exits with 3 when an older vault could not be opened, or has a file of that
    name, which is left alone.
    """
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_add import add_operator

    if operator_key is None:
        raise UsageError(
            f"expected a key of the new operator {operator!r}, got none",
            hint="Give one of --recipient, --kms-key and --new-passphrase.",
        )
    with open_site(access) as site:
        added = add_operator(site, operator, operator_key, output, dry_run=dry_run)
        source = site.source
    output.document(_document(added, dry_run))
    _describe(output, added, source, dry_run)
    return output.exit_code()


def _document(added: "Added", dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "operator": added.operator,
        "key": added.key,
        "created": list(added.created),
        "left_alone": list(added.there),
        "unopened": list(added.unopened),
        "ignored": list(added.ignored),
        "config": None if added.config is None else str(added.config),
    }


def _describe(output: Output, added: "Added", source: str, dry_run: bool) -> None:
    for key in added.created:
        output.line(f"{'would create' if dry_run else 'created'} {key}")
    for vault in added.there:
        output.line(f"left alone: vault {vault} has a file of {added.operator!r} already")
    for vault in added.ignored:
        output.line(f"ignored: vault {vault} does not open, and no backup that is believed names it")
    if added.config is None:
        output.line(f"Add this line to [source.{source}.operators] in archiver.toml on the backup host:")
        output.line(f'  {added.operator} = "{added.key}"')
    else:
        output.line(f"{added.config} {'would name' if dry_run else 'names'} {added.operator!r} as an operator")
    if not dry_run:
        output.line(f"Next: let {added.operator!r} run archiver keys check, to prove that this key opens all of it.")
