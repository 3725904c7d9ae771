"""``archiver hold`` and ``archiver release``."""

from pathlib import Path

import click

from archiver.cli import human
from archiver.cli.options import command, config_option
from archiver.cli.output import Output

_source_option = click.option("--source", metavar="NAME", help="The source, where the configuration has several.")


@command("hold", example="archiver hold 20261122T020000Z-3f9c2a\narchiver hold latest --dry-run")
@click.argument("backup")
@_source_option
@click.option("--dry-run", is_flag=True, help="Say what would be copied; copy nothing.")
@config_option
def hold(*, output: Output, backup: str, source: str | None, dry_run: bool, config: Path | None) -> int:
    """Keep BACKUP until it is released: copy it, within the destination, into the class held, which never expires.

    BACKUP is latest, an id or its beginning.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.copy_site import open_copy_site
    from archiver.operations.hold import hold as hold_backup

    settings = load_config(find_config(config))
    with output.progress(), open_copy_site(settings, source, dry_run=dry_run) as site:
        done = hold_backup(site, backup, output, dry_run=dry_run)
    plan = done.plan
    output.document(
        {
            "dry_run": dry_run,
            "backup": plan.place.backup,
            "source": plan.place.source,
            "class": plan.place.retention_class,
            "objects_used": len(plan.objects) - len(plan.copies),
            "objects_copied": len(plan.copies),
            "bytes_copied": plan.copied_bytes,
        }
    )
    what = f"{human.plural(len(plan.copies), 'object')}, {human.size(plan.copied_bytes)}"
    if dry_run:
        output.line(f"would hold {plan.place.backup}, copying {what}")
    else:
        output.line(f"{plan.place.backup} is held until archiver release {plan.place.backup}; copied {what}")
    return output.exit_code()


@command("release", example="archiver release 20261122T020000Z-3f9c2a --dry-run")
@click.argument("backup")
@_source_option
@click.option("--dry-run", is_flag=True, help="Say what would be deleted; delete nothing.")
@config_option
def release(*, output: Output, backup: str, source: str | None, dry_run: bool, config: Path | None) -> int:
    """Give up the held copy of BACKUP, an id or its beginning: delete what only that copy needs.

    Copies in other classes stay until they expire. Needs credentials that may delete, so not those of a backup host.
    Interrupted, it goes on when it is run again.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.copy_site import open_copy_site
    from archiver.operations.release import release as release_backup

    settings = load_config(find_config(config))
    with output.progress(), open_copy_site(settings, source, dry_run=dry_run) as site:
        done = release_backup(site, backup, output, dry_run=dry_run)
        name = site.archive.source
    size = sum(deletion.size for deletion in done.deletions)
    output.document(
        {
            "dry_run": dry_run,
            "backup": done.backup,
            "source": name,
            "deleted": [deletion.key for deletion in done.deletions],
            "deleted_bytes": size,
            "stays_in": list(done.stays_in),
        }
    )
    what = f"{human.plural(len(done.deletions), 'key')}, {human.size(size)}"
    output.line(
        f"would release {done.backup}, deleting {what}" if dry_run else f"released {done.backup}: deleted {what}"
    )
    for deletion in done.deletions:
        output.detail(f"{'would delete' if dry_run else 'deleted'} {deletion.key}")
    if done.stays_in:
        output.line(f"  it {'would stay' if dry_run else 'stays'} in {', '.join(done.stays_in)}")
    else:
        output.line(f"  it {'would be gone: it lies' if dry_run else 'is gone: it lay'} in no other class")
    return output.exit_code()
