"""What a test's LocalStack holds: a bucket and a key in KMS in each of two regions. Nothing but boto3 is needed.

LocalStack itself runs this file when it has started: it lies in /etc/localstack/init/ready.d, in the container as well
as below the root directory that localstack/run and the tests give it. By hand: python localstack/ready.py, with
AWS_ENDPOINT_URL. What is there already stays as it is, so it may run any number of times.
"""

import contextlib
import hashlib
import os
from typing import Any

import boto3

BUCKETS = {"us-east-1": "archiver-test", "eu-central-1": "archiver-test-eu"}
KEY_ALIAS = "alias/archiver-test"
PREFIX = "ci/"
"""What full keys begin with of backups to s3://BUCKET/ci, which the rules are for."""
CLASSES = {"daily": (35, 42), "monthly": (400, 435)}
"""The default ones: after how many days manifests go, and all else."""
# What archiver lifecycle apply makes: rules go by prefix alone, as some stores drop the filters by size and by tag
# without a word.
OWN = f"archiver-{hashlib.sha256(PREFIX.encode()).hexdigest()[:8]}-"


def expiration(name: str, area: str, days: int) -> dict[str, Any]:
    """The rule after whose days what lies in an area of a class goes."""
    return {"ID": f"{OWN}{name}-{area}", "Filter": {"Prefix": f"{PREFIX}{name}/{area}/"}, "Expiration": {"Days": days}}


def rest(name: str) -> dict[str, Any]:
    """The rule for what is left over in a class. What expires in a bucket with versions is only hidden; its versions go
    a week later, and then the marker."""
    return {
        "ID": f"{OWN}{name}-rest",
        "Filter": {"Prefix": f"{PREFIX}{name}/"},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
    }


LIFECYCLE = [
    *(
        rule
        for name, (keep, data) in CLASSES.items()
        for rule in (expiration(name, "backups", keep), expiration(name, "data", data), rest(name))
    ),
    rest("held"),
]


def main() -> None:
    """Make what is missing."""
    for region, bucket in BUCKETS.items():
        make_bucket(client("s3", region), region, bucket)
        make_key(client("kms", region))


def client(service: str, region: str) -> Any:
    """boto3's client; its credentials are no secret and belong to LocalStack's first account."""
    session: Any = boto3.session.Session()
    return session.client(
        service,
        region_name=region,
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - LocalStack takes any
    )


def make_bucket(s3: Any, region: str, bucket: str) -> None:
    """An empty bucket, unless it is there, with versions and lifecycle rules."""
    # The first region is the default, and S3 refuses its name here.
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=bucket, **place)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rules = [{**rule, "Status": "Enabled"} for rule in LIFECYCLE]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def make_key(kms: Any) -> None:
    """A key that ``KEY_ALIAS`` names, unless there is one."""
    try:
        kms.describe_key(KeyId=KEY_ALIAS)
    except kms.exceptions.NotFoundException:
        key = kms.create_key(Description="archiver's tests")["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=key)


# LocalStack executes this file in an empty namespace, where the name is that of the module builtins.
if __name__ in ("__main__", "builtins"):
    main()
