"""The store in a bucket: ``s3://bucket/prefix``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from archiver.buffers import Buffer
from archiver.errors import NotFoundError, StorageError
from archiver.retention.attributes import Attribution, no_attributes
from archiver.retention.rules import Rule
from archiver.stores import s3_archives
from archiver.stores.base import Availability, StoredObject
from archiver.stores.journal import Journal
from archiver.stores.keys import check_directory, check_key, check_prefix, is_key, is_segment
from archiver.stores.limits import NO_LIMITS, Limits, limiter
from archiver.stores.ranges import check_range
from archiver.stores.retry import Retry
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_copies import S3Copier
from archiver.stores.s3_creation import S3Creation, stored
from archiver.stores.s3_errors import S3_ERRORS, error_code
from archiver.stores.s3_lifecycle import change_rules, read_lifecycle, read_rules
from archiver.stores.s3_options import S3Options
from archiver.stores.s3_reads import S3Reader
from archiver.stores.s3_rules import Lifecycle
from archiver.stores.s3_writes import S3Writer, response_time


class S3Store:
    """Implements Store below ``prefix``, which may be empty, of ``bucket``.

    Permissions it needs there: s3:ListBucket, s3:GetObject, s3:PutObject, s3:AbortMultipartUpload, and for recover
    s3:ListBucketMultipartUploads; s3:DeleteObject for ``delete`` alone, s3:RestoreObject for ``thaw``; with Object Lock
    s3:PutObjectRetention and s3:GetObjectRetention, and for what ``attributes`` put under a legal hold, and for
    ``unlock``, s3:PutObjectLegalHold and s3:GetObjectLegalHold. A store may apply a create whose answer is lost for
    good: such a create fails, and its key exists.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        options: S3Options,
        *,
        journal: Journal,
        attributes: Attribution = no_attributes,
        url: str | None = None,
        retry: Retry | None = None,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self.url = f"s3://{bucket}/{prefix}" if url is None else url
        self._connection = S3Connection(
            bucket, prefix, options, retry, upload=limiter(limits.upload), download=limiter(limits.download)
        )
        self._options = options
        creation = S3Creation(self._connection, options, attributes)
        self._writer = S3Writer(self._connection, options, journal, creation)
        self._copier = S3Copier(self._connection, creation)

    @property
    def part_size(self) -> int:
        return self._options.part_size

    @property
    def requests(self) -> Mapping[str, int]:
        return self._connection.requests

    def clock(self) -> datetime:
        return response_time(self._page("", max_keys=1))

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        check_key(key)
        return self._writer.create(key, body)

    def copy(self, source: str, key: str) -> StoredObject:
        check_key(source)
        check_key(key)
        return self._copier.copy(source, key)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, length)
        return S3Reader(self._connection, key, start, length).buffers()

    def stat(self, key: str) -> StoredObject:
        check_key(key)
        address = self._connection.address(key)
        client = self._connection.client
        head = self._connection.call("s3:GetObject", key, lambda: client.head_object(**address))
        return stored(key, head["ContentLength"], head)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        check_prefix(prefix)
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                key = self._connection.own_key(item["Key"])
                if is_key(key):
                    yield stored(key, item["Size"], item)

    def list_names(self, prefix: str = "") -> Iterator[str]:
        check_directory(prefix)
        names: set[str] = set()
        for page in self._pages(prefix, delimiter="/"):
            found = [item["Prefix"].removesuffix("/") for item in page.get("CommonPrefixes", [])]
            found += [item["Key"] for item in page.get("Contents", [])]
            names.update(self._connection.own_key(name).removeprefix(prefix) for name in found)
        # The bucket orders 'a-b/' before 'a/': names are ordered without their slash.
        return iter(sorted(filter(is_segment, names)))

    def availability(self, key: str) -> Availability:
        check_key(key)
        return s3_archives.availability(self._connection, key)

    def thaw(self, key: str, days: int) -> None:
        check_key(key)
        s3_archives.thaw(self._connection, key, days)

    def rules(self) -> Sequence[Rule] | None:
        return read_rules(self._connection)

    def full_key(self, key: str) -> str:
        return self._connection.full_key(key)

    def unlock(self, key: str) -> None:
        check_key(key)
        s3_archives.unlock(self._connection, key, always=self._options.object_lock is not None)

    def delete(self, key: str) -> None:
        # S3 says of a key that does not exist that it was deleted.
        self.stat(key)
        address = self._connection.address(key)
        client = self._connection.client
        try:
            self._connection.send("s3:DeleteObject", key, lambda: client.delete_object(**address))
        except S3_ERRORS as error:
            # Other stores do not, when it is asked again after a lost answer.
            if error_code(error) != "NoSuchKey":
                raise self._connection.translated(error, "s3:DeleteObject", key) from error
        with suppress(NotFoundError):
            self.stat(key)
            raise StorageError(
                f"{self._connection.place(key)} exists still, though the store says that it was deleted",
                hint="Check for a lock on the object, and that nothing between here and the store answers for it.",
            )

    def recover(self) -> int:
        return self._writer.recover()

    def lifecycle(self) -> Lifecycle:
        """Everything that the bucket's lifecycle configuration says; raises as ``rules``."""
        return read_lifecycle(self._connection)

    def set_lifecycle(self, existing: Lifecycle, wanted: Sequence[Rule]) -> None:
        """Replace this destination's rules by ``wanted``, of full keys; as ``change_rules``."""
        change_rules(self._connection, existing, wanted)

    def abandon(self) -> None:
        self._connection.work.abandon()

    def close(self) -> None:
        self._connection.close()

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[Any]:
        # Not botocore's paginator: it cannot repeat a single page.
        token: str | None = None
        while True:
            page = self._page(prefix, delimiter=delimiter, token=token)
            yield page
            if not page["IsTruncated"]:
                return
            previous, token = token, page.get("NextContinuationToken")
            if token in (None, previous):
                raise StorageError(
                    f"{self._connection.place(prefix)}: the store says that a listing goes on, and not where",
                    hint="It does not know ListObjectsV2: use another store, as backups could go unseen in this one.",
                )

    def _page(self, prefix: str, *, delimiter: str = "", token: str | None = None, max_keys: int = 1000) -> Any:
        request = self._connection.bucket_address()
        request |= {"Prefix": self._connection.full_key(prefix), "MaxKeys": max_keys}
        if delimiter:
            request["Delimiter"] = delimiter
        if token is not None:
            request["ContinuationToken"] = token
        client = self._connection.client
        return self._connection.call(
            "s3:ListBucket", prefix, lambda: client.list_objects_v2(**request), patient=self._connection.begun
        )
