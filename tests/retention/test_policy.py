"""What is left of a policy under the rules of a bucket, and which rules it wants."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.config import DEFAULT_CLASSES, RetentionClass
from archiver.retention.policy import Term, in_force, wanted_rules
from archiver.retention.rules import Rule

CLASSES = {"daily": RetentionClass(35, 7), "yearly": RetentionClass(800, 60, "year", "DEEP_ARCHIVE")}


@pytest.mark.parametrize("rules", [None, [], wanted_rules(CLASSES, versioned=True)])
def test_what_the_configuration_says_is_in_force_under_its_own_rules(rules: list[Rule] | None) -> None:
    assert in_force(CLASSES, rules) == {
        "held": Term("held", None, None),
        "daily": Term("daily", 35, 42),
        "yearly": Term("yearly", 800, 860, "year", "DEEP_ARCHIVE"),
    }


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("r", "daily/backups/", expires_days=30), Term("daily", 30, 42)),
        (Rule("r", "daily/backups/", expires_days=99), Term("daily", 35, 42)),
        (Rule("r", "daily/data/", expires_days=40), Term("daily", 35, 40)),
        (Rule("r", "daily/data/prod/", expires_days=40), Term("daily", 35, 40)),
        (Rule("r", "daily/data/", expires_days=35), Term("daily", 34, 35)),
        (Rule("r", "", expires_days=1), Term("daily", 0, 1)),
        (Rule("r", "", expires_days=1, sized=True), Term("daily", 0, 1)),
        (Rule("r", "", expires_days=1, tagged=True), Term("daily", 35, 42)),
        (Rule("r", "daily/", expires_at=datetime(2030, 1, 1, tzinfo=UTC)), Term("daily", 0, 0)),
        (Rule("r", "daily/data/", archives_days=9), Term("daily", 35, 42)),
        (Rule("r", "daily/backups/", archives_days=9), Term("daily", 35, 42)),
        (Rule("r", "monthly/", expires_days=1), Term("daily", 35, 42)),
    ],
)
def test_the_smaller_of_rule_and_configuration_is_in_force(rule: Rule, expected: Term) -> None:
    assert in_force(CLASSES, [rule])["daily"] == expected


def test_what_is_held_has_no_end_unless_a_rule_makes_one() -> None:
    assert in_force({}, [Rule("r", "held/", expires_days=9)]) == {"held": Term("held", 8, 9)}
    assert in_force({}, [Rule("r", "held/backups/", expires_days=9)]) == {"held": Term("held", 9, None)}


DAYS = st.integers(1, 50)
RULES = st.builds(
    Rule, name=st.just("r"), prefix=st.sampled_from(["", "daily/", "daily/backups/", "d", "yearly/"]), expires_days=DAYS
)


@given(st.builds(RetentionClass, keep=DAYS, lease=DAYS), st.lists(RULES))
def test_nothing_is_promised_for_longer_than_it_is_there(retention: RetentionClass, rules: list[Rule]) -> None:
    term = in_force({"daily": retention}, rules)["daily"]
    assert term.keep is not None
    assert term.data is not None
    assert 0 <= term.keep < term.data
    assert term.keep <= retention.keep
    assert term.data <= retention.keep + retention.lease


def test_which_terms_outlast_which() -> None:
    daily, yearly, held = Term("daily", 35, 42), Term("yearly", 800, 860), Term("held", None, None)
    assert [one.outlasts(other) for one in (daily, yearly, held) for other in (daily, yearly, held)] == [
        *(True, False, False),
        *(True, True, False),
        *(True, True, True),
    ]


def test_the_terms_of_an_archive_class() -> None:
    assert Term("x", 1, 2, storage_class="GLACIER").archived
    assert Term("x", 1, 2, storage_class="DEEP_ARCHIVE").archived
    assert not Term("x", 1, 2, storage_class="GLACIER_IR").archived


def test_the_rules_that_the_default_policy_wants() -> None:
    versioned = [
        Rule("daily-backups", "daily/backups/", expires_days=35),
        Rule("daily-data", "daily/data/", expires_days=42),
        Rule("daily-rest", "daily/", aborts_days=7, noncurrent_days=7, removes_markers=True),
        Rule("monthly-backups", "monthly/backups/", expires_days=400),
        Rule("monthly-data", "monthly/data/", expires_days=435),
        Rule("monthly-rest", "monthly/", aborts_days=7, noncurrent_days=7, removes_markers=True),
        Rule("held-rest", "held/", aborts_days=7, noncurrent_days=7, removes_markers=True),
    ]
    assert wanted_rules(DEFAULT_CLASSES, versioned=True) == versioned
    assert wanted_rules(DEFAULT_CLASSES, versioned=False) == [
        replace(rule, noncurrent_days=None, removes_markers=False) for rule in versioned
    ]


@pytest.mark.parametrize("versioned", [True, False])
def test_no_rule_reaches_what_is_kept_for_ever_or_is_not_ours(versioned: bool) -> None:
    """Not even by old versions: a thief may have put another vault file in the place of the good one."""
    for rule in wanted_rules(CLASSES, versioned=versioned):
        assert not rule.meets("vault/")
        assert not rule.meets("somebody else's/")
        assert rule.expires_days is None or not rule.meets("held/")
