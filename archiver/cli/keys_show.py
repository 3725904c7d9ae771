"""``archiver keys show``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from archiver.cli import human
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.crypto.trust import TrustedKey
    from archiver.operations.access import AccessOptions
    from archiver.operations.keys_show import OperatorFile, ShownVault


@command("show", example="archiver keys show")
@access_options
def show(*, output: Output, access: "AccessOptions") -> int:
    """Show who can open which vault, as it lies in the destination, and which signing keys are believed.

    Exits with 3 when that differs from the configuration. Whether a file opens indeed, archiver keys check proves.
    """
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_show import show_vaults

    with open_site(access, reporter=output) as site:
        vaults = show_vaults(site, output)
        source, trusted = site.source, site.trusted
    output.document(
        {
            "source": source,
            "vaults": [_vault_document(vault) for vault in vaults],
            "signing_keys": None if trusted is None else [_signer_document(key) for key in trusted],
        }
    )
    _tabulate(output, vaults)
    for key in trusted or ():
        until = "" if key.revoked is None else f", revoked {human.time(key.revoked)}"
        output.line(f"signing key {key.key.key_id}: {key.key}{until}")
    return output.exit_code()


def _tabulate(output: Output, vaults: "Sequence[ShownVault]") -> None:
    rows = [
        (
            vault.id,
            "yes" if vault.is_current else "no",
            file.place.operator,
            file.kind,
            human.time(file.modified),
            "; ".join(text for text in (file.arn, file.difference) if text is not None),
        )
        for vault in vaults
        for file in vault.files
    ]
    output.table(("VAULT", "IN USE", "OPERATOR", "KIND", "ADDED", "REMARKS"), rows)
    if any(file.kind == "unknown" for vault in vaults for file in vault.files):
        output.note("kinds are unknown where the files may not be read with these credentials")


def _vault_document(vault: "ShownVault") -> dict[str, object]:
    return {
        "vault": vault.id,
        "current": vault.is_current,
        "operators": [_file_document(file) for file in vault.files],
        "missing": list(vault.missing),
    }


def _file_document(file: "OperatorFile") -> dict[str, object]:
    return {
        "operator": file.place.operator,
        "file": file.place.key,
        "kind": file.kind,
        "kms_key": file.arn,
        "added": human.time(file.modified),
        "difference": file.difference,
    }


def _signer_document(key: "TrustedKey") -> dict[str, object]:
    return {
        "key_id": key.key.key_id,
        "verify_key": str(key.key),
        "revoked": None if key.revoked is None else human.time(key.revoked),
    }
