"""docs/CONFIGURATION.md and the code know the same keys, defaults and options."""

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import NODEFAULT
from msgspec.structs import FieldInfo, fields

from archiver.config import DEFAULT_CLASSES, PinLimits, RetentionClass, Tuning, parse_config
from archiver.operations.config_text import render_new, render_source
from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.s3_options import S3Options, parse_options
from archiver.tables import Table, size_text

TEXT = (Path(__file__).parent.parent / "docs" / "CONFIGURATION.md").read_text("utf-8")
OPTIONS = "Options of an `s3://` destination"
EVERYTHING = """
[source.name]
vault = "age1example"
media = "media"
[source.name.operators]
name = "passphrase"
[source.name.environments]
name = "environment"
[source.name.external]
name = ["program"]
[class.name]
keep = 1
[signing]
trusted = ["name"]
[signing.revoked]
name = 2026-11-20
"""


def documented() -> dict[str, dict[str, str]]:
    """For each heading of the page the keys in the table below it, each with its default as it is written."""
    found: dict[str, dict[str, str]] = {}
    for section in TEXT.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", body, re.MULTILINE)
        found[heading] = {key: default.strip("`") for key, default in rows}
    return found


def test_every_key_is_documented_and_every_documented_key_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[str, ...]] = set()
    take = Table._take

    def record(table: Table, key: str, kind: type) -> Any:
        asked.add(tuple("NAME" if part == "name" else part for part in (*table._keys, key)))
        return take(table, key, kind)

    monkeypatch.setattr(Table, "_take", record)
    parse_config(f'[destination]\nurl = "file:///x"\n{EVERYTHING}', Path("archiver.toml"))

    tables = {keys[:-1] for keys in asked}
    known = {
        keys for keys in asked if keys not in tables or keys[-1] in ("revoked", "environments", "external", "operators")
    }
    page = documented()
    del page[OPTIONS]
    written = {
        (*(heading.strip("`[]").split(".") if heading != "Top level" else ()), key)
        for heading, keys in page.items()
        for key in keys
    }
    assert written == known


def test_every_option_of_s3_is_documented_with_its_default() -> None:
    defaults = {field.name: field.default for field in fields(S3Options)}

    assert documented()[OPTIONS] == {
        name: "none" if value is None else str(value).lower() for name, value in defaults.items()
    }


def test_the_defaults_of_numbers_are_those_of_the_code() -> None:
    page = documented()

    assert page["`[class.NAME]`"] == {
        field.name: "none" if field.default is None else str(field.default) for field in fields(RetentionClass)
    }
    assert page["`[pin]`"] == {field.name: str(field.default) for field in fields(PinLimits)}
    assert page["`[tuning]`"] == {field.name: shown(field) for field in fields(Tuning)}


def shown(field: FieldInfo) -> str:
    """The default of a field as the page writes it: sizes as in the file."""
    if field.default is NODEFAULT:
        return "see below"
    return "none" if field.default is None else size_text(field.default) if field.type is int else str(field.default)


def test_the_default_classes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\w+) \|$", TEXT, re.MULTILINE)

    assert {name: (int(keep), int(lease), every) for name, keep, lease, every in rows} == {
        name: (retention.keep, retention.lease, retention.every or "never")
        for name, retention in DEFAULT_CLASSES.items()
    }


def test_the_examples_are_valid() -> None:
    example = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert example is not None
    config = parse_config(example[1], Path("/etc/archiver/archiver.toml"))
    assert parse_options(config.destination_options).storage_class == "STANDARD_IA"
    assert config.retention_class("monthly") == RetentionClass(400, 35, "month", "GLACIER_IR")
    assert config.retention_class("yearly") == RetentionClass(3660, 60, "year", "DEEP_ARCHIVE")

    url = re.search(r"^Example: `(.*)`$", TEXT, re.MULTILINE)
    assert url is not None
    destination = parse_destination(url[1])
    assert isinstance(destination, S3Destination)
    assert destination.options.ca_bundle == "/etc/ssl/minio.pem"


def test_what_init_writes_is_valid() -> None:
    source = render_source(
        "notes",
        vault="age1example",
        operators={"alice": "age1alice", "carol": "passphrase"},
        environments={"a": Path("/a")},
        media=Path("/m"),
        ucotron_config=None,
    )

    config = parse_config(render_new("file:///b", Path("/key"), "RW") + source, Path("archiver.toml"))

    assert config.source("notes").environments == {"a": Path("/a")}
    assert config.source("notes").operators == {"alice": "age1alice", "carol": "passphrase"}
    assert config.classes == DEFAULT_CLASSES
