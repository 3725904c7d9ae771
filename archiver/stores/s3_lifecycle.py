"""A bucket's lifecycle rules over boto3: read, and changed without touching those of others."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from archiver.errors import ArchiverError, BusyError, RefusedError, StorageError
from archiver.retention.policy import own_name
from archiver.retention.rules import Rule
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, S3Error, error_code
from archiver.stores.s3_examination import is_denied, is_missing_request, reason
from archiver.stores.s3_rules import Lifecycle, bucket_rules, enabled_rules, meanings, name_in, with_rules

READ = "s3:GetLifecycleConfiguration"
WRITE = "s3:PutLifecycleConfiguration"
_ABSENT = "NoSuchLifecycleConfiguration"
_PAUSES = (0.5, 1, 2, 4, 8, 15)
"""Seconds after which a change that cannot be seen yet is looked for again: S3 shows it with a delay."""


def read_rules(connection: S3Connection) -> tuple[Rule, ...]:
    """The rules that are enabled, by prefixes of full keys; empty where the bucket has none.

    Raises ``RefusedError`` where these credentials may not read them, or the store knows no such thing.
    """
    return enabled_rules(_get(connection))


def read_lifecycle(connection: S3Connection) -> Lifecycle:
    """The whole configuration, as the store gave it; raises as ``read_rules``, and ``FormatError``."""
    raw = b""

    def keep(response_dict: Any, **_: object) -> None:
        nonlocal raw
        raw = response_dict["body"]

    with _handler(connection, "before-parse.s3.GetBucketLifecycleConfiguration", keep):
        answer = _get(connection)
    if not answer:
        return Lifecycle((), b"", None, _is_versioned(connection))
    minimum = answer.get("TransitionDefaultMinimumObjectSize")
    return Lifecycle(bucket_rules(answer, raw), raw, minimum, _is_versioned(connection))


def change_rules(
    connection: S3Connection,
    existing: Lifecycle,
    wanted: Sequence[Rule],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Replace archiver's rules for this destination by ``wanted``, rules of full keys; all others stay as they are.

    Raises ``BusyError`` when the bucket's rules are no longer ``existing`` just before the change: S3 itself has no way
    to make one depend on that. Raises ``StorageError`` when the store did not keep what it was sent, as those do that
    drop what they do not know.
    """
    text = with_rules(existing.raw, wanted, own_name(connection.full_key("")))
    now = read_lifecycle(connection)
    if _counted(now.raw) != _counted(existing.raw):
        raise BusyError(
            f"the lifecycle rules of s3://{connection.bucket} were changed meanwhile, by somebody else",
            hint="Look at archiver lifecycle plan again.",
        )
    _put(connection, text, existing.minimum_size)
    expected, found = _counted(text), _counted(read_lifecycle(connection).raw)
    for pause in _PAUSES:
        if found == expected:
            return
        sleep(pause)
        found = _counted(read_lifecycle(connection).raw)
    if found == expected:
        return
    names = sorted({name_in(meaning) for meaning in (expected - found) + (found - expected)})
    raise StorageError(
        f"s3://{connection.bucket} has other lifecycle rules than it was sent: {', '.join(map(repr, names))}",
        hint="Look at archiver lifecycle show: the store does not know all that these rules say, or somebody else "
        "changed them meanwhile.",
    )


def _counted(raw: bytes) -> Counter[Any]:
    return Counter(meanings(raw))


def _get(connection: S3Connection) -> Any:
    """The answer; empty where the bucket has no rules."""
    client, bucket = connection.client, connection.bucket
    try:
        return connection.send(
            READ, "", lambda: client.get_bucket_lifecycle_configuration(Bucket=bucket), patient=connection.begun
        )
    except S3_ERRORS as error:
        if error_code(error) == _ABSENT:
            return {}
        raise _unreadable(connection, error) from error


def _unreadable(connection: S3Connection, error: S3Error) -> ArchiverError:
    what = f"the lifecycle rules of s3://{connection.bucket} cannot be read"
    if is_missing_request(error):
        return RefusedError(
            f"{what}: the store does not have that request",
            hint="It may run none: archiver expire from cron then deletes what is no longer promised.",
        )
    if not is_denied(error):
        return connection.translated(error, READ, "")
    return RefusedError(
        f"{what}: {reason(connection, error, READ).reason}",
        hint=f"Allow {READ} on the bucket to the credentials in use: docs/iam/README.md.",
    )


def _put(connection: S3Connection, text: bytes, minimum_size: str | None) -> None:
    client = connection.client
    request: dict[str, Any] = {"Bucket": connection.bucket}
    # Rules of others stay byte for byte, so not through botocore's own idea of them. Without what follows nothing would
    # be sent but a configuration without rules, which S3 refuses.
    request["LifecycleConfiguration"] = {"Rules": []}
    if minimum_size is not None:
        request["TransitionDefaultMinimumObjectSize"] = minimum_size

    def replace_body(params: dict[str, Any], **_: object) -> None:
        params["body"] = text

    with _handler(connection, "before-call.s3.PutBucketLifecycleConfiguration", replace_body):
        try:
            connection.send(WRITE, "", lambda: client.put_bucket_lifecycle_configuration(**request))
        except S3_ERRORS as error:
            if is_denied(error):
                raise RefusedError(
                    f"the lifecycle rules of s3://{connection.bucket} cannot be changed: {WRITE} is denied to these "
                    "credentials",
                    hint="Use an administrator's credentials (docs/iam/administrator.json), never the backup host's.",
                ) from error
            raise connection.translated(error, WRITE, "") from error


@contextmanager
def _handler(connection: S3Connection, event: str, handler: Callable[..., None]) -> Iterator[None]:
    events = connection.client.meta.events
    events.register(event, handler)
    try:
        yield
    finally:
        events.unregister(event, handler)


def _is_versioned(connection: S3Connection) -> bool | None:
    client, bucket = connection.client, connection.bucket
    try:
        answer = connection.send("s3:GetBucketVersioning", "", lambda: client.get_bucket_versioning(Bucket=bucket))
    except S3_ERRORS as error:
        if is_denied(error) or is_missing_request(error):
            return None
        raise connection.translated(error, "s3:GetBucketVersioning", "") from error
    return bool(answer.get("Status"))
