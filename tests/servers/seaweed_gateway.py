"""A further S3 gateway to a running SeaweedFS: over TLS, or with a security token service that it enforces."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.servers.process import S3Server, answers, free_ports, running
from tests.servers.seaweed import FILER, GRPC_SHADOW, IDENTITIES, install, remove_sockets
from tests.servers.tls import Certificate

ROLE = "arn:aws:iam::000000000000:role/backup"
"""What may be assumed at a gateway with a token service; it may do everything in S3."""
AUDIENCE = "sts.amazonaws.com"


@contextmanager
def secure_gateway(server: S3Server, certificate: Certificate) -> Iterator[S3Server]:
    """What ``server`` holds, over HTTPS."""
    with _gateway(server, certificate=certificate) as (_, port):
        yield S3Server(f"https://127.0.0.1:{port}", server.access_key, server.secret_key)


@contextmanager
def plain_gateway(server: S3Server) -> Iterator[S3Server]:
    """What ``server`` holds, also with the bucket in the host name: ``BUCKET.localhost``."""
    with _gateway(server) as (port, _):
        yield S3Server(f"http://127.0.0.1:{port}", server.access_key, server.secret_key)


@contextmanager
def token_gateway(server: S3Server, issuer: str) -> Iterator[S3Server]:
    """What ``server`` holds, for temporary credentials too. They are given out at the same endpoint, to those who
    have the server's own and to holders of a token that ``issuer`` signed, whose keys are at ``issuer``/keys."""
    with _gateway(server, service=_token_service(issuer)) as (port, _):
        yield S3Server(f"http://127.0.0.1:{port}", server.access_key, server.secret_key)


@contextmanager
def _gateway(
    server: S3Server, *, certificate: Certificate | None = None, service: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, int]]:
    """Its ports for HTTP and HTTPS."""
    binaries = install()
    filer = (urlsplit(server.endpoint).port or 0) + FILER
    with tempfile.TemporaryDirectory(prefix="seaweed-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        port = free_ports(2, shadow=GRPC_SHADOW)
        (directory / "s3.json").write_text(json.dumps(IDENTITIES))
        command = [
            str(binaries / "weed"),
            f"-logdir={directory}",
            "s3",
            f"-filer=127.0.0.1:{filer}",
            "-ip.bind=127.0.0.1",
            f"-port={port}",
            f"-config={directory / 's3.json'}",
            # So that it finds the bucket in http://BUCKET.localhost:PORT too.
            "-domainName=localhost",
            "-autoCreateBucket=false",
            "-port.iceberg=0",
            "-port.lance=0",
            f"-localSocket={directory / 's3.sock'}",
        ]
        if certificate is not None:
            command += [f"-port.https={port + 1}", f"-cert.file={certificate.chain}", f"-key.file={certificate.key}"]
        if service is not None:
            (directory / "iam.json").write_text(json.dumps(service))
            command.append(f"-iam.config={directory / 'iam.json'}")
        environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
        with running(
            command,
            environment=environment,
            directory=directory,
            ready=lambda: answers(f"http://127.0.0.1:{port}/", status=403),
        ):
            yield port, port + 1
    remove_sockets([port])


def _token_service(issuer: str) -> Mapping[str, Any]:
    everything = {"Effect": "Allow", "Action": ["s3:*", "sts:*"], "Resource": ["*"]}
    anybody = {"Effect": "Allow", "Principal": "*", "Action": ["sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"]}
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "seaweedfs-sts",
            "signingKey": "dGVzdC1vbmx5LXNpZ25pbmcta2V5LTMyLWNoYXJhY3RlcnM=",
        },
        "providers": [
            {
                "name": "cluster",
                "type": "oidc",
                "enabled": True,
                "config": {"issuer": issuer, "clientId": AUDIENCE, "jwksUri": f"{issuer}/keys"},
            }
        ],
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [
            {
                "roleName": "backup",
                "roleArn": ROLE,
                "trustPolicy": {"Version": "2012-10-17", "Statement": [anybody]},
                "attachedPolicies": ["everything"],
            }
        ],
        "policies": [{"name": "everything", "document": {"Version": "2012-10-17", "Statement": [everything]}}],
    }
