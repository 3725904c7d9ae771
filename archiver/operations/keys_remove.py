"""``archiver keys remove``: one operator less, by deleting that operator's files. The one command that deletes keys.

What must never happen is that the last way into a backup goes. That other files lie there proves nothing, because
anybody could have put them there: only an identity that opens the vault through one of them does.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import VaultPlace
from archiver.crypto.vault import MAX_VAULT_FILE
from archiver.errors import ArchiverError, BusyError, FormatError, NoIdentityError, NotFoundError, UsageError
from archiver.operations.config_edit import change_config, without_operator
from archiver.operations.keys_access import KeySite, Vault
from archiver.operations.operator_keys import sharing
from archiver.operations.vaults import read_small
from archiver.progress import Reporter
from archiver.stores.base import Store


class Removed(msgspec.Struct, frozen=True):
    """What was done, or would be."""

    operator: str
    deleted: Mapping[str, str]
    """Keys of the files that are gone, each with that of the file through which its vault was opened."""
    left: Sequence[str]
    """Keys of the files in vaults that nobody needs and that do not open: they stay."""
    config: Path | None
    """The configuration that named the operator, and does so no more."""


def remove_operator(site: KeySite, operator: str, reporter: Reporter, *, dry_run: bool = False) -> Removed:
    """Delete every file of ``operator``, after each vault concerned was opened through somebody else's.

    If one vault that any backup needs does not open so, nothing is deleted anywhere. Raises ``NotFoundError`` for an
    operator whom neither the destination nor the configuration knows, ``UsageError`` for the last one.
    """
    current = site.current()
    vaults = site.vaults(current)
    concerned = [vault for vault in vaults if vault.of(operator)]
    is_configured = site.config is not None and operator in site.configured.operators
    if not concerned and not is_configured:
        known = ", ".join(sorted({name for vault in vaults for name in vault.operators}))
        raise NotFoundError(f"source {site.source!r} has no operator {operator!r}", hint=f"Name one of: {known}.")
    proven, left = _prove(site, operator, concerned, current)
    for vault in left:
        reporter.warn(
            f"the file of {operator!r} in vault {vault.id} stays: no backup that is believed names that vault, and no "
            "other operator's file opens it"
        )
    if site.config is not None and is_configured:
        operators = site.configured.operators
        for other in sharing(operators, operator, operators[operator]):
            reporter.warn(f"operator {other!r} has the same key as {operator!r}: the key opens the vaults as before")
    files = {place.key: proof.key for vault, proof in proven for place in vault.of(operator)}
    # What may fail is tried before anything is deleted.
    _forget(site, operator, rehearse=True)
    if not dry_run:
        for vault, proof in proven:
            _delete(site.store, vault.of(operator), proof)
        _forget(site, operator)
    return Removed(
        operator=operator,
        deleted=files,
        left=[place.key for vault in left for place in vault.of(operator)],
        config=site.config.path if site.config is not None and is_configured else None,
    )


def _prove(
    site: KeySite, operator: str, concerned: Sequence[Vault], current: str | None
) -> tuple[list[tuple[Vault, VaultPlace]], list[Vault]]:
    """Those of ``concerned`` that open through a file of another operator, each with that file; and those that do not
    and that nobody needs, such as a planted one. Raises for one that somebody needs."""
    if not concerned:
        return [], []
    if not site.keyring:
        raise UsageError(
            f"removing {operator!r} needs an identity of another operator, which proves that the vaults open without",
            hint="Give --identity, --passphrase or --kms of an operator who stays.",
        )
    named = site.named()
    proven: list[tuple[Vault, VaultPlace]] = []
    left: list[Vault] = []
    for vault in concerned:
        try:
            proven.append(
                (vault, _open_without(site, operator, replace(vault, recipient=vault.recipient or named.get(vault.id))))
            )
        except ArchiverError:
            # Without a configuration or a backup, nobody knows which vault is in use.
            if current is None or vault.is_current or vault.id in named:
                raise
            left.append(vault)
    return proven, left


def _open_without(site: KeySite, operator: str, vault: Vault) -> VaultPlace:
    """The file of another operator that opens ``vault``."""
    others = [place for place in vault.places if place.operator != operator]
    if not others:
        raise UsageError(
            f"{operator!r} is the last operator of vault {vault.id} of {site.source!r}: nobody could open it any more",
            hint="Add another operator first, with archiver keys add.",
        )
    try:
        return site.unlock(vault, others).place
    except NoIdentityError:
        if _opens(site, vault, vault.of(operator)):
            raise NoIdentityError(
                f"the given identity opens vault {vault.id} of {site.source!r} as {operator!r}, who is to be removed",
                hint="Give that of somebody who stays.",
            ) from None
        raise


def _opens(site: KeySite, vault: Vault, places: Sequence[VaultPlace]) -> bool:
    try:
        site.unlock(vault, places)
    except ArchiverError:
        return False
    return True


def _delete(store: Store, places: Sequence[VaultPlace], proof: VaultPlace) -> None:
    """Delete ``places``, and put them back unless ``proof`` is there still: of two who remove each other at the same
    time, at least one must stay."""
    kept = {}
    for place in places:
        # One that is too large opens nothing, and is no loss.
        with suppress(FormatError):
            kept[place.key] = read_small(store, place.key, MAX_VAULT_FILE)
        store.delete(place.key)
    try:
        store.stat(proof.key)
    except ArchiverError as error:
        for key, data in kept.items():
            store.create(key, [data])
        if not isinstance(error, NotFoundError):
            raise
        raise BusyError(
            f"{proof.key} was deleted meanwhile, and {places[0].operator!r} stays an operator",
            hint="Somebody else removes operators at the same time: agree on who stays.",
        ) from None


def _forget(site: KeySite, operator: str, *, rehearse: bool = False) -> None:
    if site.config is not None:
        vault = site.configured.vault
        change_config(
            site.config.path, lambda text: without_operator(text, site.source, operator, vault), rehearse=rehearse
        )
