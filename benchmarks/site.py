"""Where one contender works: an S3 server of its own, empty, on this host or at the end of a simulated line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from benchmarks.link import Line, Link, Traffic, link
from benchmarks.measure import processor_seconds, tree
from tests.servers.process import S3Server
from tests.servers.seaweed import seaweed

BUCKET = "bench"
REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Site:
    """A running server; clients use ``endpoint``, which leads over ``link`` if there is one."""

    server: S3Server
    server_pid: int
    endpoint: str
    link: Link | None

    def stored(self) -> int:
        """Bytes of all objects."""
        pages = _client(self.server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sum(item["Size"] for page in pages for item in page.get("Contents", []))

    def traffic(self) -> Traffic:
        """What has gone over the line until now; nothing where there is none."""
        return Traffic() if self.link is None else self.link.traffic()

    def server_seconds(self) -> float:
        """Processor time of the server until now."""
        return processor_seconds(self.server_pid)


@contextmanager
def site(line: Line | None) -> Iterator[Site]:
    """A fresh server with an empty bucket, until the end of the block; its data lie in ``tempfile``'s directory."""
    with seaweed() as server:
        _client(server).create_bucket(Bucket=BUCKET)
        pid = next(pid for pid in tree(os.getpid()) if Path(f"/proc/{pid}/comm").read_text() == "weed\n")
        if line is None:
            yield Site(server, pid, server.endpoint, None)
        else:
            port = urlsplit(server.endpoint).port
            assert port is not None
            with link(port, line) as running:
                yield Site(server, pid, f"http://127.0.0.1:{running.port}", running)


def _client(server: S3Server) -> Any:
    session: Any = boto3.session.Session()
    return session.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=REGION,
    )
