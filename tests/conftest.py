"""Fixtures of the whole suite: an environment without the developer's secrets, and servers on demand."""

import functools
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import boto3
import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

from tests import heed
from tests.age_tools.installation import AgeTools, AgeToolsError
from tests.age_tools.installation import install as install_age_tools
from tests.servers.localstack import EU_REGION, REGION, localstack
from tests.servers.process import S3Server, ServerError
from tests.servers.seaweed import seaweed

BUCKET = "archiver-test"
EU_BUCKET = "archiver-test-eu"

# A shell starts what it runs in the background with SIGINT ignored, and every process that a test starts inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about what is tested.
settings.register_profile("archiver", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("archiver")

LONGEST = "tests/years"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first: begun last, each would keep one worker busy while the others have nothing to do."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _aws_is_read_once() -> Iterator[None]:
    """boto3 reads what it knows of AWS anew for each session: that would be most of the time of most tests on S3."""
    load = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JSONFileLoader, "load_file", lambda _, path: load(path))
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, profiles or settings of the developer reach a test, and none of its files his home."""
    for name in os.environ:
        if name.startswith(("AWS_", "ARCHIVER_IDENTITY")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    # A backup that is made in this process must not slow down the tests after it.
    monkeypatch.setattr(os, "nice", lambda _: 0)


@pytest.fixture(scope="session")
def localstack_server() -> Iterator[S3Server]:
    """LocalStack with what localstack/ready.py makes, such as empty buckets ``BUCKET`` and, in another region,
    ``EU_BUCKET``; it checks no credentials."""
    yield from _start(localstack)


@pytest.fixture(scope="session")
def seaweed_server() -> Iterator[S3Server]:
    """SeaweedFS with an empty bucket ``BUCKET``; it checks credentials."""
    yield from _start(_seaweed_with_bucket)


@pytest.fixture(scope="session")
def age_tools() -> AgeTools:
    """What tests/age_tools installs: node, other implementations of age, and vectors of the format."""
    try:
        return install_age_tools()
    except AgeToolsError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def heed_writer() -> Path:
    """The binary that tests/heed.py drives: a server that has LMDB open through the real heed."""
    try:
        return heed.build()
    except heed.HeedError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def localstack_url(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty destination in LocalStack for this test alone, with its credentials in the environment."""
    return _fresh_destination(localstack_server, monkeypatch)


@pytest.fixture
def localstack_eu_url(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """As ``localstack_url``, in the other region."""
    return _fresh_destination(localstack_server, monkeypatch, EU_BUCKET, EU_REGION)


@pytest.fixture
def seaweed_url(seaweed_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty destination in SeaweedFS for this test alone, with its credentials in the environment."""
    return _fresh_destination(seaweed_server, monkeypatch)


def _fresh_destination(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, bucket: str = BUCKET, region: str = REGION
) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    return f"s3://{bucket}/{secrets.token_hex(8)}?endpoint={server.endpoint}&region={region}"


def _start(start: Callable[[], AbstractContextManager[S3Server]]) -> Iterator[S3Server]:
    try:
        context = start()
        server = context.__enter__()
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield server
    finally:
        context.__exit__(None, None, None)


@contextmanager
def _seaweed_with_bucket() -> Iterator[S3Server]:
    with seaweed() as server:
        # Not boto3's default session: it keeps the first credentials that it finds.
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=server.endpoint,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=REGION,
        )
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield server
