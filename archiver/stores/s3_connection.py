"""One bucket over boto3: the client, retries, and errors in our own words."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from archiver.errors import ArchiverError, ConfigError
from archiver.stores.retry import Retry
from archiver.stores.s3_errors import S3_ERRORS, S3Error, is_transient, translate
from archiver.stores.s3_options import S3Options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

# Connections are made when they are needed; one that exceeds the pool is closed after its request.
_POOL = 64

# botocore logs header values at debug level, signatures and session tokens among them.
logging.getLogger("botocore").setLevel(logging.INFO)


class S3Connection:
    """Sends single requests to one bucket; thread-safe."""

    def __init__(self, bucket: str, prefix: str, options: S3Options, retry: Retry | None = None) -> None:
        self.bucket = bucket
        self.retry = retry or Retry(is_transient, attempts=options.attempts)
        self._base = f"{prefix}/" if prefix else ""
        self.client = self._connect(options)
        self.endpoint = self.client.meta.endpoint_url

    def full_key(self, key: str) -> str:
        """``key``, or a prefix of keys, as the bucket knows it."""
        return self._base + key

    def own_key(self, full_key: str) -> str:
        """The inverse of full_key."""
        return full_key.removeprefix(self._base)

    def address(self, key: str) -> dict[str, Any]:
        """``key`` as the parameters of a request."""
        return {"Bucket": self.bucket, "Key": self.full_key(key)}

    def place(self, key: str) -> str:
        """``key`` for a person to read."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def send(self, action: str, key: str, request: Callable[[], T]) -> T:
        """The result of ``request``, repeated while it fails transiently; raises what botocore raises.

        ``action`` is the permission that the request needs, such as ``s3:PutObject``.
        """
        return self.retry.call(request, describe=f"{action} {self.place(key)}")

    def call(self, action: str, key: str, request: Callable[[], T]) -> T:
        """Like send, with errors translated."""
        try:
            return self.send(action, key, request)
        except S3_ERRORS as error:
            raise self.translated(error, action, key) from error

    def translated(self, error: S3Error, action: str, key: str) -> ArchiverError:
        """``error`` in our words."""
        return translate(error, action=action, place=self.place(key), endpoint=self.endpoint)

    def close(self) -> None:
        """Release the connections."""
        self.client.close()

    def _connect(self, options: S3Options) -> "S3Client":
        if options.ca_bundle is not None and not Path(options.ca_bundle).is_file():
            raise ConfigError(f"destination option ca_bundle: {options.ca_bundle} does not exist")
        path_style = options.endpoint is not None if options.path_style is None else options.path_style
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_POOL,
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            tcp_keepalive=True,
            s3={"addressing_style": "path" if path_style else "auto"},
            # Checksums are computed by us, in headers: botocore's own would come in trailers, which not every
            # store takes.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            session = boto3.session.Session(profile_name=options.profile, region_name=options.region)
            return session.client(
                "s3",
                # Requests to AWS itself are then redirected or refused with the bucket's region in the message.
                region_name=session.region_name or "us-east-1",
                endpoint_url=options.endpoint,
                verify=options.ca_bundle,
                config=config,
            )
        except BotoCoreError as error:
            place = f"s3://{self.bucket}"
            raise translate(error, action="", place=place, endpoint=options.endpoint or place) from error
        except ValueError as error:
            raise ConfigError(f"destination option endpoint: {str(error).lower()}") from error
