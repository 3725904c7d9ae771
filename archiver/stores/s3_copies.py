"""Copying within a bucket: one request, through which no byte passes this host."""

from typing import Any

from archiver.errors import IntegrityError, NotFoundError, RefusedError
from archiver.stores.base import StoredObject
from archiver.stores.s3_archives import availability_in_truth
from archiver.stores.s3_checksums import FIELD
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_creation import S3Creation, is_held, locks
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_precondition_failure

_LARGE = 64 << 20
"""Bytes from which on a store may take longer for a copy than for any other request."""


class S3Copier:
    """Makes copies. A copy is one ``CopyObject``, which takes objects of up to 5 GiB: archiver's own are smaller.

    Everything but the bytes is stated anew: a copy inherits no storage class, encryption, lock, tag or metadata. It is
    tied to the object that was looked at before by ``If-Match``, and never put over another: by ``If-None-Match``,
    which not every store knows for copies, and by a look before.
    """

    def __init__(self, connection: S3Connection, creation: S3Creation) -> None:
        self._connection = connection
        self._creation = creation

    def copy(self, source: str, key: str) -> StoredObject:
        """Fulfils Store.copy for checked keys.

        Permissions: s3:GetObject for both, s3:PutObject for ``key``; s3:GetObjectTagging is not needed, because no tags
        are copied.
        """
        connection = self._connection
        work = connection.work.current()
        head = self._creation.head(source, with_checksum=True)
        if availability_in_truth(connection, source, head) != "ready":
            raise RefusedError(
                f"{connection.place(source)} must be thawed before it can be copied",
                hint="Let the store restore it first, which may take hours: archiver restore --thaw asks for it.",
            )
        self._creation.refuse_existing(key)
        # Some stores take the class of the source where none is named.
        fields = {"StorageClass": "STANDARD"} | self._creation.fields(key)
        size, checksum = head["ContentLength"], _checksum(head)
        request = connection.address(key) | fields | self._creation.condition()
        request |= {
            "CopySource": {"Bucket": connection.bucket, "Key": connection.full_key(source)},
            "CopySourceIfMatch": head["ETag"],
            "MetadataDirective": "REPLACE",
            "TaggingDirective": "REPLACE",
        }
        client = connection.patient_client() if size >= _LARGE else connection.client
        try:
            connection.send("s3:PutObject", key, lambda: client.copy_object(**request), patient=True, abandonment=work)
        except S3_ERRORS as error:
            if error_code(error) in ("NoSuchKey", "InvalidObjectState"):
                raise connection.translated(error, "s3:GetObject", source) from error
            if not is_precondition_failure(error):
                raise connection.translated(error, "s3:PutObject", key) from error
        try:
            if locks(fields) or is_held(head):
                self._creation.relock(key, fields)
            return self._creation.settle(key, fields, checksum, size, work)
        except NotFoundError as error:
            # Of the two conditions, it was not that of the key.
            raise IntegrityError(
                f"{connection.place(source)} changed while it was copied", hint="Run the command again."
            ) from error


def _checksum(head: Any) -> dict[str, str]:
    """The checksum of all bytes, where the store has one: that of an object made of parts may be one of the parts'."""
    found = head.get(FIELD, "-")
    return {} if "-" in found else {FIELD: found}
