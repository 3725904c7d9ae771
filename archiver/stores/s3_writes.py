"""Creating keys in S3: one request, or a multipart upload of equal parts, and never over an existing key."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from archiver.buffers import Buffer, rechunk
from archiver.errors import NotFoundError, StorageError
from archiver.parallel import ordered_map
from archiver.stores.abandonment import Abandonment
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.s3_checksums import Checksum, checksum_of, compare
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_creation import S3Creation, locks
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_precondition_failure
from archiver.stores.s3_multipart import MultipartUpload, abort_upload, open_uploads
from archiver.stores.s3_options import S3Options
from archiver.stores.s3_slots import Share, Slots

MAX_PARTS = 10_000


class S3Writer:
    """Creates keys, and ends what earlier runs left open.

    Of all creates together ``uploads`` parts are sent at a time. Beside these each create holds the part for which it
    wants a place, and what its body is at.
    """

    def __init__(self, connection: S3Connection, options: S3Options, journal: Journal, creation: S3Creation) -> None:
        self._connection = connection
        self._client = connection.client
        self._options = options
        self._creation = creation
        self._journal = journal
        self._slots = Slots(options.uploads)

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        """Fulfils Store.create for a checked key."""
        abandonment = self._connection.work.current().part()
        if not self._options.conditional_writes:
            self._creation.refuse_existing(key)
        parts = rechunk(body, self._options.part_size)
        first = list(itertools.islice(parts, 2))
        if len(first) < 2:
            created = self._put(key, first[0] if first else b"", abandonment)
        else:
            created = self._upload(key, _drained(first, parts), abandonment)
        self._connection.begun = True
        return created

    def recover(self) -> int:
        """Abort what the journal names; the number of uploads that were open indeed."""
        aborted = 0
        for entry in self._journal.entries():
            key, _, upload = entry.partition(" ")
            for identifier in [upload] if upload else open_uploads(self._connection, key):
                aborted += abort_upload(self._connection, key, identifier)
            self._journal.remove(entry)
        return aborted

    def _put(self, key: str, data: Buffer, abandonment: Abandonment) -> StoredObject:
        fields, place = self._creation.fields(key), self._connection.place(key)
        checksum = self._fields(self._checksum(data))
        request = self._connection.address(key) | fields | self._creation.condition() | checksum

        def attempt() -> Any:
            return self._client.put_object(**request | {"Body": self._connection.body(data, abandonment)})

        try:
            with self._slots.share() as share:
                share.take(abandonment, place)
                answer = self._connection.send("s3:PutObject", key, attempt, patient=True, abandonment=abandonment)
        except S3_ERRORS as error:
            if is_precondition_failure(error):
                return self._settle(key, fields, checksum, len(data), abandonment)
            raise self._connection.translated(error, "s3:PutObject", key) from error
        self._creation.check_encrypted(key, answer)
        compare(place, request, answer)
        if locks(fields):
            return self._settle(key, fields, checksum, len(data), abandonment)
        return StoredObject(key, len(data), response_time(answer))

    def _upload(self, key: str, parts: Iterator[Buffer], abandonment: Abandonment) -> StoredObject:
        fields = self._creation.fields(key)
        kind = {} if self._options.checksum == "none" else {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        upload = MultipartUpload(self._connection, self._journal, key, abandonment)
        with upload, self._slots.share() as share:

            def send(part: _Part) -> tuple[dict[str, Any], Checksum]:
                try:
                    data = part.take()
                    checksum = self._checksum(data)
                    return upload.send(part.number, data, self._fields(checksum)), checksum
                finally:
                    share.release()

            upload.begin(fields | kind)
            sent = list(
                ordered_map(
                    send,
                    self._numbered(key, parts, share, abandonment),
                    workers=self._options.uploads,
                    # Of parts that were sent before an earlier one that stands still, only the answers are held.
                    ahead=2 * self._options.uploads,
                    abandon=abandonment.abandon,
                )
            )
            whole = functools.reduce(Checksum.followed_by, (checksum for _, checksum in sent))
            checksum = self._fields(whole)
            try:
                upload.complete([part for part, _ in sent], self._creation.condition() | _whole(checksum, whole.size))
            except S3_ERRORS as error:
                # The upload is gone when an earlier attempt completed it and its answer was lost.
                if not is_precondition_failure(error) and error_code(error) != "NoSuchUpload":
                    raise self._connection.translated(error, "s3:PutObject", key) from error
            # Nothing else tells when the key was made: AWS dates it by the beginning of its upload, others by the end.
            return self._settle(key, fields, checksum, whole.size, abandonment)

    def _numbered(self, key: str, parts: Iterator[Buffer], share: Share, abandonment: Abandonment) -> Iterator["_Part"]:
        number = 0
        # Not enumerate(), which holds the last part while it waits for the next one.
        for data in parts:
            number += 1  # noqa: SIM113
            if number > MAX_PARTS:
                raise StorageError(
                    f"{self._connection.place(key)} would need more than {MAX_PARTS:,} parts",
                    hint="Raise the option part_size.",
                )
            share.take(abandonment, self._connection.place(key))
            part = _Part(number, data)
            del data
            yield part

    def _settle(
        self,
        key: str,
        fields: Mapping[str, Any],
        checksum: Mapping[str, str],
        size: int,
        abandonment: Abandonment,
    ) -> StoredObject:
        try:
            return self._creation.settle(key, fields, checksum, size, abandonment)
        except NotFoundError as error:
            raise StorageError(f"{self._connection.place(key)} is missing after it was uploaded") from error

    def _checksum(self, data: Buffer) -> Checksum:
        return Checksum(size=len(data)) if self._options.checksum == "none" else checksum_of(data)

    def _fields(self, checksum: Checksum) -> dict[str, str]:
        return {} if self._options.checksum == "none" else checksum.fields


class _Part:
    """A part that nobody holds for longer than it takes to send it."""

    def __init__(self, number: int, data: Buffer) -> None:
        self.number = number
        self._data = [data]

    def take(self) -> Buffer:
        """Its bytes, once."""
        return self._data.pop()


def _whole(checksum: Mapping[str, str], size: int) -> dict[str, Any]:
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
