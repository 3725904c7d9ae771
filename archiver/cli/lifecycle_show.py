"""``archiver lifecycle show``."""

from pathlib import Path
from typing import TYPE_CHECKING

from archiver.cli.options import command, config_option
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.lifecycle import Owner, ShownRule

_HEADER = ("RULE", "WHOSE", "KEYS", "DOES")
_OWNERS: "dict[Owner, str]" = {
    "archiver": "archiver's",
    "another destination": "of another destination",
    "others": "somebody else's",
}


@command("show", example="archiver lifecycle show")
@config_option
def show(*, output: Output, config: Path | None) -> int:
    """Show the rules of the bucket, whose they are, and what they do to this destination."""
    from archiver.config import find_config, load_config
    from archiver.operations.lifecycle import open_rule_site, show_rules

    with open_rule_site(load_config(find_config(config))) as site:
        rules = show_rules(site)
        url = site.store.url
    output.document({"destination": url, "rules": None if rules is None else [_document(rule) for rule in rules]})
    if rules is None:
        say_without_rules(output, url)
        return 0
    if not rules:
        output.line(f"{url}: the bucket has no lifecycle rules; archiver lifecycle plan shows what it should have")
        return 0
    output.table(_HEADER, [_row(rule) for rule in rules])
    for rule in rules:
        for harm in rule.harm:
            output.warn(harm)
    return output.exit_code()


def say_without_rules(output: Output, url: str) -> None:
    """What stands in for rules in a directory."""
    output.line(f"{url} runs no lifecycle rules: archiver expire, from cron, does what they would")


def _row(rule: "ShownRule") -> tuple[str, str, str, str]:
    does = " and ".join(rule.actions) or "deletes no current key"
    if not rule.enabled:
        does = f"nothing, it is disabled: {does}"
    elif not rule.concerns:
        does += " (nothing of this destination)"
    return rule.rule.name, _OWNERS[rule.owner], rule.scope, does


def _document(rule: "ShownRule") -> dict[str, object]:
    return {
        "rule": rule.rule.name,
        "prefix": rule.rule.prefix,
        "enabled": rule.enabled,
        "owner": rule.owner,
        "does": list(rule.actions),
        "concerns": rule.concerns,
        "harm": list(rule.harm),
    }
