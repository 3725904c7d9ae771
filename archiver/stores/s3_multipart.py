"""One multipart upload, from its beginning to its key, or to its end without one."""

from types import TracebackType
from typing import Any, Self

from archiver.buffers import Buffer
from archiver.errors import ArchiverError
from archiver.stores.abandonment import Abandonment
from archiver.stores.journal import Journal
from archiver.stores.s3_checksums import compare
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_rejection


class MultipartUpload:
    """A multipart upload of ``key``: a context manager that aborts what its block has begun and not completed.

    The journal knows of it from before the request that begins it: first by the key alone, so that a kill between the
    store's answer and the next entry leaves a trace too, then by ``key id``. The key's own entry outlives a begin
    that had to be repeated.
    """

    def __init__(self, connection: S3Connection, journal: Journal, key: str, abandonment: Abandonment) -> None:
        self._connection = connection
        self._client = connection.client
        self._journal = journal
        self._key = key
        self._attempts = 0
        self._id: str | None = None
        self._abandonment = abandonment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attempts == 0:
            return
        uncertain = self._is_uncertain(error)
        try:
            if error is not None and self._id is not None:
                abort_upload(self._connection, self._key, self._id)
            if uncertain:
                for upload in open_uploads(self._connection, self._key):
                    abort_upload(self._connection, self._key, upload)
            if self._id is not None:
                self._journal.remove(f"{self._key} {self._id}")
            if not uncertain:
                self._journal.remove(self._key)
        except ArchiverError as problem:
            # The journal still has it, for the next run.
            if error is not None:
                error.add_note(f"its multipart upload is still open: {problem}")

    def begin(self, attributes: dict[str, Any]) -> None:
        """Begin it with ``attributes``, further fields of the request."""
        request = self._connection.address(self._key) | attributes

        def attempt() -> str:
            self._attempts += 1
            return self._client.create_multipart_upload(**request)["UploadId"]

        self._journal.add(self._key)
        self._id = self._connection.call(
            "s3:PutObject", self._key, attempt, patient=True, abandonment=self._abandonment
        )
        self._journal.add(f"{self._key} {self._id}")
        if self._attempts == 1:
            self._journal.remove(self._key)

    def send(self, number: int, data: Buffer, checksum: dict[str, str]) -> dict[str, Any]:
        """Send part ``number``, from 1 on; what complete needs to know of it. May be called from several threads."""
        request = self._address() | {"PartNumber": number} | checksum

        def attempt() -> Any:
            return self._client.upload_part(**request | {"Body": self._connection.body(data, self._abandonment)})

        answer = self._connection.call("s3:PutObject", self._key, attempt, patient=True, abandonment=self._abandonment)
        compare(self._connection.place(self._key), request, answer)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def complete(self, parts: list[dict[str, Any]], conditions: dict[str, Any]) -> None:
        """Make the key of ``parts``; raises what botocore raises, also where an earlier attempt, whose answer was lost,
        has made it."""
        request = self._address() | {"MultipartUpload": {"Parts": parts}} | conditions
        self._connection.send(
            "s3:PutObject",
            self._key,
            lambda: self._client.complete_multipart_upload(**request),
            patient=True,
            abandonment=self._abandonment,
        )

    def _address(self) -> dict[str, Any]:
        return self._connection.address(self._key) | {"UploadId": self._id}

    def _is_uncertain(self, error: BaseException | None) -> bool:
        """Whether an attempt whose answer was lost may have begun an upload that nobody knows the id of, and may be
        under way still."""
        if self._attempts > 1:
            return True
        return self._id is None and not (error is not None and is_rejection(error.__cause__))


def abort_upload(connection: S3Connection, key: str, upload: str) -> bool:
    """Abort a multipart upload; whether it was open."""
    request = connection.address(key) | {"UploadId": upload}
    try:
        connection.send("s3:AbortMultipartUpload", key, lambda: connection.client.abort_multipart_upload(**request))
    except S3_ERRORS as error:
        if error_code(error) == "NoSuchUpload":
            return False
        raise connection.translated(error, "s3:AbortMultipartUpload", key) from error
    return True


def open_uploads(connection: S3Connection, key: str) -> list[str]:
    """The ids of the multipart uploads of ``key``. Keys are random, so they are few: one page holds a thousand."""
    request = connection.bucket_address() | {"Prefix": connection.full_key(key)}
    listing = connection.call(
        "s3:ListBucketMultipartUploads", key, lambda: connection.client.list_multipart_uploads(**request)
    )
    return [item["UploadId"] for item in listing.get("Uploads", []) if item["Key"] == connection.full_key(key)]
