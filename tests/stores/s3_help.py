"""What the tests of the S3 store share."""

from collections.abc import Callable

from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.s3 import S3Store

MIB = 1 << 20
PART = 5 * MIB
KEY = "daily/data/prod/0123.mdb.zst.age"
Open = Callable[..., S3Store]
"""What the fixture open_s3 gives: a URL and fields of S3Options to a store."""


def endpoint_of(url: str) -> str:
    destination = parse_destination(url)
    assert isinstance(destination, S3Destination)
    assert destination.options.endpoint is not None
    return destination.options.endpoint


def fetch(store: S3Store, key: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.read(key, start, length))
