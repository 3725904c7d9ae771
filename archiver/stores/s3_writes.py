"""Creating keys in S3: one request, or a multipart upload of equal parts, and never over an existing key."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from archiver.buffers import Buffer, BufferFile, rechunk
from archiver.errors import NotFoundError, StorageError
from archiver.parallel import ordered_map
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.s3_checksums import Checksum, compare
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_creation import S3Creation, locks
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_precondition_failure
from archiver.stores.s3_multipart import MultipartUpload, abort_upload, open_uploads
from archiver.stores.s3_options import S3Options

MAX_PARTS = 10_000


class S3Writer:
    """Creates keys, and ends what earlier runs left open.

    Bodies are handed over as files: a bytearray would be sent with one time limit for all of it, in which a slow link
    cannot carry a part. So the limit holds for each stretch, and means no progress.
    """

    def __init__(self, connection: S3Connection, options: S3Options, journal: Journal, creation: S3Creation) -> None:
        self._connection = connection
        self._client = connection.client
        self._options = options
        self._creation = creation
        self._journal = journal

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        """Fulfils Store.create for a checked key."""
        if not self._options.conditional_writes:
            self._creation.refuse_existing(key)
        parts = rechunk(body, self._options.part_size)
        first = list(itertools.islice(parts, 2))
        if len(first) < 2:
            return self._put(key, first[0] if first else b"")
        return self._upload(key, _drained(first, parts))

    def recover(self) -> int:
        """Abort what the journal names; the number of uploads that were open indeed."""
        aborted = 0
        for entry in self._journal.entries():
            key, _, upload = entry.partition(" ")
            for identifier in [upload] if upload else open_uploads(self._connection, key):
                aborted += abort_upload(self._connection, key, identifier)
            self._journal.remove(entry)
        return aborted

    def _put(self, key: str, data: Buffer) -> StoredObject:
        fields, checksum = self._creation.fields(key), self._checksum(data)
        request = self._connection.address(key) | fields | self._creation.condition() | checksum
        try:
            answer = self._connection.send(
                "s3:PutObject", key, lambda: self._client.put_object(**request | {"Body": BufferFile(data)})
            )
        except S3_ERRORS as error:
            if is_precondition_failure(error):
                return self._settle(key, fields, checksum, len(data))
            raise self._connection.translated(error, "s3:PutObject", key) from error
        self._creation.check_encrypted(key, answer)
        compare(self._connection.place(key), request, answer)
        if locks(fields):
            return self._settle(key, fields, checksum, len(data))
        return StoredObject(key, len(data), response_time(answer))

    def _upload(self, key: str, parts: Iterator[Buffer]) -> StoredObject:
        whole, size = Checksum(), 0
        fields = self._creation.fields(key)
        kind = {} if self._options.checksum == "none" else {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}

        def numbered() -> Iterator[tuple[int, Buffer]]:
            nonlocal size
            for number, part in enumerate(parts, start=1):
                if number > MAX_PARTS:
                    raise StorageError(
                        f"{self._connection.place(key)} would need more than {MAX_PARTS:,} parts",
                        hint="Raise the option part_size.",
                    )
                size += len(part)
                if self._options.checksum != "none":
                    whole.update(part)
                yield number, part

        with MultipartUpload(self._connection, self._journal, key) as upload:

            def send(item: tuple[int, Buffer]) -> dict[str, Any]:
                return upload.send(*item, self._checksum(item[1]))

            upload.begin(fields | kind)
            # One part ahead, and one that rechunk fills: uploads + 2 parts in memory.
            done = list(ordered_map(send, numbered(), workers=self._options.uploads, ahead=1, abandon=upload.abandon))
            checksum = {} if self._options.checksum == "none" else whole.fields
            try:
                upload.complete(done, self._creation.condition() | self._whole(checksum, size))
            except S3_ERRORS as error:
                # The upload is gone when an earlier attempt completed it and its answer was lost.
                if not is_precondition_failure(error) and error_code(error) != "NoSuchUpload":
                    raise self._connection.translated(error, "s3:PutObject", key) from error
            return self._settle(key, fields, checksum, size)

    def _settle(self, key: str, fields: Mapping[str, Any], checksum: Mapping[str, str], size: int) -> StoredObject:
        try:
            return self._creation.settle(key, fields, checksum, size)
        except NotFoundError as error:
            raise StorageError(f"{self._connection.place(key)} is missing after it was uploaded") from error

    def _checksum(self, data: Buffer) -> dict[str, str]:
        return {} if self._options.checksum == "none" else Checksum(data).fields

    def _whole(self, checksum: Mapping[str, str], size: int) -> dict[str, Any]:
        """What the store is to find the parts to be when it puts them together."""
        return {**checksum, "ChecksumType": "FULL_OBJECT", "MpuObjectSize": size} if checksum else {}


def _drained(first: list[Buffer], rest: Iterator[Buffer]) -> Iterator[Buffer]:
    """``first``, which is emptied so that nobody holds a part for longer than it takes to send it, and ``rest``."""
    while first:
        yield first.pop(0)
    yield from rest


def response_time(response: Any) -> datetime:
    """When the store answered, by its own clock, from the ``Date`` header; raises ``StorageError`` without one."""
    text = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        raise StorageError(f"the store's answer has no valid date: {text!r}") from None
