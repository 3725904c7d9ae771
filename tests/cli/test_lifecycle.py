"""archiver lifecycle, from the command line, over real servers."""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest

from archiver.retention.policy import own_name
from archiver.stores.destination import S3Destination, parse_destination
from tests.operations.scene import Done, Scene, archiver, make_scene
from tests.servers.seaweed import LIMITED

FOREIGN: list[dict[str, Any]] = [
    {
        "ID": "logs", "Status": "Enabled", "Expiration": {"Days": 3},
        "Filter": {"And": {"Prefix": "logs/", "Tags": [{"Key": "a", "Value": "b"}]}},
    },
    {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}},
]  # fmt: skip


class Place:
    """A scene in a bucket of its own, with rules of somebody else."""

    def __init__(self, url: str, root: Path) -> None:
        destination = parse_destination(url)
        assert isinstance(destination, S3Destination)
        self.bucket = f"lifecycle-{secrets.token_hex(6)}"
        self.own = own_name(f"{destination.prefix}/")
        # Not boto3's default session: it keeps the first credentials that it finds.
        self.client: Any = boto3.session.Session().client(
            "s3", endpoint_url=destination.options.endpoint, region_name=destination.options.region
        )
        self.client.create_bucket(Bucket=self.bucket)
        self.put(FOREIGN)
        self.scene: Scene = make_scene(root, url.replace(destination.bucket, self.bucket), entries=20, rules=False)

    def put(self, rules: list[dict[str, Any]]) -> None:
        self.client.put_bucket_lifecycle_configuration(Bucket=self.bucket, LifecycleConfiguration={"Rules": rules})

    def rules(self) -> list[dict[str, Any]]:
        return list(self.client.get_bucket_lifecycle_configuration(Bucket=self.bucket)["Rules"])

    def run(self, *arguments: str) -> Done:
        return archiver("lifecycle", *arguments, "--config", str(self.scene.config))


@pytest.fixture(params=["localstack", "seaweed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "in a bucket"
    root.mkdir()
    place = Place(request.getfixturevalue(f"{request.param}_url"), root)
    with closing(place.client):
        yield place


def set_keep(scene: Scene, days: int) -> None:
    scene.config.write_text(scene.config.read_text().replace("keep = 35", f"keep = {days}"))


def set_longer(scene: Scene) -> None:
    scene.config.write_text(scene.config.read_text().replace("keep = 10", "keep = 50"))


def test_from_no_rules_to_all(place: Place) -> None:
    before = place.rules()
    plan = place.run("plan", "--json")
    assert plan.code == 0, plan.errors
    assert plan.document["dry_run"] is True
    added = [change["rule"].removeprefix(place.own) for change in plan.document["changes"]]
    assert added == [
        "daily-backups", "daily-data", "daily-rest", "monthly-backups", "monthly-data", "monthly-rest", "held-rest"
    ]  # fmt: skip
    checked = place.run("check", "--json")
    assert (checked.code, {item["severity"] for item in checked.document}) == (3, {"warning"})
    dry = place.run("apply", "--dry-run")
    assert (dry.code, dry.output) == (0, place.run("plan").output)
    assert place.rules() == before

    done = place.run("apply")
    assert (done.code, done.errors) == (0, "")
    assert done.output.startswith(f"added {place.own}daily-backups for ")
    assert place.rules()[: len(before)] == before
    again = place.run("apply")
    assert (again.code, again.output) == (0, "nothing to change: the rules are as the configuration has them\n")
    assert place.run("check").output.endswith("the lifecycle rules are as they should be\n")
    assert place.run("check", "--quiet").output == ""

    shown = place.run("show")
    assert shown.code == 0
    lines = shown.output.splitlines()
    assert lines[0].split() == ["RULE", "WHOSE", "KEYS", "DOES"]
    assert "somebody else's" in lines[1]
    assert lines[1].endswith("deletes after 3 days (nothing of this destination)")
    assert lines[2].endswith("nothing, it is disabled: deletes after 1 day")
    assert "archiver's" in lines[3]
    assert lines[3].endswith("deletes after 35 days")
    place.scene.backup()


def test_drift_and_harm(place: Place) -> None:
    assert place.run("apply").code == 0
    rules = place.rules()
    for rule in rules:
        if rule["ID"] == f"{place.own}daily-data":
            rule["Expiration"] = {"Days": 9}
    place.put([rule for rule in rules if not rule["ID"].endswith("-rest")])
    done = place.run("check")
    assert done.code == 1
    assert "deletes after 9 days; expected: deletes after 42 days" in done.output
    assert "deletes after 9 days, too soon for data of daily" in done.output
    assert "hint: Run archiver lifecycle apply, as an administrator" in done.output
    assert "no lifecycle rule aborts incomplete uploads" in done.output
    assert place.run("apply").code == 0
    assert place.run("check").code == 0

    everything = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 300}}
    place.put([*place.rules(), everything])
    shown = place.run("show")
    assert shown.code == 3
    assert "lifecycle rule 'all' deletes after 300 days, too soon for vault files" in shown.errors
    applied = place.run("apply")
    assert applied.code == 3
    assert "lifecycle rule 'all'" in applied.errors
    assert everything in [{name: rule[name] for name in everything} for rule in place.rules() if rule["ID"] == "all"]


def test_a_change_that_would_break_a_promise(place: Place) -> None:
    assert place.run("apply").code == 0
    backup = place.scene.backup()
    before = place.rules()
    set_keep(place.scene, 10)
    done = place.run("apply")
    assert done.code == 4
    assert f"warning: {backup} of prod in daily would lose " in done.errors
    assert " more: it goes from " in done.errors
    assert "These rules would break 1 promise" in done.output
    assert done.output.startswith("would change ")
    document = place.run("apply", "--json")
    assert document.code == 4
    assert {item["backup"] for item in document.document["broken"]} == {backup}
    assert document.document["dry_run"] is True
    assert place.run("plan").code == 4
    assert place.rules() == before


def test_a_manifest_that_cannot_be_read(place: Place) -> None:
    """Somebody may have planted it, to have the rules hit what it hides."""
    assert place.run("apply").code == 0
    key = "daily/backups/prod/20261122T020000Z-3f9c2a/manifest.json"
    prefix = place.rules()[-1]["Filter"]["Prefix"].removesuffix("held/")
    place.client.put_object(Bucket=place.bucket, Key=prefix + key, Body=b"{}")
    before = place.rules()
    set_keep(place.scene, 10)
    for command in ("plan", "apply"):
        done = place.run(command)
        assert done.code == 4
        assert f"{prefix}{key}: " in done.errors
        assert "an administrator may delete these manifests" in done.output
    assert place.run("apply", "--json").document["dry_run"] is True
    assert place.rules() == before
    set_longer(place.scene)
    longer = place.run("apply")
    assert longer.code == 3
    assert f"{prefix}{key}: " in longer.errors
    assert "deletes after 50 days" in place.run("show").output


@pytest.mark.parametrize("place", ["seaweed"], indirect=True)
def test_credentials_of_no_administrator(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place.rules()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LIMITED[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", LIMITED[1])
    assert place.run("plan").code == 0
    done = place.run("apply")
    assert done.code == 7
    assert "s3:PutLifecycleConfiguration is denied to these credentials" in done.errors
    assert place.rules() == before


def test_a_directory(scene: Scene) -> None:
    for command in ("show", "check"):
        done = archiver("lifecycle", command, "--config", str(scene.config))
        assert (done.code, done.errors) == (0, "")
        assert "runs no lifecycle rules: archiver expire, from cron" in done.output
    for command in ("plan", "apply"):
        done = archiver("lifecycle", command, "--config", str(scene.config))
        assert done.code == 2
        assert "hint: Run archiver expire from cron" in done.errors
    done = archiver("lifecycle", "show", "--json", "--config", str(scene.config))
    assert done.document["rules"] is None


def test_export_needs_no_network(scene: Scene, tmp_path: Path) -> None:
    text = scene.config.read_text().replace(scene.url, "s3://bucket/p?endpoint=http://127.0.0.1:1&region=us-east-1")
    scene.config.write_text(text)
    file = tmp_path / "archiver.auto.tfvars.json"
    options = ("--config", str(scene.config))
    done = archiver("lifecycle", "export", "--format", "terraform", "--output", str(file), *options)
    assert (done.code, done.output) == (0, f"wrote {file}\n")
    printed = archiver("lifecycle", "export", "--format", "terraform", *options)
    assert printed.output == file.read_text()
    assert json.loads(printed.output)["prefix"] == "p"
    rules = archiver("lifecycle", "export", "--format", "json", "--json", *options).document["Rules"]
    assert rules[0]["Filter"] == {"Prefix": "p/daily/backups/"}
    missing = archiver("lifecycle", "export", "--format", "json", "--output", "/nowhere/rules.json", *options)
    assert (missing.code, missing.errors) == (1, "archiver: /nowhere/rules.json: no such file or directory\n")


def test_the_exported_rules_are_taken_as_they_are(place: Place) -> None:
    """What another tool sends is what apply would have made: nothing is left to change."""
    place.client.put_bucket_versioning(Bucket=place.bucket, VersioningConfiguration={"Status": "Enabled"})
    place.put(place.run("export", "--format", "json", "--json").document["Rules"])
    assert place.run("plan", "--json").document["changes"] == []
    assert place.run("check").code == 0
