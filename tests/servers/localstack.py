"""LocalStack without Docker: S3, KMS, STS and IAM of AWS. It checks no credentials. Standard library only."""

import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.installation import ensure_environment
from tests.servers.process import REPOSITORY, S3Server, ServerError, free_ports, running

REQUIREMENTS = ("localstack-core[runtime]==4.10.0",)
# 4.10.0 is the newest whose KMS works on Python 3.11; it does not pin these, and their later releases break it.
CONSTRAINTS = ("cbor2<6", "pyopenssl<26", "localstack-twisted<26", "psutil<7.2")
HOOK = REPOSITORY / "localstack" / "ready.py"
"""What LocalStack runs when it has started: it makes the buckets and the keys."""
REGION = "us-east-1"
_START = """
import sys
from localstack.services.s3 import provider
provider.DEFAULT_S3_TMP_DIR = sys.argv.pop()
from localstack.runtime.main import main
main()
"""
"""All LocalStacks of a machine would keep their objects in one directory, which no variable moves."""
EU_REGION = "eu-central-1"


def install() -> Path:
    """The ``bin`` directory of the environment that holds LocalStack; made once."""
    return ensure_environment("localstack-venv", REQUIREMENTS, CONSTRAINTS)


@contextmanager
def localstack(hook: Path = HOOK) -> Iterator[S3Server]:
    """A LocalStack of its own on a free port of 127.0.0.1, holding what ``hook`` has made; gone, with its data, at the
    end of the block."""
    binaries = install()
    with tempfile.TemporaryDirectory(prefix="localstack-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        endpoint = f"http://127.0.0.1:{free_ports(1)}"
        hooks = directory / "root" / "etc" / "localstack" / "init" / "ready.d"
        hooks.mkdir(parents=True)
        (hooks / hook.name).symlink_to(hook)
        with running(
            [str(binaries / "python"), "-c", _START, str(directory / "objects")],
            environment=_environment(directory, endpoint),
            directory=directory,
            ready=lambda: _has_run(hook, endpoint, directory / "output.log"),
        ):
            yield S3Server(endpoint, access_key="test", secret_key="test")


def _environment(directory: Path, endpoint: str) -> dict[str, str]:
    temporary = directory / "tmp"
    temporary.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GATEWAY_LISTEN": endpoint.removeprefix("http://"),
        # The default server ignores the address and listens on all interfaces.
        "GATEWAY_SERVER": "hypercorn",
        "FILESYSTEM_ROOT": str(directory / "root"),
        "TMPDIR": str(temporary),
        # For the hook; LocalStack itself does not look at it.
        "AWS_ENDPOINT_URL": endpoint,
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


def _has_run(hook: Path, endpoint: str, log: Path) -> bool:
    """Whether LocalStack is up and has run ``hook``; raises ``ServerError`` when that failed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint}/_localstack/init/ready", timeout=10) as response:
            stage = json.load(response)
    except OSError:
        return False
    if not stage["completed"]:
        return False
    states = [script["state"] for script in stage["scripts"]]
    if states != ["SUCCESSFUL"]:
        raise ServerError(f"{hook} failed in LocalStack ({states}):\n{log.read_text(errors='replace')[-2000:]}")
    return True
