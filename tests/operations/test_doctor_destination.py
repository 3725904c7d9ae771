"""archiver doctor at the destination: what it finds in a bucket, and that it leaves one as it was."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from msgspec.structs import replace

from archiver.errors import StorageError
from archiver.operations.doctor_destination import (
    endpoint_findings,
    permission_findings,
    reach,
    speed_finding,
    thaw_findings,
)
from archiver.stores.destination import FileDestination, S3Destination, parse_destination
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from archiver.stores.s3_facts import Permissions, Rate, Speed, Unknown
from tests.operations.doctor_help import problems
from tests.operations.scene import Done, Scene, archiver, make_scene
from tests.servers.process import free_ports
from tests.servers.seaweed import LIMITED
from tests.stores.conftest import open_uploads
from tests.stores.s3_help import endpoint_of

DENIED = StorageError("refused", hint="Allow it.")
ALL_ALLOWED = Permissions("allowed", "allowed", "allowed", "allowed", DENIED)


@pytest.mark.parametrize(
    ("endpoint", "severities"),
    [
        ("http://minio.example:9000", ["warning"]),
        ("http://192.0.2.1", ["warning"]),
        ("http://localhost.example", ["warning"]),
        ("http://127.0.0.1:9000", []),
        ("http://[::1]:9000", []),
        ("http://localhost", []),
        ("http://s3.localhost:4566", []),
        ("https://minio.example:9000", []),
    ],
)
def test_plain_http(endpoint: str, severities: list[str]) -> None:
    found = problems(endpoint_findings("destination", endpoint))
    assert [severity for severity, _ in found] == severities


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-30, None),
        (90, "90 seconds ahead of"),
        (-600, "10 minutes behind"),
        (7300, "2 hours ahead of"),
        (-86400 * 3 - 400, "3 days behind"),
        (86400 * 4000, "4,000 days ahead of"),
    ],
)
def test_a_clock_that_is_wrong_is_told_in_human_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, said: str | None
) -> None:
    monkeypatch.setattr(LocalStore, "clock", lambda _: datetime.now(UTC) - timedelta(seconds=seconds))
    store = LocalStore(tmp_path, Journal(None))
    found = problems(reach(FileDestination(tmp_path), store))
    assert found == ([] if said is None else [("warning", f"this host's clock is {said} the store's")])


def test_permissions_as_they_should_be() -> None:
    (finding,) = permission_findings("permissions", ALL_ALLOWED)
    assert (finding.severity, finding.message) == (
        "ok",
        "may list keys, create keys, abort uploads, list uploads, read manifests; may not delete, as it should be",
    )
    assert finding.facts == {"create": True, "abort": True, "list_uploads": True, "read": True, "delete": False}


@pytest.mark.parametrize(
    ("changed", "severity", "message"),
    [
        ({"create": DENIED, "abort": Unknown("none was begun")}, "error", "cannot create keys: refused"),
        ({"read": DENIED}, "error", "cannot read manifests: refused"),
        ({"abort": DENIED}, "warning", "cannot abort uploads: refused"),
        ({"list_uploads": DENIED}, "warning", "cannot list uploads: refused"),
        ({"delete": "allowed"}, "warning", "may delete objects: a thief of this host could delete backups"),
    ],
)
def test_permissions_that_are_wrong(changed: dict[str, Any], severity: str, message: str) -> None:
    assert problems(permission_findings("permissions", replace(ALL_ALLOWED, **changed))) == [(severity, message)]


def test_permissions_that_were_not_tried() -> None:
    untried = replace(ALL_ALLOWED, read=Unknown("there is none"), delete=Unknown("of the marker"))
    summary, read, delete = permission_findings("permissions", untried)
    assert {summary.severity, read.severity, delete.severity} == {"ok"}
    assert "read" not in summary.message
    assert "delete" not in summary.message
    assert read.message == "not tried whether they may read: there is none"
    assert delete.message == "not tried whether they may delete: of the marker"
    assert summary.facts is not None
    assert (summary.facts["read"], summary.facts["delete"]) == (None, None)


def test_speed_in_words_and_numbers() -> None:
    found = speed_finding("speed", Speed(0.0125, Rate(8 << 20, 0.5), Unknown("there is no backup yet")))
    assert found.severity == "ok"
    assert found.message == (
        "a request takes 12 ms; 16.0 MiB/s up in one stream (8.0 MiB); "
        "the way down was not measured: there is no backup yet"
    )
    assert found.facts == {
        "latency_seconds": 0.0125,
        "up_bytes": 8 << 20,
        "up_seconds": 0.5,
        "up_bytes_per_second": 16 << 20,
        "down_bytes": None,
        "down_seconds": None,
        "down_bytes_per_second": None,
    }


@pytest.mark.parametrize(
    ("found", "endpoint", "expected"),
    [
        (True, "https://s3.example", []),
        (False, "https://s3.example", ["the store has no RestoreObject"]),
        (Unknown("denied"), "https://s3.example", ["it is not known whether the store can thaw: denied"]),
        (Unknown("denied"), "https://s3.eu-west-1.amazonaws.com", []),
    ],
)
def test_archive_classes_of_a_store_that_may_have_none(
    found: bool | Unknown, endpoint: str, expected: list[str]
) -> None:
    told = problems(thaw_findings("s3://b/p", "class monthly (GLACIER)", found, endpoint))
    assert [severity for severity, _ in told] == ["warning"] * len(expected)
    assert [message for _, message in told if not any(words in message for words in expected)] == []


# Over servers.


class Place:
    """A scene whose destination is a bucket of its own, and the bucket's contents."""

    def __init__(self, url: str, root: Path) -> None:
        destination = parse_destination(url)
        assert isinstance(destination, S3Destination)
        self.bucket = f"doctor-{secrets.token_hex(6)}"
        # Not boto3's default session: it keeps the first credentials that it finds.
        self.client: Any = boto3.session.Session().client(
            "s3", endpoint_url=destination.options.endpoint, region_name=destination.options.region
        )
        self.client.create_bucket(Bucket=self.bucket)
        self.scene: Scene = make_scene(root, url.replace(destination.bucket, self.bucket), entries=20)

    def examine(self) -> Done:
        return archiver("doctor", "--config", str(self.scene.config), "--json")

    def content(self) -> list[tuple[str, str]]:
        """Keys, versions and delete markers."""
        listing = self.client.list_object_versions(Bucket=self.bucket)
        return [
            (item["Key"], item["VersionId"]) for kind in ("Versions", "DeleteMarkers") for item in listing.get(kind, [])
        ]


@pytest.fixture(params=["localstack", "seaweed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "scene"
    root.mkdir()
    place = Place(request.getfixturevalue(f"{request.param}_url"), root)
    with closing(place.client):
        yield place


def messages(done: Done, severity: str) -> list[str]:
    return [item["message"] for item in done.document if item["severity"] == severity]


def facts(done: Done, subject: str) -> dict[str, Any]:
    (found,) = [item["facts"] for item in done.document if item["subject"].startswith(subject) and item["facts"]]
    return dict(found)


def test_a_bucket_is_left_as_it_was(place: Place) -> None:
    place.scene.backup()
    before = place.content()
    done = place.examine()
    assert place.content() == before
    assert open_uploads(place.scene.url) == []
    assert place.scene.journal() == ""

    assert done.code == 3
    delete, single = messages(done, "warning")
    assert single == "'test' is the only operator: if that key is lost, so are the backups"
    assert "may delete objects" in delete
    assert facts(done, "permissions") == dict.fromkeys(("create", "abort", "list_uploads", "read", "delete"), True)
    assert facts(done, "bucket")["versioning"] == "off"
    speed = facts(done, "speed")
    assert speed["latency_seconds"] > 0
    assert speed["up_bytes"] >= 1 << 18
    assert speed["up_bytes_per_second"] > 0
    assert speed["down_bytes"] >= 1 << 18
    assert abs(facts(done, "destination")["skew_seconds"]) < 60


def test_a_bucket_without_rules(place: Place) -> None:
    place.client.delete_bucket_lifecycle(Bucket=place.bucket)
    expiration, abortion, *_ = messages(place.examine(), "warning")
    assert "no lifecycle rule lets backups of daily and monthly expire" in expiration
    assert "no lifecycle rule aborts incomplete uploads of daily, monthly and held" in abortion


def test_object_lock_in_a_bucket_without_it(place: Place) -> None:
    text = place.scene.config.read_text().replace("&region=", "&object_lock=governance&region=")
    place.scene.config.write_text(text)
    before = place.content()
    done = place.examine()
    assert done.code == 1
    assert any("the option object_lock asks for governance" in message for message in messages(done, "error"))
    assert place.content() == before
    assert open_uploads(place.scene.url) == []


def test_a_bucket_with_versions_gets_no_delete_marker(place: Place) -> None:
    place.client.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    before = place.content()
    done = place.examine()
    assert place.content() == before
    assert facts(done, "permissions")["delete"] is None
    assert any("would leave a delete marker" in message for message in messages(done, "ok"))


@pytest.mark.parametrize(
    ("place", "severity", "message"),
    [
        ("localstack", "ok", "the store can thaw what lies in class monthly (GLACIER)"),
        ("seaweed", "warning", "class monthly (GLACIER): the store has no RestoreObject"),
    ],
    indirect=["place"],
)
def test_a_class_that_is_archived(place: Place, severity: str, message: str) -> None:
    text = place.scene.config.read_text()
    assert "\n[class.monthly]\n" in text
    text = text.replace("[class.monthly]\n", '[class.monthly]\nstorage_class = "GLACIER"\n')
    place.scene.config.write_text(text)
    before = place.content()
    done = place.examine()
    assert place.content() == before
    assert [text.startswith(message) for text in messages(done, severity)].count(True) == 1


def test_rules_of_a_bucket_are_compared_with_the_classes(place: Place) -> None:
    rules = [
        {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}},
        {
            "ID": "parts", "Status": "Enabled", "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
    ]  # fmt: skip
    place.client.put_bucket_lifecycle_configuration(Bucket=place.bucket, LifecycleConfiguration={"Rules": rules})
    done = place.examine()
    assert done.code == 1
    (message,) = messages(done, "error")
    assert message == (
        "lifecycle rule 'all' deletes after 30 days, too soon for vault files, without which nobody can restore; "
        "backups that are held until somebody releases them; manifests of daily, promised for 35 days; data of daily, "
        "needed for 42 days; manifests of monthly, promised for 400 days; data of monthly, needed for 435 days"
    )


@pytest.mark.parametrize("place", ["seaweed"], indirect=True)
def test_credentials_that_may_not_create(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.scene.backup()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LIMITED[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", LIMITED[1])
    done = place.examine()
    assert done.code == 1
    (message,) = messages(done, "error")
    assert message.startswith("cannot create keys: ")
    assert "refused s3:PutObject" in message
    found = facts(done, "permissions")
    assert (found["create"], found["read"], found["delete"]) == (False, True, False)
    assert any("is denied to these credentials" in text for text in messages(done, "ok"))
    assert not any("may delete objects" in text for text in messages(done, "warning"))


@pytest.mark.parametrize("place", ["localstack"], indirect=True)
def test_a_destination_that_cannot_be_reached_is_one_error(place: Place) -> None:
    elsewhere = f"http://127.0.0.1:{free_ports(1)}&attempts=1"
    text = place.scene.config.read_text().replace(endpoint_of(place.scene.url), elsewhere)
    place.scene.config.write_text(text)
    done = place.examine()
    assert done.code == 1
    (message,) = messages(done, "error")
    assert message.startswith("cannot reach http://127.0.0.1")
