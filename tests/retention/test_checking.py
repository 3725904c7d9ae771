"""What is wrong with a bucket's rules."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.config import DEFAULT_CLASSES, RetentionClass
from archiver.retention.checking import broken_by, never_ending, newly_broken, problems
from archiver.retention.expiry import Need
from archiver.retention.policy import own_name, wanted_rules
from archiver.retention.rules import Rule
from tests.retention.world import DAY, Item

CLASSES = {"daily": RetentionClass(35, 7), "monthly": RetentionClass(400, 35)}
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def full(rules: list[Rule], base: str = "p/") -> list[Rule]:
    return [replace(rule, prefix=base + rule.prefix) for rule in rules]


GOOD = full(wanted_rules(CLASSES, versioned=True))


def found(*rules: Rule, versioned: bool = True) -> list[tuple[str, str]]:
    return [(item.severity, item.message) for item in problems(rules, CLASSES, "p/", versioned=versioned)]


@given(
    st.dictionaries(
        st.sampled_from(["daily", "weekly", "x"]),
        st.builds(RetentionClass, keep=st.integers(1, 900), lease=st.integers(1, 90)),
    ),
    st.booleans(),
    st.sampled_from(["", "p/", "p/q/"]),
)
def test_nothing_is_wrong_with_the_rules_that_are_wanted(
    classes: dict[str, RetentionClass], versioned: bool, base: str
) -> None:
    rules = full(wanted_rules(classes, versioned=versioned), base)
    assert list(problems(rules, classes, base, versioned=versioned)) == []


def test_one_rule_for_the_whole_bucket_that_ends_uploads_is_enough() -> None:
    rules = [replace(rule, aborts_days=None) for rule in GOOD]
    assert found(*rules, Rule("x", "", aborts_days=3)) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prefix": "p/daily/data/", "expires_days": 41}, ["data of daily, needed for 42 days"]),
        ({"prefix": "p/daily/data/", "expires_days": 42}, None),
        ({"prefix": "p/daily/data/prod/", "expires_days": 1}, ["deletes after 1 day, ", "data of daily"]),
        ({"prefix": "p/daily/backups/", "expires_days": 34}, ["manifests of daily, promised for 35 days"]),
        ({"prefix": "p/daily/backups/", "expires_days": 35}, None),
        ({"prefix": "p/vault/", "expires_days": 9999}, ["vault files, without which nobody can restore"]),
        ({"prefix": "p/held/data/", "expires_days": 9999}, ["backups that are held until somebody releases them"]),
        ({"prefix": "", "expires_days": 40}, ["vault", "held", "data of daily", "manifests of monthly"]),
        ({"prefix": "p/", "expires_at": datetime(2027, 1, 1, tzinfo=UTC)}, ["vault", "of daily", "on 2027-01-01"]),
        ({"prefix": "p/", "sized": True, "expires_days": 1}, ["vault", "data of daily"]),
        ({"prefix": "", "tagged": True, "expires_days": 1}, None),
        ({"prefix": "q/", "expires_days": 1}, None),
        ({"prefix": "p/other/", "expires_days": 1}, None),
        ({"prefix": "", "aborts_days": 1, "removes_markers": True}, None),
        ({"prefix": "p/monthly/", "aborts_days": 1, "noncurrent_days": 7, "removes_markers": True}, None),
        ({"prefix": "p/daily/data/", "archives_days": 0}, ["archives after 0 days", "wait for hours", "data of daily"]),
        ({"prefix": "p/daily/data/", "archives_days": 42}, None),
        ({"prefix": "p/daily/backups/", "archives_days": 9}, ["manifests of daily"]),
        ({"prefix": "p/va", "archives_days": 900}, ["vault files"]),
        ({"prefix": "", "tagged": True, "archives_days": 1}, None),
    ],
)
def test_a_rule_that_deletes_or_archives_too_soon(changed: dict[str, Any], words: list[str] | None) -> None:
    problems = found(*GOOD, Rule(name="x", **changed))
    if words is None:
        assert problems == []
        return
    ((severity, message),) = problems
    assert severity == "error"
    assert message.startswith("lifecycle rule 'x' ")
    for word in words:
        assert word in message


ALL = "daily, monthly and held"


def test_no_rules() -> None:
    assert found(versioned=False) == [
        (
            "warning",
            "no lifecycle rule lets backups of daily and monthly expire: they stay until somebody deletes them",
        ),
        (
            "warning",
            f"no lifecycle rule aborts incomplete uploads of {ALL}: what killed runs leave costs money",
        ),
    ]
    first = next(problems([], {"daily": RetentionClass(35, 7)}, "p/"))
    assert "rules that expire p/daily/backups/ after 35 days and p/daily/data/ after 42 days" in first.hint


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("daily-data", {"expires_days": 43}, "data of daily stay too long: the lifecycle rules delete p/daily/data/"),
        ("monthly-backups", {"expires_days": 401}, "manifests of monthly stay too long"),
        ("daily-data", {"prefix": "p/daily/data/prod/"}, "no lifecycle rule lets backups of daily expire"),
        ("daily-backups", {"sized": True}, "no lifecycle rule lets backups of daily expire"),
        ("daily-backups", {"tagged": True}, "no lifecycle rule lets backups of daily expire"),
        ("daily-rest", {"aborts_days": None}, "no lifecycle rule aborts incomplete uploads of daily: "),
        ("held-rest", {"aborts_days": None}, "no lifecycle rule aborts incomplete uploads of held: "),
        ("monthly-rest", {"noncurrent_days": None}, "no lifecycle rule deletes old versions of monthly: "),
        ("held-rest", {"noncurrent_days": None}, "no lifecycle rule deletes old versions of held: "),
        ("daily-rest", {"removes_markers": False}, "no lifecycle rule removes the delete markers of daily: "),
        (
            "daily-rest",
            {"noncurrent_days": 6},
            "lifecycle rule 'daily-rest' deletes old versions after 6 days, expected at least 7: less time to bring ",
        ),
    ],
)
def test_a_rule_that_does_too_little(name: str, changed: dict[str, Any], message: str) -> None:
    ((severity, text),) = found(*[replace(rule, **changed) if rule.name == name else rule for rule in GOOD])
    assert severity == "warning"
    assert text.startswith(message)


@pytest.mark.parametrize("prefix", ["p/daily/data/", "p/daily/backups/"])
def test_old_versions_of_a_class_that_end_in_part(prefix: str) -> None:
    narrow = Rule("x", prefix, noncurrent_days=7, removes_markers=True)
    rules = [replace(rule, noncurrent_days=None, removes_markers=False) for rule in GOOD if rule.name == "daily-rest"]
    kept = [rule for rule in GOOD if rule.name != "daily-rest"]
    assert len(found(*kept, *rules, narrow)) == 2
    other = replace(narrow, prefix={"p/daily/data/": "p/daily/backups/"}.get(prefix, "p/daily/data/"))
    assert found(*kept, *rules, narrow, other) == []


def test_old_versions_of_vault_files_must_stay() -> None:
    """Whoever has an administrator's credentials can delete a vault file and create another: the old one is all that
    is left."""
    ((severity, message),) = found(*GOOD, Rule("x", "p/", noncurrent_days=30))
    assert severity == "warning"
    assert message.startswith("lifecycle rule 'x' deletes old versions of vault files after 30 days: ")
    (problem,) = problems([*GOOD, Rule("x", "p/va", noncurrent_days=30)], CLASSES, "p/", versioned=True)
    assert problem.hint == "Give the rule a prefix that leaves out p/vault/."
    assert found(*GOOD, Rule("x", "p/", noncurrent_days=1), versioned=False) == []
    ours = Rule(f"{own_name('p/')}versions", "p/", noncurrent_days=7)
    assert [problem.hint for problem in problems([*GOOD, ours], CLASSES, "p/", versioned=True)] == [APPLY]


APPLY = "Run archiver lifecycle apply, as an administrator; archiver lifecycle plan shows what it would change."


def test_a_rule_of_ours_that_somebody_made_weaker_is_made_anew() -> None:
    """Not: "correct keep and lease", which would make the damage the policy."""
    weak = Rule(f"{own_name('p/')}daily-data", "p/daily/data/", expires_days=3)
    ((error, hint),) = [
        (problem.severity, problem.hint) for problem in problems([*GOOD, weak], CLASSES, "p/", versioned=True)
    ]
    assert (error, hint) == ("error", APPLY)
    (theirs,) = problems([*GOOD, replace(weak, name=f"{own_name('q/')}x")], CLASSES, "p/", versioned=True)
    assert "keep and lease" in theirs.hint


def test_classes_that_never_end() -> None:
    half = [rule for rule in GOOD if not rule.name.startswith("monthly-data")]
    assert never_ending(GOOD, ["daily", "monthly", "left"], "p/") == ["left"]
    assert never_ending(half, ["daily", "monthly"], "p/") == ["monthly"]
    sized = [replace(rule, sized=rule.name == "daily-data") for rule in GOOD]
    assert never_ending(sized, ["daily"], "p/") == ["daily"]
    assert never_ending([Rule("all", "", expires_days=9)], ["left"], "p/") == []


def test_versions_are_asked_for_only_where_there_are_any() -> None:
    assert found(*full(wanted_rules(CLASSES, versioned=False)), versioned=False) == []


def test_what_is_kept_for_ever_must_be_left_out() -> None:
    (problem,) = problems([*GOOD, Rule("x", "", expires_days=9999)], CLASSES, "p/")
    assert problem.hint == "Give the rule a prefix that leaves out p/vault/ and p/held/."


def test_the_promises_that_rules_would_break() -> None:
    key, manifest = "daily/data/prod/o", "daily/backups/prod/b/manifest.json"
    keys = {key: Item(key, 1, NOW - 2 * DAY), manifest: Item(manifest, 1, NOW - DAY), "gone": None}
    promised = Need("b", "prod", "daily", NOW + 33 * DAY, keys)
    over, held = replace(promised, promise=NOW), replace(promised, promise=None)

    def broken(keep: int, lease: int, *needs: Need) -> list[tuple[Need, str]]:
        rules = wanted_rules({"daily": RetentionClass(keep, lease)}, versioned=True)
        return [(threat.need, threat.key) for threat in broken_by(rules, needs, NOW)]

    assert broken(34, 1, promised, over) == []
    assert broken(33, 2, promised, over) == [(promised, manifest)]
    assert broken(33, 1, promised) == [(promised, key), (promised, manifest)]
    assert broken(9999, 1, held) == [(held, key), (held, manifest)]
    assert broken_by(wanted_rules(DEFAULT_CLASSES, versioned=True), [held], NOW)[0].reason == (
        "goes from 2027-01-01 00:00 on, and is promised for ever"
    )
    assert broken_by([], [held], NOW) == []


ENDS = st.lists(
    st.builds(
        Rule,
        name=st.just("r"),
        prefix=st.sampled_from(["", "daily/", "daily/backups/"]),
        expires_days=st.integers(1, 60),
        sized=st.booleans(),
    ),
    max_size=4,
)


@given(ENDS, ENDS)
def test_what_is_broken_already_may_not_become_worse(before: list[Rule], after: list[Rule]) -> None:
    """Against the definition: the key goes before its promise, and sooner than it would have."""
    key = "daily/backups/prod/b/manifest.json"
    need = Need("b", "prod", "daily", NOW + 35 * DAY, {key: Item(key, 1, NOW)})

    def end(rules: list[Rule], *, sized: bool) -> int:
        return min((rule.expires_days or 0 for rule in rules if sized or not rule.sized), default=9999)

    worse = any(end(after, sized=sized) < min(35, end(before, sized=sized)) for sized in (True, False))
    assert bool(newly_broken(before, after, [need], NOW)) == worse
