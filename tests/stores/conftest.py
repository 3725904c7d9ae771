"""Every store behind one fixture, with what a test must know of it beyond the protocol."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from msgspec.structs import replace

from archiver.retention.attributes import Attribution, no_attributes
from archiver.stores.base import Store
from archiver.stores.destination import S3Destination, open_store, parse_destination
from archiver.stores.journal import Journal
from archiver.stores.limits import NO_LIMITS, Limits
from archiver.stores.memory import MemoryStore
from archiver.stores.s3 import S3Store
from tests.stores.s3_help import PART, Open, impatient


@dataclass
class Subject:
    """A store under test."""

    name: str
    store: Store
    part: int
    """Bytes in one part, where the store works in parts; otherwise a small size."""
    leftovers: Callable[[], list[str]]
    """Open multipart uploads and temporary files, by name."""
    url: str | None
    """None where the store has no URL that another process can open."""
    journal: Path


@pytest.fixture(params=["memory", "local", "localstack", "seaweed"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    """Each store in turn, empty."""
    journal = tmp_path / "state" / "uploads"
    if request.param == "memory":
        yield Subject("memory", MemoryStore(), 1000, list, None, journal)
        return
    if request.param == "local":
        root = tmp_path / "destination"
        root.mkdir()
        url = root.as_uri()
    else:
        url = request.getfixturevalue(f"{request.param}_url") + f"&part_size={PART}&attempts=3"
        root = None
    store = open_store(parse_destination(url), journal)
    part = 1000 if root else PART
    yield Subject(request.param, store, part, lambda: partial_files(root) if root else open_uploads(url), url, journal)
    store.close()


def partial_files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*.partial")]


def open_uploads(url: str) -> list[str]:
    destination = parse_destination(url)
    assert isinstance(destination, S3Destination)
    # Not boto3's default session: it keeps the first credentials that it finds.
    client = boto3.session.Session().client(
        "s3", endpoint_url=destination.options.endpoint, region_name=destination.options.region
    )
    listing = client.list_multipart_uploads(Bucket=destination.bucket, Prefix=destination.prefix)
    client.close()
    return [upload["Key"] for upload in listing.get("Uploads", [])]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


@pytest.fixture(params=["localstack", "seaweed"])
def url(request: pytest.FixtureRequest) -> str:
    """A destination in each server in turn."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def open_s3(journal: Journal) -> Iterator[Open]:
    """Opens a store that retries at once, with options and ``attributes``; closed after the test."""
    opened: list[S3Store] = []

    def open_one(
        url: str, *, attributes: Attribution = no_attributes, limits: Limits = NO_LIMITS, **options: Any
    ) -> S3Store:
        destination = parse_destination(url)
        assert isinstance(destination, S3Destination)
        changed = replace(destination.options, **({"part_size": PART} | options))
        store = S3Store(
            destination.bucket,
            destination.prefix,
            changed,
            journal=journal,
            attributes=attributes,
            retry=impatient(4),
            limits=limits,
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()
