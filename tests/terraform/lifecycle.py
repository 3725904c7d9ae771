"""The lifecycle rules of terraform/, evaluated."""

from collections.abc import Mapping
from typing import Any

from tests.terraform.hcl import TERRAFORM
from tests.terraform.module import Module

BUCKET = "my-backups"
REGION = "eu-central-1"
KEY = "arn:aws:kms:eu-central-1:000000000000:key/made"


def backups_module(variables: Mapping[str, Any]) -> Module:
    """terraform/ with these variables, for a bucket called ``BUCKET``."""
    bucket = {"id": BUCKET, "bucket": BUCKET, "arn": f"arn:aws:s3:::{BUCKET}", "region": REGION}
    attributes = {
        "data": {
            "aws_partition": {"current": {"partition": "aws"}},
            "aws_caller_identity": {"current": {"account_id": "000000000000"}},
        },
        "aws_s3_bucket": {"this": bucket},
        "aws_kms_key": {"this": [{"arn": KEY}]},
    }
    return Module(TERRAFORM, {"bucket": BUCKET, **variables}, attributes)


def lifecycle_rules(variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bucket's rules as the provider sends them to S3 (PutBucketLifecycleConfiguration)."""
    resource = backups_module(variables).resource("aws_s3_bucket_lifecycle_configuration", "this")
    return [_api_rule(rule) for rule in resource["rule"]]


def _api_rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Fails with ``KeyError`` for an argument that is not known here."""
    found: dict[str, Any] = {}
    for name, value in rule.items():
        api_name, convert = _RULE[name]
        found[api_name] = convert(value)
    return found


def _block(names: Mapping[str, str]) -> Any:
    def convert(blocks: list[dict[str, Any]]) -> dict[str, Any]:
        (block,) = blocks
        return {names[name]: value for name, value in block.items()}

    return convert


_RULE: dict[str, tuple[str, Any]] = {
    "id": ("ID", str),
    "status": ("Status", str),
    "filter": ("Filter", _block({"prefix": "Prefix"})),
    "expiration": (
        "Expiration",
        _block({"days": "Days", "expired_object_delete_marker": "ExpiredObjectDeleteMarker"}),
    ),
    "abort_incomplete_multipart_upload": (
        "AbortIncompleteMultipartUpload",
        _block({"days_after_initiation": "DaysAfterInitiation"}),
    ),
    "noncurrent_version_expiration": ("NoncurrentVersionExpiration", _block({"noncurrent_days": "NoncurrentDays"})),
}
"""Arguments of the provider's block ``rule`` and what they are in S3's API."""
