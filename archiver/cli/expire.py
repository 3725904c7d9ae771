"""``archiver expire``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.options import command, config_option
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.expire import Expiry


@command("expire", example="archiver expire --dry-run\narchiver expire")
@click.option("--dry-run", is_flag=True, help="Show what would go; delete nothing.")
@config_option
def expire(*, output: Output, config: Path | None, dry_run: bool) -> int:
    """Delete what has outlived its class, of all sources, as a bucket's lifecycle rules do; for a directory, whose
    store runs none.

    Deletes nothing, and exits with 4, if a backup whose promise is not over needs any of it. Needs credentials that may
    delete, so not those of a backup host. Interrupted, run it again. Exits with 3 when a source has no backup left.
    """
    from contextlib import closing

    from archiver.config import find_config, load_config
    from archiver.operations.expire import carry_out, plan_expiry
    from archiver.stores.destination import open_store, parse_destination

    loaded = load_config(find_config(config))
    destination = parse_destination(loaded.destination, loaded.destination_options)
    with closing(open_store(destination)) as store, output.progress():
        expiry = plan_expiry(store, loaded.classes, output)
        if not dry_run:
            expiry = carry_out(store, expiry, output)
    _show(output, expiry, dry_run=dry_run)
    return output.exit_code()


def _show(output: Output, expiry: "Expiry", *, dry_run: bool) -> None:
    output.document(
        {
            "dry_run": dry_run,
            "backups": [
                {"backup": place.backup, "source": place.source, "class": place.retention_class, "reason": reason}
                for place, reason in expiry.backups
            ],
            "keys": len(expiry.deletions),
            "bytes": expiry.size,
            "left_alone": dict(expiry.left_alone),
            "emptied": list(expiry.emptied),
        }
    )
    verb = "would delete" if dry_run else "deleted"
    for place, reason in expiry.backups:
        output.line(f"{verb} {place.backup} of {place.source} from {place.retention_class}: {reason}")
    if expiry.deletions:
        keys = human.plural(len(expiry.deletions), "key")
        output.line(
            f"{verb} {keys} in all, {human.size(expiry.size)}, {human.plural(len(expiry.backups), 'backup')} among them"
        )
    else:
        output.line("nothing has expired")
    for name, reason in expiry.left_alone.items():
        output.line(f"class {name} is left alone: {reason}")
    for source in expiry.emptied:
        output.warn(
            f"source {source!r} has no backup {'then' if dry_run else 'any more'}: nothing newer was made in time"
        )
