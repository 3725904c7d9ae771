"""boto3 through the proxy, with two servers behind it."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.client import Config
from botocore.exceptions import ClientError

from tests.conftest import BUCKET
from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.servers.fault_schedules import Fault, Kind, every, in_order, no_faults
from tests.servers.localstack import REGION
from tests.servers.process import S3Server

BODY = bytes(range(256)) * 400


@pytest.fixture(params=["localstack_server", "seaweed_server"])
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3(s3_proxy: FaultProxy, s3_server: S3Server) -> Iterator[Any]:
    # Not boto3's default session: it keeps the first credentials that it finds.
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=s3_proxy.endpoint,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


def test_boto3_through_the_proxy(s3: Any, s3_proxy: FaultProxy) -> None:
    body = BODY * 60
    s3.put_object(Bucket=BUCKET, Key="proxied", Body=body)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    address = {"Bucket": BUCKET, "Key": "parts", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**address, PartNumber=number, Body=body)["ETag"]}
        for number in (1, 2)
    ]
    s3.complete_multipart_upload(**address, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket=BUCKET, Key="proxied")["Body"].read() == body
    assert s3.get_object(Bucket=BUCKET, Key="parts", Range=f"bytes={len(body)}-")["Body"].read() == body
    assert s3.head_object(Bucket=BUCKET, Key="parts")["ContentLength"] == 2 * len(body)
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="p")["Contents"]] == ["parts", "proxied"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=BUCKET, Key="proxied", Body=b"other", IfNoneMatch="*")
    for key in ("parts", "proxied"):
        s3.delete_object(Bucket=BUCKET, Key=key)
    assert not s3_proxy.hits


def test_a_server_refuses_an_altered_request(s3: Any, s3_proxy: FaultProxy) -> None:
    s3_proxy.follow(every(1, Fault(Kind.CORRUPTED_REQUEST)))
    with pytest.raises(ClientError, match=r"BadDigest|InvalidRequest|ChecksumMismatch|SHA256Mismatch|SignatureDoesNot"):
        s3.put_object(Bucket=BUCKET, Key="altered", Body=BODY)
    assert s3_proxy.hits == {Kind.CORRUPTED_REQUEST: 1}
    s3_proxy.follow(no_faults)
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=BUCKET, Key="altered")


@pytest.mark.parametrize(("kind", "message"), [(Kind.INTERNAL_ERROR, "InternalError"), (Kind.SLOW_DOWN, "SlowDown")])
def test_boto3_understands_a_refusal(s3: Any, s3_proxy: FaultProxy, kind: Kind, message: str) -> None:
    s3_proxy.follow(in_order(Fault(kind)))
    with pytest.raises(ClientError, match=message):
        s3.put_object(Bucket=BUCKET, Key="refused", Body=BODY)
    assert s3_proxy.hits == {kind: 1}
    s3.list_objects_v2(Bucket=BUCKET, Prefix="refused")


def test_a_create_whose_reply_was_lost_has_happened(s3: Any, s3_proxy: FaultProxy) -> None:
    s3_proxy.follow(in_order(Fault(Kind.LOST_REPLY)))
    with pytest.raises(Exception, match="Connection was closed before"):
        s3.put_object(Bucket=BUCKET, Key="lost", Body=BODY)
    assert s3_proxy.hits == {Kind.LOST_REPLY: 1}
    assert s3.head_object(Bucket=BUCKET, Key="lost")["ContentLength"] == len(BODY)
    s3.delete_object(Bucket=BUCKET, Key="lost")
