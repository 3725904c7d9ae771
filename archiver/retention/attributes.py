"""With what a key is created, beside its bytes: one decision for all that is written."""

from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import VAULTS, parse_object_key
from archiver.config import HELD, RetentionClass


class Attributes(msgspec.Struct, frozen=True):
    """What a store that knows of such things is told. Others ignore it."""

    storage_class: str | None = None
    archivable: bool = False
    """Whether it may have another storage class than the standard one at all: it is an object, and neither a list, nor
    contents, nor anything that says what a backup is."""
    retain_days: int | None = None
    """For how long Object Lock, where it is on, keeps it from its creation on; None: not at all."""
    legal_hold: bool = False
    """Whether, where Object Lock is on, it is kept until somebody releases it."""


Attribution = Callable[[str], Attributes]
"""By key."""


def attribution(classes: Mapping[str, RetentionClass]) -> Attribution:
    """The attributes of keys under these classes: objects get the storage class of their class; what lies in a class is
    locked for keep + lease, vault files for the longest of these, and what lies in ``held`` until it is released."""
    days = {name: retention.keep + retention.lease for name, retention in classes.items()}
    longest = max(days.values(), default=None)

    def attributes(key: str) -> Attributes:
        plain = no_attributes(key)
        if key.startswith(VAULTS):
            return replace(plain, retain_days=longest)
        name = key.partition("/")[0]
        retention = classes.get(name)
        return replace(
            plain,
            storage_class=retention.storage_class if retention is not None and plain.archivable else None,
            retain_days=days.get(name),
            legal_hold=name == HELD,
        )

    return attributes


def no_attributes(key: str) -> Attributes:
    """For reading, and where no configuration says anything. Objects may still have the destination's storage class."""
    return Attributes(archivable=parse_object_key(key) is not None)
