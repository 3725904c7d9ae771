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
HELD = f"{PREFIX}/held/data/prod/00.tar.zst.age"
"""What an administrator holds, until he releases it."""
OUTSIDE = "elsewhere/data/prod/00.tar.zst.age"
EXISTING = (OBJECT, OBJECT_OF_BACKUPS, CONTENTS, OBJECTS, MANIFEST, VAULT, VAULT_OF_DATA, HELD, OUTSIDE)
"""The keys that there must be, so that a request fails for one reason only."""
UPLOAD = "EXAMPLE-UPLOAD"
"""Stands for the id of an open upload of the call's key, with part 1 in it."""
ETAG = "EXAMPLE-ETAG"
"""Stands for the ETag of that part."""

NOBODY = frozenset[str]()
BACKUP = frozenset({"backup-host"})
AUDITOR = frozenset({"auditor"})
ADMINISTRATOR = frozenset({"administrator"})
RESTORE = frozenset({"restore-host"})
READERS = BACKUP | RESTORE | ADMINISTRATOR
VAULT_READERS = RESTORE | ADMINISTRATOR
EVERYBODY = READERS | AUDITOR


@dataclass(frozen=True)
class Case:
    """One request and who may make it."""

    name: str
    roles: frozenset[str]
    call: Call
    unenforced: frozenset[str] = NOBODY
    """Whom SeaweedFS lets do it although AWS would not: it knows neither of the two condition keys, nor
    s3:PutObjectTagging for a create, nor, in a bucket without Object Lock, s3:PutObjectLegalHold for one."""
    enforceable: bool = True
    """Whether SeaweedFS has the request at all."""


def _case(
    name: str,
    roles: frozenset[str],
    operation: str,
    *,
    unenforced: frozenset[str] = NOBODY,
    enforceable: bool = True,
    **parameters: Any,
) -> Case:
    return Case(name, roles, Call(operation, {"Bucket": BUCKET, **parameters}), unenforced, enforceable)


def _new(name: str) -> str:
    return f"{PREFIX}/daily/data/prod/new-{name}"


def _copy(source: str) -> dict[str, str]:
    return {"Bucket": BUCKET, "Key": source}


_CREATE: dict[str, Any] = {"IfNoneMatch": "*"}
_UNTAGGED: dict[str, Any] = {"TaggingDirective": "REPLACE"}
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
    _case(f"read {what}", BACKUP | AUDITOR | others, operation)
    for what, others, operation in [
        ("the location", NOBODY, "GetBucketLocation"),
        ("the versioning", ADMINISTRATOR, "GetBucketVersioning"),
        ("the Object Lock", ADMINISTRATOR, "GetObjectLockConfiguration"),
        ("the public access block", NOBODY, "GetPublicAccessBlock"),
        ("the encryption", NOBODY, "GetBucketEncryption"),
        ("the lifecycle", ADMINISTRATOR | RESTORE, "GetBucketLifecycleConfiguration"),
    ]
]
_CREATING = [
    _case("create", BACKUP, "PutObject", Key=_new("put"), **_CREATE, **_BODY),
    _case("create a manifest", BACKUP, "PutObject", Key=f"{PREFIX}/daily/backups/prod/c/m", **_CREATE, **_BODY),
    _case("begin an upload", BACKUP, "CreateMultipartUpload", Key=_new("begun")),
    _case("send a part", BACKUP, "UploadPart", Key=_new("part"), UploadId=UPLOAD, PartNumber=2, **_BODY),
    _case("complete an upload", BACKUP, "CompleteMultipartUpload", Key=_new("whole"), **_PARTS, **_CREATE),
    _case("abort an upload", BACKUP, "AbortMultipartUpload", Key=_new("aborted"), UploadId=UPLOAD),
    _case("copy an object", BACKUP, "CopyObject", Key=_new("copy"), CopySource=_copy(OBJECT), **_CREATE, **_UNTAGGED),
    _case(
        "copy a part", BACKUP, "UploadPartCopy", Key=_new("part-copy"), UploadId=UPLOAD, PartNumber=2,
        CopySource=_copy(OBJECT),
    ),
]  # fmt: skip
_OVERWRITING = [
    _case("overwrite", NOBODY, "PutObject", Key=OBJECT, **_BODY, unenforced=BACKUP),
    _case("overwrite a manifest", NOBODY, "PutObject", Key=MANIFEST, **_BODY, unenforced=BACKUP),
    _case("overwrite by an upload", NOBODY, "CompleteMultipartUpload", Key=OBJECT, **_PARTS, unenforced=BACKUP),
    _case(
        "overwrite by a copy", NOBODY, "CopyObject", Key=OBJECT, CopySource=_copy(MANIFEST), **_UNTAGGED,
        unenforced=BACKUP,
    ),
    _case("copy with tags", NOBODY, "CopyObject", Key=_new("tag-copy"), CopySource=_copy(OBJECT), **_CREATE,
        unenforced=BACKUP,
    ),
    _case("overwrite what is held", NOBODY, "PutObject", Key=HELD, **_BODY, unenforced=BACKUP | ADMINISTRATOR),
    _case(
        "create with tags", NOBODY, "PutObject", Key=_new("tag"), **_CREATE, **_BODY, Tagging="a=b", unenforced=BACKUP
    ),
]  # fmt: skip
_PLANTING = [
    _case("create a vault's file", ADMINISTRATOR, "PutObject", Key=f"{VAULT}.new", **_CREATE, **_BODY),
    _case(
        "create one of a source called data", ADMINISTRATOR, "PutObject", Key=f"{VAULT_OF_DATA}.new", **_CREATE, **_BODY
    ),
    _case("overwrite a vault's file", NOBODY, "PutObject", Key=VAULT, **_BODY, unenforced=ADMINISTRATOR),
    _case("begin an upload of a vault's file", ADMINISTRATOR, "CreateMultipartUpload", Key=f"{VAULT}.begun"),
    _case("complete one", ADMINISTRATOR, "CompleteMultipartUpload", Key=f"{VAULT}.whole", **_PARTS, **_CREATE),
    _case(
        "abort an upload of a vault's file", ADMINISTRATOR, "AbortMultipartUpload", Key=f"{VAULT}.part", UploadId=UPLOAD
    ),
    _case(
        "copy from a vault", NOBODY, "CopyObject", Key=_new("key"), CopySource=_copy(VAULT), **_CREATE, **_UNTAGGED
    ),
    _case(
        "copy from another prefix", NOBODY, "CopyObject", Key=_new("loot"), CopySource=_copy(OUTSIDE), **_CREATE,
        **_UNTAGGED,
    ),
    _case("create beside the classes", NOBODY, "PutObject", Key=f"{PREFIX}/stray", **_CREATE, **_BODY),
    _case("create in another prefix", NOBODY, "PutObject", Key=f"{OUTSIDE}.new", **_CREATE, **_BODY),
]  # fmt: skip
_LATER = "2099-01-01T00:00:00Z"
_LOCK: dict[str, Any] = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": _LATER}
_RETENTION: dict[str, Any] = {"Retention": {"Mode": "GOVERNANCE", "RetainUntilDate": _LATER}}
_ON: dict[str, Any] = {"ObjectLockLegalHoldStatus": "ON"}
_OFF: dict[str, Any] = {"LegalHold": {"Status": "OFF"}}
_HOLDING = [
    _case("hold an object", BACKUP | ADMINISTRATOR, "CopyObject", Key=f"{HELD}.copy", CopySource=_copy(OBJECT),
        **_CREATE, **_UNTAGGED,
    ),
    _case("hold a manifest", BACKUP | ADMINISTRATOR, "PutObject", Key=f"{PREFIX}/held/backups/prod/b/manifest.json",
        **_CREATE, **_BODY,
    ),
    _case("hold an object under a legal hold", ADMINISTRATOR, "CopyObject", Key=f"{HELD}.lock",
        CopySource=_copy(OBJECT), **_CREATE, **_UNTAGGED, **_ON, unenforced=BACKUP,
    ),
    _case("create under a legal hold", ADMINISTRATOR, "PutObject", Key=f"{HELD}.put", **_CREATE, **_BODY, **_ON,
        unenforced=BACKUP,
    ),
    _case("create a backup's key under a legal hold", NOBODY, "PutObject", Key=_new("held"), **_CREATE, **_BODY, **_ON,
        unenforced=BACKUP,
    ),
    _case("take a legal hold off", ADMINISTRATOR, "PutObjectLegalHold", Key=HELD, **_OFF),
    _case("take one off outside of what is held", NOBODY, "PutObjectLegalHold", Key=OBJECT, **_OFF),
    _case("create under lock", BACKUP, "PutObject", Key=_new("locked"), **_CREATE, **_BODY, **_LOCK),
    _case("begin an upload under lock", BACKUP, "CreateMultipartUpload", Key=_new("lock-begun"), **_LOCK),
    _case("copy an object under lock", BACKUP, "CopyObject", Key=_new("lock-copy"), CopySource=_copy(OBJECT),
        **_CREATE, **_UNTAGGED, **_LOCK,
    ),
    _case("create a vault's file under lock", ADMINISTRATOR, "PutObject", Key=f"{VAULT}.locked", **_CREATE, **_BODY,
        **_LOCK,
    ),
    _case("set a retention", BACKUP, "PutObjectRetention", Key=OBJECT, **_RETENTION),
    _case("set a vault's file's retention", ADMINISTRATOR, "PutObjectRetention", Key=VAULT_OF_DATA, **_RETENTION),
    _case("set another prefix's retention", NOBODY, "PutObjectRetention", Key=OUTSIDE, **_RETENTION),
    _case("thaw an object", RESTORE, "RestoreObject", Key=OBJECT, RestoreRequest={"Days": 1}, enforceable=False),
    _case("thaw a manifest", NOBODY, "RestoreObject", Key=MANIFEST, RestoreRequest={"Days": 1}, enforceable=False),
]  # fmt: skip
_RULES = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": "no/"}, "Expiration": {"Days": 1}}]}
_AES = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
_GRANT = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", '
    f'"Resource": "arn:aws:s3:::{BUCKET}/no/*"}}]}}'
)
_CHANGING = [
    _case("delete", ADMINISTRATOR, "DeleteObject", Key=_new("absent")),
    _case("delete a manifest", ADMINISTRATOR, "DeleteObject", Key=f"{MANIFEST}.absent"),
    _case("delete a vault's file", ADMINISTRATOR, "DeleteObject", Key=f"{VAULT}.absent"),
    _case("delete several of them", ADMINISTRATOR, "DeleteObjects", Delete={"Objects": [{"Key": f"{VAULT}.absent"}]}),
    _case("delete in another prefix", NOBODY, "DeleteObject", Key=f"{OUTSIDE}.absent"),
    _case("delete a version of a vault's file", NOBODY, "DeleteObject", Key=f"{VAULT}.absent", VersionId="null"),
    _case("delete a version", NOBODY, "DeleteObject", Key=_new("absent"), VersionId="null"),
    _case("delete several", ADMINISTRATOR, "DeleteObjects", Delete={"Objects": [{"Key": _new("absent")}]}),
    _case("set an ACL", NOBODY, "PutObjectAcl", Key=OBJECT, ACL="private"),
    _case("set tags", NOBODY, "PutObjectTagging", Key=OBJECT, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]}),
    _case("set the lifecycle", ADMINISTRATOR, "PutBucketLifecycleConfiguration", LifecycleConfiguration=_RULES),
    _case("remove the lifecycle", ADMINISTRATOR, "DeleteBucketLifecycle"),
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
CASES = [*_READING, *_SETTINGS, *_CREATING, *_OVERWRITING, *_PLANTING, *_HOLDING, *_CHANGING]

_ELSEWHERE = {case.name for case in CASES if "whole bucket" in case.name or "prefix" in case.name}
"""What is outside the prefix: another policy's business."""
_WRITING_ELSEWHERE = {
    "copy from another prefix",
    "create in another prefix",
    "delete in another prefix",
    "set another prefix's retention",
}
_OTHER_READING = {"list versions", "read a version of an object", "read the policy"}
ADDED = {
    "backup-host": _ELSEWHERE - {"delete in another prefix"}
    | _OTHER_READING
    | {"create beside the classes", "copy with tags"},
    "restore-host": _ELSEWHERE - _WRITING_ELSEWHERE
    | _OTHER_READING
    | {"list uploads", "thaw a manifest"}
    | {case.name for case in _SETTINGS if not case.roles & RESTORE},
    "auditor": _ELSEWHERE - _WRITING_ELSEWHERE | _OTHER_READING | {"list uploads", "read contents"},
    # Beyond deleting, which it may do anyway, all that the backup host may: its keys are those that it does not name.
    "administrator": _ELSEWHERE
    | _OTHER_READING
    | {case.name for case in [*_SETTINGS, *_CREATING, *_HOLDING] if "thaw" not in case.name}
    - {case.name for case in CASES if case.roles & ADMINISTRATOR}
    | {"list uploads", "copy with tags", "copy from a vault", "create beside the classes"},
}
"""The names of what a role may do as soon as another policy allows it everything."""
