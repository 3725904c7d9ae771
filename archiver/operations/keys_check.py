"""``archiver keys check``: whether the operator's own key opens every vault that is needed, before the day it is."""

from collections.abc import Sequence

import msgspec

from archiver.crypto.recipients import vault_id
from archiver.errors import ArchiverError, NotFoundError, UsageError
from archiver.operations.history import Backup
from archiver.operations.keys_access import KeySite
from archiver.operations.vaults import unlock_vault, vault_places
from archiver.progress import Reporter


class NeededVault(msgspec.Struct):
    """A vault that new backups go to, or that a backup within its promise names."""

    recipient: str
    is_current: bool
    backups: list[str] = msgspec.field(default_factory=list)
    """Ids of those that name it, newest first."""
    opened_by: str | None = None
    """Key of the file through which it was opened."""
    problem: ArchiverError | None = None
    """Why it was not."""

    @property
    def id(self) -> str:
        return vault_id(self.recipient)


def check_keys(site: KeySite, reporter: Reporter) -> Sequence[NeededVault]:
    """Try the given identities on every vault that is needed; that of new backups comes first.

    A file that holds another identity than that of the recipient does not count. What looks like a backup and is not to
    be believed is warned of: nobody knows which vaults it needs. It is warned, too, where neither a
    configuration nor a card names the vault of new backups. Raises ``UsageError`` without an identity, and
    ``NotFoundError`` when there is no vault to be tried.
    """
    if not site.keyring:
        raise UsageError("no identity to check", hint="Give --identity, --passphrase or --kms.")
    needed = _needed(site, reporter)
    if not needed:
        raise NotFoundError(
            f"{site.store.url} has no backup of source {site.source!r}, and no configuration and no card names its "
            "vault",
            hint=site.archive.hint(),
        )
    for vault in needed:
        try:
            places = vault_places(site.store, site.source, vault.id)
            if not places:
                raise NotFoundError(f"{site.store.url} holds no key file of vault {vault.id} of source {site.source!r}")
            vault.opened_by = unlock_vault(site.store, places, site.keyring, vault.recipient).place.key
        except ArchiverError as error:
            vault.problem = error
    return needed


def _needed(site: KeySite, reporter: Reporter) -> list[NeededVault]:
    found: dict[str, NeededVault] = {}
    current = site.current()
    if current is not None:
        found[current] = NeededVault(current, is_current=True)
    if site.config is None and site.card.vault_recipient is None:
        # After a rotation it is in no backup yet.
        reporter.warn(
            "no configuration and no card says which vault new backups go to: only those of existing backups were tried"
        )
    for backup in site.archive.backups(site.store.clock()):
        if not isinstance(backup, Backup):
            reporter.warn(f"{backup.place.backup} is not to be trusted, and not looked at: {backup.error.message}")
            continue
        for vault in backup.manifest.vaults:
            needed = found.setdefault(vault.recipient, NeededVault(vault.recipient, is_current=False))
            needed.backups.append(backup.manifest.backup)
    return list(found.values())
