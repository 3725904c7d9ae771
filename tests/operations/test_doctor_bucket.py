"""What archiver doctor says of a bucket's settings."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from msgspec.structs import replace

from archiver.config import RetentionClass
from archiver.operations.doctor_bucket import lifecycle_findings, settings_findings
from archiver.operations.findings import Finding
from archiver.retention.rules import Rule
from archiver.stores.s3_facts import BucketSettings, ObjectLock, Unknown
from tests.operations.doctor_help import problems

CLASSES = {"daily": RetentionClass(keep=35, lease=7), "monthly": RetentionClass(keep=400, lease=7)}
GOOD_RULES = (
    Rule("parts", "", aborts_days=7),
    Rule("a", "p/daily/backups/", expires_days=35),
    Rule("b", "p/daily/data/", expires_days=42),
    Rule("c", "p/monthly/backups/", expires_days=400),
    Rule("d", "p/monthly/data/", expires_days=407),
    *(Rule(f"e{name}", f"p/{name}/", noncurrent_days=7) for name in ("daily", "monthly", "held")),
    Rule("f", "p/", removes_markers=True),
)
GOOD = BucketSettings("us-east-1", "enabled", GOOD_RULES, ObjectLock("COMPLIANCE", 42), "AES256", (), public=False)


def of_settings(**changed: Any) -> list[Finding]:
    return list(settings_findings("bucket b", replace(GOOD, **changed), "us-east-1", "p/", CLASSES))


def of_rules(*rules: Rule) -> list[tuple[str, str]]:
    return problems(lifecycle_findings("bucket b", rules, "p/", CLASSES, versioned=False))


def test_a_bucket_as_it_should_be() -> None:
    settings, lifecycle = of_settings()
    assert (settings.severity, lifecycle.severity) == ("ok", "ok")
    assert settings.message == (
        "in us-east-1; versioning enabled; Object Lock on (42 days, COMPLIANCE); default encryption AES256; "
        "public access blocked"
    )
    assert lifecycle.message.startswith(
        "lifecycle: 'parts' for all keys aborts uploads after 7 days; 'a' for p/daily/backups/ deletes after 35 days; "
    )
    assert settings.facts is not None
    assert settings.facts["object_lock"] == {"mode": "COMPLIANCE", "days": 42}
    assert settings.facts["unknown"] == {}


@pytest.mark.parametrize(
    ("changed", "severity", "message"),
    [
        ({"region": "eu-central-1"}, "warning", "it is in eu-central-1, and requests are signed for us-east-1"),
        ({"public": True}, "error", "its policy opens it to everybody"),
        ({"unblocked": ("IgnorePublicAcls",)}, "warning", "public access is not blocked: IgnorePublicAcls off"),
    ],
)
def test_settings_that_are_wrong(changed: dict[str, Any], severity: str, message: str) -> None:
    assert problems(of_settings(**changed)) == [(severity, message)]


def test_settings_that_are_off_are_no_problem() -> None:
    findings = of_settings(versioning="off", object_lock=None, encryption=None)
    assert problems(findings) == []
    assert "versioning off; Object Lock off; default encryption none" in findings[0].message


def of_lock(lock: ObjectLock | Unknown | None, wanted: str | None) -> list[tuple[str, str]]:
    settings = replace(GOOD, object_lock=lock)
    return problems(settings_findings("bucket b", settings, "us-east-1", "p/", CLASSES, wanted))


def test_object_lock_that_the_bucket_has_not() -> None:
    ((severity, message),) = of_lock(None, "governance")
    assert severity == "error"
    assert message == "Object Lock is off, and the option object_lock asks for governance: every backup fails"
    assert of_lock(None, None) == of_lock(ObjectLock(), "governance") == of_lock(Unknown("denied"), "governance") == []


def test_old_versions_that_nothing_ends_count_only_where_there_are_any() -> None:
    rules = tuple(rule for rule in GOOD_RULES if rule.noncurrent_days is None)
    ((_, message),) = problems(of_settings(lifecycle=rules))
    assert "no lifecycle rule deletes old versions of daily, monthly and held" in message
    assert problems(of_settings(lifecycle=rules, versioning="suspended")) == [("warning", message)]
    assert problems(of_settings(lifecycle=rules, versioning="off")) == []
    assert problems(of_settings(lifecycle=rules, versioning=Unknown("denied"))) == []


def test_settings_that_cannot_be_read() -> None:
    unknown = Unknown("s3:Get is denied to these credentials")
    names = ("region", "versioning", "lifecycle", "object_lock", "encryption", "unblocked", "public")
    summary, *rest = of_settings(**dict.fromkeys(names, unknown))
    assert problems([summary, *rest]) == []
    assert len(rest) == len(names)
    assert all(finding.message.endswith("cannot be read: s3:Get is denied to these credentials") for finding in rest)
    assert summary.facts == {"unknown": dict.fromkeys(names, unknown.reason)}


def test_facts_keep_their_times() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    summary, *_ = of_settings(lifecycle=(Rule("end", "p/", expires_at=end),))
    assert summary.facts is not None
    (rule,) = cast(tuple[dict[str, object], ...], summary.facts["lifecycle"])
    assert (rule["name"], rule["expires_at"]) == ("end", end)


def test_no_rules() -> None:
    (kept_severity, kept), (parts_severity, parts) = of_rules()
    assert (kept_severity, parts_severity) == ("warning", "warning")
    assert "lets backups of daily and monthly expire" in kept
    assert "aborts incomplete uploads of daily, monthly and held" in parts


def test_rules_for_some_of_the_classes() -> None:
    rules = [rule for rule in GOOD_RULES if rule.name != "d"]
    ((_, message),) = of_rules(*rules)
    assert "lets backups of monthly expire" in message
    rules = [replace(GOOD_RULES[0], prefix="p/monthly/"), *GOOD_RULES[1:]]
    ((_, message),) = of_rules(*rules)
    assert "aborts incomplete uploads of daily and held:" in message


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("x", "p/daily/data/", expires_days=41), ["data of daily, needed for 42 days"]),
        (Rule("x", "p/daily/data/", expires_days=42), None),
        (Rule("x", "p/daily/data/prod/", expires_days=1), ["data of daily"]),
        (Rule("x", "p/daily/backups/", expires_days=34), ["manifests of daily, promised for 35 days"]),
        (Rule("x", "p/daily/backups/", expires_days=35), None),
        (Rule("x", "p/vault/", expires_days=9999), ["vault files, without which nobody can restore"]),
        (Rule("x", "", expires_days=40), ["vault", "data of daily", "manifests of monthly", "of monthly"]),
        (Rule("x", "p/", expires_at=datetime(2027, 1, 1, tzinfo=UTC)), ["vault", "daily", "on 2027-01-01"]),
        (Rule("x", "p/", sized=True, expires_days=1), ["vault", "data of daily"]),
        (Rule("x", "", tagged=True, expires_days=1), None),
        (Rule("x", "q/", expires_days=1), None),
        (Rule("x", "p/other/", expires_days=1), None),
        (Rule("x", "", aborts_days=1), None),
    ],
)
def test_a_rule_that_deletes_too_soon(rule: Rule, expected: list[str] | None) -> None:
    found = of_rules(*GOOD_RULES, rule)
    if expected is None:
        assert found == []
        return
    ((severity, message),) = found
    assert severity == "error"
    assert message.startswith("lifecycle rule 'x' deletes ")
    for words in expected:
        assert words in message
