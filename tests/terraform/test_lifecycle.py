"""The one source of truth: terraform/ makes the very rules that ``archiver lifecycle apply`` sends."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.catalog.names import check_class
from archiver.config import DEFAULT_CLASSES, HELD, Config, RetentionClass, parse_config
from archiver.errors import UsageError
from archiver.operations.lifecycle_export import lifecycle_configuration, terraform_variables
from archiver.stores.keys import is_key
from tests.terraform.hcl import TERRAFORM
from tests.terraform.lifecycle import BUCKET, backups_module, lifecycle_rules
from tests.terraform.module import InvalidError

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda name: name not in ("held", "hold", "vault")
)
WORDS = ("vault", "hold", HELD, "a" * 63, "a" * 64)
DAYS = st.integers(1, 36500)
CLASSES = st.builds(
    RetentionClass, keep=DAYS, lease=DAYS, storage_class=st.sampled_from([None, "STANDARD_IA", "DEEP_ARCHIVE"])
)
PREFIXES = st.lists(
    st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True).filter(lambda name: name not in (".", "..")), max_size=3
).map("/".join)


def configured(classes: Mapping[str, RetentionClass], prefix: str) -> Config:
    url = f"s3://{BUCKET}/{prefix}" if prefix else f"s3://{BUCKET}"
    text = f'[destination]\nurl = "{url}"\n'
    return replace(parse_config(text, Path("/etc/archiver/archiver.toml")), classes=classes)


def exported(config: Config) -> dict[str, Any]:
    """What the module reads from archiver.auto.tfvars.json."""
    variables: dict[str, Any] = json.loads(json.dumps(terraform_variables(config)))
    return variables


def by_name(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {rule["ID"]: rule for rule in rules}
    assert len(found) == len(rules)
    return found


@given(st.dictionaries(NAMES, CLASSES, min_size=1, max_size=5), PREFIXES)
@example(dict(DEFAULT_CLASSES), "")
@example(dict(DEFAULT_CLASSES), "prod")
@example({"a": RetentionClass(), "a-data": RetentionClass(keep=1), "a-backups": RetentionClass(keep=2)}, "x/y")
@settings(max_examples=60, deadline=None)
def test_the_rules_are_those_of_lifecycle_apply(classes: dict[str, RetentionClass], prefix: str) -> None:
    config = configured(classes, prefix)
    wanted: Any = lifecycle_configuration(config)["Rules"]

    assert by_name(lifecycle_rules(exported(config))) == by_name(wanted)


@pytest.mark.parametrize("prefix", ["", "prod"])
def test_no_rule_ends_what_has_no_end(prefix: str) -> None:
    rules = lifecycle_rules(exported(configured(DEFAULT_CLASSES, prefix)))
    base = f"{prefix}/" if prefix else ""

    def reaching(key: str) -> list[dict[str, Any]]:
        return [rule for rule in rules if (base + key).startswith(rule["Filter"]["Prefix"])]

    # Not even old versions: whoever deletes a vault's file and creates another over the marker destroys nothing.
    assert reaching("vault/s/0123/alice.age") == []
    assert reaching("somebody-elses/key") == []
    for key in ("held/backups/s/b/manifest.json", "held/data/s/x.mdb.zst.age"):
        (rule,) = reaching(key)
        assert "Days" not in rule["Expiration"]
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


def test_a_destination_in_another_prefix_has_other_names() -> None:
    one = by_name(lifecycle_rules(exported(configured(DEFAULT_CLASSES, "a"))))
    other = by_name(lifecycle_rules(exported(configured(DEFAULT_CLASSES, "b"))))

    assert one
    assert not one.keys() & other.keys()


@given(st.text(alphabet="a-_A0.", min_size=1, max_size=6) | st.sampled_from(WORDS))
@settings(max_examples=150, deadline=None)
def test_a_class_is_taken_when_archiver_takes_it(name: str) -> None:
    try:
        check_class(name)
        taken = name != HELD
    except UsageError:
        taken = False

    assert _taken({"classes": {name: {"keep": 1, "lease": 1}}}) == taken


@given(st.text(alphabet="aZ0.-_/ *", max_size=6) | st.sampled_from(["a" * 255, "a" * 256, "a/b", "a\n"]))
@settings(max_examples=150, deadline=None)
def test_a_prefix_is_taken_when_archiver_takes_it(prefix: str) -> None:
    assert _taken({"classes": {"daily": {"keep": 1, "lease": 1}}, "prefix": prefix}) == (prefix == "" or is_key(prefix))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "at least one class"),
        ({"daily": {"keep": 0, "lease": 1}}, "whole days"),
        ({"daily": {"keep": 1, "lease": 36501}}, "whole days"),
        ({"daily": {"keep": 1.5, "lease": 1}}, "whole days"),
        ({"daily": {"keep": 1}}, "lease is missing"),
        ({"daily": {"keep": "1", "lease": 1}}, "expected number"),
        ({"daily": {"keep": 1, "lease": 1, "storage_class": "glacier"}}, "storage class"),
        ({"daily": {"keep": 1, "lease": 1, "storage_class": ""}}, "storage class"),
    ],
)
def test_what_archiver_never_exports_is_refused(classes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        backups_module({"classes": classes})


def _taken(variables: dict[str, Any]) -> bool:
    try:
        backups_module(variables)
    except InvalidError:
        return False
    return True


def test_the_page_s_export_is_what_the_module_reads(tmp_path: Path) -> None:
    """The commands of terraform/README.md, "In five minutes", up to Terraform's own."""
    lines = (TERRAFORM / "README.md").read_text("utf-8").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("printf "))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    for line in lines[first : first + 2]:
        subprocess.run(["bash", "-euc", line], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)

    variables = json.loads((tmp_path / "archiver.auto.tfvars.json").read_text())
    config = parse_config((tmp_path / "first.toml").read_text(), tmp_path / "first.toml")
    wanted: Any = lifecycle_configuration(config)["Rules"]
    assert variables == exported(config)
    assert by_name(lifecycle_rules(variables)) == by_name(wanted)
    assert variables["prefix"] == "prod"
