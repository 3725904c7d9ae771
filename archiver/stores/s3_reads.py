"""Reading ranges from S3, across broken connections."""

import contextlib
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ResponseStreamingError
from urllib3.exceptions import HTTPError

from archiver.errors import IntegrityError, StorageError
from archiver.stores.ranges import READ_SIZE, range_end
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_precondition_failure, is_transient

_SMALL = 1 << 20


class S3Reader:
    """One read of one range of one key.

    A body of some gigabytes takes minutes, in which a connection breaks now and then; starting over would not end.
    So it goes on at its offset with a new request, which ``If-Match`` ties to the object that the first one found:
    the bytes are never put together from two objects. It gives up after as many failures in a row, without a byte
    between them, as the retry policy allows. What has come of a buffer may be lost with its connection: so once one has
    broken, buffers are smaller, and a bad link still gets on.
    """

    def __init__(self, connection: S3Connection, key: str, start: int, length: int | None) -> None:
        self._connection = connection
        self._key = key
        self._start = start
        self._length = length
        self._offset = start
        self._end: int | None = None if length is None else start + length
        self._etag: str | None = None
        self._work = connection.work.current()
        self._broken = False

    def buffers(self) -> Iterator[bytes]:
        """The bytes of the range."""
        failures = 0
        retry = self._connection.retry
        while True:
            response = self._open()
            if response is None:
                return
            try:
                for buffer in self._body(response["Body"]):
                    failures = 0
                    yield buffer
            except BotoCoreError as error:
                failures += 1
                self._broken = True
                if failures >= retry.attempts or self._work.abandoned or not is_transient(error):
                    raise self._connection.translated(error, "s3:GetObject", self._key) from error
                retry.sleep(self._work, retry.delay(failures))
            if self._offset == self._end:
                return

    def _open(self) -> Any:
        """The answer to a request for what is still to be read; None when that is nothing."""
        request = self._connection.address(self._key)
        if self._etag is not None:
            request["IfMatch"] = self._etag
        # A range cannot be empty, so that of an empty object or of no bytes cannot be asked for.
        if self._length == 0:
            return self._check_empty()
        ranged = self._offset > 0 or self._end is not None
        if ranged:
            last = "" if self._end is None else self._end - 1
            request["Range"] = f"bytes={self._offset}-{last}"
        client = self._connection.client
        try:
            response = self._connection.send(
                "s3:GetObject", self._key, lambda: client.get_object(**request), abandonment=self._work
            )
        except S3_ERRORS as error:
            if error_code(error) in ("InvalidRange", "416") and self._etag is None:
                return self._check_empty()
            if is_precondition_failure(error):
                raise IntegrityError(f"{self._connection.place(self._key)} changed while it was read") from error
            raise self._connection.translated(error, "s3:GetObject", self._key) from error
        size = self._size(response) if ranged else response["ContentLength"]
        self._etag = response["ETag"]
        self._end = range_end(self._connection.place(self._key), size, self._start, self._length)
        return response

    def _size(self, response: Any) -> int:
        """The object's whole size, from ``Content-Range: bytes 0-9/100``."""
        text = response.get("ContentRange", "")
        span, _, size = text.removeprefix("bytes ").partition("/")
        if not size.isdigit() or span.partition("-")[0] != str(self._offset):
            response["Body"].close()
            raise StorageError(
                f"{self._connection.place(self._key)}: expected the bytes from {self._offset} on, got {text or 'all'}"
            )
        return int(size)

    def _body(self, body: Any) -> Iterator[bytes]:
        with contextlib.closing(body):
            while buffer := self._next(body):
                self._offset += len(buffer)
                yield buffer
        if self._offset != self._end:
            raise StorageError(
                f"{self._connection.place(self._key)}: expected bytes up to {self._end}, got them up to {self._offset}"
            )

    def _next(self, body: Any) -> bytes:
        """What is next of ``body``, in one allocation; empty at its end."""
        self._work.check(self._connection.place(self._key))
        limiter = self._connection.download
        most = _SMALL if self._broken else READ_SIZE
        if limiter is not None:
            most = limiter.stretch
            limiter.take(most if self._end is None else min(most, self._end - self._offset))
        try:
            buffer: bytes = body.read(most)
        except HTTPError as error:
            # botocore lets some of urllib3's errors through, a broken TLS stream among them.
            raise ResponseStreamingError(error=error) from error
        return buffer

    def _check_empty(self) -> None:
        """Raise unless there is an object, and the range without bytes lies within it."""
        client, connection = self._connection.client, self._connection
        address = connection.address(self._key)
        head = connection.call("s3:GetObject", self._key, lambda: client.head_object(**address))
        size = head["ContentLength"]
        end = range_end(connection.place(self._key), size, self._start, self._length)
        if end > self._start:
            raise StorageError(
                f"{connection.place(self._key)}: the store refused the bytes {self._start} to {end} of {size}"
            )
