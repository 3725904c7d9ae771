"""LocalStack's KMS in two regions: what its administrator does, and the environment that archiver finds it by."""

from typing import Any

import boto3
import pytest

from tests.servers.localstack import EU_REGION, REGION
from tests.servers.process import S3Server

ALIAS = "alias/archiver-test"
"""What localstack/ready.py calls a key of each region."""


class KmsService:
    """KMS with all rights. While the test runs, archiver asks it too: LocalStack checks no credentials."""

    def __init__(self, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        self.endpoint = server.endpoint
        session: Any = boto3.session.Session(server.access_key, server.secret_key)
        self._clients: dict[str, Any] = {
            region: session.client("kms", region_name=region, endpoint_url=server.endpoint)
            for region in (REGION, EU_REGION)
        }

    def client(self, region: str = REGION) -> Any:
        """boto3's client."""
        return self._clients[region]

    def key(self, region: str = REGION) -> str:
        """The ARN of the key that ``ALIAS`` names."""
        arn: str = self.client(region).describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
        return arn

    def alias(self, region: str = REGION) -> str:
        """The alias's ARN."""
        return self.key(region).partition(":key/")[0] + f":{ALIAS}"

    def new_key(self, **parameters: Any) -> str:
        """The ARN of a new key of the first region."""
        arn: str = self.client().create_key(**parameters)["KeyMetadata"]["Arn"]
        return arn

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
