"""``archiver demo``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.describe import backup_document
from archiver.cli.options import PathArgument, command
from archiver.cli.output import Output
from archiver.errors import UsageError

if TYPE_CHECKING:
    from archiver.operations.backup_request import BackupResult


@command("demo", example="archiver demo\narchiver demo --directory /tmp/demo")
@click.option("--directory", type=PathArgument(), help="Work here and keep everything; must not exist.")
def demo(*, output: Output, directory: Path | None) -> None:
    """Back up sample data, change it, back up again, restore with the recovery card alone, and prove equality.

    Needs no server, no account and no configuration.
    """
    # With what they import they would take a tenth of the time of --help.
    import shutil
    import tempfile

    if directory is not None:
        if directory.exists():
            raise UsageError(f"{directory} exists already", hint="Name a directory that does not exist yet.")
        directory.mkdir(parents=True)
        _run(output, directory)
        output.line(f"Everything is in {directory}; look around:")
        output.line(f"  archiver list --identity {directory}/recovery-card.txt")
        return
    temporary = Path(tempfile.mkdtemp(prefix="archiver-demo-"))
    try:
        _run(output, temporary)
    finally:
        shutil.rmtree(temporary)


def _run(output: Output, directory: Path) -> None:
    from archiver.operations.access import AccessOptions, resolve_access
    from archiver.operations.demo import Demonstration
    from archiver.operations.history import Backup

    story = Demonstration(directory, output)
    began = time.monotonic()
    output.line("1. Sample data: a vector and a graph environment, and a few hundred media files")
    story.create()
    output.line("2. archiver init: a vault, a signing key, a recovery card")
    made = story.initialise()
    output.line(f"   vault {made.vault}; only the recovery card opens it")
    output.line("3. archiver backup, to a directory as the destination")
    with output.progress():
        first = story.backup("first night")
    _show(output, first)
    output.line("4. A day passes: records updated, files added, changed and deleted")
    story.change()
    output.line("5. archiver backup, again")
    with output.progress():
        second = story.backup("second night")
    _show(output, second)
    output.line("6. archiver list")
    with resolve_access(AccessOptions(identity=story.card)).open() as archive:
        backups = [backup for backup in archive.backups() if isinstance(backup, Backup)]
    for backup in backups:
        output.line(
            f"   {backup.manifest.backup}  {human.size(backup.manifest.totals.stored_bytes)}"
            f"  promised until {human.time(backup.manifest.promised_until)}  signature {backup.signature}"
        )
    output.line("7. archiver restore latest --identity recovery-card.txt --to restored")
    with output.progress():
        restored = story.restore()
    for record, path in restored.environments:
        output.line(f"   {record.name}: {human.size(record.size)} in {path}")
    output.line("8. Compare with the original, key by key and byte by byte")
    compared = story.compare()
    output.line(
        f"   equal: {human.plural(compared.entries, 'entry')} in {human.plural(compared.databases, 'database')},"
        f" {human.plural(compared.files, 'file')} ({human.size(compared.file_bytes)}) with modes and times"
    )
    seconds = time.monotonic() - began
    output.line(f"Done in {human.duration(seconds)}: what was backed up is what was restored.")
    output.document(
        {
            "backups": [backup_document(backup) for backup in backups],
            "equal": {
                "databases": compared.databases,
                "entries": compared.entries,
                "files": compared.files,
                "file_bytes": compared.file_bytes,
            },
            "seconds": round(seconds, 3),
        }
    )


def _show(output: Output, result: "BackupResult") -> None:
    totals = result.manifest.totals
    output.line(
        f"   {result.manifest.backup}: {human.size(totals.plaintext_bytes)} stored as"
        f" {human.size(totals.stored_bytes)} in {human.plural(totals.objects, 'object')}"
    )
