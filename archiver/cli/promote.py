"""``archiver promote``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.options import command, config_option
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.promote import Due, Promoted


@command("promote", example="archiver promote --dry-run")
@click.argument("source", required=False)
@click.option("--dry-run", is_flag=True, help="Say what is due, and why; copy nothing.")
@config_option
def promote(*, output: Output, source: str | None, dry_run: bool, config: Path | None) -> int:
    """Copy backups of SOURCE into the classes of the calendar that they are due in, within the destination.

    Every backup does this at its end; by itself it is for what that could not do. Without SOURCE the only one of the
    configuration. Exits with 3 when one of the copies cannot be made: it is due again the next time.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.copy_site import open_copy_site
    from archiver.operations.promote import preview_due, promote_due

    settings = load_config(find_config(config))
    with output.progress(), open_copy_site(settings, source, dry_run=dry_run) as site:
        if dry_run:
            due = preview_due(site.archive, site.terms)
            _show_due(output, due)
            promotions = [item.promotion for item in due]
        else:
            done = promote_due(site.archive, site.terms, output)
            _show_done(output, done)
            promotions = [item.promotion for item in done]
        for name in dict.fromkeys(promotion.target for promotion in promotions):
            if (shortened := site.shortened(name)) is not None:
                output.warn(shortened)
    return output.exit_code()


def promoted_document(done: "Promoted") -> dict[str, object]:
    """What became of one promotion, for machines; ``archiver backup`` gives the same."""
    copied = done.copied
    return {
        "backup": done.promotion.backup,
        "class": done.promotion.target,
        "reason": done.promotion.reason,
        "promised_until": None if copied.promise is None else human.time(copied.promise),
        "objects_used": copied.objects_used,
        "objects_copied": copied.objects_copied,
        "bytes_copied": copied.bytes_copied,
    }


def promoted_line(done: "Promoted") -> str:
    """The same in a line."""
    copied = done.copied
    until = "for ever" if copied.promise is None else f"until {human.time(copied.promise)}"
    return (
        f"copied {done.promotion.backup} into {done.promotion.target} ({done.promotion.reason}), promised {until}: "
        f"{human.plural(copied.objects_copied, 'object')}, {human.size(copied.bytes_copied)}"
    )


def _show_done(output: Output, done: "list[Promoted]") -> None:
    output.document([promoted_document(item) for item in done])
    for item in done:
        output.line(promoted_line(item))
    if not done and not output.warnings:
        output.line("nothing is due")


def _show_due(output: Output, due: "list[Due]") -> None:
    from archiver.errors import ArchiverError
    from archiver.operations.promote import failure

    documents = []
    for item in due:
        promotion, plan = item.promotion, item.plan
        document: dict[str, object] = {
            "dry_run": True,
            "backup": promotion.backup,
            "class": promotion.target,
            "reason": promotion.reason,
        }
        if isinstance(plan, ArchiverError):
            output.warn(failure(promotion, plan))
            document["problem"] = plan.message
        else:
            # An earlier one on this list may have copied some of these objects by then.
            output.line(
                f"would copy {promotion.backup} into {promotion.target} ({promotion.reason}): up to "
                f"{human.plural(len(plan.copies), 'object')}, {human.size(plan.copied_bytes)}"
            )
            document |= {"objects_copied": len(plan.copies), "bytes_copied": plan.copied_bytes}
        documents.append(document)
    output.document(documents)
    if not due:
        output.line("nothing is due")
