"""archiver lifecycle: whose rules there are, what a change would break, and that nobody else's is touched."""

import json
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.config import Config, parse_config
from archiver.errors import RefusedError, StorageError, UsageError
from archiver.operations.lifecycle import RuleSite, examine_rules, open_rule_site, overdue, owner_of, show_rules
from archiver.operations.lifecycle_export import lifecycle_configuration, terraform_variables
from archiver.operations.lifecycle_plan import Plan, apply_plan, check_rules, make_plan
from archiver.retention.policy import own_name, wanted_rules
from archiver.retention.rules import Rule
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from archiver.stores.s3_rules import (
    BucketRule,
    Lifecycle,
    api_rule,
    enabled_rules,
    full_rules,
    meaning_of,
)
from tests.operations.archives import STARTED, CountingStore, Site

BASE = "p/"
OWN = own_name(BASE)
FOREIGN = Rule("somebody's", "q/", expires_days=1)


class Bucket(CountingStore):
    """Keys in memory, below a prefix of a bucket with these rules."""

    def __init__(self, rules: Sequence[Rule] = (), *, versioned: bool | None = True) -> None:
        super().__init__()
        self.rules_there = list(rules)
        self.disabled: set[str] = set()
        self.versioned = versioned
        self.changes = 0

    def full_key(self, key: str) -> str:
        return BASE + key

    def rules(self) -> Sequence[Rule] | None:
        return [rule for rule in self.rules_there if rule.name not in self.disabled]

    def lifecycle(self) -> Lifecycle:
        items = [BucketRule(rule, rule.name not in self.disabled, self._meaning(rule)) for rule in self.rules_there]
        return Lifecycle(tuple(items), b"", None, self.versioned)

    def set_lifecycle(self, existing: Lifecycle, wanted: Sequence[Rule]) -> None:
        self.changes += 1
        assert existing.rules == self.lifecycle().rules
        self.rules_there = [rule for rule in self.rules_there if not rule.name.startswith(OWN)] + list(wanted)
        self.disabled = {name for name in self.disabled if not name.startswith(OWN)}

    def _meaning(self, rule: Rule) -> Any:
        return meaning_of(rule) if rule.name not in self.disabled else ("Rule", "disabled")


def config(classes: str = "", url: str = "s3://bucket/p?region=us-east-1") -> Config:
    text = f'[destination]\nurl = "{url}"\n{classes}\n'
    return parse_config(text, Path("/etc/archiver/archiver.toml"))


def daily(keep: int, lease: int = 7) -> str:
    return f"[class.daily]\nkeep = {keep}\nlease = {lease}"


def site(bucket: Bucket, classes: str = "") -> RuleSite:
    return RuleSite(config(classes), bucket, cast("Any", bucket))


def names(plan: Plan) -> list[tuple[str, str]]:
    return [(change.action, change.name.removeprefix(OWN)) for change in plan.changes]


def wanted(classes: str = "", *, versioned: bool = True) -> list[Rule]:
    return full_rules(wanted_rules(config(classes).classes, versioned=versioned), BASE)


EVERYTHING = [
    "daily-backups", "daily-data", "daily-rest", "monthly-backups", "monthly-data", "monthly-rest", "held-rest"
]  # fmt: skip


def test_an_empty_bucket_gets_all_rules_once() -> None:
    bucket = Bucket([FOREIGN])
    plan = make_plan(site(bucket))
    assert names(plan) == [("add", name) for name in EVERYTHING]
    assert apply_plan(site(bucket), plan) == []
    assert bucket.rules_there == [FOREIGN, *wanted()]
    again = make_plan(site(bucket))
    assert (again.changes, again.broken) == ([], [])
    assert apply_plan(site(bucket), again) == []
    assert bucket.changes == 1
    assert check_rules(site(bucket)) == []


@pytest.mark.parametrize(("versioned", "expected"), [(True, True), (None, True), (False, False)])
def test_versions_end_only_where_there_are_any(versioned: bool | None, expected: bool) -> None:
    plan = make_plan(site(Bucket(versioned=versioned)))
    assert [name for _, name in names(plan)] == EVERYTHING
    ends = [rule.noncurrent_days is not None for rule in plan.wanted if rule.name.endswith("-rest")]
    assert ends == [expected] * 3


MARKERS = "removes delete markers that hide nothing"


def test_what_changes_has_a_reason() -> None:
    stale = Rule(f"{OWN}gone-data", "p/gone/data/", expires_days=3)
    elsewhere = Rule(f"{OWN}daily-rest", "x/", aborts_days=7)
    kept = [rule for rule in wanted() if not rule.name.endswith(("daily-data", "daily-rest", "held-rest"))]
    bucket = Bucket([*kept, Rule(f"{OWN}daily-data", "p/daily/data/", expires_days=30), elsewhere, stale])
    bucket.disabled.add(f"{OWN}monthly-data")
    plan = make_plan(site(bucket))
    assert {(change.action, change.name.removeprefix(OWN), change.reason) for change in plan.changes} == {
        ("change", "daily-data", "deletes after 30 days; expected: deletes after 42 days"),
        ("change", "daily-rest", "it is for x/, expected p/daily/"),
        ("change", "monthly-data", "it is disabled; expected: deletes after 435 days"),
        (
            "add",
            "held-rest",
            " and ".join(["aborts uploads after 7 days", "deletes old versions after 7 days", MARKERS]),
        ),
        ("remove", "gone-data", "the configuration asks for no such rule"),
    }
    told = [problem.message for problem in check_rules(site(bucket)) if "is not as archiver" in problem.message]
    assert len(told) == 4
    apply_plan(site(bucket), plan)
    assert sorted(bucket.rules_there, key=str) == sorted(wanted(), key=str)


def backups(bucket: Bucket, *nights: int, **changes: Any) -> Site:
    """A destination with a backup of each night, counted from the first."""
    made = Site(bucket)
    for night in nights:
        started = STARTED + timedelta(days=night)
        at(bucket, night)
        stored = [made.put_object(b"data")]
        made.commit(f"{started:%Y%m%dT%H%M%SZ}-3f9c2a", objects=stored, **changes)
    return made


def at(bucket: Bucket, nights: float) -> None:
    bucket.now = STARTED + timedelta(days=nights)


def test_a_class_may_not_shrink_below_what_is_promised() -> None:
    bucket = Bucket(wanted())
    backups(bucket, 0)
    at(bucket, 10)
    plan = make_plan(site(bucket, daily(10)))
    assert names(plan) == [("change", "daily-backups"), ("change", "daily-data")]
    assert {threat.need.backup for threat in plan.broken} == {"20261122T020000Z-3f9c2a"}
    assert all("promised until 2026-12-27" in threat.reason for threat in plan.broken)
    # What is over may go.
    at(bucket, 36)
    assert make_plan(site(bucket, daily(10))).broken == []


def test_a_lease_may_shrink_and_a_class_may_grow() -> None:
    bucket = Bucket(wanted())
    backups(bucket, 0)
    at(bucket, 1)
    assert make_plan(site(bucket, daily(35, 1))).broken == []
    assert make_plan(site(bucket, daily(100))).broken == []


@given(
    nights=st.sets(st.integers(0, 60), min_size=1, max_size=4),
    now=st.integers(0, 100),
    keep=st.integers(7, 60),
    lease=st.integers(1, 20),
)
@example(nights={2}, now=0, keep=35, lease=1)
def test_what_is_not_refused_breaks_nothing(nights: set[int], now: int, keep: int, lease: int) -> None:
    """Against the definition: a promise is broken when a key goes before its end."""
    bucket = Bucket(wanted())
    backups(bucket, *sorted(nights))
    at(bucket, max(nights) + now)
    plan = make_plan(site(bucket, daily(keep, lease)))
    live = [night for night in nights if STARTED + timedelta(days=night + 35) > bucket.now]
    # Keys are some minutes younger than the backup's start, which the midnights of S3 only add to.
    assert bool(plan.broken) == bool(live and keep < 35)


def test_backups_of_every_source_and_signer_count() -> None:
    bucket = Bucket(wanted())
    made = Site(bucket)
    made.commit()
    for key in [item.key for item in bucket.list()]:
        if "/prod/" in key and key.endswith(".minisig"):
            bucket.remove(key)
    at(bucket, 5)
    assert make_plan(site(bucket, daily(10))).broken


def test_what_cannot_be_read_is_told() -> None:
    bucket = Bucket(wanted())
    made = Site(bucket)
    place = made.commit()
    bucket.overwrite(place.manifest, b"{}")
    plan = make_plan(site(bucket, daily(10)))
    assert plan.broken == []
    (line,) = plan.unread
    assert line.startswith(f"20261122T020000Z-3f9c2a of prod, p/{place.manifest}: ")


@pytest.mark.parametrize(
    ("classes", "refused"),
    [
        (daily(34), True),
        (daily(35, 6), True),
        (daily(36), False),
        (daily(36, 5), True),
        (f'{daily(36)}\n[class.weekly]\nkeep = 90\nevery = "week"', True),
    ],
)
def test_what_cannot_be_read_may_be_needed(classes: str, refused: bool) -> None:
    bucket = Bucket(wanted())
    place = Site(bucket).commit()
    assert not make_plan(site(bucket, classes)).unread
    bucket.overwrite(place.manifest, b"{}")
    plan = make_plan(site(bucket, classes))
    assert (plan.broken, plan.refused) == ([], refused)


def test_what_cannot_be_read_is_no_matter_where_nothing_goes_sooner() -> None:
    bucket = Bucket([rule for rule in wanted() if not rule.name.endswith("-rest")])
    bucket.overwrite(Site(bucket).commit().manifest, b"{}")
    plan = make_plan(site(bucket))
    assert (bool(plan.unread), plan.refused, len(plan.changes)) == (True, False, 3)
    bucket.disabled.add(f"{OWN}daily-data")
    assert make_plan(site(bucket)).refused


def test_a_store_that_fails_is_not_taken_for_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(wanted())
    backups(bucket, 0)

    def fail(*_: object) -> Any:
        raise StorageError("no answer")

    monkeypatch.setattr(bucket, "read", fail)
    with pytest.raises(StorageError, match="no answer"):
        make_plan(site(bucket, daily(10)))


def test_what_is_broken_already_is_no_reason_to_refuse() -> None:
    """Else the rule of somebody else that harms would keep ours from being made."""
    bucket = Bucket([Rule("theirs", "", expires_days=20)])
    backups(bucket, 0)
    at(bucket, 1)
    plan = make_plan(site(bucket))
    assert (len(plan.changes), plan.broken) == (7, [])
    (error,) = [problem for problem in apply_plan(site(bucket), plan) if problem.severity == "error"]
    assert "lifecycle rule 'theirs' deletes after 20 days" in error.message


MONTHLY = '[class.monthly]\nkeep = {}\nlease = 35\nevery = "month"'


def test_what_is_broken_a_little_may_not_be_broken_more() -> None:
    """A rule of somebody else that takes one day of 400 must not open the way to take 340 more."""
    bucket = Bucket([*wanted(), Rule("theirs", "p/monthly/", expires_days=399)])
    Site(bucket).commit(retention_class="monthly", keep_days=400, lease_days=35)
    at(bucket, 1)
    shorter = site(bucket, MONTHLY.format(60))
    assert make_plan(shorter).broken
    assert make_plan(site(bucket, MONTHLY.format(399))).broken == []
    bucket.rules_there[-1] = Rule("theirs", "p/monthly/", expires_days=399, sized=True)
    assert make_plan(shorter).broken
    # It may never act: then ours alone would break the promise.
    bucket.rules_there[-1] = Rule("theirs", "p/monthly/", expires_days=20, sized=True)
    assert make_plan(shorter).broken


def test_a_class_that_left_the_configuration_ends_as_promised() -> None:
    """Its rules go when it is empty: else what it holds would stay for ever."""
    weekly = '[class.weekly]\nkeep = 90\nlease = 7\nevery = "week"'
    bucket = Bucket(wanted(weekly))
    made = Site(bucket)
    place = made.commit(retention_class="weekly")
    at(bucket, 1)
    assert make_plan(site(bucket)).changes == []
    for item in list(bucket.list("weekly/")):
        bucket.remove(item.key)
    assert place.manifest.startswith("weekly/")
    gone = [("remove", f"weekly-{name}") for name in ("backups", "data", "rest")]
    assert names(make_plan(site(bucket))) == gone


def test_a_class_that_left_the_configuration_and_has_no_rules_is_told() -> None:
    """Another tool's export has dropped them."""
    bucket = Bucket(wanted())
    place = Site(bucket).commit(retention_class="weekly")
    bucket.create("p2/data/prod/customers.csv", [b"x"])
    bucket.create("notes/data/x", [b"x"])
    (problem,) = check_rules(site(bucket))
    assert problem.severity == "warning"
    assert problem.message.startswith("class weekly is not in the configuration, is not empty, and has no lifecycle")
    assert "[class.weekly]" in problem.hint
    # Until its data are gone, too.
    bucket.remove(place.manifest)
    bucket.remove(place.signature)
    assert len(check_rules(site(bucket))) == 1
    bucket.rules_there.append(Rule("theirs", "p/weekly/", expires_days=9))
    assert check_rules(site(bucket)) == []


class WholeBucket(Bucket):
    """Keys without a prefix."""

    def full_key(self, key: str) -> str:
        return key


def test_a_destination_without_a_prefix_that_is_not_alone() -> None:
    rules = full_rules(wanted_rules(config().classes, versioned=True), "")
    bucket = WholeBucket(rules)
    for name in ("daily", "held", "weekly"):
        Site(bucket).commit(retention_class=name)
    bucket.create("vault/prod/0011223344556677/alice.age", [b"x"])
    rules += [Rule("weekly", "weekly/", expires_days=9)]
    bucket.rules_there = rules
    assert check_rules(site(bucket)) == []
    for name in ("web", "logs", "a", "b"):
        bucket.create(f"{name}/data/x", [b"x"])
    (problem,) = check_rules(site(bucket))
    assert "has no prefix, and shares its bucket with a, b, logs and 1 more" in problem.message
    assert "a bucket of its own" in problem.hint


def test_nothing_of_ours_may_end_what_is_held() -> None:
    """But for old versions and uploads."""
    bucket = Bucket([*wanted(), Rule(f"{OWN}held-data", "p/held/data/", expires_days=400)])
    Site(bucket).commit(retention_class="held")
    assert names(make_plan(site(bucket))) == [("remove", "held-data")]


def test_whose_rules_there_are_and_what_they_do() -> None:
    other = Rule(f"{own_name('other/')}daily-data", "other/daily/data/", expires_days=42)
    everything = Rule("all", "", expires_days=30)
    off = Rule("off", "", expires_days=1)
    bucket = Bucket([FOREIGN, other, everything, off, wanted()[0]])
    bucket.disabled.add("off")
    shown = show_rules(site(bucket))
    assert shown is not None
    assert [(item.owner, item.concerns, bool(item.harm)) for item in shown] == [
        ("others", False, False),
        ("another destination", False, False),
        ("others", True, True),
        ("others", False, False),
        ("archiver", True, False),
    ]
    assert shown[4].actions == ("deletes after 35 days",)
    assert owner_of("archiver", BASE) == "others"


def test_the_end_of_a_backup_looks_at_the_rules_by_one_request() -> None:
    classes = config().classes
    bucket = Bucket(wanted())
    assert examine_rules(bucket, classes) == []
    assert (bucket.lists, bucket.reads) == ([], [])
    bucket.rules_there.append(Rule("all", "p/", expires_days=30))
    (problem,) = examine_rules(bucket, classes)
    assert problem.severity == "error"


def test_rules_that_may_not_be_read_do_not_stop_a_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket()

    def refuse() -> Any:
        raise RefusedError("denied")

    monkeypatch.setattr(bucket, "rules", refuse)
    assert examine_rules(bucket, config().classes) == []


# A directory.


def directory_site(tmp_path: Path) -> RuleSite:
    url = tmp_path.as_uri()
    return RuleSite(config(url=url), LocalStore(tmp_path, Journal(None)), None)


def test_a_directory_runs_no_rules(tmp_path: Path) -> None:
    found = directory_site(tmp_path)
    assert show_rules(found) is None
    assert check_rules(found) == []
    assert examine_rules(found.store, found.config.classes) == []
    with pytest.raises(UsageError, match="is a directory, which runs no lifecycle rules") as caught:
        make_plan(found)
    assert caught.value.hint is not None
    assert "archiver expire" in caught.value.hint
    with open_rule_site(found.config) as opened:
        assert opened.bucket is None


def test_what_expire_should_have_deleted(tmp_path: Path) -> None:
    found = directory_site(tmp_path)
    store, classes = found.store, found.config.classes
    key = "daily/backups/prod/20261122T020000Z-3f9c2a/manifest.json"
    now = store.create(key, [b"{}"]).modified
    assert list(overdue(store, classes, now + timedelta(days=37))) == []
    (problem,) = overdue(store, classes, now + timedelta(days=39))
    assert problem.message.startswith("1 backup of daily should have been deleted more than 2 days ago")
    old = (now - timedelta(days=40)).timestamp()
    os.utime(tmp_path / key, (old, old))
    assert [item.severity for item in check_rules(found)] == ["warning"]


# Export.


def test_the_variables_of_the_module() -> None:
    made = terraform_variables(config('[class.yearly]\nkeep = 3000\nevery = "year"\nstorage_class = "DEEP_ARCHIVE"'))
    assert made == {
        "classes": {
            "daily": {"keep": 35, "lease": 7, "storage_class": None},
            "monthly": {"keep": 400, "lease": 35, "storage_class": None},
            "yearly": {"keep": 3000, "lease": 7, "storage_class": "DEEP_ARCHIVE"},
        },
        "prefix": "p",
    }
    assert json.loads(json.dumps(made)) == made
    assert terraform_variables(config(url="s3://bucket"))["prefix"] == ""


def test_the_exported_rules_are_those_that_apply_makes() -> None:
    bucket = Bucket()
    apply_plan(site(bucket), make_plan(site(bucket)))
    exported = cast("dict[str, Any]", lifecycle_configuration(config()))
    assert exported == {"Rules": [api_rule(rule) for rule in bucket.rules_there]}
    assert list(enabled_rules(exported)) == bucket.rules_there


def test_a_directory_has_nothing_to_export(tmp_path: Path) -> None:
    for export in (terraform_variables, lifecycle_configuration):
        with pytest.raises(UsageError, match="runs no lifecycle rules"):
            export(config(url=tmp_path.as_uri()))
