"""What the module makes of docs/iam/, of the destination's URL and of alarms."""

import fnmatch
import json
from typing import Any

import pytest

from archiver.catalog.names import BackupPlace
from archiver.stores.destination import S3Destination, parse_destination
from tests.iam.policies import DIRECTORY, fill_in, load_policy
from tests.terraform.lifecycle import BUCKET, KEY, REGION, backups_module
from tests.terraform.module import InvalidError

CLASSES = {"daily": {"keep": 35, "lease": 7}, "monthly": {"keep": 400, "lease": 35}}
ROLES = sorted(path.stem for path in DIRECTORY.glob("*.json"))


def policy(role: str, **variables: Any) -> dict[str, Any]:
    resource = backups_module({"classes": CLASSES, **variables}).resource("aws_iam_policy", "role", role)
    document: dict[str, Any] = json.loads(resource["policy"])
    return document


def test_every_file_becomes_a_policy() -> None:
    assert ROLES
    assert backups_module({"classes": CLASSES}).local("roles") == set(ROLES)
    assert backups_module({"classes": CLASSES, "policies": ["auditor"]}).local("roles") == {"auditor"}
    with pytest.raises(InvalidError, match="docs/iam"):
        backups_module({"classes": CLASSES, "policies": ["backup-hosts"]})


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_is_the_file_with_the_names_filled_in(role: str) -> None:
    assert policy(role, prefix="prod/a") == fill_in(load_policy(role), BUCKET, "prod/a")


@pytest.mark.parametrize("role", ROLES)
def test_without_a_prefix_it_is_what_the_page_says(role: str) -> None:
    """docs/iam/README.md: remove ``EXAMPLE-PREFIX/`` everywhere, and the Condition of ListPrefix."""
    text = json.dumps(load_policy(role)).replace("EXAMPLE-PREFIX/", "").replace("EXAMPLE-BUCKET", BUCKET)
    expected = json.loads(text)
    for statement in expected["Statement"]:
        if statement["Sid"] == "ListPrefix":
            del statement["Condition"]

    assert policy(role) == expected


@pytest.mark.parametrize("role", ROLES)
def test_with_a_kms_key_each_role_may_use_it(role: str) -> None:
    plain = policy(role, prefix="prod")
    made = policy(role, prefix="prod", create_kms_key=True)
    given = policy(role, prefix="prod", kms_key_arn="arn:aws:kms:eu-central-1:000000000000:key/given")

    assert made["Statement"][:-1] == given["Statement"][:-1] == plain["Statement"]
    assert made["Statement"][-1]["Resource"] == KEY
    assert given["Statement"][-1]["Resource"].endswith("key/given")
    creates = any(
        statement["Effect"] == "Allow"
        and "s3:PutObject" in ([statement["Action"]], statement["Action"])[isinstance(statement["Action"], list)]
        for statement in plain["Statement"]
    )
    assert made["Statement"][-1]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"][: 1 + creates]
    # AWS's limit for a managed policy.
    assert len(json.dumps(made, separators=(",", ":"))) <= 6144


@pytest.mark.parametrize("object_lock", [None, "governance", "compliance"])
@pytest.mark.parametrize("prefix", ["", "prod/a"])
def test_the_destination_is_a_url_that_archiver_takes(prefix: str, object_lock: str | None) -> None:
    module = backups_module({"classes": CLASSES, "prefix": prefix, "object_lock": object_lock})

    destination = parse_destination(module.output("destination"), {})

    assert isinstance(destination, S3Destination)
    assert (destination.bucket, destination.prefix) == (BUCKET, prefix)
    assert (destination.options.region, destination.options.object_lock) == (REGION, object_lock)
    assert module.resource("aws_s3_bucket", "this")["object_lock_enabled"] == (object_lock is not None)


def test_an_unknown_lock_is_refused() -> None:
    for wrong in ("none", "", "GOVERNANCE"):
        with pytest.raises(InvalidError, match="governance"):
            backups_module({"classes": CLASSES, "object_lock": wrong})


@pytest.mark.parametrize("prefix", ["", "prod/a"])
def test_an_alarm_hears_of_the_manifests_of_its_source_and_class_alone(prefix: str) -> None:
    alarms = {"prod": {}, "s" * 63: {"class": "monthly", "hours": 168}}
    module = backups_module({"classes": CLASSES, "prefix": prefix, "alarms": alarms})
    rule = module.resource("aws_cloudwatch_event_rule", "backup", "prod")
    alarm = module.local("alarm_rules")
    event = json.loads(rule["event_pattern"])
    (pattern,) = (item["wildcard"] for item in event["detail"]["object"]["key"])
    base = f"{prefix}/" if prefix else ""

    def heard(place: BackupPlace) -> bool:
        return fnmatch.fnmatchcase(base + place.manifest, pattern)

    backup = "20261122T020000Z-3f9c2a"
    assert heard(BackupPlace("daily", "prod", backup))
    assert not heard(BackupPlace("monthly", "prod", backup))
    assert not heard(BackupPlace("daily", "prod2", backup))
    assert not fnmatch.fnmatchcase(base + BackupPlace("daily", "prod", backup).signature, pattern)
    assert event["detail"]["bucket"]["name"] == [BUCKET]
    # AWS's limit for the name of a rule, and two sources must not share one.
    assert len({each["name"] for each in alarm.values()}) == 2
    assert all(len(each["name"]) <= 64 for each in alarm.values())
    assert [alarm[name]["hours"] for name in sorted(alarm)] == [26, 168]


def test_an_alarm_for_an_unknown_class_is_refused() -> None:
    with pytest.raises(InvalidError, match="one of classes"):
        backups_module({"classes": CLASSES, "alarms": {"prod": {"class": "weekly"}}})
    with pytest.raises(InvalidError, match="168"):
        backups_module({"classes": CLASSES, "alarms": {"prod": {"hours": 169}}})
