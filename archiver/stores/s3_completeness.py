"""Answers that were cut off are lost ones.

Otherwise they pass for whole: http.client takes the end of a connection for the end of a head, and botocore switches
urllib3's comparison of bodies with Content-Length off. A listing whose connection ended after its head would be an
empty one, and a HEAD would lack fields.
"""

import http.client
from collections.abc import Mapping
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection
from botocore.exceptions import IncompleteReadError

# botocore takes an empty body for an answer without fields.
_WITH_BODY = {
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateMultipartUpload",
    "ListMultipartUploads",
    "ListObjectsV2",
}


class _LastLine:
    """A file that remembers its last line."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.line = b""

    def readline(self, limit: int = -1) -> bytes:
        self.line = self.file.readline(limit)
        return self.line

    def close(self) -> None:
        self.file.close()


class WholeHead(http.client.HTTPResponse):
    """An answer whose head ends with an empty line; raises ``RemoteDisconnected`` for any other."""

    def begin(self) -> None:
        lines = _LastLine(self.fp)
        self.fp: Any = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = lines.file
        if lines.line not in (b"\r\n", b"\n"):
            self.close()
            raise http.client.RemoteDisconnected("the connection ended within the head of an answer")


def require_whole_heads() -> None:
    """Let botocore refuse heads that were cut off, in this whole process."""
    for connection in (AWSHTTPConnection, AWSHTTPSConnection):
        connection.response_class = WholeHead  # type: ignore[assignment]  # the stubs say AWSHTTPResponse


def refuse_short_body(operation_model: Any, response_dict: Mapping[str, Any], **_: object) -> None:
    """A handler of botocore's event ``before-parse``: raise ``IncompleteReadError`` for a body that was cut off.

    The body of a GetObject is a stream, which botocore does compare with its length.
    """
    body = response_dict["body"]
    if not isinstance(body, bytes) or operation_model.http["method"] == "HEAD":
        return
    announced = response_dict["headers"].get("content-length")
    is_empty = not body and operation_model.name in _WITH_BODY and response_dict["status_code"] < 300
    if is_empty or (announced is not None and len(body) != int(announced)):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=int(announced or 1))
