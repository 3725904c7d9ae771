"""localstack/: what the hook makes, the way with Docker as far as it goes without it, and the way without."""

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import lmdb
import pytest

from archiver.config import DEFAULT_CLASSES
from archiver.retention.policy import own_name, wanted_rules
from archiver.stores.s3_rules import api_rule, full_rules
from tests.conftest import BUCKET, EU_BUCKET
from tests.servers import localstack as localstack_module
from tests.servers.__main__ import main as install_servers
from tests.servers.answering import Answer, answering
from tests.servers.localstack import EU_REGION, HOOK, REGION, REQUIREMENTS, _environment, install, localstack
from tests.servers.process import REPOSITORY, S3Server, ServerError, answers

RUN = REPOSITORY / "localstack" / "run"
COMPOSE = REPOSITORY / "localstack" / "docker-compose.yml"
DOCUMENT = REPOSITORY / "docs" / "TESTING.md"
KEY_ALIAS = "alias/archiver-test"
PLACES = [(REGION, BUCKET), (EU_REGION, EU_BUCKET)]


def client(server: S3Server, service: str, region: str) -> Any:
    # Not boto3's default session: it keeps the first credentials that it finds.
    session: Any = boto3.session.Session()
    return session.client(
        service,
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=region,
    )


def made(server: S3Server, region: str, bucket: str) -> dict[str, Any]:
    """What the hook makes in a region, as it is now."""
    s3, kms = client(server, "s3", region), client(server, "kms", region)
    return {
        "created": next(item["CreationDate"] for item in s3.list_buckets()["Buckets"] if item["Name"] == bucket),
        "region": s3.head_bucket(Bucket=bucket)["BucketRegion"],
        "versions": s3.get_bucket_versioning(Bucket=bucket).get("Status"),
        # Other tests put rules of their own into the same bucket.
        "rules": {
            rule.pop("ID"): rule
            for rule in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            if rule["ID"].startswith(own_name("ci/"))
        },
        "key": kms.describe_key(KeyId=KEY_ALIAS)["KeyMetadata"]["Arn"],
    }


@pytest.mark.parametrize(("region", "bucket"), PLACES)
def test_the_hook_makes_a_bucket_and_a_key(localstack_server: S3Server, region: str, bucket: str) -> None:
    found = made(localstack_server, region, bucket)
    assert found["region"] == region
    assert found["versions"] == "Enabled"
    assert found["key"].startswith(f"arn:aws:kms:{region}:")
    assert {rule["Status"] for rule in found["rules"].values()} == {"Enabled"}
    # Other filters than by prefix are not portable.
    assert all(list(rule["Filter"]) == ["Prefix"] for rule in found["rules"].values())
    wanted = full_rules(wanted_rules(DEFAULT_CLASSES, versioned=True), "ci/")
    assert [{"ID": name, **rule} for name, rule in found["rules"].items()] == [api_rule(rule) for rule in wanted]
    own = own_name("ci/")
    for key, rule in [("backups/x/manifest.json", "daily-backups"), ("data/x/y.pages.zst.age", "daily-data")]:
        created = client(localstack_server, "s3", region).put_object(Bucket=bucket, Key=f"ci/daily/{key}", Body=b"")
        assert f'rule-id="{own}{rule}"' in created["Expiration"]


@pytest.mark.parametrize(("region", "bucket"), PLACES)
def test_the_hook_again_by_hand(
    localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch, region: str, bucket: str
) -> None:
    s3 = client(localstack_server, "s3", region)
    key = f"kept/{secrets.token_hex(8)}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"kept")
    before = made(localstack_server, region, bucket)
    s3.delete_bucket_lifecycle(Bucket=bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", localstack_server.endpoint)
    for _ in range(2):
        subprocess.run([sys.executable, HOOK], check=True)
    assert made(localstack_server, region, bucket) == before
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"kept"


@pytest.mark.usefixtures("localstack_server")
def test_a_hook_that_fails_is_an_error(tmp_path: Path) -> None:
    hook = tmp_path / "failing.py"
    hook.write_text("raise RuntimeError('no bucket today')\n")
    with pytest.raises(ServerError, match=r"failing\.py failed in LocalStack(.|\n)*no bucket today"), localstack(hook):
        pytest.fail("it became ready")


@pytest.mark.usefixtures("localstack_server")
def test_the_command_finds_localstack_and_gives_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, boto3\n"
        "names = [bucket['Name'] for bucket in boto3.client('s3').list_buckets()['Buckets']]\n"
        "print(os.environ['AWS_ENDPOINT_URL'], os.environ['AWS_REGION'], *names)\n"
        "raise SystemExit(7)\n"
    )
    # Any of these would lead boto3 elsewhere.
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    done = subprocess.run([RUN, sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    endpoint, *found = done.stdout.split()
    assert found == [REGION, BUCKET, EU_BUCKET]
    assert not answers(f"{endpoint}/_localstack/health")


@pytest.mark.usefixtures("localstack_server")
def test_the_documents_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    with lmdb.open(str(tmp_path / "data")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"key", b"value")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "photo.jpg").write_bytes(bytes(100))
    section = DOCUMENT.read_text().partition("## LocalStack in your own CI")[2]
    script, *_ = re.findall(r"^```\n(set -.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "check-backups.sh").write_text(script)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run([RUN, "bash", "check-backups.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with lmdb.open(str(tmp_path / "restored" / "main")) as environment, environment.begin() as transaction:
        assert transaction.get(b"key") == b"value"


def test_a_command_that_is_not_there_is_told_before_anything_starts() -> None:
    done = subprocess.run([RUN, "no-such-command"], capture_output=True, text=True)
    assert done.returncode == 127
    assert done.stderr == "localstack/run: no such command: no-such-command\n"


def test_without_a_command_it_explains_itself() -> None:
    done = subprocess.run([RUN], capture_output=True, text=True)
    assert done.returncode == 2
    assert "localstack/run COMMAND" in done.stderr


@pytest.fixture
def compose(localstack_server: S3Server) -> dict[str, Any]:
    """The one service of docker-compose.yml, read with the YAML parser that LocalStack brings."""
    program = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    with COMPOSE.open() as file:
        done = subprocess.run([install() / "python", "-c", program], stdin=file, stdout=subprocess.PIPE, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    [service] = document["services"].values()
    assert isinstance(service, dict)
    return service


def test_docker_gets_the_same_localstack(compose: dict[str, Any], tmp_path: Path) -> None:
    [requirement] = REQUIREMENTS
    assert compose["image"] == f"localstack/localstack:{requirement.partition('==')[2]}"
    assert compose["ports"] == ["127.0.0.1:4566:4566"]
    [(source, target, mode)] = [volume.split(":") for volume in compose["volumes"]]
    assert COMPOSE.parent / source == HOOK
    assert target == f"/etc/localstack/init/ready.d/{HOOK.name}"
    assert mode == "ro"
    ours = _environment(tmp_path, "http://127.0.0.1:4566")
    assert compose["environment"] == {name: ours[name] for name in compose["environment"]}
    assert {"SERVICES", "STRICT_SERVICE_LOADING", "S3_SKIP_KMS_KEY_VALIDATION"} <= set(compose["environment"])


def is_healthy(compose: dict[str, Any], endpoint: str) -> bool:
    """What the healthcheck says of a server at ``endpoint``, in place of the container's."""
    kind, interpreter, option, program = compose["healthcheck"]["test"]
    assert (kind, interpreter, option) == ("CMD", "python3", "-c")
    here = program.replace('"127.0.0.1", 4566', f'"127.0.0.1", {endpoint.rpartition(":")[2]}')
    assert here != program
    return not subprocess.run([sys.executable, "-c", here], stderr=subprocess.DEVNULL).returncode


def test_the_healthcheck_waits_for_the_hook(compose: dict[str, Any], localstack_server: S3Server) -> None:
    assert is_healthy(compose, localstack_server.endpoint)
    assert not is_healthy(compose, "http://127.0.0.1:1")
    for states in ([], ["UNKNOWN"], ["RUNNING"], ["ERROR"]):
        scripts = [{"stage": "READY", "name": "ready.py", "state": state} for state in states]
        body = json.dumps({"completed": False, "scripts": scripts}).encode()
        with answering(lambda _, body=body: Answer(body)) as server:  # type: ignore[misc]
            assert not is_healthy(compose, server.endpoint)
            assert server.questions[0].target == "/_localstack/init/ready"


@pytest.mark.usefixtures("localstack_server", "seaweed_server")
def test_the_servers_are_installed_beforehand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install_servers() == 0

    def fail() -> Path:
        raise ServerError("pip failed: no network")

    monkeypatch.setattr(localstack_module, "install", fail)
    assert install_servers() == 1
    assert capsys.readouterr().err == "pip failed: no network\n"


def test_servers_listen_on_loopback_only(localstack_server: S3Server, seaweed_server: S3Server) -> None:
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    for server in (localstack_server, seaweed_server):
        port = f":{int(server.endpoint.rpartition(':')[2]):04X}"
        assert [address for address in listening if address.endswith(port)] == [f"0100007F{port}"]
