"""``archiver lifecycle``: the group of the commands about a bucket's rules, each in a file of its own."""

import click

from archiver.cli import lifecycle_apply, lifecycle_check, lifecycle_export, lifecycle_plan, lifecycle_show


@click.group()
def lifecycle() -> None:
    """Make the bucket itself delete what is no longer promised."""


for command in (
    lifecycle_show.show,
    lifecycle_plan.plan,
    lifecycle_apply.apply,
    lifecycle_check.check,
    lifecycle_export.export,
):
    lifecycle.add_command(command)
