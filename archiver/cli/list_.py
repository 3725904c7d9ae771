"""``archiver list``."""

from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import backup_document, unreadable_document
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions


@command("list", example="archiver list\narchiver list --from s3://backups/prod --source ucotron-prod --verify-key RW…")
@click.option("--all", "everything", is_flag=True, help="Also backups that are past their promise.")
@access_options
def list_backups(*, output: Output, access: "AccessOptions", everything: bool) -> int:
    """List the complete backups of a source, newest first.

    Exits with 4 when one is damaged or not signed by a trusted key; the others are listed all the same. Exits with 5
    when there is none.
    """
    from archiver.errors import NotFoundError
    from archiver.operations.access import resolve_access
    from archiver.operations.archive import Backup, Unreadable

    with resolve_access(access).open() as archive:
        found = archive.backups(None if everything else archive.store.clock())
        url, source, hint = archive.store.url, archive.source, "" if found else archive.hint()
    if not found:
        raise NotFoundError(f"{url} has no backup of source {source!r}", hint=hint)
    backups = [backup for backup in found if isinstance(backup, Backup)]
    unreadable = [backup for backup in found if isinstance(backup, Unreadable)]
    output.document(
        [backup_document(backup) for backup in backups] + [unreadable_document(item) for item in unreadable]
    )
    rows = [
        (
            backup.manifest.backup,
            backup.place.retention_class,
            human.time(backup.manifest.started),
            human.size(backup.manifest.totals.plaintext_bytes),
            human.size(backup.manifest.totals.stored_bytes),
            human.number(backup.manifest.totals.files),
            backup.manifest.consistency,
            human.time(backup.manifest.promised_until),
            backup.signature,
        )
        for backup in backups
    ]
    if rows:
        header = ("BACKUP", "CLASS", "STARTED", "SIZE", "STORED", "FILES", "TAKEN", "PROMISED UNTIL", "SIGNATURE")
        output.table(header, rows, right=(3, 4, 5))
    for item in unreadable:
        output.warn(f"{item.place.backup} is not to be trusted: {item.error.message}")
    return max((item.error.exit_code for item in unreadable), default=0)
