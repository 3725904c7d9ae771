"""``archiver backup``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import end
from archiver.cli.options import command, config_option, upload_options
from archiver.cli.output import Output
from archiver.cli.promote import promoted_document, promoted_line
from archiver.errors import ArchiverError

if TYPE_CHECKING:
    from archiver.operations.backup_setup import Preview
    from archiver.operations.nightly import Night


@command(
    "backup",
    example="archiver backup ucotron-prod --label 'before the upgrade'\narchiver backup --limit-upload 20M --workers 1",
)
@click.argument("source", required=False)
@click.option("--class", "retention_class", default="daily", show_default=True, help="The retention class.")
@click.option("--label", default="", help="A text to find the backup by; it is stored encrypted.")
@click.option("--dry-run", is_flag=True, help="Say what would be backed up, and how; store nothing.")
@upload_options
@config_option
def backup(
    *,
    output: Output,
    source: str | None,
    retention_class: str,
    label: str,
    dry_run: bool,
    workers: int | None,
    limit_upload: int | None,
    config: Path | None,
) -> int:
    """Back up SOURCE: pin its environments, copy them and the media files, encrypt, upload, commit.

    Without SOURCE the only one of the configuration. Afterwards backups that belong into a calendar class are copied
    into it. Exits with 3 when something was skipped, and says what; with 1 also when the backup is stored and the
    bucket's lifecycle rules would delete it too soon.
    """
    from msgspec.structs import replace

    from archiver.buffers import tune_heap
    from archiver.config import find_config, load_config
    from archiver.operations.backup_setup import preview
    from archiver.operations.nightly import run_night
    from archiver.operations.priority import give_way

    settings = load_config(find_config(config))
    tuning = settings.tuning.overridden(workers=workers, limit_upload=limit_upload)
    settings = replace(settings, tuning=tuning)
    if dry_run:
        return _show_preview(output, preview(settings, source, retention_class))
    give_way()
    tune_heap()
    with output.progress():
        night = run_night(settings, source, retention_class, label, output)
    _show_result(output, night)
    return _tell_problems(output, night)


def _tell_problems(output: Output, night: "Night") -> int:
    """Warn of what the bucket's rules do; the exit code."""
    unsafe = [problem for problem in night.problems if problem.severity == "error"]
    for problem in night.problems:
        stored = f"{night.backup.manifest.backup} is stored, but not safe: " if problem in unsafe else ""
        output.warn(f"{stored}{problem.message}")
        output.note(f"hint: {problem.hint}")
    return ArchiverError.exit_code if unsafe else output.exit_code()


def _show_result(output: Output, night: "Night") -> None:
    result, guaranteed = night.backup, night.guaranteed_until
    manifest = result.manifest
    totals = manifest.totals
    output.document(
        {
            "backup": manifest.backup,
            "source": manifest.source,
            "class": result.retention_class,
            "started": human.time(manifest.started),
            "finished": human.time(manifest.finished),
            "promised_until": human.time(manifest.promised_until),
            "guaranteed_until": guaranteed and human.time(guaranteed),
            "consistency": manifest.consistency,
            "skew_seconds": result.skew_seconds,
            "environments": [
                {
                    "name": record.name,
                    "method": record.method,
                    "pinned": human.time(record.pinned),
                    "txnid": record.txnid,
                    "bytes": record.size,
                }
                for record in result.environments
            ],
            "files": totals.files,
            "objects": totals.objects,
            "plaintext_bytes": totals.plaintext_bytes,
            "stored_bytes": totals.stored_bytes,
            "reused_objects": result.reused_objects,
            "reused_bytes": result.reused_bytes,
            "warnings": totals.warnings,
            "promoted": [promoted_document(item) for item in night.promoted],
            "problems": [
                {"severity": problem.severity, "message": problem.message, "hint": problem.hint}
                for problem in night.problems
            ],
            "requests": dict(night.requests),
            "seconds": round(night.seconds, 3),
        }
    )
    output.line(f"backup {manifest.backup} of {manifest.source}")
    for record in result.environments:
        named = [database for database in record.databases if database.name or database.name_b64]
        # Without named databases the data are in the main one, which otherwise holds their names.
        entries = sum(database.entries for database in named or record.databases)
        inside = human.plural(entries, "entry")
        if named:
            inside = f"{human.plural(len(named), 'database')}, {inside}"
        output.line(f"  {record.name}: {human.size(record.size)}, {inside}, {record.method}")
    if totals.files:
        output.line(f"  media: {human.plural(totals.files, 'file')}")
    output.line(
        f"  {human.size(totals.plaintext_bytes)} stored as {human.size(totals.stored_bytes)}"
        f" in {human.plural(totals.objects, 'object')}, {human.duration(night.seconds)}"
    )
    if result.reused_objects:
        reused = human.plural(result.reused_objects, "object")
        output.line(f"  unchanged since earlier backups, not sent again: {reused}, {human.size(result.reused_bytes)}")
    for item in night.promoted:
        output.line(f"  {promoted_line(item)}")
    output.line(f"  guaranteed until {end(guaranteed)}")


def _show_preview(output: Output, preview: "Preview") -> int:
    skipped = [item.record() for item in preview.skipped]
    output.document(
        {
            "dry_run": True,
            "source": preview.source.name,
            "environments": [
                {"name": item.name, "path": str(item.directory), "method": item.method, "bytes": item.copy_size}
                for item in preview.environments
            ],
            "media": None if preview.source.media is None else str(preview.source.media),
            "files": preview.files,
            "file_bytes": preview.file_bytes,
            "skipped": [{"path": item.path, "reason": item.reason} for item in skipped],
        }
    )
    output.line(f"would back up {preview.source.name}, storing nothing now")
    for item in preview.environments:
        size = "unknown size" if item.copy_size is None else f"about {human.size(item.copy_size)}"
        output.line(f"  {item.name}: {size}, {item.method}, from {item.directory}")
    if preview.source.media is not None:
        files = human.plural(preview.files, "file")
        output.line(f"  media: {files}, {human.size(preview.file_bytes)}, from {preview.source.media}")
    for record in skipped:
        output.warn(f"media/{record.path}: {record.reason}")
    return output.exit_code()
