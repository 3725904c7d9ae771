"""Creating keys in S3: one request, or a multipart upload of equal parts, and never over an existing key."""

import base64
import functools
import hashlib
import itertools
import secrets
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from archiver.buffers import Buffer, rechunk
from archiver.errors import AlreadyExistsError, ArchiverError, IntegrityError, NotFoundError, StorageError
from archiver.parallel import ordered_map
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_precondition_failure
from archiver.stores.s3_options import S3Options

MAX_PARTS = 10_000
_NONCE = "archiver-create"


class S3Writer:
    """Creates keys, and ends what earlier runs left open.

    Every create carries a random value of its own in the object's metadata. When the store says that the key exists,
    that value tells whether it was this very create, whose answer was lost on the way, or another.
    """

    def __init__(self, connection: S3Connection, options: S3Options, journal: Journal) -> None:
        self._connection = connection
        self._client = connection.client
        self._options = options
        self._journal = journal

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        """Fulfils Store.create for a checked key."""
        if not self._options.conditional_writes:
            self._refuse_existing(key)
        parts = rechunk(body, self._options.part_size)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            return self._put(key, first)
        return self._upload(key, itertools.chain((first, second), parts))

    def recover(self) -> int:
        """Abort what the journal names; the number of uploads that were open indeed."""
        aborted = 0
        for entry in self._journal.entries():
            key, _, upload = entry.partition(" ")
            for identifier in [upload] if upload else self._open_uploads(key):
                aborted += self._abort(key, identifier)
            self._journal.remove(entry)
        return aborted

    def _put(self, key: str, data: Buffer) -> StoredObject:
        nonce = secrets.token_hex(16)
        request = self._connection.address(key) | self._content(data) | self._attributes(key, nonce) | self._condition()
        try:
            response = self._connection.send("s3:PutObject", key, lambda: self._client.put_object(**request))
        except S3_ERRORS as error:
            if is_precondition_failure(error):
                return self._settle(key, nonce, len(data))
            raise self._connection.translated(error, "s3:PutObject", key) from error
        self._compare(key, request, response)
        return StoredObject(key, len(data), response_time(response))

    def _upload(self, key: str, parts: Iterator[Buffer]) -> StoredObject:
        nonce = secrets.token_hex(16)
        entry = self._begin(key, nonce)
        upload = entry.partition(" ")[2]
        size = 0

        def numbered() -> Iterator[tuple[int, Buffer]]:
            nonlocal size
            for number, part in enumerate(parts, start=1):
                if number > MAX_PARTS:
                    raise StorageError(
                        f"{self._connection.place(key)} would need more than {MAX_PARTS:,} parts",
                        hint="Raise the option part_size.",
                    )
                size += len(part)
                yield number, part

        try:
            send = functools.partial(self._send_part, key, upload)
            # One part ahead, and one that rechunk fills: uploads + 2 parts in memory.
            done = list(ordered_map(send, numbered(), workers=self._options.uploads, ahead=1))
            stored = self._complete(key, upload, nonce, done, size)
        except BaseException as error:
            self._give_up(key, entry, error)
            raise
        self._journal.remove(entry)
        return stored

    def _begin(self, key: str, nonce: str) -> str:
        """Begin an upload; the journal's entry for it: key, space, upload id.

        The key alone is journalled first, so that a kill between the store's answer and the second entry leaves a
        trace too. It stays when the request had to be repeated: an attempt whose answer was lost may have begun an
        upload that nobody knows the id of.
        """
        attempts = 0
        request = self._connection.address(key) | self._attributes(key, nonce)
        if self._options.checksum != "none":
            request["ChecksumAlgorithm"] = self._options.checksum.upper()

        def begin() -> str:
            nonlocal attempts
            attempts += 1
            return self._client.create_multipart_upload(**request)["UploadId"]

        self._journal.add(key)
        try:
            upload = self._connection.send("s3:PutObject", key, begin)
        except S3_ERRORS as error:
            if error_code(error) and attempts == 1:
                # Refused in so many words: nothing was begun.
                self._journal.remove(key)
            raise self._connection.translated(error, "s3:PutObject", key) from error
        except BaseException as interruption:
            self._give_up_unnamed(key, interruption)
            raise
        entry = f"{key} {upload}"
        self._journal.add(entry)
        if attempts == 1:
            self._journal.remove(key)
        return entry

    def _send_part(self, key: str, upload: str, item: tuple[int, Buffer]) -> dict[str, Any]:
        number, part = item
        request = self._connection.address(key) | {"UploadId": upload, "PartNumber": number} | self._content(part)
        response = self._connection.call("s3:PutObject", key, lambda: self._client.upload_part(**request))
        self._compare(key, request, response)
        checksum = {name: value for name, value in request.items() if name.startswith("Checksum")}
        return {"PartNumber": number, "ETag": response["ETag"]} | checksum

    def _complete(self, key: str, upload: str, nonce: str, parts: list[dict[str, Any]], size: int) -> StoredObject:
        request = (
            self._connection.address(key)
            | {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
            | self._condition()
        )
        try:
            self._connection.send("s3:PutObject", key, lambda: self._client.complete_multipart_upload(**request))
        except S3_ERRORS as error:
            # The upload is gone when an earlier attempt completed it and its answer was lost.
            if not is_precondition_failure(error) and error_code(error) != "NoSuchUpload":
                raise self._connection.translated(error, "s3:PutObject", key) from error
        return self._settle(key, nonce, size)

    def _settle(self, key: str, nonce: str, size: int) -> StoredObject:
        """What lies under ``key``, if this create made it; raises ``AlreadyExistsError`` if another one did."""
        try:
            head = self._head(key)
        except NotFoundError as error:
            raise StorageError(f"{self._connection.place(key)} is missing after it was uploaded") from error
        if head["Metadata"].get(_NONCE) != nonce:
            raise AlreadyExistsError(f"{self._connection.place(key)} exists already")
        if head["ContentLength"] != size:
            raise IntegrityError(
                f"{self._connection.place(key)}: expected {size} bytes to be stored, got {head['ContentLength']}"
            )
        return StoredObject(key, size, head["LastModified"].astimezone(UTC))

    def _refuse_existing(self, key: str) -> None:
        try:
            self._head(key)
        except NotFoundError:
            return
        raise AlreadyExistsError(f"{self._connection.place(key)} exists already")

    def _head(self, key: str) -> Any:
        return self._connection.call(
            "s3:GetObject", key, lambda: self._client.head_object(**self._connection.address(key))
        )

    def _give_up(self, key: str, entry: str, reason: BaseException) -> None:
        """Abort an upload because of ``reason``; what cannot be aborted now stays in the journal for the next run."""
        try:
            self._abort(key, entry.partition(" ")[2])
            self._journal.remove(entry)
        except ArchiverError as error:
            reason.add_note(f"its multipart upload is still open: {error}")

    def _give_up_unnamed(self, key: str, reason: BaseException) -> None:
        """Abort what the store may have begun when ``reason`` came before its answer. The key stays in the journal: the
        request may be under way still."""
        try:
            for upload in self._open_uploads(key):
                self._abort(key, upload)
        except ArchiverError as error:
            reason.add_note(f"its multipart upload may still be open: {error}")

    def _abort(self, key: str, upload: str) -> int:
        request = self._connection.address(key) | {"UploadId": upload}
        try:
            self._connection.send(
                "s3:AbortMultipartUpload", key, lambda: self._client.abort_multipart_upload(**request)
            )
        except S3_ERRORS as error:
            if error_code(error) == "NoSuchUpload":
                return 0
            raise self._connection.translated(error, "s3:AbortMultipartUpload", key) from error
        return 1

    def _open_uploads(self, key: str) -> list[str]:
        # Keys are random, so that uploads of one key are few: one page holds a thousand.
        full_key = self._connection.full_key(key)
        listing = self._connection.call(
            "s3:ListBucketMultipartUploads",
            key,
            lambda: self._client.list_multipart_uploads(Bucket=self._connection.bucket, Prefix=full_key),
        )
        return [upload["UploadId"] for upload in listing.get("Uploads", []) if upload["Key"] == full_key]

    def _attributes(self, key: str, nonce: str) -> dict[str, Any]:
        attributes: dict[str, Any] = {"Metadata": {_NONCE: nonce}}
        if self._options.storage_class is not None and key.endswith(".zst.age"):
            attributes["StorageClass"] = self._options.storage_class
        return attributes

    def _condition(self) -> dict[str, Any]:
        return {"IfNoneMatch": "*"} if self._options.conditional_writes else {}

    def _content(self, data: Buffer) -> dict[str, Any]:
        # botocore takes no memoryview.
        content = {"Body": bytes(data) if isinstance(data, memoryview) else data}
        match self._options.checksum:
            case "crc32":
                return content | {"ChecksumCRC32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()}
            case "sha256":
                return content | {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()}
            case "none":
                return content

    def _compare(self, key: str, request: dict[str, Any], response: Any) -> None:
        """Not every store refuses a wrong checksum: compare what it says it received."""
        for name, expected in request.items():
            if name.startswith("Checksum") and response.get(name, expected) != expected:
                raise IntegrityError(
                    f"{self._connection.place(key)} was altered on its way: "
                    f"expected {name} {expected}, got {response[name]}"
                )


def response_time(response: Any) -> datetime:
    """When the store answered, by its own clock, from the ``Date`` header; raises ``StorageError`` without one."""
    text = response["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        raise StorageError(f"the store's answer has no valid date: {text!r}") from None
