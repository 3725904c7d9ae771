"""``archiver keys``."""

from pathlib import Path

import click

from archiver.cli.options import PathArgument, command
from archiver.cli.output import Output


@click.group()
def keys() -> None:
    """Make and manage keys."""


@command("generate", example="archiver keys generate --output operator.txt")
@click.option("--output", "path", type=PathArgument(), required=True, help="The file to create, mode 0600.")
def generate(*, output: Output, path: Path) -> None:
    """Make an operator's key pair: the identity goes into the file, the recipient is printed.

    Give the recipient to archiver init --recipient; keep the file offline.
    """
    from datetime import UTC, datetime

    from archiver.crypto.identities import write_secret_file
    from archiver.crypto.keys import generate_identity, identity_file

    identity = generate_identity(post_quantum=False)
    created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    write_secret_file(path, identity_file(identity, created))
    output.document({"recipient": str(identity.recipient), "identity_file": str(path)})
    output.line(str(identity.recipient))


keys.add_command(generate)
