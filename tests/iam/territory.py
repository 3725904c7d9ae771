"""A bucket of its own in SeaweedFS, and users of it with policies of their own."""

import functools
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import boto3
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.iam.calls import Call
from tests.iam.cases import ETAG, EXISTING, UPLOAD
from tests.iam.policies import Policy, fill_in
from tests.servers.localstack import REGION
from tests.servers.process import S3Server
from tests.waiting import PATIENCE

_SETTLED = PATIENCE
"""Seconds within which a new user's policy is in force."""
_PERMITTED = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.NOT_IMPLEMENTED)
"""Permitted, although there is no such setting, the bucket is not empty, or SeaweedFS does not have the feature."""
_NO_OBJECT_LOCK = "InvalidRequest"
"""SeaweedFS's answer to those who may set a retention, in a bucket without Object Lock."""


@dataclass(frozen=True)
class Keys:
    """The credentials of one user."""

    access_key: str
    secret_key: str

    @property
    def environment(self) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


@dataclass(frozen=True)
class Territory:
    """``bucket``, and the ``prefix`` that the policies are filled in with."""

    server: S3Server
    bucket: str
    prefix: str

    @classmethod
    def create(cls, server: S3Server, *, locking: bool = False) -> "Territory":
        """A bucket with a random name, empty; with Object Lock where it is to be ``locking``."""
        territory = cls(server, f"iam-{secrets.token_hex(8)}", secrets.token_hex(4))
        territory.client(territory.admin).create_bucket(Bucket=territory.bucket, ObjectLockEnabledForBucket=locking)
        return territory

    @property
    def admin(self) -> Keys:
        """Those of the server's owner, who may do everything."""
        return Keys(self.server.access_key, self.server.secret_key)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}?endpoint={self.server.endpoint}&region={REGION}"

    def client(self, keys: Keys, service: str = "s3") -> Any:
        """boto3's client with ``keys``."""
        return _client(self.server.endpoint, keys, service)

    def user(self, *policies: Policy) -> Keys:
        """A new user, to whom ``policies``, filled in, are attached and nothing else."""
        iam = self.client(self.admin, "iam")
        name = f"user-{secrets.token_hex(8)}"
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys = Keys(key["AccessKeyId"], key["SecretAccessKey"])
        for number, policy in enumerate(policies):
            document = json.dumps(fill_in(policy, self.bucket, self.prefix))
            # Not PutUserPolicy: there SeaweedFS knows no Deny and fewer actions.
            created = iam.create_policy(PolicyName=f"policy-{number}-of-{name}", PolicyDocument=document)
            iam.attach_user_policy(UserName=name, PolicyArn=created["Policy"]["Arn"])
        self._wait_for(keys)
        return keys

    def prepare(self) -> None:
        """Create, as the admin, the keys that the cases need."""
        admin = self.client(self.admin)
        for key in EXISTING:
            admin.put_object(Bucket=self.bucket, Key=fill_in(key, self.bucket, self.prefix), Body=key.encode())

    def is_allowed(self, keys: Keys, call: Call) -> bool:
        """Whether the store lets the holder of ``keys`` make ``call``."""
        call = call.at(self.bucket, self.prefix)
        parameters = self._with_upload(call.parameters) if "UploadId" in call.parameters else call.parameters
        return self._permits(self.client(keys), Call(call.operation, parameters))

    def _permits(self, client: Any, call: Call) -> bool:
        try:
            answer = getattr(client, xform_name(call.operation))(**call.parameters)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == HTTPStatus.FORBIDDEN:
                return False
            if status in _PERMITTED or error.response["Error"]["Code"] == _NO_OBJECT_LOCK:
                return True
            # Such as a malformed request: no proof of any right.
            raise
        # DeleteObjects answers for each key.
        return not answer.get("Errors")

    def _with_upload(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """``parameters`` with an upload that the admin has begun, and the part that he has sent."""
        admin = self.client(self.admin)
        place = {"Bucket": parameters["Bucket"], "Key": parameters["Key"]}
        upload = admin.create_multipart_upload(**place)["UploadId"]
        part = admin.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")
        filled: dict[str, Any] = json.loads(
            json.dumps({name: value for name, value in parameters.items() if name != "Body"})
            .replace(UPLOAD, upload)
            .replace(ETAG, part["ETag"].strip('"'))
        )
        return filled | ({"Body": parameters["Body"]} if "Body" in parameters else {})

    def _wait_for(self, keys: Keys) -> None:
        """Until the policy is in force: before, its user may do nothing at all, and all of them may list."""
        client = self.client(keys)
        deadline = time.monotonic() + _SETTLED
        listing = Call("ListObjectsV2", {"Bucket": self.bucket, "Prefix": f"{self.prefix}/"})
        while not self._permits(client, listing):
            assert time.monotonic() < deadline, "the policy did not come into force"
            time.sleep(0.05)


@functools.lru_cache(maxsize=16)
def _client(endpoint: str, keys: Keys, service: str) -> Any:
    # Kept, because making one takes longer than most requests. Not of boto3's default session: it keeps the first
    # credentials that it finds.
    session: Any = boto3.session.Session(keys.access_key, keys.secret_key, region_name=REGION)
    return session.client(service, endpoint_url=endpoint)
