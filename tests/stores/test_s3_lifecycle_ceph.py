"""Rules of others in Ceph, which answers in other words than it was sent, and forgets what it does not know."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from archiver.config import DEFAULT_CLASSES
from archiver.retention.policy import own_name, wanted_rules
from archiver.stores.destination import S3Destination, parse_destination
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_lifecycle import change_rules, read_lifecycle, read_rules
from archiver.stores.s3_rules import full_rules
from tests.servers.ceph import ceph
from tests.servers.process import ServerError

pytestmark = pytest.mark.slow

BASE = "p/"
WANTED = full_rules(wanted_rules(DEFAULT_CLASSES, versioned=True), BASE)
TAGS = [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]
FILTERS: dict[str, dict[str, Any]] = {
    "all": {"Filter": {"Prefix": ""}},
    "prefix": {"Filter": {"Prefix": "q/"}},
    "old": {"Prefix": "q/"},
    "tag": {"Filter": {"Tag": TAGS[0]}},
    "tags": {"Filter": {"And": {"Tags": TAGS}}},
    "prefix and tag": {"Filter": {"And": {"Prefix": "q/", "Tags": TAGS[:1]}}},
    "prefix and tags": {"Filter": {"And": {"Prefix": "q/", "Tags": TAGS}}},
}


@dataclass(frozen=True)
class Bucket:
    client: Any
    name: str
    connection: S3Connection


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    try:
        context = ceph(3600)
        server = context.__enter__()
    except ServerError as error:
        pytest.skip(str(error))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
            patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
            url = f"s3://ruled/p?endpoint={server.endpoint}&region=us-east-1"
            destination = parse_destination(url)
            assert isinstance(destination, S3Destination)
            client: Any = boto3.session.Session().client(
                "s3", endpoint_url=server.endpoint, region_name=destination.options.region
            )
            connection = S3Connection(destination.bucket, destination.prefix, destination.options)
            with closing(client), closing(connection):
                client.create_bucket(Bucket=destination.bucket)
                yield Bucket(client, destination.bucket, connection)
    finally:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("name", FILTERS)
def test_a_rule_of_somebody_else_stays_as_it_is(bucket: Bucket, name: str) -> None:
    rule = {"ID": name, "Status": "Enabled", "Expiration": {"Days": 1}, **FILTERS[name]}
    bucket.client.put_bucket_lifecycle_configuration(Bucket=bucket.name, LifecycleConfiguration={"Rules": [rule]})
    before = read_lifecycle(bucket.connection)
    change_rules(bucket.connection, before, WANTED, sleep=lambda _: None)
    after = read_lifecycle(bucket.connection)
    assert [item for item in after.rules if item.rule.name == name] == list(before.rules)
    ours = [item for item in read_rules(bucket.connection) if item.name.startswith(own_name(BASE))]
    assert sorted(ours, key=str) == sorted(WANTED, key=str)
