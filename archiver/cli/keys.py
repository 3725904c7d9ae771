"""``archiver keys``: the group of the commands about keys, each in a file of its own."""

import click

from archiver.cli import keys_add, keys_card, keys_check, keys_generate, keys_remove, keys_rotate, keys_show


@click.group()
def keys() -> None:
    """Make and manage keys."""


for command in (
    keys_generate.generate,
    keys_show.show,
    keys_add.add,
    keys_remove.remove,
    keys_rotate.rotate,
    keys_check.check,
    keys_card.card,
):
    keys.add_command(command)
