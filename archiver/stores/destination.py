"""Destination URLs: ``file:///path`` and ``s3://bucket/prefix?option=value``. Reading one does no I/O."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec
from msgspec.structs import replace

from archiver.errors import ConfigError
from archiver.retention.attributes import Attribution, no_attributes
from archiver.stores.base import Store
from archiver.stores.journal import Journal
from archiver.stores.keys import is_key
from archiver.stores.limits import NO_LIMITS, Limits
from archiver.stores.local import LocalStore
from archiver.stores.s3_options import S3Options, changed_options, parse_options

_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}", re.ASCII)
_FORMS = "Use file:///absolute/path or s3://bucket/prefix?region=NAME."


class FileDestination(msgspec.Struct, frozen=True):
    """A directory on this host."""

    root: Path

    @property
    def display(self) -> str:
        """The URL, without secrets; parse_destination reads it back."""
        return self.root.as_uri()

    @property
    def identity(self) -> str:
        """Equal for two URLs of the same place."""
        return self.display


class S3Destination(msgspec.Struct, frozen=True):
    """A prefix, possibly empty, of a bucket."""

    bucket: str
    prefix: str
    options: S3Options = msgspec.field(default_factory=S3Options)

    @property
    def display(self) -> str:
        """The URL with every option that was set anywhere, without secrets; parse_destination reads it back."""
        query = urlencode(changed_options(self.options), quote_via=quote, safe=":/")
        return self._place + (f"?{query}" if query else "")

    @property
    def identity(self) -> str:
        """Equal for two URLs of the same place, however they reach it."""
        return f"{self._place} at {self.options.endpoint}"

    @property
    def _place(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


Destination = FileDestination | S3Destination


def parse_destination(url: str, options: Mapping[str, object] = MappingProxyType({})) -> Destination:
    """The place that ``url`` and ``options``, a table of the configuration, name; raises ``ConfigError``."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError("malformed destination URL", hint=_FORMS) from None
    # First of all: no later message may repeat a password.
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "the destination URL holds credentials",
            hint="Remove them: they come from the environment (AWS_ACCESS_KEY_ID, …), a profile or the host's role.",
        )
    if parts.fragment:
        raise ConfigError("the destination URL has a fragment ('#…')", hint=_FORMS)
    if parts.scheme == "file":
        return _file_destination(url, parts, options)
    if parts.scheme == "s3":
        return _s3_destination(parts, options)
    raise ConfigError(f"unknown scheme {parts.scheme!r} of a destination: expected file or s3", hint=_FORMS)


def with_surroundings(destination: Destination, environ: Mapping[str, str]) -> Destination:
    """The same place with the endpoint and region that the variables ``environ`` give the AWS tools, so that its URL
    names it on another machine as well."""
    if not isinstance(destination, S3Destination):
        return destination
    options = destination.options
    endpoint = options.endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    region = options.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return replace(destination, options=replace(options, endpoint=endpoint, region=region))


def open_store(
    destination: Destination,
    journal_path: Path | None = None,
    attributes: Attribution = no_attributes,
    limits: Limits = NO_LIMITS,
) -> Store:
    """The store at ``destination``; no request is made yet. The caller closes it.

    ``attributes`` say with what keys are created in it. Whoever creates any in a class gives those of its
    configuration: without them objects get no storage class but the destination's, and nothing is locked.

    What is open in it is journalled beside ``journal_path``, in a file of this destination's own; without a path a
    later run cannot recover what a killed one left, so that is for reading only. ``limits`` hold for all that passes
    through the store, of all threads together.
    """
    journal = Journal(None if journal_path is None else _journal_file(journal_path, destination))
    if isinstance(destination, FileDestination):
        return LocalStore(destination.root, journal, limits=limits)
    # boto3 takes a quarter of a second to import.
    from archiver.stores.s3 import S3Store

    return S3Store(
        destination.bucket,
        destination.prefix,
        destination.options,
        journal=journal,
        attributes=attributes,
        url=destination.display,
        limits=limits,
    )


def _journal_file(path: Path, destination: Destination) -> Path:
    return path.with_name(f"{path.name}-{hashlib.sha256(destination.identity.encode()).hexdigest()[:16]}")


def _file_destination(url: str, parts: SplitResult, options: Mapping[str, object]) -> FileDestination:
    if parts.query or options:
        raise ConfigError("a file destination has no options", hint="Remove what follows '?', and the table's options.")
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/"):
        raise ConfigError(
            f"expected a file URL with an absolute path, got {url!r}", hint="Write file:///absolute/path."
        )
    if ".." in PurePosixPath(path).parts or not path.isprintable():
        raise ConfigError(f"unsafe path in the destination URL: {path!r}", hint="Write the directory's real path.")
    # pathlib keeps exactly two leading slashes, which POSIX treats apart.
    return FileDestination(Path("/" + path.lstrip("/")))


def _s3_destination(parts: SplitResult, options: Mapping[str, object]) -> S3Destination:
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise ConfigError(f"malformed bucket name in the destination URL: {bucket!r}", hint=_FORMS)
    if prefix and not is_key(prefix):
        raise ConfigError(
            f"malformed prefix in the destination URL: {prefix!r}",
            hint="Use segments of letters, digits, '.', '_' and '-', joined by single slashes.",
        )
    given = dict(options)
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in given:
            raise ConfigError(f"destination option {name!r} is given twice", hint="Give it in one place only.")
        given[name] = value
    return S3Destination(bucket, prefix, parse_options(given))
