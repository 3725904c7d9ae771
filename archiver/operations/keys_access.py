"""What the commands about keys begin with: the vaults of a source, who has a file in which, and the configuration."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import VaultPlace
from archiver.config import Config, SourceConfig, find_config
from archiver.crypto.card import CardValues
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.errors import ConfigError, NotFoundError, UsageError
from archiver.operations.access import Access, AccessOptions, nearby_config, resolve_access
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.vaults import OpenedVault, unlock_vault, vault_places
from archiver.progress import Reporter
from archiver.stores.base import Store


class Vault(msgspec.Struct, frozen=True):
    """One vault of the source, as it lies in the destination."""

    id: str
    recipient: str | None
    """Where it is known: an identity is believed to be this vault's by it, else by the fingerprint alone."""
    is_current: bool
    """Whether new backups go to it, as far as that can be known."""
    places: tuple[VaultPlace, ...]
    """The operators' files in it."""

    @property
    def operators(self) -> list[str]:
        """Who has a file, each once: somebody may have two, of two forms."""
        return sorted({place.operator for place in self.places})

    def of(self, operator: str) -> list[VaultPlace]:
        """The files of one operator."""
        return [place for place in self.places if place.operator == operator]


class KeySite(msgspec.Struct, frozen=True):
    """A source whose keys are looked at or changed, with the operator's own keys."""

    archive: Archive
    keyring: Keyring
    trusted: Sequence[TrustedKey] | None
    """The signing keys that are believed; None where the operator said to trust unsigned backups."""
    config: Config | None
    """The one that backs up this source to this destination, if it is at hand."""
    card: CardValues
    """What the recovery card says; empty where none was given."""

    @property
    def store(self) -> Store:
        return self.archive.store

    @property
    def source(self) -> str:
        return self.archive.source

    @property
    def configuration(self) -> Config:
        """``config``; raises ``ConfigError`` where there is none."""
        if self.config is None:
            raise ConfigError(f"no configuration of source {self.source!r} at hand", hint="Name one with --config.")
        return self.config

    @property
    def configured(self) -> SourceConfig:
        """The source's part of the configuration, of which there must be one."""
        return self.configuration.source(self.source)

    def current(self) -> str | None:
        """The recipient of the vault that new backups go to: as configured; without a configuration that of the card or
        of the newest backup that is believed, whichever is newer, or None."""
        if self.config is not None:
            return self.configured.vault
        newest = next(iter(self.believed()), None)
        if newest is None or self._has_newer_card(newest):
            return None if self.card.vault_recipient is None else str(self.card.vault_recipient)
        return newest.manifest.vaults[0].recipient

    def _has_newer_card(self, backup: Backup) -> bool:
        """Whether the card was written after ``backup`` began, as after a rotation: it has whole seconds."""
        card = self.card
        if card.vault_recipient is None or card.created is None:
            return False
        return card.created >= backup.manifest.started.replace(microsecond=0)

    def believed(self) -> Iterable[Backup]:
        """The backups whose manifests can be believed, newest first."""
        return (backup for backup in self.archive.backups() if isinstance(backup, Backup))

    def named(self) -> dict[str, str]:
        """By id, the recipient of every vault that a backup which is believed names."""
        return {vault.id: vault.recipient for backup in self.believed() for vault in backup.manifest.vaults}

    def vaults(self, current: str | None) -> list[Vault]:
        """All vaults that have a file, that of the recipient ``current`` first; raises ``NotFoundError`` when there is
        none, or not that one."""
        found: dict[str, list[VaultPlace]] = {}
        for place in vault_places(self.store, self.source):
            found.setdefault(place.vault, []).append(place)
        if not found:
            raise NotFoundError(f"{self.store.url} holds no vault of source {self.source!r}", hint=self.archive.hint())
        first = None if current is None else vault_id(current)
        if first is not None and first not in found:
            raise NotFoundError(
                f"{self.store.url} holds no key file of vault {first} of source {self.source!r}, which is in use",
                hint="Check that vault and destination in archiver.toml belong together.",
            )
        vaults = [
            Vault(name, current if name == first else None, name == first, tuple(places))
            for name, places in found.items()
        ]
        return sorted(vaults, key=lambda vault: not vault.is_current)

    def unlock(self, vault: Vault, places: Sequence[VaultPlace]) -> OpenedVault:
        """Open ``vault`` by some of its files, at least one; raises what ``unlock_vault`` does."""
        return unlock_vault(self.store, places, self.keyring, vault.recipient)


@contextmanager
def open_site(
    options: AccessOptions, *, for_writing: str | None = None, reporter: Reporter | None = None
) -> Iterator[KeySite]:
    """The source that ``options`` lead to, its store closed at the end.

    A malformed configuration at the usual place, which nobody named, is left out with a warning to ``reporter``; it
    raises ``UsageError`` where there is none, for a command that would have to change it.

    A command that is of no use without a configuration gives its name as ``for_writing``: ``ConfigError`` then says
    that there is none, and the configuration counts more than the recovery card.
    """
    if for_writing is not None:
        options = replace(options, config=_find_config(options, for_writing))
    access = resolve_access(options)
    with access.open() as archive:
        yield KeySite(archive, access.keyring, access.trusted, _configuration(access, reporter), access.card)


def _find_config(options: AccessOptions, command: str) -> Path:
    if options.destination is not None:
        raise UsageError(
            f"{command} works on a configuration and takes no --from",
            hint="Run it where archiver.toml is, or name that with --config.",
        )
    try:
        return find_config(options.config)
    except ConfigError as error:
        raise ConfigError(
            error.message, hint=f"{command} needs one: run it where archiver.toml is, or name that with --config."
        ) from None


def _configuration(access: Access, reporter: Reporter | None) -> Config | None:
    """The configuration that was read; else the one at the usual place, if it is about the same backups: who uses the
    recovery card on the backup host expects it to be kept up to date."""
    if access.config is not None:
        return access.config
    try:
        return nearby_config(access.destination, access.source)
    except UsageError as error:
        if reporter is None:
            raise
        # The card is enough, and it may be the configuration of something else.
        reporter.warn(f"a configuration was not looked at: {error.message}")
        return None
