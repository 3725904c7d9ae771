"""botocore's errors in our words: those that no server at hand produces."""

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)

from archiver.errors import AlreadyExistsError, ArchiverError, NotFoundError, RefusedError, StorageError
from archiver.stores.s3_errors import S3Error, is_rejection, is_transient, translate

ENDPOINT = "https://s3.example"
PLACE = "s3://bucket/key"


def refusal(code: str, status: int, message: str = "") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "PutObject",
    )


def translated(error: S3Error) -> ArchiverError:
    return translate(error, action="s3:PutObject", place=PLACE, endpoint=ENDPOINT)


@pytest.mark.parametrize(
    ("code", "detail", "hint"),
    [
        (
            "AccessDenied",
            "x is not authorized to perform: s3:PutObjectRetention on resource: y",
            "Allow s3:PutObjectRet",
        ),
        ("AccessDenied", "Access Denied", "Allow s3:PutObject there"),
        ("InvalidRequest", "Bucket is missing Object Lock Configuration", "remove the option object_lock"),
        ("NotImplemented", "Header 'x-amz-object-lock-mode' is not implemented", "remove the option object_lock"),
        ("NotImplemented", "A header you provided", "conditional_writes to false"),
    ],
)
def test_advice_for_what_a_create_needs(code: str, detail: str, hint: str) -> None:
    assert hint in str(translated(refusal(code, 403 if code == "AccessDenied" else 400, detail)).hint)


@pytest.mark.parametrize(
    ("code", "status", "kind", "message"),
    [
        ("NoSuchKey", 404, NotFoundError, f"{PLACE} does not exist"),
        ("404", 404, RefusedError, "refused s3:PutObject on s3://bucket/key: 404 short and stout"),
        ("NoSuchBucket", 404, StorageError, "the bucket does not exist"),
        ("PreconditionFailed", 412, AlreadyExistsError, f"{PLACE} exists already"),
        ("ExpiredToken", 400, StorageError, "the credentials have expired"),
        ("RequestTimeTooSkewed", 403, StorageError, "clock differs"),
        ("PermanentRedirect", 301, StorageError, "in another region"),
        ("AuthorizationHeaderMalformed", 400, StorageError, "in another region"),
        ("AccessDenied", 403, RefusedError, "access denied"),
        ("403", 403, RefusedError, "access denied"),
        ("BadDigest", 400, RefusedError, "what arrived has another checksum"),
        ("InvalidPart", 400, RefusedError, "does not find the parts to be what was sent"),
        ("KMS.DisabledException", 400, RefusedError, "the key in KMS cannot be used (DisabledException)"),
        ("SlowDown", 503, StorageError, "slow down"),
        ("NotImplemented", 501, StorageError, "does not support a feature of the request: short and stout"),
        ("InternalError", 500, StorageError, "failed s3:PutObject on s3://bucket/key: InternalError"),
        ("Teapot", 418, RefusedError, "refused s3:PutObject on s3://bucket/key: Teapot short and stout"),
    ],
)
def test_refusals(code: str, status: int, kind: type[ArchiverError], message: str) -> None:
    error = translated(refusal(code, status, "short and stout."))
    assert type(error) is kind
    assert message in error.message
    assert not error.message.endswith(".")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NoCredentialsError(), "no usable credentials"),
        (EndpointConnectionError(endpoint_url=ENDPOINT), f"cannot reach {ENDPOINT}"),
        (ConnectTimeoutError(endpoint_url=ENDPOINT), "did not answer in time"),
        (ReadTimeoutError(endpoint_url=ENDPOINT), "did not answer in time"),
        (SSLError(endpoint_url=ENDPOINT, error=OSError("certificate verify failed")), "certificate verify failed"),
        (BotoCoreError(), PLACE),
    ],
)
def test_failures(error: BotoCoreError, message: str) -> None:
    ours = translated(error)
    assert type(ours) is StorageError
    assert message in ours.message


@pytest.mark.parametrize(
    "error",
    [
        refusal("SlowDown", 503),
        refusal("RequestTimeout", 400),
        refusal("InternalError", 200),
        refusal("500", 500),
        refusal("BadDigest", 400),
        refusal("ConditionalRequestConflict", 409),
        EndpointConnectionError(endpoint_url=ENDPOINT),
        ConnectTimeoutError(endpoint_url=ENDPOINT),
        ReadTimeoutError(endpoint_url=ENDPOINT),
        SSLError(endpoint_url=ENDPOINT, error=OSError("EOF occurred in violation of protocol")),
        FlexibleChecksumError(error_msg="x"),
    ],
)
def test_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        refusal("AccessDenied", 403),
        refusal("NoSuchKey", 404),
        refusal("PreconditionFailed", 412),
        refusal("NotImplemented", 501),
        SSLError(endpoint_url=ENDPOINT, error=OSError("CERTIFICATE_VERIFY_FAILED")),
        NoCredentialsError(),
        KeyError("x"),
        OSError("x"),
    ],
)
def test_permanent(error: Exception) -> None:
    assert not is_transient(error)


def test_a_right_to_a_key_in_kms_that_is_missing_is_named() -> None:
    text = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:…"
    error = translated(refusal("AccessDenied", 403, text))
    assert "access to the key in KMS is denied" in error.message
    assert error.hint == "Allow kms:GenerateDataKey with that key to the credentials in use."


@pytest.mark.parametrize(
    ("status", "rejected"), [(301, True), (403, True), (412, True), (500, False), (503, False), (0, False)]
)
def test_only_the_stores_word_is_a_rejection(status: int, rejected: bool) -> None:
    assert is_rejection(refusal("Any", status)) is rejected
    assert not is_rejection(ReadTimeoutError(endpoint_url=ENDPOINT))
    assert not is_rejection(None)


def test_what_a_store_does_not_have_is_not_always_about_creates() -> None:
    refused = refusal("NotImplemented", 501, "Transition is not implemented")
    error = translate(refused, action="s3:PutLifecycleConfiguration", place="s3://bucket/", endpoint=ENDPOINT)
    assert error.message.endswith(": it does not support a feature of the request: Transition is not implemented")
    assert "conditional_writes" not in str(error.hint)
    assert translated(refusal("NotImplemented", 501)).message.endswith("a feature of the request")
