"""What a backup makes sure of before it begins: somebody could restore it, its id sorts after the last."""

import time
from collections.abc import Collection
from datetime import datetime, timedelta

from archiver.catalog.names import parse_vault_key, vault_prefix
from archiver.crypto.keys import PublicKey
from archiver.crypto.recipients import vault_id
from archiver.errors import ConfigError
from archiver.operations.predecessor import Predecessor
from archiver.operations.vaults import put_back
from archiver.progress import Reporter
from archiver.stores.base import Store


def check_vault(
    store: Store, source: str, recipient: PublicKey, operators: Collection[str], reporter: Reporter
) -> None:
    """Raise ``ConfigError`` if nobody can open the vault of ``recipient``; warn of ``operators`` who cannot."""
    vault = vault_id(str(recipient))
    places = [parse_vault_key(item.key) for item in store.list(vault_prefix(source, vault))]
    found = {place.operator for place in places if place is not None}
    if not found:
        raise ConfigError(
            f"{store.url} holds no key file of vault {vault} of source {source!r}: nobody could restore",
            hint=put_back(source, vault),
        )
    for operator in sorted(set(operators) - found):
        reporter.warn(
            f"operator {operator!r} cannot open this backup: {store.url} holds no file of that name for vault {vault}; "
            "if this operator was removed on another machine, take the name out of the configuration, else run "
            "archiver keys add"
        )


def begin(store: Store, previous: Predecessor | None, reporter: Reporter) -> datetime:
    """The store's clock, in a later second than the previous backup's: ids are ordered by age to the second."""
    started = store.clock()
    if previous is not None and started < previous.latest_started - timedelta(seconds=1):
        reporter.warn(
            f"the store's clock says {started:%Y-%m-%dT%H:%M:%SZ}, before backup {previous.latest}: until it "
            "has passed that, latest is that older backup; name this one by its id"
        )
    if previous is not None and started.replace(microsecond=0) == previous.latest_started:
        time.sleep(1 - started.microsecond / 1_000_000)
        return store.clock()
    return started
