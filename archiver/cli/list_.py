"""``archiver list``."""

from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import backup_document, end, removal, removed_document, unreadable_document
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions
    from archiver.operations.history import Backup
    from archiver.operations.needs import Guarantee

_HEADER = (
    "BACKUP", "CLASS", "STARTED", "SIZE", "STORED", "FILES", "TAKEN", "GUARANTEED UNTIL", "SIGNATURE", "SIGNER", "DATED"
)  # fmt: skip


@command("list", example="archiver list\narchiver list --from s3://backups/prod --source ucotron-prod --verify-key RW…")
@click.option("--all", "everything", is_flag=True, help="Also backups all of whose copies are past their promise.")
@access_options
def list_backups(*, output: Output, access: "AccessOptions", everything: bool) -> int:
    """List the complete backups of a source, newest first.

    Exits with 4 when one is damaged, has lost its vault's key files, is not signed by a trusted key, or was removed
    before the end of its promise; the others are listed all the same. Exits with 3 when one is not sure to last until
    the end of its promise, and with 5 when there is none.
    """
    from msgspec.structs import replace

    from archiver.errors import IntegrityError, NotFoundError, StorageError
    from archiver.operations.access import resolve_access
    from archiver.operations.history import Backup, Unreadable
    from archiver.operations.needs import standings

    resolved = resolve_access(access)
    with resolved.open() as archive:
        now = archive.store.clock()
        survey = archive.survey(now, everything=everything)
        backups = [backup for backup in survey.backups if isinstance(backup, Backup)]
        found = standings(archive, backups, resolved.config, now)
        url, source, elsewhere = archive.store.url, archive.source, "" if survey.backups else archive.hint()
    if not survey.backups and not survey.removed:
        within = "" if everything else " within its promise"
        raise NotFoundError(f"{url} has no backup of source {source!r}{within}", hint=elsewhere)
    listed = [
        (replace(backup, irregular=(*backup.irregular, *standing.damage)), standing.guarantee)
        for backup, standing in zip(backups, found, strict=True)
    ]
    unreadable = [backup for backup in survey.backups if isinstance(backup, Unreadable)]
    output.document(
        [backup_document(backup, guarantee) for backup, guarantee in listed]
        + [unreadable_document(item) for item in unreadable]
        + [removed_document(item, source) for item in survey.removed]
    )
    rows = [_row(backup, guarantee) for backup, guarantee in listed]
    if rows:
        output.table(_HEADER, rows, right=(3, 4, 5))
    for backup, _ in listed:
        for doubt in backup.irregular:
            output.warn(doubt)
    for item in unreadable:
        problem = "cannot be read" if isinstance(item.error, StorageError) else "is not to be trusted"
        output.warn(f"{item.place.backup} {problem}: {item.error.message}")
    for standing in found:
        if standing.shortfall is not None:
            output.warn(standing.shortfall)
    for hint in dict.fromkeys(hint for standing in found for hint in standing.hints):
        output.note(f"hint: {hint}")
    for missing in survey.removed:
        output.warn(f"{missing.previous.backup} is missing: {removal(missing)}")
    codes = [item.error.exit_code for item in unreadable]
    if survey.removed or any(standing.damage for standing in found):
        codes.append(IntegrityError.exit_code)
    return max(codes, default=output.exit_code())


def _row(backup: "Backup", guarantee: "Guarantee") -> tuple[str, ...]:
    manifest = backup.manifest
    return (
        manifest.backup,
        ",".join(place.retention_class for place in backup.places),
        human.time(manifest.started),
        human.size(manifest.totals.plaintext_bytes),
        human.size(manifest.totals.stored_bytes),
        human.number(manifest.totals.files),
        manifest.consistency,
        end(guarantee.until),
        backup.signature,
        backup.key_id,
        backup.dated,
    )
