"""What ``archiver doctor`` says of a source's vault: who could restore, by the configuration and by what lies there.

Only names are looked at: a backup host may list the operators' files and need not be allowed to read them.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from archiver.config import PASSPHRASE, SourceConfig
from archiver.crypto.keys import PublicKey, parse_recipient
from archiver.crypto.recipients import vault_id
from archiver.errors import ArchiverError
from archiver.operations.findings import Finding
from archiver.operations.operator_keys import weakness
from archiver.operations.vaults import put_back, vault_places
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
            put_back(source.name, vault),
        )  # fmt: skip
        return
    files = sorted(_file(place.operator, place.form) for place in places)
    facts = {"vault": vault, "files": files, "operators": dict(source.operators)}
    yield Finding("ok", subject, f"{vault}, opened by {', '.join(files)}", facts=facts)
    yield from _single(subject, source, {place.operator for place in places})
    yield from _differences(subject, source, files)
    yield from _weaknesses(subject, source, recipient)


def _single(subject: str, source: SourceConfig, operators: AbstractSet[str]) -> Iterator[Finding]:
    """Whether one loss is enough: what counts are keys, and the vault's own, which opens nothing, is none."""
    names: dict[str, list[str]] = {}
    for name in sorted(operators):
        key = source.operators.get(name, PASSPHRASE)
        # Passphrases are not known, nor are keys that the configuration does not have: each is one of its own.
        if key != source.vault:
            names.setdefault(f"{key} of {name}" if key == PASSPHRASE else key, []).append(name)
    if len(names) != 1:
        return
    ((first, *others),) = names.values()
    if others:
        problem = f"{' and '.join(map(repr, (first, *others)))} have the same key, and nobody has another"
        hint = "Add an operator with another key with archiver keys add."
    else:
        problem = f"{first!r} is the only operator"
        hint = "Add a second one with archiver keys add."
    yield Finding("warning", subject, f"{problem}: if that key is lost, so are the backups", hint)


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
                "If this operator was removed on another machine, take the name out of the configuration; only if not, "
                "run archiver keys add.",
            )  # fmt: skip
    for file in files:
        if file not in expected:
            yield Finding(
                "warning", subject, f"{file} belongs to no operator of the configuration",
                _how_to_part(file.rpartition(".")[0], source),
            )  # fmt: skip


def _how_to_part(operator: str, source: SourceConfig) -> str:
    """What to do about a file that the configuration does not expect."""
    if operator not in source.operators:
        return (
            "If somebody added it on another host, write the operator into this configuration too; if nobody did, it "
            "was planted: remove it with archiver keys remove."
        )
    # That command knows names only: alone, it would take the operator's good file away.
    return (
        f"The configuration has another key of {operator!r}. If somebody changed it on another host, change it in this "
        f"configuration too; if nobody did, this file was planted: archiver keys remove takes every file of "
        f"{operator!r} away, the good one too, so let {operator!r} in again afterwards with archiver keys add."
    )


def _weaknesses(subject: str, source: SourceConfig, recipient: PublicKey) -> Iterator[Finding]:
    for name, key in source.operators.items():
        if key == PASSPHRASE or key.startswith(_ARN):
            continue
        if key == source.vault:
            yield Finding(
                "error", subject, f"operator {name!r} has the vault's own recipient as a key: it opens nothing",
                "Write the operator's own age1… line there, and let the operator in with archiver keys add.",
            )  # fmt: skip
            continue
        try:
            problem = weakness(recipient, name, parse_recipient(key))
        except ArchiverError as error:
            yield Finding(
                "error",
                subject,
                f"operator {name!r}: {error.message}",
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
