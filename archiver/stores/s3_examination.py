"""How a bucket is set up, as far as the store tells."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, S3Error, error_code
from archiver.stores.s3_facts import BucketSettings, ObjectLock, Unknown
from archiver.stores.s3_rules import enabled_rules

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_DENIED = {"AccessDenied", "AllAccessDisabled", "403", "Forbidden"}
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
_DAYS_OF_A_YEAR = 365


def bucket_settings(connection: S3Connection) -> BucketSettings:
    """The settings of the bucket, each ``Unknown`` where it cannot be read: no error is raised for that.

    Permissions: s3:GetBucketLocation, s3:GetBucketVersioning, s3:GetLifecycleConfiguration,
    s3:GetBucketObjectLockConfiguration, s3:GetEncryptionConfiguration, s3:GetBucketPublicAccessBlock and
    s3:GetBucketPolicyStatus.
    """
    client, bucket = connection.client, {"Bucket": connection.bucket}

    def ask(action: str, request: Callable[..., Any], *absent: str) -> Any:
        """The answer, None where one of the error codes ``absent`` says that nothing is set, or ``Unknown``."""
        try:
            return connection.send(action, "", lambda: request(**bucket))
        except S3_ERRORS as error:
            return None if error_code(error) in absent else reason(connection, error, action)

    location = ask("s3:GetBucketLocation", client.get_bucket_location)
    versioning = ask("s3:GetBucketVersioning", client.get_bucket_versioning)
    lifecycle = ask(
        "s3:GetLifecycleConfiguration", client.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"
    )
    lock = ask(
        "s3:GetBucketObjectLockConfiguration", client.get_object_lock_configuration,
        "ObjectLockConfigurationNotFoundError",
    )  # fmt: skip
    encryption = ask(
        "s3:GetEncryptionConfiguration", client.get_bucket_encryption, "ServerSideEncryptionConfigurationNotFoundError"
    )
    block = ask("s3:GetBucketPublicAccessBlock", client.get_public_access_block, "NoSuchPublicAccessBlockConfiguration")
    policy = ask("s3:GetBucketPolicyStatus", client.get_bucket_policy_status, "NoSuchBucketPolicy")
    return BucketSettings(
        region=_known(location, lambda answer: _region(answer, connection.endpoint)),
        versioning=_known(versioning, lambda answer: answer.get("Status", "off").lower()),
        lifecycle=_known(lifecycle, enabled_rules),
        object_lock=_known(lock, _object_lock),
        encryption=_known(encryption, _algorithm),
        unblocked=_known(block, _unblocked),
        public=_known(policy, lambda answer: bool(answer.get("PolicyStatus", {}).get("IsPublic"))),
    )


def reason(connection: S3Connection, error: S3Error, action: str, key: str = "") -> Unknown:
    """Why something could not be found out."""
    if is_denied(error):
        return Unknown(f"{action} is denied to these credentials")
    if is_missing_request(error):
        return Unknown("the store does not have that request")
    return Unknown(connection.translated(error, action, key).message)


def is_denied(error: S3Error) -> bool:
    """Whether the store knows these credentials, and refuses them."""
    return error_code(error) in _DENIED


def is_missing_request(error: S3Error) -> bool:
    """Whether the store does not have such a request at all."""
    # By the status, because codes differ: LocalStack says InternalFailure of what it does not have.
    return _status(error) in (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.METHOD_NOT_ALLOWED)


def is_aws(endpoint: str) -> bool:
    """Whether ``endpoint``, a URL, is AWS's own, of which it is known what it has."""
    return (urlsplit(endpoint).hostname or "").endswith(_AWS)


def _status(error: S3Error) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) if isinstance(error, ClientError) else 0


def _known(answer: Any, read: Callable[[Mapping[str, Any]], Any]) -> Any:
    return answer if isinstance(answer, Unknown) else read(answer or {})


def _region(answer: Mapping[str, Any], endpoint: str) -> str | Unknown:
    """AWS names no region for its oldest one, and has an old name for the second; other stores may not have any."""
    named = answer.get("LocationConstraint")
    if not named:
        return "us-east-1" if is_aws(endpoint) else Unknown("the store names none")
    return "eu-west-1" if named == "EU" else str(named)


def _object_lock(answer: Mapping[str, Any]) -> ObjectLock | None:
    configuration = answer.get("ObjectLockConfiguration", {})
    if configuration.get("ObjectLockEnabled") != "Enabled":
        return None
    retention = configuration.get("Rule", {}).get("DefaultRetention", {})
    days = retention.get("Days") or retention.get("Years", 0) * _DAYS_OF_A_YEAR
    return ObjectLock(retention.get("Mode"), days or None)


def _algorithm(answer: Mapping[str, Any]) -> str | None:
    for rule in answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", []):
        if algorithm := rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm"):
            return str(algorithm)
    return None


def _unblocked(answer: Mapping[str, Any]) -> tuple[str, ...]:
    configuration = answer.get("PublicAccessBlockConfiguration", {})
    return tuple(name for name in _BLOCKS if not configuration.get(name))
