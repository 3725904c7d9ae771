"""The settings of the bucket and of the replication, evaluated."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.config import RetentionClass
from archiver.retention.attributes import attribution
from tests.iam.policies import fill_in
from tests.iam.test_document import STATEMENTS
from tests.terraform.hcl import TERRAFORM
from tests.terraform.lifecycle import BUCKET, KEY, backups_module
from tests.terraform.module import InvalidError, Module
from tests.terraform.test_lifecycle import CLASSES as TERMS
from tests.terraform.test_lifecycle import NAMES

CLASSES = {"daily": {"keep": 35, "lease": 7}}
GIVEN = "arn:aws:kms:eu-central-1:000000000000:key/given"
REPLICA = "arn:aws:s3:::my-replica"
REPLICA_KEY = "arn:aws:kms:eu-west-1:000000000000:key/replica"


def backups(**variables: Any) -> Module:
    return backups_module({"classes": CLASSES, **variables})


def replication(**variables: Any) -> Module:
    attributes = {
        "data": {"aws_partition": {"current": {"partition": "aws"}}},
        "module": {"replica": {"bucket_arn": REPLICA, "kms_key_arn": REPLICA_KEY}},
        "aws_iam_role": {"replication": {"id": "role", "arn": "arn:aws:iam::000000000000:role/role"}},
    }
    given = {"bucket": BUCKET, "replica_bucket": "my-replica", "classes": CLASSES, **variables}
    return Module(TERRAFORM / "replication", given, attributes)


def statements(module: Module) -> dict[str, dict[str, Any]]:
    document = json.loads(module.resource("aws_iam_role_policy", "replication")["policy"])
    return {statement["Sid"]: statement for statement in document["Statement"]}


def rule(module: Module) -> dict[str, Any]:
    (found,) = module.resource("aws_s3_bucket_replication_configuration", "this")["rule"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("variables", "algorithm", "key"),
    [({}, "AES256", None), ({"create_kms_key": True}, "aws:kms", KEY), ({"kms_key_arn": GIVEN}, "aws:kms", GIVEN)],
)
def test_the_bucket_is_encrypted(variables: dict[str, Any], algorithm: str, key: str | None) -> None:
    (found,) = backups(**variables).resource("aws_s3_bucket_server_side_encryption_configuration", "this")["rule"]

    assert found["apply_server_side_encryption_by_default"] == [{"sse_algorithm": algorithm, "kms_master_key_id": key}]
    assert found["bucket_key_enabled"] == (key is not None)


def test_one_key_at_most_is_named() -> None:
    with pytest.raises(InvalidError, match="not both"):
        backups(create_kms_key=True, kms_key_arn=GIVEN)


def test_versions_are_kept_and_nothing_is_public() -> None:
    module = backups()

    versioning = module.resource("aws_s3_bucket_versioning", "this")
    assert versioning["versioning_configuration"] == [{"status": "Enabled"}]
    public = module.resource("aws_s3_bucket_public_access_block", "this")
    assert {value for name, value in public.items() if name != "bucket"} == {True}
    ownership = module.resource("aws_s3_bucket_ownership_controls", "this")
    assert ownership["rule"] == [{"object_ownership": "BucketOwnerEnforced"}]


def test_requests_without_tls_or_with_an_old_one_are_denied_to_all() -> None:
    document = json.loads(backups().resource("aws_s3_bucket_policy", "this")["policy"])

    for statement in document["Statement"]:
        assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
        assert statement["Resource"] == [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    assert [statement["Condition"] for statement in document["Statement"]] == [
        {"Bool": {"aws:SecureTransport": "false"}},
        {"NumericLessThan": {"s3:TlsVersion": "1.2"}},
    ]


def own_statements(**variables: Any) -> list[dict[str, Any]]:
    """Those of the bucket's policy after the two on TLS."""
    found: list[dict[str, Any]] = json.loads(backups(**variables).resource("aws_s3_bucket_policy", "this")["policy"])[
        "Statement"
    ]
    assert [statement["Sid"] for statement in found[:2]] == ["DenyWithoutTls", "DenyOldTls"]
    return found[2:]


def test_with_object_lock_longer_locks_than_archiver_s_are_denied() -> None:
    """The statement of docs/iam/README.md, with the longest keep + lease and a day."""
    classes = {"daily": {"keep": 35, "lease": 7}, "monthly": {"keep": 400, "lease": 35}}

    (found,) = own_statements(classes=classes, object_lock="governance")

    assert found == fill_in(STATEMENTS["DenyLongLocks"], BUCKET, "")
    assert own_statements(classes=classes) == []
    (short,) = own_statements(object_lock="compliance")
    assert short["Condition"] == {"NumericGreaterThan": {"s3:object-lock-remaining-retention-days": "43"}}


@given(st.dictionaries(NAMES, TERMS, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_no_lock_of_archiver_s_is_denied(classes: dict[str, RetentionClass]) -> None:
    (found,) = own_statements(
        classes={name: {"keep": term.keep, "lease": term.lease} for name, term in classes.items()},
        object_lock="compliance",
    )
    limit = int(found["Condition"]["NumericGreaterThan"]["s3:object-lock-remaining-retention-days"])
    keys = [f"{name}/data/s/b.started" for name in classes] + ["vault/s/00/a.age"]
    days = [attribution(classes)(key).retain_days for key in keys]

    # And none that is longer than the longest, but for the day, is allowed.
    assert max(each for each in days if each is not None) + 1 == limit


OWN = {"Sid": "Own", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObjectTagging", "Resource": "*"}


def test_further_statements_are_part_of_the_policy() -> None:
    conditional = {**OWN, "Sid": "Other", "Condition": {"Bool": {"a:b": "true"}}}

    assert own_statements(policy_statements=[OWN, conditional]) == [OWN, conditional]
    assert replication(policy_statements=[OWN]).called("replica")["policy_statements"] == [OWN]
    for wrong in (["x"], [{"Sid": "OnlyThat"}]):
        with pytest.raises(InvalidError, match="at least Sid, Effect"):
            backups(policy_statements=wrong)


@pytest.mark.parametrize(("prefix", "base"), [("", ""), ("prod/a", "prod/a/")])
def test_all_of_the_destination_is_copied_and_no_deletion(prefix: str, base: str) -> None:
    module = replication(prefix=prefix)

    assert rule(module)["status"] == "Enabled"
    assert rule(module)["filter"] == [{"prefix": base}]
    assert rule(module)["delete_marker_replication"] == [{"status": "Disabled"}]
    assert rule(module)["destination"] == [{"bucket": REPLICA}]
    found = statements(module)
    assert found["ReadVersions"]["Resource"] == f"arn:aws:s3:::{BUCKET}/{base}*"
    assert found["WriteCopies"] == {
        "Sid": "WriteCopies",
        "Effect": "Allow",
        "Action": ["s3:ReplicateObject", "s3:ReplicateTags"],
        "Resource": f"{REPLICA}/{base}*",
    }
    assert found.keys() == {"ReadSettings", "ReadVersions", "WriteCopies"}


def test_with_kms_it_is_decrypted_with_one_key_and_encrypted_with_the_other() -> None:
    module = replication(kms={"key_arn": KEY})

    assert rule(module)["source_selection_criteria"] == [{"sse_kms_encrypted_objects": [{"status": "Enabled"}]}]
    (destination,) = rule(module)["destination"]
    assert destination["encryption_configuration"] == [{"replica_kms_key_id": REPLICA_KEY}]
    found = statements(module)
    assert (found["DecryptOriginals"]["Resource"], found["EncryptCopies"]["Resource"]) == (KEY, REPLICA_KEY)
    assert found["DecryptOriginals"]["Condition"]["StringLike"]["kms:EncryptionContext:aws:s3:arn"] == [
        f"arn:aws:s3:::{BUCKET}",
        f"arn:aws:s3:::{BUCKET}/*",
    ]


def test_the_second_bucket_gets_what_the_first_has() -> None:
    def passed(**variables: Any) -> dict[str, Any]:
        module = replication(prefix="prod", object_lock="compliance", **variables)
        found = module.called("replica")
        assert found["classes"] == {"daily": {"keep": 35, "lease": 7, "storage_class": None}}
        assert (found["bucket"], found["prefix"], found["object_lock"]) == ("my-replica", "prod", "compliance")
        return found

    assert (passed()["create_kms_key"], passed()["kms_key_arn"]) == (False, None)
    made = passed(kms={"key_arn": KEY})
    assert (made["create_kms_key"], made["kms_key_arn"]) == (True, None)
    named = passed(kms={"key_arn": KEY, "replica_key_arn": GIVEN})
    assert (named["create_kms_key"], named["kms_key_arn"]) == (False, GIVEN)


def test_replication_time_control_is_fifteen_minutes() -> None:
    (destination,) = rule(replication(replication_time_control=True))["destination"]

    assert destination["replication_time"] == [{"status": "Enabled", "time": [{"minutes": 15}]}]
    assert destination["metrics"] == [{"status": "Enabled", "event_threshold": [{"minutes": 15}]}]
