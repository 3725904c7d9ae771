"""One bucket over boto3: the client, retries, and errors in our own words."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header

from archiver.aws import AwsCredentials
from archiver.buffers import Buffer
from archiver.errors import ArchiverError, ConfigError, NotFoundError
from archiver.stores.abandonment import Abandonment, Generations
from archiver.stores.limits import Limiter
from archiver.stores.retry import Retry
from archiver.stores.s3_answers import check_answer
from archiver.stores.s3_bodies import PacedBody
from archiver.stores.s3_completeness import refuse_short_body, require_whole_heads
from archiver.stores.s3_errors import S3_ERRORS, S3Error, error_code, is_refusal, is_throttling, is_transient, translate
from archiver.stores.s3_options import S3Options
from archiver.stores.s3_proxies import check_proxy, is_private_way

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

# Connections are made when they are needed; one that exceeds the pool is closed after its request.
_POOL = 64
# Seconds, for a store that copies a large object before it answers anything.
_PATIENCE = 600.0
# auto means path where an endpoint is given, and otherwise what the bucket's name allows.
_STYLES: Mapping[bool | None, Literal["auto", "path", "virtual"]] = {None: "auto", True: "path", False: "virtual"}

# botocore logs header values at debug level, signatures and session tokens among them.
logging.getLogger("botocore").setLevel(logging.INFO)
# It writes a stack trace of what it raises as well.
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

require_whole_heads()


class S3Connection:
    """Sends single requests to one bucket; thread-safe."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        options: S3Options,
        retry: Retry | None = None,
        *,
        upload: Limiter | None = None,
        download: Limiter | None = None,
    ) -> None:
        self.bucket = bucket
        self.download = download
        self._upload = upload
        self.work = Generations()
        self.retry = retry or Retry(is_transient, is_throttling, attempts=options.attempts)
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}
        self._sent: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._base = f"{prefix}/" if prefix else ""
        self._options = options
        self._session = self._open_session()
        self._credentials = AwsCredentials(self._session, f"s3://{bucket}")
        self.client = self._connect(options.read_timeout)
        self._patient: S3Client | None = None
        self.begun = False
        """Something was created. A run that fails from now on has been in vain, so that even a question is worth as
        much patience as an upload."""
        self.endpoint = self.client.meta.endpoint_url
        check_proxy(self.endpoint)

    def patient_client(self) -> "S3Client":
        """A client for requests that a store may answer after many minutes."""
        with self._lock:
            if self._patient is None:
                self._patient = self._connect(max(_PATIENCE, self._options.read_timeout))
            return self._patient

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were sent, repeated ones included, by S3's name of the operation."""
        with self._lock:
            return dict(self._sent)

    def full_key(self, key: str) -> str:
        """``key``, or a prefix of keys, as the bucket knows it."""
        return self._base + key

    def own_key(self, full_key: str) -> str:
        """The inverse of full_key."""
        return full_key.removeprefix(self._base)

    def address(self, key: str) -> dict[str, Any]:
        """``key`` as the parameters of a request."""
        return self.bucket_address() | {"Key": self.full_key(key)}

    def bucket_address(self) -> dict[str, Any]:
        """The bucket, and who pays, as the parameters of a request about its keys."""
        return {"Bucket": self.bucket, **self._payer}

    def place(self, key: str) -> str:
        """``key`` for a person to read."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    def body(self, data: Buffer, abandonment: Abandonment) -> PacedBody:
        """``data`` as the body of one attempt of a request; sending it fails once it was given up."""
        return PacedBody(data, self._upload, abandonment, self.endpoint)

    def send(
        self,
        action: str,
        key: str,
        request: Callable[[], T],
        *,
        patient: bool = False,
        abandonment: Abandonment | None = None,
    ) -> T:
        """The result of ``request``, repeated while it fails transiently; raises what botocore raises, and
        ``StorageError`` for lack of credentials, or when it was given up.

        ``action`` is the permission that the request needs, such as ``s3:PutObject``; ``patient`` as in ``Retry.call``.
        """
        ending = abandonment or self.work.current()

        def attempt() -> T:
            ending.check(self.place(key))
            self._credentials.renew()
            return request()

        def describe(error: Exception) -> str:
            return self._translate(error, action, key).message if isinstance(error, S3_ERRORS) else str(error)

        return self.retry.call(attempt, describe=describe, patient=patient, abandonment=ending)

    def call(
        self,
        action: str,
        key: str,
        request: Callable[[], T],
        *,
        patient: bool = False,
        abandonment: Abandonment | None = None,
    ) -> T:
        """Like send, with errors translated."""
        try:
            return self.send(action, key, request, patient=patient, abandonment=abandonment)
        except S3_ERRORS as error:
            raise self.translated(error, action, key) from error

    def translated(self, error: S3Error, action: str, key: str) -> ArchiverError:
        """``error`` in our words.

        A store may answer 403 for a key that does not exist where listing is allowed below a prefix only, as the
        policies in docs/iam/ have it. A listing of that very key tells which it is. It also has the reason that the
        answer to a HEAD, which has no body, cannot give.
        """
        if action == "s3:GetObject" and is_refusal(error):
            try:
                if self._is_absent(key):
                    return NotFoundError(f"{self.place(key)} does not exist")
            except S3_ERRORS as other:
                if error_code(error).isdigit():
                    error = other
        return self._translate(error, action, key)

    def _translate(self, error: S3Error, action: str, key: str) -> ArchiverError:
        return translate(error, action=action, place=self.place(key), endpoint=self.endpoint)

    def close(self) -> None:
        """Release the connections."""
        self.client.close()
        if self._patient is not None:
            self._patient.close()

    def _is_absent(self, key: str) -> bool:
        """Whether the bucket says that there is no such key; raises what botocore raises."""
        request = self.bucket_address() | {"Prefix": self.full_key(key), "MaxKeys": 1}
        page = self.send("s3:ListBucket", key, lambda: self.client.list_objects_v2(**request))
        # The key itself comes first of all that begin with it.
        found = [item["Key"] for item in page.get("Contents", [])]
        return self.full_key(key) not in found and not (page["IsTruncated"] and not found)

    def _before_send(self, event_name: str, request: Any, **_: object) -> None:
        with self._lock:
            self._sent[event_name.rpartition(".")[2]] += 1
        if isinstance(request.body, PacedBody):
            request.body.begin()

    def _open_session(self) -> boto3.session.Session:
        try:
            return boto3.session.Session(profile_name=self._options.profile, region_name=self._options.region)
        except BotoCoreError as error:
            raise self._unconnected(error) from error

    def _connect(self, read_timeout: float) -> "S3Client":
        options = self._options
        if options.ca_bundle is not None and not Path(options.ca_bundle).is_file():
            raise ConfigError(f"destination option ca_bundle: {options.ca_bundle} does not exist")
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=_POOL,
            connect_timeout=options.connect_timeout,
            read_timeout=read_timeout,
            tcp_keepalive=True,
            s3={"addressing_style": _STYLES[options.path_style]},
            # Checksums are computed by us, in headers: botocore's own would come in trailers, which not every
            # store takes.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            client = self._session.client(
                "s3",
                # Requests to AWS itself are then redirected or refused with the bucket's region in the message.
                region_name=self._session.region_name or "us-east-1",
                endpoint_url=options.endpoint,
                verify=options.ca_bundle,
                config=config,
            )
        except BotoCoreError as error:
            raise self._unconnected(error) from error
        except ValueError as error:
            raise ConfigError(f"destination option endpoint: {str(error).lower()}") from error
        # Where nobody can alter a body on its way, its SHA-256 in the signature adds nothing, and costs both sides much
        # of their time. Over plain HTTP to another host whoever sits between could alter a part and its CRC-32 alike.
        # It is set only here because the endpoint may come from the environment or the profile.
        if is_private_way(client.meta.endpoint_url):
            client.meta.config.s3["payload_signing_enabled"] = False  # type: ignore[attr-defined]  # not in the stubs
        events = client.meta.events
        # botocore waits for "100 Continue" before each body, for ever if the connection ends within those words, and a
        # second where a server does not say them.
        events.unregister("before-call.s3", add_expect_header)
        events.register("before-send.s3", self._before_send)
        # Before botocore's own handler, which looks for errors in bodies.
        events.register_first("before-parse.s3", refuse_short_body)
        events.register("response-received.s3", check_answer)
        return client

    def _unconnected(self, error: BotoCoreError) -> ArchiverError:
        place = f"s3://{self.bucket}"
        return translate(error, action="", place=place, endpoint=self._options.endpoint or place)
