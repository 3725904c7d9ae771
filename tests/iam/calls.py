"""S3 requests as boto3 makes them, and what AWS asks of its caller for each. Pure.

After AWS's "Service Authorization Reference" and "Enforce conditional writes on Amazon S3 buckets".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.iam.policies import Authorization, Policy, allows, fill_in

_ON_BUCKETS = {
    "CreateBucket": "CreateBucket",
    "DeleteBucket": "DeleteBucket",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketPolicy": "DeleteBucketPolicy",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAcl": "GetBucketAcl",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketPolicy": "GetBucketPolicy",
    "GetBucketPolicyStatus": "GetBucketPolicyStatus",
    "GetBucketVersioning": "GetBucketVersioning",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "PutBucketAcl": "PutBucketAcl",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutBucketPolicy": "PutBucketPolicy",
    "PutBucketReplication": "PutReplicationConfiguration",
    "PutBucketVersioning": "PutBucketVersioning",
    "PutObjectLockConfiguration": "PutBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
}
_LISTS = {"ListObjects": "ListBucket", "ListObjectsV2": "ListBucket", "ListObjectVersions": "ListBucketVersions"}
_ON_OBJECTS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "GetObject": "GetObject",
    "GetObjectLegalHold": "GetObjectLegalHold",
    "GetObjectRetention": "GetObjectRetention",
    "HeadObject": "GetObject",
    "PutObjectAcl": "PutObjectAcl",
    "PutObjectLegalHold": "PutObjectLegalHold",
    "PutObjectRetention": "PutObjectRetention",
    "PutObjectTagging": "PutObjectTagging",
    "RestoreObject": "RestoreObject",
}
_UNVERSIONED = {"GetObjectLegalHold", "GetObjectRetention", "PutObjectLegalHold", "PutObjectRetention"}
"""Those whose permission has the same name for a version."""
_WRITES = {
    "CompleteMultipartUpload": "true",
    "CopyObject": "true",
    "CreateMultipartUpload": "false",
    "PutObject": "true",
    "UploadPart": "false",
    "UploadPartCopy": "false",
}
"""Those that need s3:PutObject, and the value of s3:ObjectCreationOperation."""
_EXTRAS = {
    "ACL": "PutObjectAcl",
    "ObjectLockLegalHoldStatus": "PutObjectLegalHold",
    "ObjectLockMode": "PutObjectRetention",
    "Tagging": "PutObjectTagging",
}
"""Parameters of a write that need a permission of their own."""


@dataclass(frozen=True)
class Call:
    """One request: boto3's name of the operation and its parameters."""

    operation: str
    parameters: Mapping[str, Any]

    def at(self, bucket: str, prefix: str) -> "Call":
        """The same with its placeholders filled in."""
        return Call(self.operation, fill_in(self.parameters, bucket, prefix))

    def authorizations(self) -> list[Authorization]:
        """All that the caller needs; raises ``ValueError`` for an operation that is not known here."""
        bucket = f"arn:aws:s3:::{self.parameters['Bucket']}"
        resource = f"{bucket}/{self.parameters.get('Key')}"
        if self.operation in _ON_BUCKETS:
            return [Authorization(f"s3:{_ON_BUCKETS[self.operation]}", bucket)]
        if self.operation in _LISTS:
            # An empty prefix is in the request, and in AWS's description of it.
            context = {"s3:prefix": self.parameters["Prefix"]} if "Prefix" in self.parameters else {}
            return [Authorization(f"s3:{_LISTS[self.operation]}", bucket, context)]
        if self.operation == "DeleteObjects":
            keys = [item["Key"] for item in self.parameters["Delete"]["Objects"]]
            return [Authorization("s3:DeleteObject", f"{bucket}/{key}") for key in keys]
        versioned = "VersionId" in self.parameters and self.operation not in _UNVERSIONED
        version = "Version" if versioned else ""
        if self.operation == "DeleteObject":
            return [Authorization(f"s3:DeleteObject{version}", resource)]
        if self.operation in _ON_OBJECTS:
            return [Authorization(f"s3:{_ON_OBJECTS[self.operation]}{version}", resource)]
        if self.operation in _WRITES:
            return self._write(resource)
        raise ValueError(
            f"{self.operation} is not known here: add what it needs, and look whether the policies give it"
        )

    def allowed_by(self, policy: Policy) -> bool:
        return all(allows(policy, authorization) for authorization in self.authorizations())

    def _write(self, resource: str) -> list[Authorization]:
        context = {"s3:ObjectCreationOperation": _WRITES[self.operation]}
        if "IfNoneMatch" in self.parameters:
            context["s3:if-none-match"] = self.parameters["IfNoneMatch"]
        needed = [Authorization("s3:PutObject", resource, context)]
        needed += [
            Authorization(f"s3:{action}", resource) for name, action in _EXTRAS.items() if name in self.parameters
        ]
        if "CopySource" in self.parameters:
            place = "arn:aws:s3:::{Bucket}/{Key}".format(**self.parameters["CopySource"])
            needed.append(Authorization("s3:GetObject", place))
            # AWS asks for it where the source has tags; parts are copied without.
            if self.operation == "CopyObject" and self.parameters.get("TaggingDirective") != "REPLACE":
                needed.append(Authorization("s3:GetObjectTagging", place))
        return needed
