"""``archiver show``."""

from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import backup_document, database_name, end
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions


@command("show", example="archiver show latest --identity recovery-card.txt")
@click.argument("backup", default="latest")
@access_options
def show(*, output: Output, access: "AccessOptions", backup: str) -> None:
    """Show what is known of BACKUP: its manifest and, with --identity, its label, environments and warnings."""
    from msgspec.structs import replace

    from archiver.operations.access import resolve_access
    from archiver.operations.listing import describe_contents
    from archiver.operations.needs import standings

    resolved = resolve_access(access)
    with resolved.open() as archive:
        found = archive.find(backup)
        inside = describe_contents(archive, found) if resolved.keyring else None
        (standing,) = standings(archive, [found], resolved.config, archive.store.clock())
    shortfall = () if standing.shortfall is None else (standing.shortfall,)
    found = replace(found, irregular=(*found.irregular, *standing.damage, *shortfall))
    document = backup_document(found, standing.guarantee)
    if inside is not None:
        document["label"] = inside.label
        document["contents"] = [
            {
                "environment": record.name,
                "method": record.method,
                "pinned": human.time(record.pinned),
                "txnid": record.txnid,
                "page_size": record.page_size,
                "map_size": record.map_size,
                "bytes": record.size,
                "databases": [
                    {"name": database_name(database), "entries": database.entries} for database in record.databases
                ],
            }
            for record in inside.environments
        ]
        document["problems"] = [{"path": record.path, "reason": record.reason} for record in inside.warnings]
    output.document(document)
    for key, value in backup_document(found, standing.guarantee).items():
        if key in ("class", "doubts"):
            continue
        shown = _shown(key, value)
        output.line(f"{key.removesuffix('_bytes').replace('_', ' '):16} {shown}")
    for doubt in found.doubts:
        output.line(f"{'doubt':16} {doubt}")
    if inside is None:
        output.note("give --identity to see what is inside")
        return
    output.line(f"{'label':16} {inside.label or '-'}")
    for record in inside.environments:
        output.line(
            f"{'environment':16} {record.name}: {human.size(record.size)}, {record.method},"
            f" transaction {record.txnid}, pinned {human.time(record.pinned)}"
        )
        for database in record.databases:
            name = database_name(database)
            output.line(f"{'':16}   {name}: {human.plural(database.entries, 'entry')}")
    for warning in inside.warnings:
        output.line(f"{'warning':16} media/{warning.path}: {warning.reason}")


def _shown(key: str, value: object) -> object:
    if key.endswith("_bytes") and isinstance(value, int):
        return human.size(value)
    if key.endswith("_until") and value is None:
        return end(None)
    return ", ".join(value) if isinstance(value, list) else value
