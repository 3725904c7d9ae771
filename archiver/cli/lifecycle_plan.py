"""``archiver lifecycle plan``, and what ``apply`` says in the same words."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.cli import human
from archiver.cli.options import command, config_option
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.lifecycle_plan import Plan
    from archiver.retention.expiry import Threat

_DONE = {"add": "added", "change": "changed", "remove": "removed"}


@command("plan", example="archiver lifecycle plan")
@config_option
def plan(*, output: Output, config: Path | None) -> int:
    """Show what lifecycle apply would change, and which promises it would break.

    The bucket's other rules are not touched. Exits with 4 when a backup that is promised would go too soon, or may
    because it cannot be read: apply refuses that.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.lifecycle import open_rule_site
    from archiver.operations.lifecycle_plan import make_plan

    with open_rule_site(load_config(find_config(config))) as site:
        found = make_plan(site)
    output.document(plan_document(found, dry_run=True))
    return say_plan(output, found, dry_run=True)


def say_plan(output: Output, found: "Plan", *, dry_run: bool) -> int:
    """Show a plan, or what came of one; returns the exit code."""
    from archiver.errors import IntegrityError

    for change in found.changes:
        verb = f"would {change.action}" if dry_run else _DONE[change.action]
        output.line(f"{verb} {change.name} for {change.prefix or 'all keys'}: {change.reason}")
    if not found.changes:
        output.line("nothing to change: the rules are as the configuration has them")
    for line in found.unread:
        output.warn(f"{line}: what it needs is not known, so these rules may delete it before its time")
    if found.unread and found.shortens:
        output.line(
            "As long as these backups cannot be read no rule may be new, or delete sooner. Nothing was changed."
        )
        output.line("If nobody made them, an administrator may delete these manifests: archiver verify tells more.")
    broken = promises(found.broken)
    for line in broken:
        output.warn(line)
    if not broken:
        return IntegrityError.exit_code if found.refused else output.exit_code()
    output.line(f"These rules would break {human.plural(len(broken), 'promise')}: keep and lease of a class may")
    output.line("shrink only when the last backup that was promised for longer is over. Nothing was changed.")
    return IntegrityError.exit_code


def plan_document(found: "Plan", *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "changes": [
            {"action": change.action, "rule": change.name, "prefix": change.prefix, "reason": change.reason}
            for change in found.changes
        ],
        "broken": [
            {
                "backup": threat.need.backup,
                "source": threat.need.source,
                "class": threat.need.retention_class,
                "promised_until": None if threat.need.promise is None else human.time(threat.need.promise),
                "key": threat.key,
                "reason": threat.reason,
            }
            for threat in found.broken
        ],
        "unread": list(found.unread),
    }


def promises(threats: "Sequence[Threat]") -> list[str]:
    """One line for each copy of a backup whose promise would be broken, with the first key that would go."""
    lines = []
    for _, found in groupby(threats, key=lambda threat: id(threat.need)):
        first, *others = found
        more = f", and {len(others):,} more" if others else ""
        need = first.need
        lines.append(
            f"{need.backup} of {need.source} in {need.retention_class} would lose {first.key}{more}: it {first.reason}"
        )
    return lines
