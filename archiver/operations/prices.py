"""What a store charges: a TOML file that the operator writes (docs/prices/README.md). No price stands in the code."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from archiver.errors import ConfigError
from archiver.tables import Origin, Table

_MOST = 1_000_000.0
"""No price is higher."""


class StoragePrices(msgspec.Struct, frozen=True):
    """Of one storage class, in the file's currency."""

    gib_month: float
    """For a GiB (2³⁰ bytes) stored for a month."""
    put: float
    """For 1,000 requests that create, copy or list keys."""
    get: float
    """For 1,000 requests that read."""
    retrieval_gib: float
    """For a GiB that is read, beside the transfer."""
    thaw: float
    """For 1,000 requests to thaw."""
    minimum_days: int
    """For how many days a key is charged at least, however soon it goes."""
    minimum_bytes: int
    """As how many bytes a smaller key is charged."""


class Prices(msgspec.Struct, frozen=True):
    """All of a price file."""

    path: Path
    currency: str
    note: str
    """Whose prices these are, and of when."""
    egress_gib: float
    """For a GiB that leaves the store's network."""
    storage: Mapping[str, StoragePrices]

    def of(self, storage_class: str) -> StoragePrices:
        """Those of a storage class; raises ``ConfigError`` where the file has none."""
        if storage_class not in self.storage:
            raise ConfigError(
                f"{self.path} has no prices of storage class {storage_class}, which is used here",
                hint=f"Add a table [storage.{storage_class}].",
            )
        return self.storage[storage_class]


def load_prices(path: Path) -> Prices:
    """Read and check a price file; raises ``ConfigError`` with line and key."""
    try:
        text = path.read_text("utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return _prices(path, Table(values, (), Origin(path, text)))
    except ConfigError as error:
        error.hint = "docs/prices/README.md lists every key."
        raise


def _prices(path: Path, table: Table) -> Prices:
    storage = table.table("storage")
    prices = Prices(
        path=path,
        currency=table.required("currency", str),
        note=table.required("note", str),
        egress_gib=table.number("egress_gib", None, _MOST),
        storage={name: _storage(storage.table(name)) for name in storage.names()},
    )
    if not prices.storage:
        table.fail("storage", "missing, expected a table for each storage class that is used")
    table.end()
    return prices


def _storage(table: Table) -> StoragePrices:
    prices = StoragePrices(
        gib_month=table.number("gib_month", None, _MOST),
        put=table.number("put", None, _MOST),
        get=table.number("get", None, _MOST),
        retrieval_gib=table.number("retrieval_gib", 0.0, _MOST),
        thaw=table.number("thaw", 0.0, _MOST),
        minimum_days=table.integer("minimum_days", 0, 0, 36500),
        minimum_bytes=table.integer("minimum_bytes", 0, 0, 2**32),
    )
    table.end()
    return prices
