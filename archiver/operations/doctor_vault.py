"""What ``archiver doctor`` says of a source's vault: who could restore, by the configuration and by what lies there.

Only names are looked at: a backup host may list the operators' files and need not be allowed to read them.
"""

from collections.abc import Iterator, Sequence

from archiver.config import PASSPHRASE, SourceConfig
from archiver.crypto.keys import PublicKey, parse_recipient
from archiver.crypto.recipients import vault_id
from archiver.errors import ArchiverError
from archiver.operations.findings import Finding
from archiver.operations.operator_keys import weakness
from archiver.operations.vaults import vault_places
from archiver.stores.base import Store

_ARN = "arn:"


def vault_findings(store: Store, source: SourceConfig) -> Iterator[Finding]:
    """Whether the configured vault can be opened, and by exactly those whom the configuration names."""
    subject = f"vault of {source.name}"
    try:
        recipient = parse_recipient(source.vault)
        vault = vault_id(str(recipient))
        places = vault_places(store, source.name, vault)
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    if not places:
        yield Finding(
            "error", subject, f"the destination holds no key file of vault {vault}: nobody could restore",
            "Check that vault and destination belong together.",
        )  # fmt: skip
        return
    files = [_file(place.operator, place.form) for place in places]
    facts = {"vault": vault, "files": files, "operators": dict(source.operators)}
    yield Finding("ok", subject, f"{vault}, opened by {', '.join(files)}", facts=facts)
    if len({place.operator for place in places}) == 1:
        yield Finding(
            "warning", subject, f"{places[0].operator} is the only operator: if that key is lost, so are the backups",
            "Add a second one with archiver keys add.",
        )  # fmt: skip
    yield from _differences(subject, source, files)
    yield from _weaknesses(subject, source, recipient)


def _differences(subject: str, source: SourceConfig, files: Sequence[str]) -> Iterator[Finding]:
    """Between who is to open the vault and whose files there are."""
    if not source.operators:
        yield Finding(
            "warning", subject, "the configuration does not say who its operators are, so nothing can be compared",
            f"List them in [source.{source.name}.operators], with their keys: docs/CONFIGURATION.md.",
        )  # fmt: skip
        return
    expected = [_file(name, "kms" if key.startswith(_ARN) else "age") for name, key in source.operators.items()]
    for file in expected:
        if file not in files:
            yield Finding(
                "warning", subject, f"an operator of the configuration cannot open it: there is no {file}",
                "Run archiver keys add for this operator, or take the name out of the configuration.",
            )  # fmt: skip
    for file in files:
        if file not in expected:
            yield Finding(
                "warning", subject, f"{file} belongs to no operator of the configuration",
                "If somebody added it on another host, write the operator into this configuration too; if nobody did, "
                "it was planted: remove it with archiver keys remove.",
            )  # fmt: skip


def _weaknesses(subject: str, source: SourceConfig, recipient: PublicKey) -> Iterator[Finding]:
    for name, key in source.operators.items():
        if key == PASSPHRASE or key.startswith(_ARN):
            continue
        try:
            problem = weakness(recipient, name, parse_recipient(key))
        except ArchiverError as error:
            yield Finding(
                "error",
                subject,
                f"operator {name}: {error.message}",
                "Correct the key: the next vault is sealed to it.",
            )
            continue
        if problem is not None:
            yield Finding(
                "warning", subject, problem,
                "Let the operator make a post-quantum key: archiver keys generate --post-quantum.",
            )  # fmt: skip


def _file(operator: str, form: str) -> str:
    return f"{operator}.{form}"
