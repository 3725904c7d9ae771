"""``archiver lifecycle check``."""

from pathlib import Path

from archiver.cli.lifecycle_show import say_without_rules
from archiver.cli.options import command, config_option
from archiver.cli.output import WARNINGS_EXIT_CODE, Output

_INDENT = " " * 9


@command("check", example="archiver lifecycle check")
@config_option
def check(*, output: Output, config: Path | None) -> int:
    """Check that the bucket's rules keep what is promised, and no more.

    Exits with 1 when a rule, whoever made it, deletes or archives something too soon, with 3 when there are only
    warnings: rules that are missing or were changed, uploads or old versions that nothing ends, classes that left the
    configuration and have no rules, and others beside a destination without a prefix.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.lifecycle import open_rule_site
    from archiver.operations.lifecycle_plan import check_rules

    with open_rule_site(load_config(find_config(config))) as site:
        found = check_rules(site)
        url, is_directory = site.store.url, site.bucket is None
    output.document([{"severity": item.severity, "message": item.message, "hint": item.hint} for item in found])
    if is_directory and not output.quiet:
        say_without_rules(output, url)
    for problem in found:
        output.line(f"{problem.severity:8} {problem.message}")
        output.line(f"{_INDENT}hint: {problem.hint}")
    if not found and not is_directory and not output.quiet:
        output.line(f"{url}: the lifecycle rules are as they should be")
    severities = {problem.severity for problem in found}
    return 1 if "error" in severities else WARNINGS_EXIT_CODE if severities else 0
