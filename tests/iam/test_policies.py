"""The policies of docs/iam/ say what they are meant to say, by AWS's rules as tests/iam/policies.py knows them."""

import copy
import json
import re

import pytest

from tests.iam.calls import Call
from tests.iam.cases import ADDED, CASES, CONTENTS, OBJECT, Case
from tests.iam.policies import (
    BUCKET,
    DIRECTORY,
    PREFIX,
    ROLES,
    Authorization,
    Policy,
    allows,
    fill_in,
    load_policy,
    with_contents,
    without_prefix,
)
from tests.iam.test_document import STATEMENTS, TEXT

MANAGED_LIMIT = 6144
"""Characters of a managed policy, white space not counted, as AWS documents it."""
LONGEST_BUCKET = "b" * 63
LONGEST_PREFIX = "p" * 150 + "/" + "p" * 149
"""Of those that docs/iam/README.md promises to fit."""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_who_may_do_what(case: Case, role: str) -> None:
    assert case.call.allowed_by(load_policy(role)) == (role in case.roles)


@pytest.mark.parametrize("role", ROLES)
def test_the_form_of_a_policy(role: str) -> None:
    text = (DIRECTORY / f"{role}.json").read_text("utf-8")
    policy = load_policy(role)
    assert policy.keys() == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    names = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in names)
    filled = json.dumps(fill_in(policy, "some-bucket", "some/prefix"))
    assert "EXAMPLE" not in filled
    assert filled.count("some-bucket") == text.count(BUCKET)
    assert filled.count("some/prefix") == text.count(PREFIX)


def size(policy: Policy) -> int:
    """As AWS counts: without white space, of which there is none between these quotes."""
    return len(json.dumps(policy, separators=(",", ":")))


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_fits_with_the_longest_names(role: str) -> None:
    policy = fill_in(load_policy(role), LONGEST_BUCKET, LONGEST_PREFIX)
    for name in ("UseKey", "OpenVaults", "SealVaults"):
        key = f"arn:aws:kms:ap-southeast-1:{0:012}:key/{'0' * 36}"
        policy["Statement"].append({**STATEMENTS[name], "Resource": key})

    assert len(LONGEST_PREFIX) == 300
    assert "of up to 63 letters and a prefix of up to 300" in " ".join(TEXT.split())
    assert size(policy) <= MANAGED_LIMIT


def test_the_page_says_how_large_they_are() -> None:
    rows = dict(re.findall(r"^\| ([a-z-]+) \| ([0-9,]+) \|", TEXT, re.MULTILINE))

    assert rows == {role: f"{size(fill_in(load_policy(role), LONGEST_BUCKET, 'prod')):,}" for role in ROLES}


ON_BUCKETS = """
CreateBucket CreateBucketMetadataTableConfiguration DeleteBucket DeleteBucketMetadataTableConfiguration
DeleteBucketPolicy DeleteBucketWebsite PauseReplication PutAccelerateConfiguration PutAnalyticsConfiguration
PutBucketAcl PutBucketCORS PutBucketLogging PutBucketNotification PutBucketObjectLockConfiguration
PutBucketOwnershipControls PutBucketPolicy PutBucketPublicAccessBlock PutBucketRequestPayment PutBucketTagging
PutBucketVersioning PutBucketWebsite PutEncryptionConfiguration PutIntelligentTieringConfiguration
PutInventoryConfiguration PutLifecycleConfiguration PutMetricsConfiguration PutReplicationConfiguration TagResource
UntagResource UpdateBucketMetadataInventoryTableConfiguration UpdateBucketMetadataJournalTableConfiguration
"""
ON_OBJECTS = """
AbortMultipartUpload BypassGovernanceRetention DeleteObject DeleteObjectTagging DeleteObjectVersion
DeleteObjectVersionTagging InitiateReplication ObjectOwnerOverrideToBucketOwner PutObject PutObjectAcl
PutObjectLegalHold PutObjectRetention PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging ReplicateDelete
ReplicateObject ReplicateTags RestoreObject UpdateObjectEncryption
"""
"""All that change something, of AWS's "Service Authorization Reference" for S3."""
LEFT = {
    "backup-host": {"AbortMultipartUpload", "PutObject", "PutObjectRetention"},
    "restore-host": {"RestoreObject"},
    "auditor": set[str](),
    "administrator": {
        "AbortMultipartUpload",
        "DeleteObject",
        "PutLifecycleConfiguration",
        "PutObject",
        "PutObjectLegalHold",
        "PutObjectRetention",
    },
}
"""What another policy could give each role on the bucket and its keys."""


@pytest.mark.parametrize("role", ROLES)
def test_every_change_but_those_of_the_role_is_denied_against_another_policy(role: str) -> None:
    generous = load_policy(role)
    generous["Statement"].append({"Effect": "Allow", "Action": "*", "Resource": "*"})
    bucket = f"arn:aws:s3:::{BUCKET}"
    asked = dict.fromkeys(ON_BUCKETS.split(), bucket) | dict.fromkeys(ON_OBJECTS.split(), f"{bucket}/{OBJECT}")

    allowed = {action for action, where in asked.items() if allows(generous, Authorization(f"s3:{action}", where))}

    assert allowed == LEFT[role]


@pytest.mark.parametrize("role", ROLES)
def test_what_another_policy_could_add(role: str) -> None:
    generous = load_policy(role)
    generous["Statement"].append({"Effect": "Allow", "Action": "*", "Resource": "*"})
    added = {case.name for case in CASES if role not in case.roles and case.call.allowed_by(generous)}
    assert added == ADDED[role]


@pytest.mark.parametrize(
    ("role", "dropped"),
    [
        *(("backup-host", name) for name in ("CreateKeys", "SendParts", "DenyOverwriting", "DenyVaults")),
        *(
            ("administrator", name)
            for name in ("SetLifecycle", "ReadAndDelete", "LockAndAbort", "CreateKeys", "SendParts", "DenyOverwriting")
        ),
    ],
)
def test_no_statement_of_those_who_write_is_idle(role: str, dropped: str) -> None:
    policy = load_policy(role)
    everything = {"Sid": "Other", "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "*"}
    policy["Statement"] += [everything] if dropped.startswith("Deny") else []
    less = copy.deepcopy(policy)
    less["Statement"] = [statement for statement in less["Statement"] if statement["Sid"] != dropped]
    assert answers(policy) != answers(less)


def answers(policy: Policy) -> list[bool]:
    return [case.call.allowed_by(policy) for case in CASES]


def test_the_auditor_may_be_given_contents() -> None:
    policy = with_contents(load_policy("auditor"))
    read = {key: Call("GetObject", {"Bucket": BUCKET, "Key": key}) for key in (CONTENTS, OBJECT)}
    assert read[CONTENTS].allowed_by(policy)
    assert not read[OBJECT].allowed_by(policy)


@pytest.mark.parametrize("role", ROLES)
def test_a_destination_without_a_prefix(role: str) -> None:
    policy = without_prefix(load_policy(role))
    own = [case for case in CASES if "prefix" not in case.name and "whole bucket" not in case.name]
    # What docs/iam/README.md warns of: beside other applications' keys, it reaches theirs.
    theirs = {
        name: Call(operation, {"Bucket": BUCKET, "Key": "other/data/theirs", **more}).allowed_by(policy)
        for name, operation, more in (
            ("read", "GetObject", {}),
            ("create", "PutObject", {"IfNoneMatch": "*"}),
            ("delete", "DeleteObject", {}),
        )
    }
    assert {name for name, is_allowed in theirs.items() if is_allowed} == {
        "backup-host": {"read", "create"},
        "restore-host": {"read"},
        "auditor": set(),
        "administrator": {"read", "delete"},
    }[role]
    for case in own:
        parameters = json.loads(json.dumps(case.call.parameters, default=repr).replace(f"{PREFIX}/", ""))
        assert Call(case.call.operation, parameters).allowed_by(policy) == (role in case.roles), case.name


def statement(**changes: object) -> Policy:
    basic = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}
    return {"Statement": [{name: value for name, value in (basic | changes).items() if value is not None}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"Effect": "Deny"}, False),
        ({"Action": "S3:getobject"}, True),
        ({"Action": "s3:Get?bject"}, True),
        ({"Action": ["s3:PutObject", "s3:Get*"]}, True),
        ({"Action": "s3:GetObjectVersion"}, False),
        ({"Action": "s3:GetObject?*"}, False),
        ({"Resource": "arn:aws:s3:::b/K"}, False),
        ({"Resource": "arn:aws:s3:::b/[k]"}, False),
        ({"Resource": "arn:aws:s3:::b/*/y"}, True),
        ({"Condition": {"Null": {"s3:Here": "false"}}}, True),
        ({"Condition": {"Null": {"s3:here": "true"}}}, False),
        ({"Condition": {"Null": {"s3:gone": "true"}}}, True),
        ({"Condition": {"Bool": {"s3:here": "true"}}}, True),
        ({"Condition": {"Bool": {"s3:gone": "false"}}}, False),
        ({"Condition": {"StringEquals": {"s3:here": ["x", "true"]}}}, True),
        ({"Condition": {"StringEquals": {"s3:here": "tr*"}}}, False),
        ({"Condition": {"StringEquals": {"s3:gone": "true"}}}, False),
        ({"Condition": {"StringLike": {"s3:here": ["x", "tr*"]}}}, True),
        ({"Condition": {"StringLike": {"s3:gone": "*"}}}, False),
        ({"Condition": {"NumericGreaterThan": {"s3:days": "9"}}}, True),
        ({"Condition": {"NumericGreaterThan": {"s3:days": "10"}}}, False),
        ({"Condition": {"NumericGreaterThan": {"s3:gone": "0"}}}, False),
        ({"Condition": {"Null": {"s3:here": "false"}, "Bool": {"s3:here": "false"}}}, False),
    ],
)
def test_the_evaluator(changes: dict[str, object], expected: bool) -> None:
    asked = Authorization("s3:GetObject", "arn:aws:s3:::b/k/x/y", {"s3:here": "true", "s3:days": "10"})
    assert allows(statement(**changes), asked) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"Effect": "Maybe"},
        {"NotResource": "*"},
        {"Action": None, "NotAction": "s3:*"},
        {"Action": None},
        {"Resource": 1},
        {"Condition": {"NumericEquals": {"s3:here": "1"}}},
    ],
)
def test_the_evaluator_refuses_what_it_does_not_know(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown|cannot|expected"):
        allows(statement(**changes), Authorization("s3:GetObject", "arn:aws:s3:::b/k"))


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="SelectObjectContent is not known here"):
        Call("SelectObjectContent", {"Bucket": BUCKET, "Key": OBJECT}).authorizations()
