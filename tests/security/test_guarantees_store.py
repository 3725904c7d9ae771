"""Guarantees of docs/SECURITY.md, by number: what archiver and its credentials do to a bucket, and what goes over the
network. Each test says which change of the code it notices."""

from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from archiver.errors import AlreadyExistsError, ConfigError
from archiver.stores.destination import open_store, parse_destination
from tests.iam.cases import CASES
from tests.iam.policies import load_policy
from tests.operations.operators import add, keys, make_operator
from tests.operations.scene import Scene, archiver
from tests.security.house import make_house
from tests.servers.answering import Answer, Question, answering
from tests.servers.tls import Authority

CREATING = {"PutObject", "CompleteMultipartUpload", "CopyObject"}
HARMFUL = (
    "overwrite",
    "overwrite a manifest",
    "overwrite by an upload",
    "overwrite by a copy",
    "delete",
    "delete a manifest",
    "delete several",
    "delete a version",
    "read a vault's file",
    "overwrite a vault's file",
    "create a vault's file",
    "copy from a vault",
    "set the lifecycle",
    "set a policy",
    "suspend versioning",
    "set the Object Lock",
)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every request that boto3 makes from now on: the operation and its parameters."""
    made: list[tuple[str, dict[str, Any]]] = []
    genuine = BaseClient._make_api_call  # type: ignore[attr-defined]

    def note(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        made.append((operation, parameters))
        return genuine(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", note)
    return made


@pytest.fixture
def bucket(tmp_path: Path, localstack_url: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The small source, with a destination in LocalStack."""
    monkeypatch.chdir(tmp_path)
    return make_house(tmp_path / "house", localstack_url)


def test_g18_a_backup_hosts_policy_lets_it_add_and_nothing_else() -> None:
    """Noticed: a change of docs/iam/backup-host.json that allows it. By AWS's rules as tests/iam/policies.py knows
    them; tests/iam/test_seaweed.py has what a real store enforces."""
    policy = load_policy("backup-host")
    cases = {case.name: case.call for case in CASES}
    for name in HARMFUL:
        assert not cases[name].allowed_by(policy), name
    for name in ("create", "create a manifest", "complete an upload", "read a manifest"):
        assert cases[name].allowed_by(policy), name


def test_g19_nothing_is_overwritten_and_only_an_operators_file_is_deleted(
    bucket: Scene, requests: list[tuple[str, dict[str, Any]]]
) -> None:
    """Noticed: a key that is created without If-None-Match, a command that deletes, a create that replaces."""
    bob = make_operator(bucket, "bob")
    for command in (("backup",), ("doctor",), ("verify", "--level", "data", *bucket.identity), ("list",)):
        done = archiver(*command, "--config", str(bucket.config))
        assert done.code in (0, 1, 3), done.errors
    assert add(bucket, bob).code == 0
    assert keys(bucket, "rotate", *bob.identity).code == 0
    created = [parameters for operation, parameters in requests if operation in CREATING]
    assert len(created) > 10
    assert {parameters.get("IfNoneMatch") for parameters in created} == {"*"}
    probed = {parameters["Key"] for operation, parameters in requests if operation == "DeleteObject"}
    existing = {parameters["Key"] for parameters in created}
    # doctor tries whether it may delete, on a random key that was never there.
    assert probed & existing == set()
    del requests[:]
    done = keys(bucket, "remove", "test", *bob.identity)
    assert done.code == 0, done.errors
    deleted = [parameters["Key"] for operation, parameters in requests if "Delete" in operation]
    assert len(deleted) == 2
    assert all("/vault/" in key and key.endswith("/test.age") for key in deleted)
    store = open_store(parse_destination(bucket.url))
    key = next(item.key for item in store.list("daily/") if item.key.endswith("manifest.json"))
    before = b"".join(store.read(key))
    with pytest.raises(AlreadyExistsError):
        store.create(key, [b"another"])
    assert b"".join(store.read(key)) == before
    store.close()


def test_g20_only_the_server_that_a_known_authority_vouches_for_is_talked_to(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed: certificates that are not checked, and any option that would switch that off."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    authority, other = (Authority(tmp_path, name) for name in ("one", "another"))
    with answering(lambda _: Answer(), authority.certificate("127.0.0.1")) as server:
        url = f"s3://bucket/prefix?region=x&attempts=1&endpoint={server.endpoint}"
        for bundle in ("", f"&ca_bundle={other.bundle}"):
            done = archiver("list", *scene.identity, "--from", url + bundle)
            assert done.code == 7
            assert "certificate verify failed" in done.errors
        assert server.questions == []
        archiver("list", *scene.identity, "--from", f"{url}&ca_bundle={authority.bundle}")
        assert server.questions, "it was not the certificate that kept it from asking"
    for option in ("verify", "ssl", "use_ssl", "insecure", "verify_ssl"):
        with pytest.raises(ConfigError, match="unknown destination option"):
            parse_destination(f"s3://bucket?{option}=false")


def test_g21_requests_go_to_the_configured_server_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed: a redirect that is followed, with a signed request, to wherever an answer says."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with answering(lambda _: Answer()) as elsewhere:

        def redirect(question: Question) -> Answer:
            return Answer(b"", 307, {"Location": f"{elsewhere.endpoint}{question.target}"})

        with answering(redirect) as server:
            url = f"s3://bucket/prefix?region=x&attempts=1&endpoint={server.endpoint}"
            done = archiver("list", *scene.identity, "--from", url)
            assert done.code == 7
            assert server.questions
        assert elsewhere.questions == []
