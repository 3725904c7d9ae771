"""localstack/run: the command sees a working service, and nothing of it is left afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.process import REPOSITORY, S3Server, answers

RUN = REPOSITORY / "localstack" / "run"


@pytest.mark.usefixtures("localstack_server")
def test_the_command_finds_localstack_and_gives_the_exit_status() -> None:
    script = (
        "import os, boto3\n"
        "client = boto3.client('s3')\n"
        "client.create_bucket(Bucket='made-by-the-command')\n"
        "print(os.environ['AWS_ENDPOINT_URL'], [b['Name'] for b in client.list_buckets()['Buckets']])\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run([RUN, sys.executable, "-c", script], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    endpoint, _, buckets = done.stdout.strip().partition(" ")
    assert buckets == "['made-by-the-command']"
    assert not answers(f"{endpoint}/_localstack/health")


def test_without_a_command_it_explains_itself() -> None:
    done = subprocess.run([RUN], capture_output=True, text=True)
    assert done.returncode == 2
    assert "localstack/run COMMAND" in done.stderr


def test_servers_listen_on_loopback_only(localstack_server: S3Server, seaweed_server: S3Server) -> None:
    listening = [
        line.split()[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    ]
    for server in (localstack_server, seaweed_server):
        port = f":{int(server.endpoint.rpartition(':')[2]):04X}"
        assert [address for address in listening if address.endswith(port)] == [f"0100007F{port}"]
