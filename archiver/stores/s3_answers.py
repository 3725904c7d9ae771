"""Answers that no S3 gives, but which botocore takes for S3's: pages of proxies, of login forms, of other services.

botocore reads a page of XHTML as a listing without keys, and follows a redirect that names no region until the stack is
full. An archive must not look empty because somebody's network wants a password.
"""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

REDIRECTS = {301, 302, 303, 307, 308}
_TELLTALES = {
    "CopyObject": "ETag",
    "CreateMultipartUpload": "UploadId",
    "GetObject": "ETag",
    "HeadObject": "LastModified",
    "ListMultipartUploads": "IsTruncated",
    "ListObjectsV2": "IsTruncated",
    "PutObject": "ETag",
    "UploadPart": "ETag",
}
"""By operation, a field that every successful answer of an S3 has."""


def check_answer(
    event_name: str, response_dict: Mapping[str, Any] | None, parsed_response: Mapping[str, Any] | None, **_: object
) -> None:
    """A handler of botocore's event ``response-received``: raises ``ResponseParserError`` for what is not S3's, and
    ``ClientError`` for a redirect to somewhere else than a region."""
    if response_dict is None or parsed_response is None:
        return
    status, operation = response_dict["status_code"], event_name.rpartition(".")[2]
    if status in REDIRECTS and "x-amz-bucket-region" not in response_dict["headers"]:
        raise ClientError(parsed_response, operation)  # type: ignore[arg-type]  # it is what botocore passes itself
    if status >= 300:
        return
    if operation == "AbortMultipartUpload" and response_dict["body"]:
        raise ResponseParserError(f"the answer to {operation} is not S3's")
    error = parsed_response.get("Error")
    # What botocore cannot read it calls by the number of an internal error.
    is_unreadable = error is not None and str(error.get("Code", "")).isdigit()
    # Of a copy, botocore puts what the body holds one level down.
    fields = parsed_response.get("CopyObjectResult", parsed_response)
    if is_unreadable or (error is None and _TELLTALES.get(operation, "ResponseMetadata") not in fields):
        if "Body" in parsed_response:
            # Nobody will read it to its end.
            parsed_response["Body"].close()
        raise ResponseParserError(f"the answer to {operation} is not S3's")
