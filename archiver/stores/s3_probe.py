"""What the credentials may do in a bucket, and how fast it is: tried, so that nothing is left behind."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

from archiver.errors import ArchiverError
from archiver.retention.attributes import Attribution, no_attributes
from archiver.stores.s3_checksums import FIELD, checksum_of
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_creation import S3Creation
from archiver.stores.s3_errors import S3_ERRORS, error_code
from archiver.stores.s3_examination import is_denied, is_missing_request, reason
from archiver.stores.s3_facts import Rate, Trial, Unknown
from archiver.stores.s3_multipart import abort_upload, open_uploads
from archiver.stores.s3_options import MIB, S3Options
from archiver.stores.s3_reads import S3Reader

T = TypeVar("T")

FIRST = MIB // 4
"""Bytes of the first transfer, which shows how many may follow."""
MOST = 8 * MIB
"""Bytes of the second one, at most."""
_SECONDS = 5.0
"""How long the second one may take, at the rate of the first."""
_ROUNDS = 5


class S3Probe:
    """Tries one permission after the other. Whatever a method returns or raises, the bucket has the keys that it had,
    and no more open uploads, unless the store refuses to abort one."""

    def __init__(self, connection: S3Connection, options: S3Options, attributes: Attribution = no_attributes) -> None:
        self._connection = connection
        self._client = connection.client
        self._options = options
        self._creation = S3Creation(connection, options, attributes)

    def latency(self) -> float:
        """Seconds that a small request takes: the median of a few. Permission: s3:ListBucket."""
        request = self._connection.bucket_address() | {"Prefix": self._connection.full_key(""), "MaxKeys": 1}
        # The first one may have to make the connection.
        rounds = [
            self._timed("s3:ListBucket", "", lambda: self._client.list_objects_v2(**request))
            for _ in range(1 + _ROUNDS)
        ][1:]
        return statistics.median(rounds)

    def upload(self, key: str) -> tuple[Trial, Trial, Trial, Rate | Unknown]:
        """Begin a multipart upload of ``key``, which no other may use, send random bytes, and abort it.

        The ways in which it may create keys, abort uploads and list them, and the speed. It is begun as a backup would
        begin it, so that a wrong storage class, an unusable encryption key or a lock that it may not set shows.
        """
        create: Trial = "allowed"
        rate: Rate | Unknown = Unknown("nothing could be sent")
        upload: str | None = None
        try:
            upload = self._begin(key)
            rate = _measure(self._sender(key, upload), MOST)
        except ArchiverError as error:
            create = error
        finally:
            abort, listed = self._end(key, upload)
        return create, abort, listed, rate

    def read(self, key: str) -> Trial:
        """Read the first byte of ``key``, which must not be empty. Permission: s3:GetObject."""
        try:
            self._receive(key, 1)
        except ArchiverError as error:
            return error
        return "allowed"

    def download(self, key: str, size: int) -> Rate | Unknown:
        """How fast the beginning of ``key``, an object of ``size`` bytes, comes. Permission: s3:GetObject."""
        if size < FIRST:
            return Unknown("no object is large enough to measure with")

        def receive(length: int) -> float:
            started = time.monotonic()
            self._receive(key, length)
            return time.monotonic() - started

        try:
            return _measure(receive, min(size, MOST))
        except ArchiverError as error:
            return Unknown(error.message)

    def delete(self, key: str) -> Trial:
        """Delete ``key``, which must not exist. Only for a bucket without versions: in others it leaves a marker."""
        address = self._connection.address(key)
        try:
            self._connection.send("s3:DeleteObject", key, lambda: self._client.delete_object(**address))
        except S3_ERRORS as error:
            if error_code(error) in ("NoSuchKey", "404"):
                return "allowed"
            if is_denied(error):
                return self._connection.translated(error, "s3:DeleteObject", key)
            return reason(self._connection, error, "s3:DeleteObject", key)
        return "allowed"

    def has_thaw(self, key: str) -> bool | Unknown:
        """Whether the store has the request that makes archived objects readable: asked for ``key``, which must not
        exist."""
        request: Any = self._connection.address(key) | {
            "RestoreRequest": {"Days": 1, "GlacierJobParameters": {"Tier": "Standard"}}
        }
        try:
            self._connection.send("s3:RestoreObject", key, lambda: self._client.restore_object(**request))
        except S3_ERRORS as error:
            if is_missing_request(error):
                return False
            if error_code(error) not in ("NoSuchKey", "404"):
                return reason(self._connection, error, "s3:RestoreObject", key)
        return True

    def _begin(self, key: str) -> str:
        request = self._connection.address(key) | self._creation.fields(key)
        if self._options.checksum != "none":
            request |= {"ChecksumAlgorithm": FIELD.removeprefix("Checksum"), "ChecksumType": "FULL_OBJECT"}
        answer: Any = self._connection.call(
            "s3:PutObject", key, lambda: self._client.create_multipart_upload(**request)
        )
        return str(answer["UploadId"])

    def _sender(self, key: str, upload: str) -> Callable[[int], float]:
        """Sends a part of so many bytes; the seconds that it took."""

        def send(size: int) -> float:
            data = os.urandom(size)
            request = self._connection.address(key) | {"UploadId": upload, "PartNumber": 1}
            if self._options.checksum != "none":
                request |= checksum_of(data).fields
            work = self._connection.work.current()
            return self._timed(
                "s3:PutObject",
                key,
                lambda: self._client.upload_part(**request | {"Body": self._connection.body(data, work)}),
            )

        return send

    def _end(self, key: str, upload: str | None) -> tuple[Trial, Trial]:
        """Abort ``upload`` and what else was begun of ``key``; how aborting and listing went.

        Where the answer to a begin was lost, or Ctrl-C came before it, the list alone knows of the upload.
        """
        uploads = set() if upload is None else {upload}
        listed: Trial = "allowed"
        abort: Trial = Unknown("no upload could be begun")
        try:
            uploads.update(open_uploads(self._connection, key))
        except ArchiverError as error:
            listed = error
        for identifier in uploads:
            try:
                abort_upload(self._connection, key, identifier)
            except ArchiverError as error:
                return error, listed
            abort = "allowed"
        return abort, listed

    def _receive(self, key: str, length: int) -> None:
        for _ in S3Reader(self._connection, key, 0, length).buffers():
            pass

    def _timed(self, action: str, key: str, request: Callable[[], object]) -> float:
        """The seconds that ``request`` took, those of failed attempts before it left out."""
        started = 0.0

        def attempt() -> None:
            nonlocal started
            started = time.monotonic()
            request()

        self._connection.call(action, key, attempt)
        return time.monotonic() - started


def _measure(transfer: Callable[[int], float], limit: int) -> Rate:
    """How fast ``transfer``, which takes bytes and gives seconds, is: a small one, and then, on a link that can carry
    it in bearable time, a larger one of up to ``limit`` bytes."""
    rate = Rate(FIRST, transfer(FIRST))
    size = min(limit, int(rate.per_second * _SECONDS))
    return rate if size <= FIRST else Rate(size, transfer(size))
