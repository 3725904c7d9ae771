"""Lifecycle rules as text: what others wrote stays byte for byte, and what we write is what we mean."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.config import RetentionClass
from archiver.errors import FormatError, RefusedError
from archiver.retention.policy import own_name, wanted_rules
from archiver.retention.rules import Rule
from archiver.stores.s3_rules import (
    api_rule,
    enabled_rules,
    full_rules,
    meaning_of,
    meanings,
    name_in,
    with_rules,
)
from archiver.stores.s3_xml import parse_xml

OWN = own_name("p/")
CLASSES = {"daily": RetentionClass(), "monthly": RetentionClass(keep=400, lease=35, every="month")}
WANTED = full_rules(wanted_rules(CLASSES, versioned=True), "p/")
HEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
)
COMMENT = b"\n <!-- the last one -->"
TAIL = b"</LifecycleConfiguration>\n"
FOREIGN = [
    b"<Rule><ID>a</ID><Status>Disabled</Status><Filter/><Expiration><Days>1</Days></Expiration></Rule>",
    (
        b"<Rule>\n  <ID>tagged &amp; sized</ID><Filter><And><Prefix>q/</Prefix><Tag><Key>a</Key><Value>01</Value></Tag>"
        b"<ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></And></Filter><Status>Enabled</Status>"
        b"<Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>"
    ),
    (
        b"<Rule><ID>of the year 2040</ID><Status>Enabled</Status><Filter><Prefix>x/</Prefix></Filter>"
        b'<Teleportation planet="mars"><Days>3</Days></Teleportation></Rule>'
    ),
    (
        b"<Rule><Status>Enabled</Status><Filter><Prefix>no name/</Prefix></Filter>"
        b"<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration></Rule>"
    ),
    f"<Rule><ID>{own_name('other/')}daily-data</ID><Status>Enabled</Status><Filter><Prefix>other/</Prefix></Filter>"
    "<Expiration><Days>1</Days></Expiration></Rule>".encode(),
    "<Rule><ID>größer</ID><Status>Enabled</Status><Filter><Prefix>ü/</Prefix></Filter>"
    "<Expiration><Days>9</Days></Expiration></Rule>".encode(),
]
STALE = [
    f"<Rule><ID>{OWN}daily-data</ID><Status>Enabled</Status><Filter><Prefix>p/daily/data/</Prefix></Filter>"
    "<Expiration><Days>3</Days></Expiration></Rule>".encode(),
    f"<Rule><Status>Disabled</Status><Filter/><ID>\n{OWN}gone-data</ID></Rule>".encode(),
]


def configuration(rules: Sequence[bytes]) -> bytes:
    return HEAD + b"".join(rules) + COMMENT + TAIL


@given(st.lists(st.sampled_from([*FOREIGN, *STALE]), unique=True))
def test_every_byte_of_others_stays(rules: list[bytes]) -> None:
    changed = with_rules(configuration(rules), WANTED, OWN)
    kept = b"".join(rule for rule in rules if rule not in STALE)
    if rules:
        assert changed.startswith(HEAD + kept + COMMENT)
        assert changed.endswith(TAIL)
    assert kept in changed
    assert [name_in(meaning) for meaning in meanings(changed)][-len(WANTED) :] == [rule.name for rule in WANTED]
    assert len(meanings(changed)) == len(rules) - len(set(rules) & set(STALE)) + len(WANTED)
    # Again, it changes nothing.
    assert with_rules(changed, WANTED, OWN) == changed


@pytest.mark.parametrize("raw", [b"", HEAD + COMMENT + TAIL, b'<LifecycleConfiguration xmlns="http://x/"/>'])
def test_the_first_rules_of_a_bucket(raw: bytes) -> None:
    assert meanings(with_rules(raw, WANTED, OWN)) == [meaning_of(rule) for rule in WANTED]
    assert meanings(raw) == []


def test_rules_of_before_filters_are_not_mixed_with_others() -> None:
    """S3 refuses a configuration that has both."""
    old = b"<Rule><ID>old</ID><Prefix>q/</Prefix><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>"
    changed = with_rules(configuration([old]), WANTED, OWN)
    assert b"Filter" not in changed
    assert meanings(changed)[1:] == [meaning_of(rule) for rule in WANTED]


CEPH = [
    # What Ceph 16.2 answers, and how S3 has it.
    (
        (
            "<Filter><Prefix>q/</Prefix><And><Tag><Key>a</Key><Value>b</Value></Tag><Tag><Key>c</Key><Value>d</Value></Tag>"
            "</And></Filter>"
        ),
        (
            "<Filter><And><Prefix>q/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag><Tag><Key>c</Key><Value>d</Value></Tag>"
            "</And></Filter>"
        ),
    ),
    (
        "<Filter><Prefix>q/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></Filter>",
        "<Filter><And><Prefix>q/</Prefix><Tag><Key>a</Key><Value>b</Value></Tag></And></Filter>",
    ),
    (
        "<Filter><Prefix></Prefix><ObjectSizeLessThan>9</ObjectSizeLessThan></Filter>",
        "<Filter><And><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>",
    ),
]


@pytest.mark.parametrize(("answered", "sent"), CEPH)
def test_filters_that_are_not_as_s3_writes_them(answered: str, sent: str) -> None:
    """Sent back as it came, Ceph made a rule for all of q/ of one for some tags in it."""
    rule = "<Rule><ID>r</ID>{}<Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>"
    changed = with_rules(configuration([rule.format(answered).encode()]), WANTED, OWN)
    assert changed.startswith(HEAD + rule.format(sent).encode())
    assert meanings(changed)[0] == meanings(configuration([rule.format(answered).encode()]))[0]


def test_too_many_rules() -> None:
    raw = configuration([FOREIGN[0]] * (1000 - len(WANTED)))
    assert len(meanings(with_rules(raw, WANTED, OWN))) == 1000
    with pytest.raises(RefusedError, match="would have 1,001 lifecycle rules, expected at most 1,000"):
        with_rules(configuration([FOREIGN[0]] * (1001 - len(WANTED))), WANTED, OWN)


@pytest.mark.parametrize(
    "raw",
    [
        b"<html><body>login</body></html>",
        b"<LifecycleConfiguration><Rule>",
        b"no XML",
        b'<s:LifecycleConfiguration xmlns:s="http://x/"/>',
        b'<!DOCTYPE a [<!ENTITY b "c">]><LifecycleConfiguration/>',
        b"<LifecycleConfiguration>" + b"<a>" * 100 + b"</a>" * 100 + b"</LifecycleConfiguration>",
    ],
)
def test_what_is_no_configuration(raw: bytes) -> None:
    with pytest.raises(FormatError):
        with_rules(raw, WANTED, OWN)


def rule_xml(inside: str) -> bytes:
    return configuration([f"<Rule>{inside}</Rule>".encode()])


RULE = "<ID>r</ID><Status>Enabled</Status><Filter><Prefix>p/</Prefix></Filter><Expiration><Days>7</Days></Expiration>"


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        ("<Expiration><Days>07</Days></Expiration><Prefix>p/</Prefix><Status>Enabled</Status><ID>r</ID>", True),
        (RULE.replace("<Prefix>p/</Prefix>", "<And><Prefix>p/</Prefix></And>"), True),
        (RULE.replace("</Days>", "</Days><ExpiredObjectDeleteMarker>false</ExpiredObjectDeleteMarker>"), True),
        (RULE + "<NoncurrentVersionExpiration/>", True),
        (RULE.replace("Enabled", "Disabled"), False),
        (RULE.replace("p/", "p"), False),
        (RULE.replace("<Days>7", "<Days>8"), False),
        (RULE.replace("r</ID>", "R</ID>"), False),
        (RULE.replace("</Prefix>", "</Prefix><ObjectSizeLessThan>9</ObjectSizeLessThan>"), False),
        (RULE + "<Teleportation>mars</Teleportation>", False),
    ],
)
def test_what_means_the_same(other: str, is_same: bool) -> None:
    assert (meanings(rule_xml(RULE)) == meanings(rule_xml(other))) is is_same


def test_tags_are_compared_in_pairs() -> None:
    def tagged(*tags: tuple[str, str]) -> bytes:
        text = "".join(f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in tags)
        return rule_xml(f"<Filter><And><Prefix>p/</Prefix>{text}</And></Filter>")

    assert meanings(tagged(("a", "1"), ("b", "2"))) == meanings(tagged(("b", "2"), ("a", "1")))
    assert meanings(tagged(("a", "1"), ("b", "2"))) != meanings(tagged(("a", "2"), ("b", "1")))
    assert meanings(tagged(("a", "1"))) != meanings(tagged(("a", "01")))
    assert meanings(tagged(("a", "false"))) != meanings(tagged(("a", "")))


def test_times_in_any_form_are_the_same() -> None:
    forms = ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000Z", "2030-01-01T01:00:00+01:00", "2030-01-01"]
    found = [meanings(rule_xml(f"<Expiration><Date>{form}</Date></Expiration>")) for form in forms]
    assert all(meaning == found[0] for meaning in found)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_positions_are_of_bytes(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    data = f"<a><b>{escaped}</b><c/><d></d></a>".encode()
    root = parse_xml(data)
    assert b"".join(data[item.start : item.end] for item in root.children) == data[3:-4]
    assert root.children[0].text == text


rules = st.builds(
    Rule,
    st.text(alphabet="abc-", min_size=1, max_size=20),
    st.text(alphabet="ab/&<", max_size=10),
    expires_days=st.none() | st.integers(1, 36500),
    aborts_days=st.none() | st.integers(1, 100),
    noncurrent_days=st.none() | st.integers(1, 100),
)


@given(rules | st.sampled_from(WANTED))
def test_what_is_sent_is_what_is_read(rule: Rule) -> None:
    """As botocore would read it back."""
    assert enabled_rules({"Rules": [api_rule(rule)]}) == (rule,)
    assert name_in(meaning_of(rule)) == rule.name


def of(**fields: Any) -> Rule:
    (rule,) = enabled_rules({"Rules": [{"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "p/"}} | fields]})
    return rule


def test_every_action_is_read() -> None:
    when = datetime(2030, 1, 1, tzinfo=UTC)
    assert of(Expiration={"Days": 3}) == Rule("r", "p/", expires_days=3)
    assert of(Expiration={"Date": when}) == Rule("r", "p/", expires_at=when)
    assert of(Expiration={"ExpiredObjectDeleteMarker": True}) == Rule("r", "p/", removes_markers=True)
    assert of(NoncurrentVersionExpiration={"NoncurrentDays": 7}) == Rule("r", "p/", noncurrent_days=7)
    kept = {"NoncurrentDays": 7, "NewerNoncurrentVersions": 1}
    assert of(NoncurrentVersionExpiration=kept) == Rule("r", "p/")
    moves = [{"Days": 30, "StorageClass": "STANDARD_IA"}, {"Days": 90, "StorageClass": "GLACIER"}]
    assert of(Transitions=moves) == Rule("r", "p/", archives_days=90)
    assert of(Transitions=[{"Date": when, "StorageClass": "DEEP_ARCHIVE"}]) == Rule("r", "p/", archives_days=0)
    assert of(Transitions=moves[:1]) == Rule("r", "p/")
    assert of(Filter={"Tag": {"Key": "a", "Value": "b"}}) == Rule("r", "", tagged=True)
    assert of(Filter={"And": {"Prefix": "p/", "ObjectSizeLessThan": 5}}) == Rule("r", "p/", sized=True)
    assert of(Filter=None, Prefix="q/") == Rule("r", "q/")
    assert enabled_rules({"Rules": [{"ID": "r", "Status": "Disabled"}]}) == ()


def test_destinations_in_one_bucket_have_names_of_their_own() -> None:
    assert own_name("") == "archiver-e3b0c442-"
    assert own_name("p/") != own_name("p2/")
