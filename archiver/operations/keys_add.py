"""``archiver keys add``: one more operator. One small file in each vault; no stored data change."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from archiver.catalog.names import check_name, vault_key
from archiver.crypto.keys import SecretKey
from archiver.crypto.vault import OperatorKey, seal_vault, vault_form
from archiver.errors import AlreadyExistsError, ArchiverError, UsageError
from archiver.operations.config_edit import change_config, with_operator
from archiver.operations.keys_access import KeySite, Vault
from archiver.operations.operator_keys import operator_text, sharing, weakness
from archiver.progress import Reporter


class Added(msgspec.Struct, frozen=True):
    """What was done, or would be."""

    operator: str
    key: str
    """As it stands in the configuration."""
    created: Sequence[str]
    """Keys of the files that were made."""
    there: Sequence[str]
    """Ids of the vaults where this operator has a file already, perhaps sealed to another key."""
    unopened: Sequence[str]
    """Ids of the vaults that no given identity opens, and that backups need."""
    ignored: Sequence[str]
    """Ids of those that do not open and that no backup names, such as a planted one."""
    config: Path | None
    """The configuration that names the operator now; None where none is at hand."""


def add_operator(site: KeySite, operator: str, key: OperatorKey, reporter: Reporter, *, dry_run: bool = False) -> Added:
    """Seal every vault of the source to ``key``, and name the operator in the configuration.

    Nothing is created unless the current vault opens. Other vaults that do not open are warned of, since the new
    operator will not read the old backups in them, and so is a file of that name that lies there already: nobody can
    say which key it is sealed to. Raises ``AlreadyExistsError`` when there is nothing to do.
    """
    check_name(operator, "operator")
    current = site.current()
    vaults = site.vaults(current)
    there = [vault for vault in vaults if vault.of(operator)]
    lacking = [vault for vault in vaults if not vault.of(operator)]
    text = operator_text(key)
    if not lacking and (site.config is None or site.configured.operators.get(operator) == text):
        raise AlreadyExistsError(
            f"operator {operator!r} has a file in every vault of source {site.source!r}",
            hint="archiver keys show lists them; to replace a key, remove the operator first, or choose another name.",
        )
    opened, problems = _open(site, lacking, is_rest=bool(there))
    # Without a configuration or a backup, nobody knows which vault is in use.
    named = site.named() if problems and current is not None else None
    unopened = [vault for vault in problems if named is None or vault in named]
    for vault in unopened:
        reporter.warn(f"{problems[vault].message}: the new operator will not read the backups in it")
    # What may fail is tried before anything is created.
    _name_operator(site, operator, text, rehearse=True)
    _refuse_own(operator, text, [current, *(str(identity.recipient) for _, identity in opened)])
    files = {
        vault_key(site.source, vault.id, operator, vault_form(key)): seal_vault(identity, key, site.source)
        for vault, identity in opened
    }
    _warn(site, operator, key, opened, reporter)
    if there:
        reporter.warn(
            f"operator {operator!r} has a file already in {_vaults(there)}: it is left alone, and may be sealed to "
            f"another key; if archiver keys check fails for {operator!r}, run archiver keys remove {operator}, "
            "then add again"
        )
    if not dry_run:
        for name, data in files.items():
            site.store.create(name, [data])
        _name_operator(site, operator, text)
    return Added(
        operator=operator,
        key=text,
        created=list(files),
        there=[vault.id for vault in there],
        unopened=unopened,
        ignored=[vault for vault in problems if vault not in unopened],
        config=None if site.config is None else site.config.path,
    )


def _open(
    site: KeySite, vaults: Sequence[Vault], *, is_rest: bool
) -> tuple[list[tuple[Vault, SecretKey]], dict[str, ArchiverError]]:
    """Those of ``vaults`` that the given identities open; and by their ids, why the others do not.

    Raises the error of the current one; and where none opens, unless these are the rest that an earlier run has left.
    """
    opened: list[tuple[Vault, SecretKey]] = []
    problems: dict[str, ArchiverError] = {}
    for vault in vaults:
        try:
            opened.append((vault, site.unlock(vault, vault.places).identity))
        except UsageError:
            raise
        except ArchiverError as error:
            if vault.is_current:
                raise
            problems[vault.id] = error
    if problems and not opened and not is_rest:
        raise next(iter(problems.values()))
    return opened, problems


def _refuse_own(operator: str, key: str, vaults: Sequence[str | None]) -> None:
    """The identity of such a recipient lies in the vault only: who needs it to open the vault has no way in."""
    if key in vaults:
        raise UsageError(
            f"the recipient of {operator!r} is a vault's own: it opens nothing",
            hint="Give the age1… line of the operator's identity file.",
        )


def _warn(
    site: KeySite,
    operator: str,
    key: OperatorKey,
    opened: Sequence[tuple[Vault, SecretKey]],
    reporter: Reporter,
) -> None:
    for reason in dict.fromkeys(weakness(identity.recipient, operator, key) for _, identity in opened):
        if reason is not None:
            reporter.warn(reason)
    if site.config is not None:
        for other in sharing(site.configured.operators, operator, operator_text(key)):
            reporter.warn(f"operators {operator!r} and {other!r} have the same key: who loses it loses both")


def _vaults(vaults: Sequence[Vault]) -> str:
    return f"vault{'s' if len(vaults) > 1 else ''} {', '.join(vault.id for vault in vaults)}"


def _name_operator(site: KeySite, operator: str, text: str, *, rehearse: bool = False) -> None:
    if site.config is not None:
        vault = site.configured.vault
        change_config(
            site.config.path, lambda old: with_operator(old, site.source, operator, text, vault), rehearse=rehearse
        )
