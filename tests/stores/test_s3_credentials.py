"""Credentials through the AWS chain: each kind signs requests that a server which checks them accepts.

The server is SeaweedFS. Temporary credentials come from its own security token service, and it refuses those that are
altered: test_the_server_checks_temporary_credentials. Only the places that hand them out inside AWS are mocks.
"""

import hashlib
import json
import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from archiver.errors import StorageError
from tests.servers.localstack import REGION
from tests.servers.metadata import Credentials, container_credentials, instance_metadata, sso_portal
from tests.servers.process import REPOSITORY, S3Server
from tests.servers.seaweed_gateway import AUDIENCE, ROLE, token_gateway
from tests.servers.web_identity import Issuer, issuer
from tests.stores.s3_connections import prove, signers
from tests.stores.s3_help import KEY, Open, fetch

BUCKET = "archiver-test"
TEMPORARY = "ASIA"
"""What the access keys of temporary credentials begin with."""
SHORT = timedelta(minutes=5)
"""botocore renews what ends within ten minutes before it signs with it."""
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Issuer]:
    with issuer() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(seaweed_server: S3Server, cluster: Issuer) -> Iterator[S3Server]:
    with token_gateway(seaweed_server, cluster.url) as server:
        yield server


@pytest.fixture
def url(gateway: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty destination that takes temporary credentials; none are in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", gateway.endpoint)
    return f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={gateway.endpoint}&region={REGION}"


@pytest.fixture
def assume(gateway: S3Server) -> Callable[[timedelta], Credentials]:
    """Gets new temporary credentials, which are said to end after the time given. They are good for an hour."""

    def get(lifetime: timedelta) -> Credentials:
        client = boto3.session.Session().client(
            "sts",
            endpoint_url=gateway.endpoint,
            region_name=REGION,
            aws_access_key_id=gateway.access_key,
            aws_secret_access_key=gateway.secret_key,
        )
        given = client.assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
        client.close()
        return Credentials(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], datetime.now(UTC) + lifetime
        )

    return get


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def configure(tmp_path: Path, text: str) -> None:
    """Put ``text`` where the AWS tools look: HOME is ``tmp_path``."""
    write(tmp_path / ".aws" / "config", text)


def test_the_server_checks_temporary_credentials(
    url: str, open_s3: Open, assume: Callable[[timedelta], Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = assume(HOUR)
    altered = given.token[:-4] + ("aaaa" if given.token[-4:] != "aaaa" else "bbbb")
    for secret, token in ((given.secret_key, altered), ("wrong", given.token), (given.secret_key, "")):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
        with pytest.raises(StorageError, match=r"the access key is not known|the signature is wrong"):
            list(open_s3(url).list())


def test_environment(url: str, open_s3: Open, gateway: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", gateway.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", gateway.secret_key)
    assert prove(open_s3(url)) == gateway.access_key


def test_temporary_credentials_in_the_environment(
    url: str, open_s3: Open, assume: Callable[[timedelta], Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = assume(HOUR)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", given.token)
    assert prove(open_s3(url)) == given.access_key


def test_the_profile_of_the_url_comes_before_the_environment(
    url: str, open_s3: Open, gateway: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    credentials = f"aws_access_key_id = {gateway.access_key}\naws_secret_access_key = {gateway.secret_key}\n"
    file = write(tmp_path / "elsewhere" / "credentials", f"[default]\n\n[backup]\n{credentials}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", file)
    assert prove(open_s3(f"{url}&profile=backup")) == gateway.access_key


def test_the_profile_of_the_environment(
    url: str, open_s3: Open, gateway: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = f"aws_access_key_id = {gateway.access_key}\naws_secret_access_key = {gateway.secret_key}\n"
    monkeypatch.setenv("AWS_CONFIG_FILE", write(tmp_path / "elsewhere" / "config", f"[profile backup]\n{credentials}"))
    monkeypatch.setenv("AWS_PROFILE", "backup")
    assert prove(open_s3(url)) == gateway.access_key


def test_a_process(url: str, open_s3: Open, tmp_path: Path, assume: Callable[[timedelta], Credentials]) -> None:
    given = assume(HOUR)
    document = json.dumps(
        {
            "Version": 1,
            "AccessKeyId": given.access_key,
            "SecretAccessKey": given.secret_key,
            "SessionToken": given.token,
            "Expiration": given.expires.isoformat(),
        }
    )
    file = write(tmp_path / "given.json", document)
    configure(tmp_path, f"[profile vault]\ncredential_process = /bin/cat {shlex.quote(file)}\n")
    assert prove(open_s3(f"{url}&profile=vault")) == given.access_key


def test_a_role_that_a_profile_assumes(url: str, open_s3: Open, gateway: S3Server, tmp_path: Path) -> None:
    configure(
        tmp_path,
        f"[profile backup]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = archiver\n\n"
        f"[profile base]\naws_access_key_id = {gateway.access_key}\naws_secret_access_key = {gateway.secret_key}\n",
    )
    assert prove(open_s3(f"{url}&profile=backup")).startswith(TEMPORARY)


def test_a_web_identity(
    url: str, open_s3: Open, cluster: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a pod in Kubernetes has it: IRSA."""
    token = cluster.token("system:serviceaccount:databases:backup", AUDIENCE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", write(tmp_path / "token", token))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    assert prove(open_s3(url)).startswith(TEMPORARY)


def test_a_container(
    url: str,
    open_s3: Open,
    assume: Callable[[timedelta], Credentials],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a task in ECS, or a pod in EKS with Pod Identity, has it."""
    given = assume(HOUR)
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write(tmp_path / "token", "pod"))
    with container_credentials(lambda: given, authorization="pod") as service:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.endpoint}/v1/credentials")
        assert prove(open_s3(url)) == given.access_key


def test_an_instance(
    url: str, open_s3: Open, assume: Callable[[timedelta], Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host in EC2 has it: IMDSv2."""
    given = assume(HOUR)
    with instance_metadata(lambda: given) as service:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint)
        assert prove(open_s3(url)) == given.access_key


SSO_PROFILE = """
[profile person]
sso_session = company
sso_account_id = 000000000000
sso_role_name = backup

[sso-session company]
sso_start_url = https://company.example/start
sso_region = us-east-1
sso_registration_scopes = sso:account:access
"""
PROVE = """
import sys
from archiver.stores.destination import open_store, parse_destination
store = open_store(parse_destination(sys.argv[1]))
store.create("key", [b"proof"])
print(b"".join(store.read("key")).decode())
"""


def test_single_sign_on(url: str, assume: Callable[[timedelta], Credentials], tmp_path: Path) -> None:
    """In a process of its own: botocore looks for HOME when it is imported."""
    configure(tmp_path, SSO_PROFILE)
    name = hashlib.sha1(b"company", usedforsecurity=False).hexdigest()
    token = {"accessToken": "person", "expiresAt": (datetime.now(UTC) + HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")}
    write(tmp_path / ".aws" / "sso" / "cache" / f"{name}.json", json.dumps(token))
    given = assume(HOUR)
    with sso_portal(lambda: given, bearer="person") as portal:
        done = subprocess.run(
            [sys.executable, "-c", PROVE, f"{url}&profile=person"],
            cwd=REPOSITORY,
            env={**os.environ, "AWS_ENDPOINT_URL_SSO": portal.endpoint},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("proof\n", "")
        assert len(portal.questions) == 1


def test_what_expires_during_a_run_is_renewed(
    url: str, open_s3: Open, assume: Callable[[timedelta], Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Credentials] = []

    def give() -> Credentials:
        given.append(assume(HOUR if given else SHORT))
        return given[-1]

    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "task")
    with container_credentials(give, authorization="task") as service:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.endpoint}/credentials")
        store = open_s3(url)
        assert len(given) == 1
        keys = signers(store)
        store.create(KEY, [b"x"])
        assert fetch(store, KEY) == b"x"
    assert keys == [given[1].access_key] * 2
    assert len(given) == 2
