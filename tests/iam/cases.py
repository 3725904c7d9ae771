"""What each role may do: every kind of request that archiver makes, and the abuses to expect of stolen credentials."""

from dataclasses import dataclass
from typing import Any

from tests.iam.calls import Call
from tests.iam.policies import BUCKET, PREFIX

OBJECT = f"{PREFIX}/daily/data/prod/00.tar.zst.age"
CONTENTS = f"{PREFIX}/daily/data/prod/b.contents.jsonl.zst.age"
OBJECTS = f"{PREFIX}/daily/data/prod/b.objects.jsonl.zst"
MANIFEST = f"{PREFIX}/daily/backups/prod/b/manifest.json"
VAULT = f"{PREFIX}/vault/prod/00/ada.age"
VAULT_OF_DATA = f"{PREFIX}/vault/data/00/ada.age"
"""A source may be called data: its vault's keys look like those of a class called vault."""
OBJECT_OF_BACKUPS = f"{PREFIX}/daily/data/backups/00.tar.zst.age"
"""Or backups: its objects' keys look like those of manifests."""
OUTSIDE = "elsewhere/data/prod/00.tar.zst.age"
EXISTING = (OBJECT, OBJECT_OF_BACKUPS, CONTENTS, OBJECTS, MANIFEST, VAULT, VAULT_OF_DATA, OUTSIDE)
"""The keys that there must be, so that a request fails for one reason only."""
UPLOAD = "EXAMPLE-UPLOAD"
"""Stands for the id of an open upload of the call's key, with part 1 in it."""
ETAG = "EXAMPLE-ETAG"
"""Stands for the ETag of that part."""

NOBODY = frozenset[str]()
BACKUP = frozenset({"backup-host"})
AUDITOR = frozenset({"auditor"})
ADMINISTRATOR = frozenset({"administrator"})
READERS = frozenset({"backup-host", "restore-host"})
VAULT_READERS = frozenset({"restore-host"}) | ADMINISTRATOR
EVERYBODY = READERS | AUDITOR | ADMINISTRATOR


@dataclass(frozen=True)
class Case:
    """One request and who may make it."""

    name: str
    roles: frozenset[str]
    call: Call
    unenforced: frozenset[str] = NOBODY
    """Whom SeaweedFS lets do it although AWS would not: it knows neither of the two condition keys, nor
    s3:PutObjectTagging for a create."""


def _case(
    name: str, roles: frozenset[str], operation: str, *, unenforced: frozenset[str] = NOBODY, **parameters: Any
) -> Case:
    return Case(name, roles, Call(operation, {"Bucket": BUCKET, **parameters}), unenforced)


def _new(name: str) -> str:
    return f"{PREFIX}/daily/data/prod/new-{name}"


def _copy(source: str) -> dict[str, str]:
    return {"Bucket": BUCKET, "Key": source}


_CREATE: dict[str, Any] = {"IfNoneMatch": "*"}
_BODY: dict[str, Any] = {"Body": b"body"}
_PARTS: dict[str, Any] = {"UploadId": UPLOAD, "MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": ETAG}]}}

_READING = [
    _case("list the classes", EVERYBODY, "ListObjectsV2", Prefix=f"{PREFIX}/", Delimiter="/"),
    _case("list a vault", EVERYBODY, "ListObjectsV2", Prefix=f"{PREFIX}/vault/prod/"),
    _case("list another prefix", NOBODY, "ListObjectsV2", Prefix="elsewhere/"),
    _case("list a prefix that begins alike", NOBODY, "ListObjectsV2", Prefix=f"{PREFIX}-2/"),
    _case("list the whole bucket", NOBODY, "ListObjectsV2"),
    _case("list the whole bucket, in the old way", NOBODY, "ListObjects"),
    _case("look at the whole bucket", NOBODY, "HeadBucket"),
    _case("list versions", NOBODY, "ListObjectVersions", Prefix=f"{PREFIX}/"),
    _case("list uploads", BACKUP, "ListMultipartUploads", Prefix=OBJECT),
    _case("read an object", READERS, "GetObject", Key=OBJECT),
    _case("read an object of a source called backups", READERS, "GetObject", Key=OBJECT_OF_BACKUPS),
    _case("read a part of an object", READERS, "GetObject", Key=OBJECT, Range="bytes=0-1"),
    _case("look at an object", READERS, "HeadObject", Key=OBJECT),
    _case("read a version of an object", NOBODY, "GetObject", Key=OBJECT, VersionId="null"),
    _case("read contents", READERS, "GetObject", Key=CONTENTS),
    _case("read a public list", READERS | AUDITOR, "GetObject", Key=OBJECTS),
    _case("read a manifest", EVERYBODY, "GetObject", Key=MANIFEST),
    _case("read a vault's file", VAULT_READERS, "GetObject", Key=VAULT),
    _case("read a vault's file of a source called data", VAULT_READERS, "GetObject", Key=VAULT_OF_DATA),
    _case("read another prefix", NOBODY, "GetObject", Key=OUTSIDE),
]
_SETTINGS = [
    _case(f"read {what}", BACKUP | AUDITOR, operation)
    for what, operation in [
        ("the location", "GetBucketLocation"),
        ("the versioning", "GetBucketVersioning"),
        ("the Object Lock", "GetObjectLockConfiguration"),
        ("the public access block", "GetPublicAccessBlock"),
        ("the encryption", "GetBucketEncryption"),
        ("the lifecycle", "GetBucketLifecycleConfiguration"),
    ]
]
_CREATING = [
    _case("create", BACKUP, "PutObject", Key=_new("put"), **_CREATE, **_BODY),
    _case("create a manifest", BACKUP, "PutObject", Key=f"{PREFIX}/daily/backups/prod/c/m", **_CREATE, **_BODY),
    _case("begin an upload", BACKUP, "CreateMultipartUpload", Key=_new("begun")),
    _case("send a part", BACKUP, "UploadPart", Key=_new("part"), UploadId=UPLOAD, PartNumber=2, **_BODY),
    _case("complete an upload", BACKUP, "CompleteMultipartUpload", Key=_new("whole"), **_PARTS, **_CREATE),
    _case("abort an upload", BACKUP, "AbortMultipartUpload", Key=_new("aborted"), UploadId=UPLOAD),
    _case("copy an object", BACKUP, "CopyObject", Key=_new("copy"), CopySource=_copy(OBJECT), **_CREATE),
    _case(
        "copy a part", BACKUP, "UploadPartCopy", Key=_new("part-copy"), UploadId=UPLOAD, PartNumber=2,
        CopySource=_copy(OBJECT),
    ),
]  # fmt: skip
_OVERWRITING = [
    _case("overwrite", NOBODY, "PutObject", Key=OBJECT, **_BODY, unenforced=BACKUP),
    _case("overwrite a manifest", NOBODY, "PutObject", Key=MANIFEST, **_BODY, unenforced=BACKUP),
    _case("overwrite by an upload", NOBODY, "CompleteMultipartUpload", Key=OBJECT, **_PARTS, unenforced=BACKUP),
    _case("overwrite by a copy", NOBODY, "CopyObject", Key=OBJECT, CopySource=_copy(MANIFEST), unenforced=BACKUP),
    _case(
        "create with tags", NOBODY, "PutObject", Key=_new("tag"), **_CREATE, **_BODY, Tagging="a=b", unenforced=BACKUP
    ),
]
_PLANTING = [
    _case("create a vault's file", ADMINISTRATOR, "PutObject", Key=f"{VAULT}.new", **_CREATE, **_BODY),
    _case(
        "create one of a source called data", ADMINISTRATOR, "PutObject", Key=f"{VAULT_OF_DATA}.new", **_CREATE, **_BODY
    ),
    _case("overwrite a vault's file", NOBODY, "PutObject", Key=VAULT, **_BODY, unenforced=ADMINISTRATOR),
    _case(
        "begin an upload of a vault's file",
        NOBODY,
        "CreateMultipartUpload",
        Key=f"{VAULT}.begun",
        unenforced=ADMINISTRATOR,
    ),
    _case("complete one", ADMINISTRATOR, "CompleteMultipartUpload", Key=f"{VAULT}.whole", **_PARTS, **_CREATE),
    _case("abort an upload of a vault's file", NOBODY, "AbortMultipartUpload", Key=f"{VAULT}.part", UploadId=UPLOAD),
    _case("copy from a vault", NOBODY, "CopyObject", Key=_new("key"), CopySource=_copy(VAULT), **_CREATE),
    _case("copy from another prefix", NOBODY, "CopyObject", Key=_new("loot"), CopySource=_copy(OUTSIDE), **_CREATE),
    _case("create beside the classes", NOBODY, "PutObject", Key=f"{PREFIX}/stray", **_CREATE, **_BODY),
    _case("create in another prefix", NOBODY, "PutObject", Key=f"{OUTSIDE}.new", **_CREATE, **_BODY),
]
_LATER = "2099-01-01T00:00:00Z"
_RULES = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": "no/"}, "Expiration": {"Days": 1}}]}
_AES = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
_GRANT = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", '
    f'"Resource": "arn:aws:s3:::{BUCKET}/no/*"}}]}}'
)
_CHANGING = [
    _case("delete", NOBODY, "DeleteObject", Key=_new("absent")),
    _case("delete a manifest", NOBODY, "DeleteObject", Key=f"{MANIFEST}.absent"),
    _case("delete a vault's file", ADMINISTRATOR, "DeleteObject", Key=f"{VAULT}.absent"),
    _case("delete several of them", ADMINISTRATOR, "DeleteObjects", Delete={"Objects": [{"Key": f"{VAULT}.absent"}]}),
    _case("delete a version of a vault's file", NOBODY, "DeleteObject", Key=f"{VAULT}.absent", VersionId="null"),
    _case("delete a version", NOBODY, "DeleteObject", Key=_new("absent"), VersionId="null"),
    _case("delete several", NOBODY, "DeleteObjects", Delete={"Objects": [{"Key": _new("absent")}]}),
    _case("set an ACL", NOBODY, "PutObjectAcl", Key=OBJECT, ACL="private"),
    _case("set tags", NOBODY, "PutObjectTagging", Key=OBJECT, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
    _case(
        "set a retention", NOBODY, "PutObjectRetention", Key=OBJECT,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": _LATER},
    ),
    _case("set the lifecycle", NOBODY, "PutBucketLifecycleConfiguration", LifecycleConfiguration=_RULES),
    _case("remove the lifecycle", NOBODY, "DeleteBucketLifecycle"),
    _case("read the policy", NOBODY, "GetBucketPolicy"),
    _case("set a policy", NOBODY, "PutBucketPolicy", Policy=_GRANT),
    _case("remove the policy", NOBODY, "DeleteBucketPolicy"),
    _case("set the bucket's ACL", NOBODY, "PutBucketAcl", ACL="private"),
    _case("set the encryption", NOBODY, "PutBucketEncryption", ServerSideEncryptionConfiguration=_AES),
    _case("suspend versioning", NOBODY, "PutBucketVersioning", VersioningConfiguration={"Status": "Suspended"}),
    _case(
        "set the Object Lock", NOBODY, "PutObjectLockConfiguration",
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"},
    ),
    _case(
        "set the public access block", NOBODY, "PutPublicAccessBlock",
        PublicAccessBlockConfiguration={"BlockPublicAcls": False},
    ),
    _case("delete the bucket", NOBODY, "DeleteBucket"),
]  # fmt: skip
CASES = [*_READING, *_SETTINGS, *_CREATING, *_OVERWRITING, *_PLANTING, *_CHANGING]

_ELSEWHERE = {case.name for case in CASES if "whole bucket" in case.name or "prefix" in case.name}
"""What is outside the prefix: another policy's business."""
_WRITING_ELSEWHERE = {"copy from another prefix", "create in another prefix"}
_OTHER_READING = {"list versions", "read a version of an object", "read the policy"}
ADDED = {
    "backup-host": _ELSEWHERE | _OTHER_READING | {"create beside the classes"},
    "restore-host": _ELSEWHERE - _WRITING_ELSEWHERE
    | _OTHER_READING
    | {"list uploads"}
    | {case.name for case in _SETTINGS},
    "auditor": _ELSEWHERE - _WRITING_ELSEWHERE | _OTHER_READING | {"list uploads", "read contents"},
    "administrator": _ELSEWHERE
    | _OTHER_READING
    | {case.name for case in [*_SETTINGS, *_CREATING]} - {"abort an upload", "copy an object", "copy a part"}
    | {"list uploads", "read a public list", "copy from a vault", "create beside the classes"}
    | {"begin an upload of a vault's file", "delete", "delete a manifest", "delete several"},
}
"""The names of what a role may do as soon as another policy allows it everything."""
