"""Objects in archive classes: whether they can be read, and asking the store to make them so; and legal holds."""

from collections.abc import Mapping
from typing import Any

from archiver.config import ARCHIVE_CLASSES
from archiver.errors import RefusedError
from archiver.stores.base import Availability
from archiver.stores.s3_connection import S3Connection
from archiver.stores.s3_errors import S3_ERRORS, error_code, is_rejection
from archiver.stores.s3_examination import is_missing_request
from archiver.stores.s3_reads import S3Reader

# The cheapest tier that exists for every archive class and takes 3 to 12 hours; "Bulk" takes up to two days.
_TIER = "Standard"


def availability_of(head: Mapping[str, Any]) -> Availability:
    """What the answer to a HEAD says: its ``x-amz-restore`` is there once somebody has asked for a thaw, until the
    readable copy goes again. INTELLIGENT_TIERING says in ``x-amz-archive-status`` that it has archived."""
    if head.get("StorageClass") not in ARCHIVE_CLASSES and not head.get("ArchiveStatus"):
        return "ready"
    restore = head.get("Restore", "")
    if 'ongoing-request="true"' in restore:
        return "thawing"
    return "ready" if 'ongoing-request="false"' in restore else "archived"


def availability(connection: S3Connection, key: str) -> Availability:
    """Fulfils Store.availability for a checked key."""
    address, client = connection.address(key), connection.client
    head = connection.call("s3:GetObject", key, lambda: client.head_object(**address))
    return availability_in_truth(connection, key, head)


def availability_in_truth(connection: S3Connection, key: str, head: Mapping[str, Any]) -> Availability:
    """The same where the answer to the HEAD is there already. What is said to be archived is tried, by one byte: some
    stores only keep the name of the class, and have no request that would thaw."""
    found = availability_of(head)
    if found != "archived":
        return found
    try:
        for _ in S3Reader(connection, key, 0, 1).buffers():
            pass
    except RefusedError:
        return "archived"
    return "ready"


def thaw(connection: S3Connection, key: str, days: int) -> None:
    """Fulfils Store.thaw for a checked key. Permissions: s3:RestoreObject, s3:GetObject."""
    wanted = {"Days": days, "GlacierJobParameters": {"Tier": _TIER}}
    request: dict[str, Any] = connection.address(key) | {"RestoreRequest": wanted}
    try:
        connection.send("s3:RestoreObject", key, lambda: connection.client.restore_object(**request))
    except S3_ERRORS as error:
        if error_code(error) == "RestoreAlreadyInProgress":
            return
        # Whoever asks for more than is archived gets various refusals, and not every store has the request.
        if (is_rejection(error) or is_missing_request(error)) and availability(connection, key) == "ready":
            return
        raise connection.translated(error, "s3:RestoreObject", key) from error


def unlock(connection: S3Connection, key: str, *, always: bool) -> None:
    """Fulfils Store.unlock for a checked key; without ``always`` only where the store says that there is a hold, which
    S3 tells only to those who have s3:GetObjectLegalHold. Permissions: s3:PutObjectLegalHold, s3:GetObject."""
    address, client = connection.address(key), connection.client
    head = connection.call("s3:GetObject", key, lambda: client.head_object(**address))
    held = head.get("ObjectLockLegalHoldStatus") == "ON"
    if not (always or held):
        return
    request = address | {"LegalHold": {"Status": "OFF"}}
    try:
        connection.send("s3:PutObjectLegalHold", key, lambda: client.put_object_legal_hold(**request))
    except S3_ERRORS as error:
        # In a bucket without Object Lock nothing is held.
        if held or error_code(error) != "InvalidRequest":
            raise connection.translated(error, "s3:PutObjectLegalHold", key) from error
