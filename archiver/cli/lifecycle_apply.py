"""``archiver lifecycle apply``."""

from pathlib import Path

import click

from archiver.cli.lifecycle_plan import plan_document, say_plan
from archiver.cli.options import command, config_option
from archiver.cli.output import Output


@command("apply", example="archiver lifecycle apply --dry-run\narchiver lifecycle apply")
@click.option("--dry-run", is_flag=True, help="Show what would change, as lifecycle plan does.")
@config_option
def apply(*, output: Output, config: Path | None, dry_run: bool) -> int:
    """Give the bucket the rules that delete what is no longer promised.

    Needs an administrator's credentials. The bucket's other rules stay as they are, byte for byte. Before anything is
    changed the new rules are tried on every backup of every source of the destination: when one that is promised would
    go too soon, nothing is changed, and the exit code is 4. So it is when one cannot be read, and a rule would be new
    or delete sooner: nobody knows what that backup needs.

    Exits with 3 when the bucket's rules are not right even so, because of somebody else's.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.lifecycle import open_rule_site
    from archiver.operations.lifecycle_plan import apply_plan, make_plan

    with open_rule_site(load_config(find_config(config))) as site:
        found = make_plan(site)
        unchanged = dry_run or found.refused
        left = [] if unchanged else apply_plan(site, found)
    output.document(
        plan_document(found, dry_run=unchanged)
        | {"problems": [{"severity": item.severity, "message": item.message, "hint": item.hint} for item in left]}
    )
    code = say_plan(output, found, dry_run=unchanged)
    for problem in left:
        output.warn(f"{problem.message}. {problem.hint}")
    return code if found.refused else output.exit_code()
