"""``archiver keys rotate``: a new vault for new backups. Old objects stay as they are, and readable by who could read.

The order is the safety: the new vault's files are all there before the configuration names it. A run that fails before
that leaves the old vault in use, and files that do no harm.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.catalog.names import vault_key
from archiver.config import PASSPHRASE
from archiver.crypto.hybrid import HybridRecipient
from archiver.crypto.keys import PublicKey, parse_recipient
from archiver.crypto.kms import KmsKey
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import OperatorKey, create_vault, seal_vault, vault_form
from archiver.errors import ArchiverError, ConfigError, FormatError
from archiver.operations.config_edit import change_config, with_vault
from archiver.operations.keys_access import KeySite
from archiver.operations.operator_keys import weakness
from archiver.operations.vaults import unlock_vault, vault_places
from archiver.progress import Reporter

AskPassphrase = Callable[[str], str]
"""Asks the operator of this name for a new passphrase."""
_NOBODY = "nobody is asked in a dry run"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What was done, or would be."""

    old: str
    """Id of the vault that was in use."""
    new: str
    """Id of the one that is."""
    recipient: str
    """Of the new vault, as the configuration has it."""
    operators: Sequence[str]
    created: Sequence[str]
    """Keys of its operators' files."""
    opened_by: str | None
    """The file through which the given identity opened it; None where none was given."""
    config: Path


def rotate_vault(
    site: KeySite, ask: AskPassphrase, reporter: Reporter, *, post_quantum: bool = False, dry_run: bool = False
) -> Rotated:
    """Make a vault, seal it to every operator of the configuration, and name it there.

    A post-quantum vault is followed by one, whatever ``post_quantum`` says. In a dry run nobody is asked for a
    passphrase, and the new vault is not that of a later run. Raises ``ConfigError`` where the configuration does not
    say who the operators are, and what ``unlock_vault`` does when the given identity does not open the new vault: the
    configuration is then unchanged.
    """
    path, old = site.configuration.path, site.configured.vault
    if not site.configured.operators:
        raise ConfigError(
            f"the configuration does not say who the operators of source {site.source!r} are",
            hint=f"List them with their keys in [source.{site.source}.operators]: docs/CONFIGURATION.md.",
        )
    with _naming(path, f"source.{site.source}.vault"):
        is_hybrid = isinstance(parse_recipient(old), HybridRecipient)
    vault = create_vault(post_quantum=post_quantum or is_hybrid)
    new = vault.recipient
    # What may fail is tried before anybody is asked, and before anything is created.
    change_config(path, lambda text: with_vault(text, site.source, old, str(new)), rehearse=True)
    _warn_of_forgotten(site, vault_id(old), reporter)
    operators = _operator_keys(site, path, (lambda _: _NOBODY) if dry_run else ask)
    for name, key in operators.items():
        problem = weakness(new, name, key)
        if problem is not None:
            reporter.warn(problem)
    opened_by = None
    keys = [vault_key(site.source, vault_id(str(new)), name, vault_form(key)) for name, key in operators.items()]
    if not dry_run:
        # All are sealed before the first is created: KMS may refuse.
        sealed = [seal_vault(vault, key, site.source) for key in operators.values()]
        for name, data in zip(keys, sealed, strict=True):
            site.store.create(name, [data])
        opened_by = _prove(site, new)
        change_config(path, lambda text: with_vault(text, site.source, old, str(new)))
    return Rotated(vault_id(old), vault_id(str(new)), str(new), list(operators), keys, opened_by, path)


def _prove(site: KeySite, new: PublicKey) -> str | None:
    """The file through which the given identity, if there is one, opens the new vault; raises when none does."""
    if not site.keyring:
        return None
    try:
        places = vault_places(site.store, site.source, vault_id(str(new)))
        return unlock_vault(site.store, places, site.keyring, str(new)).place.key
    except ArchiverError as error:
        error.hint = (
            "The configuration still names the old vault: run the command again with an identity of one of the "
            "operators that it lists, or without one."
        )
        raise


def _operator_keys(site: KeySite, path: Path, ask: AskPassphrase) -> dict[str, OperatorKey]:
    """The key of every operator of the configuration; those with a passphrase are asked for a new one, last."""
    keys: dict[str, OperatorKey] = {}
    for name, text in sorted(site.configured.operators.items(), key=lambda item: item[1] == PASSPHRASE):
        with _naming(path, f"source.{site.source}.operators.{name}"):
            if text == PASSPHRASE:
                keys[name] = PassphraseRecipient(ask(name))
            else:
                keys[name] = KmsKey.parse(text) if text.startswith("arn:") else parse_recipient(text)
    return keys


def _warn_of_forgotten(site: KeySite, old: str, reporter: Reporter) -> None:
    """Whoever opens the old vault and is not in the configuration will not open the new one."""
    for name in sorted({place.operator for place in vault_places(site.store, site.source, old)}):
        if name not in site.configured.operators:
            reporter.warn(
                f"{name} has a file in vault {old} and is no operator of the configuration: the new vault is not "
                f"sealed to {name}"
            )


@contextmanager
def _naming(path: Path, key: str) -> Iterator[None]:
    """Within the block, what is wrong with a key is told with its place in the configuration."""
    try:
        yield
    except FormatError as error:
        raise ConfigError(f"{path}: {key}: {error.message}", hint=error.hint) from None
