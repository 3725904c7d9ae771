"""Where hosts in AWS find their credentials, as mocks: the real services exist in AWS alone.

Each one follows the published protocol as far as to refuse a client that does not. The credentials that they hand out
come from the function ``give``, which a test lets a real token service answer.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.servers.answering import Answer, AnsweringServer, Question, answering

ROLE_NAME = "backup"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Temporary credentials."""

    access_key: str
    secret_key: str
    token: str
    expires: datetime


Give = Callable[[], Credentials]


@contextmanager
def container_credentials(give: Give, authorization: str) -> Iterator[AnsweringServer]:
    """A mock of the endpoint of ECS and of EKS Pod Identity, for clients with this ``Authorization``."""

    def answer(question: Question) -> Answer:
        if question.fields.get("authorization") != authorization:
            return _document({"message": "unauthorized"}, status=401)
        return _document(_fields(give()))

    with answering(answer) as server:
        yield server


@contextmanager
def instance_metadata(give: Give) -> Iterator[AnsweringServer]:
    """A mock of EC2's instance metadata, version 2 alone: without a session token of its own it answers 401."""
    session = secrets.token_hex(16)
    base = "/latest/meta-data/iam/security-credentials/"

    def answer(question: Question) -> Answer:
        if (question.method, question.target) == ("PUT", "/latest/api/token"):
            if not question.fields.get("x-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
                return Answer(status=400)
            return Answer(session.encode())
        if question.fields.get("x-aws-ec2-metadata-token") != session:
            return Answer(status=401)
        if question.target == base:
            return Answer(ROLE_NAME.encode())
        if question.target == base + ROLE_NAME:
            return _document({"Code": "Success", "Type": "AWS-HMAC", **_fields(give())})
        return Answer(status=404)

    with answering(answer) as server:
        yield server


@contextmanager
def sso_portal(give: Give, bearer: str) -> Iterator[AnsweringServer]:
    """A mock of IAM Identity Center's portal, for the session whose access token is ``bearer``."""

    def answer(question: Question) -> Answer:
        if not question.target.startswith("/federation/credentials?"):
            return Answer(status=404)
        if question.fields.get("x-amz-sso_bearer_token") != bearer:
            error = {"x-amzn-ErrorType": "UnauthorizedException"}
            return _document({"message": "Session token not found or invalid"}, status=401, fields=error)
        given = give()
        credentials = {
            "accessKeyId": given.access_key,
            "secretAccessKey": given.secret_key,
            "sessionToken": given.token,
            "expiration": int(given.expires.timestamp() * 1000),
        }
        return _document({"roleCredentials": credentials})

    with answering(answer) as server:
        yield server


def _fields(given: Credentials) -> Mapping[str, str]:
    return {
        "AccessKeyId": given.access_key,
        "SecretAccessKey": given.secret_key,
        "Token": given.token,
        "Expiration": given.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _document(value: Mapping[str, object], status: int = 200, fields: Mapping[str, str] | None = None) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(fields or {})})
