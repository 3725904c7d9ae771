"""``archiver keys rotate``: a new vault for new backups. Old objects stay as they are, and readable by who could read.

The order is the safety: the new vault's files are all there before the configuration names it. A run that fails before
that leaves the old vault in use, and files that do no harm.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import msgspec

from archiver.catalog.names import vault_key
from archiver.config import PASSPHRASE
from archiver.crypto.hybrid import HybridIdentity, HybridRecipient
from archiver.crypto.keys import PublicKey, parse_recipient
from archiver.crypto.kms import KmsKey
from archiver.crypto.passphrase import PassphraseIdentity, PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import OperatorKey, create_vault, seal_vault, vault_form
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import ArchiverError, BusyError, ConfigError, FormatError, NoIdentityError
from archiver.operations.config_edit import change_config, with_vault
from archiver.operations.keys_access import KeySite
from archiver.operations.operator_keys import operator_text, sharing, weakness
from archiver.operations.vaults import unlock_vault, vault_places
from archiver.progress import Reporter
from archiver.stores.memory import MemoryStore

AskPassphrase = Callable[[str], str]
"""Asks the operator of this name for a new passphrase."""
_NOT_ASKED_YET = "in place of a passphrase"
_ANOTHER_IDENTITY = (
    "The configuration still names the old vault: run the command again with an identity of one of the operators that "
    "it lists, or without one."
)


class Rotated(msgspec.Struct, frozen=True):
    """What was done, or would be."""

    old: str
    """Id of the vault that was in use."""
    new: str
    """Id of the one that is."""
    recipient: str
    """Of the new vault, as the configuration has it."""
    operators: Mapping[str, str]
    """Who opens it, by name, as the configuration has them."""
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
    say who the operators are, ``BusyError`` where it still names one who opens the old vault no more, or was changed
    meanwhile, and ``NoIdentityError``, or what else ``unlock_vault`` does, when the given identity does not open the
    new vault: the configuration is then unchanged.
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

    operators = _operator_keys(site, path)

    def change(text: str) -> str:
        changed = with_vault(text, site.source, old, str(new), site.configured.operators)
        _refuse_removed(site, vault_id(old), operators)
        return changed

    # What may fail is tried before anybody is asked, and before anything is created.
    change_config(path, change, rehearse=True)
    _warn_of_forgotten(site, vault_id(old), operators, reporter)
    _check_given(site, operators)
    _warn(new, operators, reporter)
    opened_by = None
    keys = [vault_key(site.source, vault_id(str(new)), name, vault_form(key)) for name, key in operators.items()]
    if not dry_run:
        # All are sealed, and opened, before the first is created: KMS may refuse, and a passphrase be wrong.
        sealed = [seal_vault(vault, key, site.source) for key in _asked(operators, ask).values()]
        files = dict(zip(keys, sealed, strict=True))
        opened_by = _prove(site, files, new)
        # While passphrases were typed, somebody else may have added or removed an operator.
        change_config(path, change, rehearse=True)
        for name, data in files.items():
            site.store.create(name, [data])
        change_config(path, change)
    return Rotated(vault_id(old), vault_id(str(new)), str(new), dict(site.configured.operators), keys, opened_by, path)


def _warn(new: PublicKey, operators: Mapping[str, OperatorKey], reporter: Reporter) -> None:
    for name, key in operators.items():
        problem = weakness(new, name, key)
        if problem is not None:
            reporter.warn(problem)
    texts = {name: operator_text(key) for name, key in operators.items()}
    for first, second in combinations(texts, 2):
        if second in sharing(texts, first, texts[first]):
            reporter.warn(f"operators {first!r} and {second!r} have the same key: who loses it loses both")


def _prove(site: KeySite, files: Mapping[str, bytes], new: PublicKey) -> str | None:
    """The one of ``files`` through which the given identity, if there is one, opens the new vault; raises when none
    does."""
    if not site.keyring:
        return None
    store = MemoryStore()
    for name, data in files.items():
        store.create(name, [data])
    try:
        return unlock_vault(store, vault_places(store, site.source), site.keyring, str(new)).place.key
    except ArchiverError as error:
        error.hint = _ANOTHER_IDENTITY
        raise


def _operator_keys(site: KeySite, path: Path) -> dict[str, OperatorKey]:
    """The key of every operator of the configuration; one that nobody knows yet stands for every passphrase."""
    keys: dict[str, OperatorKey] = {}
    for name, text in site.configured.operators.items():
        if text == site.configured.vault:
            raise ConfigError(
                f"{path}: source.{site.source}.operators.{name}: the recipient is the vault's own: it opens nothing",
                hint="Write the age1… line of the operator's identity file there.",
            )
        with _naming(path, f"source.{site.source}.operators.{name}"):
            if text == PASSPHRASE:
                keys[name] = PassphraseRecipient(_NOT_ASKED_YET)
            else:
                keys[name] = KmsKey.parse(text) if text.startswith("arn:") else parse_recipient(text)
    return keys


def _asked(operators: Mapping[str, OperatorKey], ask: AskPassphrase) -> dict[str, OperatorKey]:
    """``operators``, where those with a passphrase have typed a new one."""
    return {
        name: PassphraseRecipient(ask(name)) if isinstance(key, PassphraseRecipient) else key
        for name, key in operators.items()
    }


def _refuse_removed(site: KeySite, old: str, operators: Mapping[str, OperatorKey]) -> None:
    """Raise ``BusyError`` for an operator who has no file in the old vault: the removal of an operator on another
    machine leaves this configuration as it is, and a rotation would undo it.

    Only whoever gives that operator's own identity needs no file: where nobody is left who opens the old vault, that is
    the way to a new one.
    """
    found = {place.operator for place in vault_places(site.store, site.source, old)}
    own = _given_keys(site)
    absent = [repr(name) for name, key in operators.items() if name not in found and key not in own]
    if absent:
        names = " and ".join(absent)
        be, have, were = ("is", "has", "was") if len(absent) == 1 else ("are", "have", "were")
        raise BusyError(
            f"{names} {be} in archiver.toml but {have} no file in vault {old}, which is in use: {were} {names} removed "
            "elsewhere?",
            hint=f"Take {names} out of [source.{site.source}.operators], or let {names} in first with archiver keys "
            "add.",
        )


def _warn_of_forgotten(site: KeySite, old: str, operators: Mapping[str, OperatorKey], reporter: Reporter) -> None:
    found = {place.operator for place in vault_places(site.store, site.source, old)}
    for name in sorted(found - operators.keys()):
        reporter.warn(
            f"{name!r} has a file in vault {old} and is no operator of the configuration: the new vault is not "
            f"sealed to {name!r}"
        )


def _check_given(site: KeySite, operators: Mapping[str, OperatorKey]) -> None:
    """Raise ``NoIdentityError`` when all that was given belongs to none of ``operators``.

    Whether a passphrase or KMS is right shows when the new vault is opened.
    """
    given = site.keyring
    kinds = {type(key) for key in operators.values()}
    may_open = (
        not _given_keys(site).isdisjoint(operators.values())
        or (given.kms and KmsKey in kinds)
        or (PassphraseRecipient in kinds and any(isinstance(item, PassphraseIdentity) for item in given.identities))
    )
    if given and not may_open:
        raise NoIdentityError(
            "the new vault would not open: none of the given identities is that of an operator of the configuration "
            f"({', '.join(operators)})",
            hint=_ANOTHER_IDENTITY,
        )


def _given_keys(site: KeySite) -> set[OperatorKey]:
    """The public halves of the given identities."""
    return {item.recipient for item in site.keyring.identities if isinstance(item, X25519Identity | HybridIdentity)}


@contextmanager
def _naming(path: Path, key: str) -> Iterator[None]:
    """Within the block, what is wrong with a key is told with its place in the configuration."""
    try:
        yield
    except FormatError as error:
        raise ConfigError(f"{path}: {key}: {error.message}", hint=error.hint) from None
