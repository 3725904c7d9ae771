"""Promotion, hold and release over S3: copies within the bucket, storage classes, Object Lock."""

import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest

from archiver.stores.destination import S3Destination, parse_destination
from tests.operations.scene import SOURCE, Done, Scene, archiver, check_restored, make_scene
from tests.servers.localstack import REGION
from tests.servers.process import S3Server
from tests.stores.s3_help import PART, endpoint_of

CLASSES = """
[class.yearly]
keep = 1500
lease = 60
every = "year"
storage_class = "DEEP_ARCHIVE"

[class.monthly]
keep = 400
every = "month"
storage_class = "STANDARD_IA"
"""


def make(root: Path, url: str, classes: str = "") -> Scene:
    """A source with one backup in ``daily``, whose configuration has these classes from then on."""
    root.mkdir()
    scene = make_scene(root, f"{url}&part_size={PART}", entries=20)
    scene.backup()
    text = scene.config.read_text()
    if classes:
        before, _, rest = text.partition("[class.monthly]")
        text = f"{before}{classes}\n[{rest.partition('[')[2]}"
    scene.config.write_text(text)
    return scene


def run(scene: Scene, *arguments: str) -> Done:
    done = archiver(*arguments, "--config", str(scene.config), "--json")
    assert done.code == 0, done.errors
    return done


@pytest.fixture(params=["localstack", "seaweed"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    return make(tmp_path / "scene", request.getfixturevalue(f"{request.param}_url"), CLASSES)


def client_of(url: str) -> tuple[Any, str, str]:
    """A client that asks the server itself, the bucket and the prefix."""
    destination = parse_destination(url)
    assert isinstance(destination, S3Destination)
    client = boto3.session.Session().client("s3", endpoint_url=endpoint_of(url), region_name=REGION)
    return client, destination.bucket, destination.prefix


def objects(scene: Scene, name: str) -> dict[str, str]:
    """By key below the destination the storage class of what lies in a class."""
    client, bucket, prefix = client_of(scene.url)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/{name}/")
    return {
        item["Key"].removeprefix(f"{prefix}/"): item.get("StorageClass", "STANDARD")
        for page in pages
        for item in page.get("Contents", ())
    }


def test_objects_get_the_storage_class_of_their_class_and_nothing_else_does(scene: Scene) -> None:
    backup = scene.backups()[0]

    done = run(scene, "promote").document

    assert [(item["class"], item["objects_used"]) for item in done] == [("yearly", 0), ("monthly", 0)]
    for name, storage_class in (("yearly", "DEEP_ARCHIVE"), ("monthly", "STANDARD_IA")):
        found = objects(scene, name)
        assert Counter(found.values()) == {storage_class: done[0]["objects_copied"], "STANDARD": 6}
        assert all((kept == storage_class) == (".zst.age" in key and backup not in key) for key, kept in found.items())


def test_a_copy_within_the_bucket_is_enough(scene: Scene, tmp_path: Path) -> None:
    run(scene, "promote")
    run(scene, "hold", "latest")
    client, bucket, prefix = client_of(scene.url)
    for name in ("daily", "yearly", "monthly"):
        for key in objects(scene, name):
            client.delete_object(Bucket=bucket, Key=f"{prefix}/{key}")

    restored = scene.restore("--to", str(tmp_path / "restored"))

    assert restored.code == 0, restored.errors
    check_restored(scene, tmp_path / "restored")
    released = run(scene, "release", scene.backups()[0]).document
    assert released["stays_in"] == []
    assert objects(scene, "held") == {}


@pytest.fixture
def locked(seaweed_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    """A source whose destination is a bucket with Object Lock."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed_server.secret_key)
    bucket = f"locked-{secrets.token_hex(8)}"
    client = boto3.session.Session().client("s3", endpoint_url=seaweed_server.endpoint, region_name=REGION)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    client.close()
    url = f"s3://{bucket}/prod?region={REGION}&endpoint={seaweed_server.endpoint}&object_lock=governance"
    return make(tmp_path / "scene", url)


def test_what_is_held_is_under_legal_hold_until_it_is_released(locked: Scene) -> None:
    backup = locked.backups()[0]
    run(locked, "hold", backup)
    client, bucket, prefix = client_of(locked.url)
    held = objects(locked, "held")
    assert f"held/backups/{SOURCE}/{backup}/manifest.json" in held
    versions = client.list_object_versions(Bucket=bucket, Prefix=f"{prefix}/held/")["Versions"]
    for version in versions:
        status = client.get_object_legal_hold(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
        assert status["LegalHold"]["Status"] == "ON", version["Key"]

    run(locked, "release", backup)

    assert objects(locked, "held") == {}
    for version in versions:
        # SeaweedFS gives a copy the retention of its source, which AWS does not; a hold yields to nobody.
        names = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
        client.delete_object(**names, BypassGovernanceRetention=True)
    left = client.list_object_versions(Bucket=bucket, Prefix=f"{prefix}/held/").get("Versions", [])
    assert left == [], "a hold is still on"
