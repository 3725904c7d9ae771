"""What every key of a bucket is created with, and whether the store has indeed created it so."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.errors import AlreadyExistsError, IntegrityError, NotFoundError, RefusedError, StorageError
from archiver.retention.attributes import Attribution
from archiver.stores.abandonment import Abandonment
from archiver.stores.base import StoredObject
from archiver.stores.s3_checksums import compare
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_options import S3Options

_NONCE = "archiver-create"
# S3 refuses requests from a host whose clock differs by a quarter of an hour, and one is sent again for some minutes.
_CLOCKS = timedelta(hours=1)


class S3Creation:
    """Fields of the requests that create keys, and a look at what they have made.

    Every create carries a random value of its own in the object's metadata. When the store says that the key exists,
    that value tells whether it was this very create, whose answer was lost on the way, or another.
    """

    def __init__(self, connection: S3Connection, options: S3Options, attributes: Attribution) -> None:
        self._connection = connection
        self._options = options
        self._attributes = attributes

    def fields(self, key: str) -> dict[str, Any]:
        """What one create of ``key`` sends beside bytes, checksum and condition; no two calls give the same."""
        attributes, options = self._attributes(key), self._options
        fields: dict[str, Any] = {"Metadata": {_NONCE: secrets.token_hex(16)}}
        storage_class = attributes.storage_class or (options.storage_class if attributes.archivable else None)
        if storage_class is not None:
            fields["StorageClass"] = storage_class
        if options.sse is not None:
            fields["ServerSideEncryption"] = options.sse
        if options.sse_kms_key is not None:
            fields["SSEKMSKeyId"] = options.sse_kms_key
        if options.object_lock is not None and attributes.retain_days is not None:
            until = datetime.now(UTC) + timedelta(days=attributes.retain_days) + _CLOCKS
            fields["ObjectLockMode"] = options.object_lock.upper()
            fields["ObjectLockRetainUntilDate"] = until.replace(microsecond=0)
        if options.object_lock is not None and attributes.legal_hold:
            fields["ObjectLockLegalHoldStatus"] = "ON"
        return fields

    def condition(self) -> dict[str, str]:
        """What keeps the request that makes a key from overwriting one."""
        return {"IfNoneMatch": "*"} if self._options.conditional_writes else {}

    def refuse_existing(self, key: str) -> None:
        """Raise ``AlreadyExistsError`` if there is ``key``."""
        try:
            self.head(key)
        except NotFoundError:
            return
        raise AlreadyExistsError(f"{self._connection.place(key)} exists already")

    def head(
        self, key: str, *, with_checksum: bool = False, patient: bool = False, abandonment: Abandonment | None = None
    ) -> Any:
        """What the store says of ``key``."""
        client = self._connection.client
        request = self._connection.address(key) | ({"ChecksumMode": "ENABLED"} if with_checksum else {})
        return self._connection.call(
            "s3:GetObject", key, lambda: client.head_object(**request), patient=patient, abandonment=abandonment
        )

    def settle(
        self,
        key: str,
        fields: Mapping[str, Any],
        checksum: Mapping[str, str],
        size: int,
        abandonment: Abandonment,
    ) -> StoredObject:
        """What lies under ``key``, if the create with ``fields`` made it; raises ``AlreadyExistsError`` if another one
        did, and ``NotFoundError`` if none. As patient as the create."""
        place = self._connection.place(key)
        head = self.head(key, with_checksum=bool(checksum), patient=True, abandonment=abandonment)
        if head["Metadata"].get(_NONCE) != fields["Metadata"][_NONCE]:
            raise AlreadyExistsError(f"{place} exists already")
        if head["ContentLength"] != size:
            raise IntegrityError(f"{place}: expected {size} bytes to be stored, got {head['ContentLength']}")
        compare(place, checksum, head)
        self.check_encrypted(key, head)
        _check_locked(place, fields, head)
        return stored(key, size, head)

    def relock(self, key: str, fields: Mapping[str, Any]) -> None:
        """Lock ``key``, which the copy with ``fields`` has made, unless it is locked as they say: SeaweedFS gives a
        copy the lock of its source instead. A legal hold that is too much is taken off, where the credentials may: it
        only keeps the key for longer. A retention that is too long stays, as S3 lets nobody shorten it."""
        head = self.head(key)
        if head["Metadata"].get(_NONCE) != fields["Metadata"][_NONCE]:
            return
        client, address = self._connection.client, self._connection.address(key)
        if is_held(head) and "ObjectLockLegalHoldStatus" not in fields:
            off = address | {"LegalHold": {"Status": "OFF"}}
            with suppress(RefusedError):
                self._connection.call("s3:PutObjectLegalHold", key, lambda: client.put_object_legal_hold(**off))
        if _lacking(fields, head) is None:
            return
        if "ObjectLockMode" in fields:
            retention = {"Mode": fields["ObjectLockMode"], "RetainUntilDate": fields["ObjectLockRetainUntilDate"]}
            request = address | {"Retention": retention}
            self._connection.call("s3:PutObjectRetention", key, lambda: client.put_object_retention(**request))
        if "ObjectLockLegalHoldStatus" in fields:
            hold = address | {"LegalHold": {"Status": fields["ObjectLockLegalHoldStatus"]}}
            self._connection.call("s3:PutObjectLegalHold", key, lambda: client.put_object_legal_hold(**hold))

    def check_encrypted(self, key: str, answer: Mapping[str, Any]) -> None:
        """Not every store refuses an encryption that it does not have."""
        wanted, found = self._options.sse, answer.get("ServerSideEncryption")
        if wanted is not None and found != wanted:
            raise StorageError(
                f"{self._connection.place(key)}: expected the store to encrypt with {wanted}, got {found or 'nothing'}",
                hint="Remove the option sse: archiver encrypts all that is secret before it is sent.",
            )


def is_held(head: Mapping[str, Any]) -> bool:
    """Whether the answer to a HEAD tells of a legal hold."""
    return bool(head.get("ObjectLockLegalHoldStatus") == "ON")


def locks(fields: Mapping[str, Any]) -> bool:
    """Whether a create with ``fields`` locks its key: of that the answer to it says nothing."""
    return "ObjectLockMode" in fields or "ObjectLockLegalHoldStatus" in fields


def stored(key: str, size: int, answer: Mapping[str, Any]) -> StoredObject:
    """``key`` as the answer to a HEAD, or an item of a listing, has it."""
    storage_class = answer.get("StorageClass")
    return StoredObject(
        key,
        size,
        answer["LastModified"].astimezone(UTC),
        None if storage_class in ("", "STANDARD") else storage_class,
    )


def _check_locked(place: str, fields: Mapping[str, Any], head: Mapping[str, Any]) -> None:
    """Not every store that takes the fields of Object Lock has one."""
    lacking = _lacking(fields, head)
    if lacking is not None:
        raise StorageError(
            f"{place}: expected {lacking}",
            hint="Check that the bucket has Object Lock, and that the credentials allow s3:GetObjectRetention and "
            "s3:GetObjectLegalHold; or remove the option object_lock.",
        )


def _lacking(fields: Mapping[str, Any], head: Mapping[str, Any]) -> str | None:
    """What is missing of the lock that ``fields`` ask for, in words; None: nothing.

    Permissions: s3:GetObjectRetention and s3:GetObjectLegalHold, without which S3 is silent on it.
    """
    for name in ("ObjectLockMode", "ObjectLockLegalHoldStatus"):
        if name in fields and head.get(name) != fields[name]:
            return f"{name} to be {fields[name]}, got {head.get(name) or 'nothing'}"
    until, found = fields.get("ObjectLockRetainUntilDate"), head.get("ObjectLockRetainUntilDate")
    if until is not None and (found is None or found.astimezone(UTC) < until):
        return f"it to be locked until {until:%Y-%m-%dT%H:%M:%SZ}, got {found or 'nothing'}"
    return None
