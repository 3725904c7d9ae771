"""Stores in which time can pass."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

import boto3
import pytest

from tests.iam.territory import Territory
from tests.servers.ceph import ADMIN_ARN, LIMITED_ARN, CephServer, ceph
from tests.servers.localstack import REGION
from tests.servers.process import S3Server, ServerError
from tests.servers.seaweed_lifecycle import Time, time_of

DAY_SECONDS = 3
"""How long Ceph's days last."""
BUCKET = "year"
WITHOUT_DELETION = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": [LIMITED_ARN]},
            "Action": ["s3:List*", "s3:Get*", "s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
        },
        # The bucket's owner does not own what others create in it.
        {
            "Effect": "Allow",
            "Principal": {"AWS": [ADMIN_ARN]},
            "Action": "s3:*",
            "Resource": f"arn:aws:s3:::{BUCKET}/*",
        },
    ],
}
"""What the limited user may do in it."""
_Entered = TypeVar("_Entered")


@pytest.fixture
def territory(seaweed_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Territory:
    """A bucket in SeaweedFS, with its owner's credentials in the environment."""
    territory = Territory.create(seaweed_server)
    for name, value in territory.admin.environment.items():
        monkeypatch.setenv(name, value)
    return territory


@pytest.fixture
def bucket_time(territory: Territory) -> Iterator[Time]:
    """The time of that bucket."""
    with ExitStack() as resources:
        yield _enter(resources, time_of(territory.server, territory.bucket))


@pytest.fixture
def ceph_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CephServer]:
    """With an empty bucket ``BUCKET`` under the policy ``WITHOUT_DELETION``, and its owner's credentials in the
    environment."""
    with ExitStack() as resources:
        server = _enter(resources, ceph(DAY_SECONDS))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        client = boto3.session.Session().client("s3", endpoint_url=server.endpoint, region_name=REGION)
        client.create_bucket(Bucket=BUCKET)
        client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(WITHOUT_DELETION))
        client.close()
        yield server


def _enter(resources: ExitStack, context: AbstractContextManager[_Entered]) -> _Entered:
    try:
        return resources.enter_context(context)
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
