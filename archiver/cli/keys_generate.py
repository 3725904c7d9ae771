"""``archiver keys generate``."""

from pathlib import Path

import click

from archiver.cli.keys_output import output_option
from archiver.cli.options import command
from archiver.cli.output import Output
from archiver.errors import UsageError


@command("generate", example="archiver keys generate --output operator.txt")
@output_option
@click.option("--post-quantum", is_flag=True, help="A key that quantum computers cannot break; age 1.3 reads it.")
@click.option("--signing", is_flag=True, help="Make a minisign key instead, which signs backups.")
def generate(*, output: Output, path: Path, post_quantum: bool, signing: bool) -> None:
    """Make an operator's key pair: the identity goes into the file, the recipient is printed.

    Give the recipient to archiver init --recipient or keys add --recipient; keep the file offline. With --signing
    it is a signing key, without a password: the public key, for signing.trusted, is printed.
    """
    if signing and post_quantum:
        raise UsageError("expected at most one of --post-quantum and --signing")
    name, public, file = _signing_key(path) if signing else _identity(path, post_quantum)
    output.document({name: public, file: str(path)})
    output.line(public)


def _identity(path: Path, post_quantum: bool) -> tuple[str, str, str]:
    """Create the file; returns what its public half is called, that half, and what the file is called."""
    from datetime import UTC, datetime

    from archiver.crypto.identities import write_secret_file
    from archiver.crypto.keys import generate_identity, identity_file

    identity = generate_identity(post_quantum=post_quantum)
    created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    write_secret_file(path, identity_file(identity, created))
    return "recipient", str(identity.recipient), "identity_file"


def _signing_key(path: Path) -> tuple[str, str, str]:
    """As ``_identity``."""
    from archiver.crypto.identities import write_secret_file
    from archiver.crypto.minisign import SigningKey

    signer = SigningKey.generate()
    write_secret_file(path, signer.encode())
    return "verify_key", str(signer.verify_key), "signing_key"
