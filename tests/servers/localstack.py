"""LocalStack without Docker: S3, KMS, STS and IAM of AWS. It checks no credentials. Standard library only."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.installation import ensure_environment
from tests.servers.process import S3Server, answers, free_ports, running

REQUIREMENTS = ("localstack-core[runtime]==4.10.0",)
# 4.10.0 is the newest whose KMS works on Python 3.11; it does not pin these, and their later releases break it.
CONSTRAINTS = ("cbor2<6", "pyopenssl<26", "localstack-twisted<26", "psutil<7.2")
REGION = "us-east-1"


@contextmanager
def localstack() -> Iterator[S3Server]:
    """A LocalStack of its own on a free port of 127.0.0.1, empty; gone, with its data, at the end of the block."""
    binaries = ensure_environment("localstack-venv", REQUIREMENTS, CONSTRAINTS)
    with tempfile.TemporaryDirectory(prefix="localstack-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        address = f"127.0.0.1:{free_ports(1)}"
        with running(
            [str(binaries / "python"), "-m", "localstack.runtime.main"],
            environment=_environment(directory, address),
            directory=directory,
            ready=lambda: answers(f"http://{address}/_localstack/health"),
        ):
            yield S3Server(endpoint=f"http://{address}", access_key="test", secret_key="test")


def _environment(directory: Path, address: str) -> dict[str, str]:
    temporary = directory / "tmp"
    temporary.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GATEWAY_LISTEN": address,
        # The default server ignores the address and listens on all interfaces.
        "GATEWAY_SERVER": "hypercorn",
        "FILESYSTEM_ROOT": str(directory / "root"),
        "TMPDIR": str(temporary),
        "SERVICES": "s3,kms,sts,iam",
        "STRICT_SERVICE_LOADING": "1",
        "EAGER_SERVICE_LOADING": "1",
        "OVERRIDE_IN_DOCKER": "0",
        "DISABLE_EVENTS": "1",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DNS_ADDRESS": "0",
        "PERSISTENCE": "0",
        "S3_SKIP_KMS_KEY_VALIDATION": "0",
    }
