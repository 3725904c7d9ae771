"""Names and keys: the words of docs/FORMAT.md, and nothing that only looks like them."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.catalog.names import (
    RESERVED_CLASSES,
    BackupPlace,
    backup_time,
    check_backup_id,
    check_class,
    check_name,
    check_object_key,
    is_class,
    new_backup_id,
    new_copy,
    new_object_id,
    object_key,
    parse_manifest_key,
    parse_object_key,
    vault_key,
    vault_prefix,
)
from archiver.config import HELD
from archiver.errors import FormatError, UsageError

BACKUP = "20261122T020000Z-3f9c2a"
OBJECT = "0123456789abcdef" * 2
PLACE = BackupPlace("daily", "ucotron-prod", BACKUP)
MANIFEST = f"daily/backups/ucotron-prod/{BACKUP}/manifest.json"


def test_every_key_is_the_one_of_the_format() -> None:
    assert PLACE.manifest == MANIFEST
    assert PLACE.signature == f"{MANIFEST}.minisig"
    assert PLACE.terms == f"daily/backups/ucotron-prod/{BACKUP}/terms.json"
    assert PLACE.contents == f"daily/data/ucotron-prod/{BACKUP}.contents.jsonl.zst.age"
    assert PLACE.objects == f"daily/data/ucotron-prod/{BACKUP}.objects.jsonl.zst"
    assert PLACE.placement == f"daily/data/ucotron-prod/{BACKUP}.placement.jsonl.zst"
    assert PLACE.started == f"daily/data/ucotron-prod/{BACKUP}.started"
    assert object_key("daily", "ucotron-prod", OBJECT, "tar") == f"daily/data/ucotron-prod/{OBJECT}.tar.zst.age"
    further = object_key("daily", "ucotron-prod", OBJECT, "tar", "0a1b2c3d")
    assert further == f"daily/data/ucotron-prod/{OBJECT}.0a1b2c3d.tar.zst.age"
    assert vault_key("ucotron-prod", "0011223344556677", "ada", "age") == "vault/ucotron-prod/0011223344556677/ada.age"
    assert vault_prefix("ucotron-prod") == "vault/ucotron-prod/"
    assert vault_prefix("ucotron-prod", "0011223344556677") == "vault/ucotron-prod/0011223344556677/"


def test_a_manifests_key_is_parsed_back() -> None:
    assert parse_manifest_key(MANIFEST) == PLACE


# What a hostile or foreign tree may hold; each differs from a good key in one thing.
STRANGE_KEYS = [
    "",
    f"{MANIFEST}\n",
    f"\n{MANIFEST}",
    f"{MANIFEST}.minisig",
    f"{MANIFEST}/manifest.json",
    f"prefix/{MANIFEST}",
    f"/{MANIFEST}",
    MANIFEST.replace("2026", "２０２６"),  # noqa: RUF001 - full-width digits are what is tested
    MANIFEST.replace("2026", "٢٠٢٦"),
    MANIFEST.replace("20261122", "20261322"),
    MANIFEST.replace("T020000", "T250000"),
    MANIFEST.replace("2026", "0000"),
    MANIFEST.replace("3f9c2a", "3F9C2A"),
    MANIFEST.replace("3f9c2a", "3f9c2"),
    MANIFEST.replace("daily", "Daily"),
    MANIFEST.replace("daily", "daily "),
    MANIFEST.replace("daily", "-daily"),
    MANIFEST.replace("daily", ".."),
    MANIFEST.replace("daily", "d" * 64),
    MANIFEST.replace("daily", "vault"),
    MANIFEST.replace("daily", "hold"),
    MANIFEST.replace("/backups/", "/data/"),
    MANIFEST.replace("ucotron-prod", "ucotron/prod"),
    MANIFEST.replace("ucotron-prod", ""),
    MANIFEST.replace("manifest.json", "manifestxjson"),
    MANIFEST.replace("manifest.json", ""),
]


@pytest.mark.parametrize("key", STRANGE_KEYS)
def test_no_other_key_is_a_manifests(key: str) -> None:
    assert parse_manifest_key(key) is None


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis


@given(NAMES.filter(lambda name: name not in RESERVED_CLASSES), NAMES, MOMENTS)
def test_what_can_be_named_can_be_found_again(retention_class: str, source: str, started: datetime) -> None:
    place = BackupPlace(check_class(retention_class), check_name(source, "source"), new_backup_id(started))
    assert parse_manifest_key(place.manifest) == place
    assert backup_time(place.backup) == started.replace(microsecond=0)
    for copy in ("", new_copy()):
        key = object_key(retention_class, source, OBJECT, "mdb", copy)
        assert check_object_key(key, OBJECT) == key
        assert parse_object_key(key) == (retention_class, source, OBJECT, "mdb")


@pytest.mark.parametrize(
    "name",
    ["", "-a", "a-", "_a", "A", "a b", "a/b", "..", "a.b", "a\n", "ä", "a" * 64, "a\0", "１"],  # noqa: RUF001
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"invalid source name {name!r}")):
        check_name(name, "source")
    with pytest.raises(UsageError):
        check_class(name)


@pytest.mark.parametrize("name", sorted(RESERVED_CLASSES))
def test_reserved_classes_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a class"):
        check_class(name)


def test_a_backup_id_is_in_utc_and_sorts_by_time() -> None:
    started = datetime(2026, 11, 22, 4, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    assert re.fullmatch(r"20261122T020000Z-[0-9a-f]{6}", new_backup_id(started))
    later = [new_backup_id(started + timedelta(seconds=seconds)) for seconds in (0, 1, 60, 86400, 40_000_000)]
    assert later == sorted(later)


def test_ids_are_random() -> None:
    started = datetime(2026, 11, 22, tzinfo=UTC)
    assert len({new_backup_id(started) for _ in range(50)}) > 45
    assert len({new_object_id() for _ in range(100)}) == 100
    assert re.fullmatch("[0-9a-f]{32}", new_object_id())
    assert len({new_copy() for _ in range(20)}) == 20
    assert re.fullmatch("[0-9a-f]{8}", new_copy())


def test_held_is_a_class_to_readers() -> None:
    assert is_class(HELD)
    assert parse_manifest_key(MANIFEST.replace("daily", HELD)) == PLACE._replace(retention_class=HELD)


@pytest.mark.parametrize(
    "text",
    [
        "", "latest", BACKUP + "\n", BACKUP[:-1], "../" + BACKUP, BACKUP.upper(), BACKUP.replace("1122", "0230"),
        *(BACKUP.replace("020000", time) for time in ("240000", "236000", "235960")),
    ],
)  # fmt: skip
def test_backup_ids_that_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="invalid backup id"):
        check_backup_id(text)


GOOD_KEY = f"daily/data/ucotron-prod/{OBJECT}.mdb.zst.age"


@pytest.mark.parametrize(
    "key",
    [
        "",
        GOOD_KEY + "\n",
        GOOD_KEY.replace(OBJECT, "f" * 32),
        GOOD_KEY.replace("daily", ".."),
        GOOD_KEY.replace("daily", "vault"),
        GOOD_KEY.replace("/data/", "/backups/"),
        GOOD_KEY.replace(".mdb.", ".exe."),
        GOOD_KEY.replace(".zst.age", ".zst"),
        GOOD_KEY.replace(".mdb.", ".0a1b2c3.mdb."),
        GOOD_KEY.replace(".mdb.", ".0a1b2c3d4.mdb."),
        GOOD_KEY.replace(".mdb.", ".0A1B2C3D.mdb."),
        GOOD_KEY.replace(".mdb.", ".0a1b2c3d.0a1b2c3d.mdb."),
        GOOD_KEY.replace(".mdb.", "..mdb."),
        GOOD_KEY.replace(".mdb.", ".mdb.0a1b2c3d."),
        "/etc/passwd",
        f"../{GOOD_KEY}",
    ],
)
def test_a_placement_cannot_point_elsewhere(key: str) -> None:
    with pytest.raises(FormatError, match="placement names"):
        check_object_key(key, OBJECT)
