"""``archiver lifecycle export``: the rules for other tools. Reads the configuration only, so that a class that left it
has none."""

from archiver.config import Config
from archiver.errors import UsageError
from archiver.retention.policy import wanted_rules
from archiver.stores.destination import FileDestination, parse_destination


def terraform_variables(config: Config) -> dict[str, object]:
    """What the module in terraform/ makes the rules from: its variables ``classes`` and ``prefix``."""
    classes = {
        name: {"keep": retention.keep, "lease": retention.lease, "storage_class": retention.storage_class}
        for name, retention in sorted(config.classes.items())
    }
    return {"classes": classes, "prefix": _prefix(config)}


def lifecycle_configuration(config: Config) -> dict[str, object]:
    """What ``aws s3api put-bucket-lifecycle-configuration`` takes: the rules that ``lifecycle apply`` would make in a
    bucket with versions, and none of anybody else's."""
    from archiver.stores.s3_rules import api_rule, full_rules

    prefix = _prefix(config)
    rules = full_rules(wanted_rules(config.classes, versioned=True), f"{prefix}/" if prefix else "")
    return {"Rules": [api_rule(rule) for rule in rules]}


def _prefix(config: Config) -> str:
    destination = parse_destination(config.destination, config.destination_options)
    if isinstance(destination, FileDestination):
        raise UsageError(
            f"{destination.display} is a directory, which runs no lifecycle rules",
            hint="Run archiver expire from cron, once a day: docs/OPERATIONS.md.",
        )
    return destination.prefix
