"""Storage classes by key, and objects that must be thawed before they can be read."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from archiver.config import RetentionClass
from archiver.errors import NotFoundError, RefusedError, StorageError
from archiver.retention.attributes import attribution
from archiver.stores.base import Availability
from archiver.stores.s3_archives import availability_of
from tests.stores.s3_help import PART, Open, fetch

ATTRIBUTES = attribution(
    {
        "daily": RetentionClass(),
        "monthly": RetentionClass(400, 35, "month", "STANDARD_IA"),
        "yearly": RetentionClass(4000, 35, "year", "DEEP_ARCHIVE"),
    }
)
NAME = "data/prod/00112233445566778899aabbccddeeff.mdb.zst.age"
DAILY, MONTHLY, YEARLY = (f"{name}/{NAME}" for name in ("daily", "monthly", "yearly"))
BACKUP = "20261122T200334Z-f05d75"


@pytest.mark.parametrize("size", [1, PART + 1])
def test_objects_get_the_storage_class_of_their_class(url: str, open_s3: Open, size: int) -> None:
    store = open_s3(url, attributes=ATTRIBUTES)
    for key in (DAILY, MONTHLY, YEARLY):
        store.create(key, [bytes(size)])
    expected = {DAILY: None, MONTHLY: "STANDARD_IA", YEARLY: "DEEP_ARCHIVE"}
    assert {item.key: item.storage_class for item in store.list()} == expected
    assert {key: store.stat(key).storage_class for key in expected} == expected
    assert [store.availability(key) for key in (DAILY, MONTHLY)] == ["ready"] * 2


def test_what_is_archived_cannot_be_read(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])
    assert store.availability(YEARLY) == "archived"


def test_a_store_that_only_keeps_the_name_of_an_archive_class(seaweed_url: str, open_s3: Open) -> None:
    """SeaweedFS has no RestoreObject: to wait for a thaw would be to wait for ever."""
    store = open_s3(seaweed_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])
    assert store.stat(YEARLY).storage_class == "DEEP_ARCHIVE"
    assert store.availability(YEARLY) == "ready"
    store.thaw(YEARLY, 2)
    store.copy(YEARLY, DAILY)
    assert fetch(store, DAILY) == b"cold"


@pytest.mark.parametrize(("code", "status"), [("NotImplemented", 501), ("MethodNotAllowed", 405)])
def test_a_store_that_archives_and_cannot_thaw_says_so(
    localstack_url: str, open_s3: Open, code: str, status: int
) -> None:
    store = open_s3(localstack_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])

    def refuse(params: dict[str, Any], **_: object) -> None:
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(answer, "RestoreObject")  # type: ignore[arg-type]

    store._connection.client.meta.events.register("provide-client-params.s3.RestoreObject", refuse)
    with pytest.raises(StorageError, match=r"refused s3:RestoreObject on "):
        store.thaw(YEARLY, 2)
    assert store.availability(YEARLY) == "archived"


def test_what_says_what_a_backup_is_stays_in_the_standard_class(url: str, open_s3: Open) -> None:
    store = open_s3(url, attributes=ATTRIBUTES, storage_class="STANDARD_IA")
    keys = [f"yearly/data/prod/{BACKUP}.{name}.jsonl.zst{end}" for name, end in (("contents", ".age"), ("objects", ""))]
    keys += [
        f"yearly/backups/prod/{BACKUP}/{name}" for name in ("manifest.json", "manifest.json.minisig", "terms.json")
    ]
    keys += ["vault/prod/0011223344556677/alice.age"]
    for key in keys:
        store.create(key, [b"x"])
        store.copy(key, f"{key}.copy")
    assert {item.storage_class for item in store.list()} == {None}


def test_a_class_of_its_own_comes_before_the_destinations(url: str, open_s3: Open) -> None:
    store = open_s3(url, attributes=ATTRIBUTES, storage_class="ONEZONE_IA")
    for key in (DAILY, MONTHLY):
        store.create(key, [b"x"])
    assert {item.key: item.storage_class for item in store.list()} == {DAILY: "ONEZONE_IA", MONTHLY: "STANDARD_IA"}


def test_a_copy_gets_the_storage_class_of_its_class(url: str, open_s3: Open) -> None:
    store = open_s3(url, attributes=ATTRIBUTES)
    store.create(MONTHLY, [b"x"])
    assert store.copy(MONTHLY, YEARLY).storage_class == "DEEP_ARCHIVE"
    assert store.copy(MONTHLY, DAILY).storage_class is None
    assert {item.key: item.storage_class for item in store.list()} == {
        DAILY: None,
        MONTHLY: "STANDARD_IA",
        YEARLY: "DEEP_ARCHIVE",
    }


def test_what_is_archived_is_refused_until_it_is_thawed(localstack_url: str, open_s3: Open) -> None:
    """LocalStack thaws at once."""
    store = open_s3(localstack_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])
    with pytest.raises(RefusedError, match=f"{YEARLY}: the object lies in an archive class"):
        fetch(store, YEARLY)
    with pytest.raises(RefusedError, match=f"{YEARLY} must be thawed before it can be copied"):
        store.copy(YEARLY, DAILY)
    assert [item.key for item in store.list()] == [YEARLY]
    store.thaw(YEARLY, 2)
    store.thaw(YEARLY, 2)
    assert store.availability(YEARLY) == "ready"
    assert fetch(store, YEARLY) == b"cold"
    assert store.stat(YEARLY).storage_class == "DEEP_ARCHIVE"
    store.copy(YEARLY, DAILY)
    assert fetch(store, DAILY) == b"cold"


def test_an_archived_source_that_a_head_does_not_show_is_refused(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])

    def forget(parsed: dict[str, Any], **_: object) -> None:
        parsed.pop("StorageClass", None)

    store._connection.client.meta.events.register("after-call.s3.HeadObject", forget)
    with pytest.raises(RefusedError, match=f"refused s3:GetObject on .*{YEARLY}: the object lies in an archive class"):
        store.copy(YEARLY, DAILY)


def test_what_is_being_thawed_may_be_asked_for_again(localstack_url: str, open_s3: Open) -> None:
    store = open_s3(localstack_url, attributes=ATTRIBUTES)
    store.create(YEARLY, [b"cold"])
    asked: list[dict[str, Any]] = []

    def refuse(params: dict[str, Any], **_: object) -> None:
        asked.append(params)
        answer = {"Error": {"Code": "RestoreAlreadyInProgress"}, "ResponseMetadata": {"HTTPStatusCode": 409}}
        raise ClientError(answer, "RestoreObject")  # type: ignore[arg-type]

    store._connection.client.meta.events.register("provide-client-params.s3.RestoreObject", refuse)
    store.thaw(YEARLY, 9)
    assert [request["RestoreRequest"]["Days"] for request in asked] == [9]


def test_a_thaw_of_nothing(url: str, open_s3: Open) -> None:
    with pytest.raises(NotFoundError, match=f"{YEARLY} does not exist"):
        open_s3(url).thaw(YEARLY, 1)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({}, "ready"),
        ({"StorageClass": "GLACIER_IR"}, "ready"),
        ({"StorageClass": "GLACIER"}, "archived"),
        ({"StorageClass": "INTELLIGENT_TIERING"}, "ready"),
        ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "DEEP_ARCHIVE_ACCESS"}, "archived"),
        (
            {
                "StorageClass": "INTELLIGENT_TIERING",
                "ArchiveStatus": "ARCHIVE_ACCESS",
                "Restore": 'ongoing-request="true"',
            },
            "thawing",
        ),
        ({"StorageClass": "DEEP_ARCHIVE", "Restore": ""}, "archived"),
        ({"StorageClass": "DEEP_ARCHIVE", "Restore": 'ongoing-request="true"'}, "thawing"),
        (
            {"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00 GMT"'},
            "ready",
        ),
        ({"StorageClass": "GLACIER", "Restore": "nonsense"}, "archived"),
    ],
)
def test_what_a_head_says(head: dict[str, str], expected: Availability) -> None:
    assert availability_of(head) == expected
