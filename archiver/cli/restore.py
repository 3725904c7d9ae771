"""``archiver restore``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import authorship, database_name, signed, warn_of_doubts
from archiver.cli.options import PathArgument, access_options, command, download_options
from archiver.cli.output import Output, report
from archiver.errors import ArchiverError, UsageError

if TYPE_CHECKING:
    from archiver.operations.access import Access, AccessOptions
    from archiver.operations.restore import RestoreResult
    from archiver.operations.restore_plan import Layout, Plan
    from archiver.operations.thaw import Archived

_SHOWN = 20
"""Archived objects that are listed one by one."""


@command(
    "restore",
    example="archiver restore latest --identity recovery-card.txt --to /srv/restored\n"
    "archiver restore --at 2026-11-20 --only vector --to /tmp/look --identity recovery-card.txt\n"
    "archiver restore latest --limit-download 20M --workers 1 --identity recovery-card.txt --to /srv/restored",
)
@click.argument("backup", default="latest")
@click.option("--to", "directory", type=PathArgument(), help="Lay out DIR/ENVIRONMENT/data.mdb, DIR/media.")
@click.option("--in-place", is_flag=True, help="Restore to the paths of the configuration.")
@click.option("--at", metavar="TIME", help="The newest backup that had started by TIME (UTC).")
@click.option("--only", multiple=True, metavar="NAME|GLOB", help="An environment, media, or media/…; may be repeated.")
@click.option("--force", is_flag=True, help="Replace files that are there; they are kept in .archiver-before-….")
@click.option("--owner", metavar="USER[:GROUP]", help="Give everything to this owner instead of the recorded ones.")
@click.option("--discard-replaced", is_flag=True, help="Delete what was replaced once the restore has succeeded.")
@click.option("--thaw", is_flag=True, help="Have archived objects thawed, and wait for them, for hours or days.")
@click.option(
    "--thaw-days", type=click.IntRange(1, 365), default=7, show_default=True, help="How long they stay readable."
)
@click.option("--dry-run", is_flag=True, help="Show the plan and what stands in its way; write nothing.")
@access_options
@download_options
def restore(
    *,
    output: Output,
    access: "AccessOptions",
    backup: str,
    directory: Path | None,
    in_place: bool,
    at: str | None,
    only: tuple[str, ...],
    force: bool,
    owner: str | None,
    discard_replaced: bool,
    thaw: bool,
    thaw_days: int,
    dry_run: bool,
) -> int:
    """Restore BACKUP, by default the latest, proven before anything is replaced. Exits with 3 when nothing vouches for
    the time that it claims, or a copy of it is damaged.

    Of a backup with copies in several classes it reads one that is whole; CLASS/BACKUP names the one to read.

    On a blank machine the recovery card is enough: archiver restore latest --identity recovery-card.txt --to DIR

    What lies in an archive storage class, such as DEEP_ARCHIVE, is refused without --thaw. A wait that was interrupted
    goes on when the same command is run again.
    """
    from archiver.buffers import tune_heap
    from archiver.operations.access import resolve_access
    from archiver.operations.archive import parse_time
    from archiver.operations.copies import naming_copies
    from archiver.operations.restore import discard
    from archiver.operations.restore import restore as carry_out
    from archiver.operations.restore_plan import layout_below, plan_restore
    from archiver.sinks.owners import by_name, fixed_owner

    tune_heap()
    if (directory is None) != in_place:
        raise UsageError(
            "expected either --to DIR or --in-place", hint="Give --to DIR to restore beside what is there."
        )
    owners = by_name if owner is None else fixed_owner(owner)
    moment = None if at is None else parse_time(at)
    if in_place and access.destination is not None:
        raise UsageError("--in-place needs the configuration", hint="Name it with --config, or give --to DIR.")
    resolved = resolve_access(access)
    if directory is None:
        resolved, layout = _in_place(resolved, access)
    else:
        layout = layout_below(directory)
    with resolved.open() as archive:
        found = archive.find(backup, moment)
        warn_of_doubts(output, found)
        where = ["--in-place"] if directory is None else ["--to", str(directory)]
        again = [*where, *(word for pattern in only for word in ("--only", pattern))]
        with naming_copies(found, "restore", *again):
            plan = plan_restore(archive, found, layout, only, owners)
        warn_of_doubts(output, plan.backup, told=found)
        if dry_run:
            return _show_plan(output, plan, force=force, thaw=thaw)
        with output.progress(), naming_copies(plan.backup, "restore", *again):
            result = carry_out(archive, plan, output, force=force, thaw_days=thaw_days if thaw else None)
    if discard_replaced:
        discard(result)
    _show_result(output, plan, result, discarded=discard_replaced)
    return output.exit_code()


def _in_place(access: "Access", options: "AccessOptions") -> "tuple[Access, Layout]":
    """``access`` with the configuration, which must be about the same backups, and the paths in it."""
    from msgspec.structs import replace

    from archiver.config import find_config, load_config
    from archiver.operations.access import is_about
    from archiver.operations.restore_plan import layout_in_place
    from archiver.operations.sources import resolve_source

    config = access.config or load_config(find_config(None))
    if not is_about(config, access.destination):
        raise UsageError(
            f"the recovery card belongs to {access.destination.display}, {config.path} to {config.destination}",
            hint="Name the configuration that belongs to the card with --config, or give --to DIR.",
        )
    layout = layout_in_place(resolve_source(config.source(access.source)))
    return replace(access, config=config, tuning=options.tuning(config)), layout


def _show_plan(output: Output, plan: "Plan", *, force: bool, thaw: bool) -> int:
    """The plan, and what stands in its way, which decides the exit code."""
    from archiver.operations.restore_plan import check_plan
    from archiver.operations.thaw import refuse_archived

    obstacle: ArchiverError | None = None
    try:
        check_plan(plan, force=force)
        if not thaw:
            refuse_archived(plan.backup.manifest.backup, plan.archived)
    except ArchiverError as error:
        obstacle = error
    manifest = plan.backup.manifest
    landings = {landing.item: str(landing.final) for landing in plan.landings}
    output.document(
        {
            "dry_run": True,
            "backup": manifest.backup,
            **authorship(plan.backup),
            "environments": [
                {"name": record.name, "bytes": record.size, "to": landings[record.name]} for record in plan.environments
            ],
            "files": plan.files,
            "file_bytes": plan.file_bytes,
            "unchanged_files": plan.unchanged,
            "media_to": landings.get("media"),
            "archived": [
                {"key": item.key, "bytes": item.size, "storage_class": item.storage_class, "state": item.state}
                for item in plan.archived
            ],
            "obstacle": None if obstacle is None else {"message": obstacle.message, "hint": obstacle.hint},
        }
    )
    output.line(f"would restore {manifest.backup} of {manifest.source}, taken {human.time(manifest.started)}")
    output.line(f"  {signed(plan.backup)}")
    for record in plan.environments:
        output.line(f"  {record.name}: {human.size(record.size)} to {landings[record.name]}")
    if plan.has_media:
        kept = f", {human.number(plan.unchanged)} already in place" if plan.unchanged else ""
        files = f"{human.plural(plan.files, 'file')}, {human.size(plan.file_bytes)}"
        output.line(f"  media: {files} to {landings['media']}{kept}")
    _show_archived(output, plan.archived)
    if obstacle is None:
        return output.exit_code()
    return obstacle.exit_code if output.json else report(output, obstacle)


def _show_archived(output: Output, archived: Sequence["Archived"]) -> None:
    from archiver.operations.thaw import total

    if not archived:
        return
    output.line(f"  {human.plural(len(archived), 'object')}, {human.size(total(archived))}, must be thawed first:")
    for item in archived[:_SHOWN]:
        output.line(f"    {item.key}: {human.size(item.size)} in {item.storage_class}, {item.state}")
    if len(archived) > _SHOWN:
        output.line(f"    and {human.number(len(archived) - _SHOWN)} more, which --json lists")


def _show_result(output: Output, plan: "Plan", result: "RestoreResult", *, discarded: bool) -> None:
    manifest = plan.backup.manifest
    kept = [] if discarded else [str(path) for path in result.kept]
    output.document(
        {
            "backup": manifest.backup,
            "source": manifest.source,
            **authorship(plan.backup),
            "environments": [
                {
                    "name": record.name,
                    "path": str(path),
                    "bytes": record.size,
                    "databases": {database_name(database): database.entries for database in record.databases},
                }
                for record, path in result.environments
            ],
            "media": None if result.media is None else str(result.media),
            "files": result.files,
            "replaced_kept_in": kept,
        }
    )  # fmt: skip
    output.line(f"restored {manifest.backup} of {manifest.source}, {signed(plan.backup)}")
    for record, path in result.environments:
        output.line(f"  {record.name}: {human.size(record.size)} in {path}, hashes and entry counts proven")
        for database in record.databases:
            output.line(f"    {database_name(database)}: {human.plural(database.entries, 'entry')}")
    if result.media is not None:
        output.line(f"  media: {human.plural(result.files, 'file')} in {result.media}, hashes proven")
    if manifest.totals.warnings:
        output.line(
            f"  {human.plural(manifest.totals.warnings, 'warning')} at the time of the backup:"
            f" archiver show {manifest.backup} says what it does not hold"
        )
    for place in kept:
        output.line(f"  what was there is kept in {place}; delete it when you are sure")
