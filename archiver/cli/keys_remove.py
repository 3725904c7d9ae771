"""``archiver keys remove``."""

from typing import TYPE_CHECKING

import click

from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions


@command("remove", example="archiver keys remove alice --identity bob.txt")
@click.argument("operator")
@click.option("--dry-run", is_flag=True, help="Only try whether it would work.")
@access_options
def remove(*, output: Output, access: "AccessOptions", operator: str, dry_run: bool) -> int:
    """Take OPERATOR's files away, so that they open no vault any more.

    Needs an identity of another operator, which must open every vault that OPERATOR can open: it proves that somebody
    remains. Needs credentials that may delete, so not those of a backup host. It does not undo what OPERATOR could
    read already.
    """
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_remove import remove_operator

    with open_site(access) as site:
        removed = remove_operator(site, operator, output, dry_run=dry_run)
        source, is_configured = site.source, site.config is not None
    output.document(
        {
            "dry_run": dry_run,
            "operator": removed.operator,
            "deleted": [{"file": key, "opened_by": proof} for key, proof in removed.deleted.items()],
            "left": list(removed.left),
            "config": None if removed.config is None else str(removed.config),
        }
    )
    for key, proof in removed.deleted.items():
        output.line(f"{'would delete' if dry_run else 'deleted'} {key} (the vault opens through {proof})")
    if removed.config is not None:
        output.line(f"{removed.config} {'would name' if dry_run else 'names'} {operator!r} no more")
    if not dry_run:
        output.line(
            f"{operator!r} can still read what was copied or opened before, and old versions of the files, where"
        )
        output.line("the bucket keeps versions.")
        _say_what_is_next(output, operator, source, is_configured)
    return output.exit_code()


def _say_what_is_next(output: Output, operator: str, source: str, is_configured: bool) -> None:
    if is_configured:
        output.line("Next: archiver keys rotate, so that new backups are out of reach.")
        return
    output.line("Next, in this order:")
    output.line(
        f"- take {operator!r} out of [source.{source}.operators] in archiver.toml on EVERY host that backs up {source}"
    )
    output.line("- archiver keys rotate, so that new backups are out of reach; it is refused while that name is listed")
