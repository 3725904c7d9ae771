"""What a store is asked that is no service: nothing in it is archived, locked or removed by rules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from archiver.retention.rules import Rule
from archiver.stores.base import Availability, StoredObject

_PART_SIZE = 4 * 1024 * 1024


class PlainStore(ABC):
    """The part of Store that is the same for all stores without a service behind them."""

    @property
    def part_size(self) -> int:
        return _PART_SIZE

    @property
    def requests(self) -> Mapping[str, int]:
        return {}

    @abstractmethod
    def stat(self, key: str) -> StoredObject: ...

    def availability(self, key: str) -> Availability:
        self.stat(key)
        return "ready"

    def thaw(self, key: str, days: int) -> None:  # noqa: ARG002 - of the protocol
        self.stat(key)

    def rules(self) -> Sequence[Rule] | None:
        return None

    def abandon(self) -> None:
        return

    def full_key(self, key: str) -> str:
        return key

    def unlock(self, key: str) -> None:
        self.stat(key)
