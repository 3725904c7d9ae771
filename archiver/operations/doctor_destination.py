"""What ``archiver doctor`` finds at the destination: what a backup needs there, and what would harm it."""

import ipaddress
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from archiver.catalog.names import BackupPlace, data_prefix, new_object_id, object_key
from archiver.config import ARCHIVE_CLASSES, Config
from archiver.errors import ArchiverError
from archiver.operations.archive import Archive
from archiver.operations.doctor_bucket import settings_findings
from archiver.operations.findings import Finding, Severity, nearest
from archiver.operations.lifecycle import left_problems, overdue, sharing_problems
from archiver.retention.attributes import attribution
from archiver.stores.base import Store, StoredObject
from archiver.stores.destination import Destination, FileDestination, S3Destination
from archiver.stores.s3_facts import BucketSettings, Permissions, Rate, Speed, Trial, Unknown

if TYPE_CHECKING:
    from archiver.stores.s3_probe import S3Probe

_SKEW_LIMIT = 60
"""Seconds that this host's clock may differ from the store's: S3 refuses requests at 15 minutes."""
_LOW_SPACE = 0.1
"""The share of a destination's file system below which its free space is worth a warning."""
_SAMPLE = 1000
"""Objects among which the one to measure with is looked for: those of one page of a listing."""
_PROBE_CLASS = "daily"
_TRIED = Permissions.__struct_fields__
_WANTED = {
    "create": "create keys",
    "abort": "abort uploads",
    "list_uploads": "list uploads",
    "read": "read manifests",
}
_INDISPENSABLE = {"create keys", "read manifests"}
"""Without the others a backup works, and what a failed one leaves behind stays."""


def reach(destination: Destination, store: Store) -> Iterator[Finding]:
    """Whether ``store`` answers, and may be listed; an error means that there is no more to be found out."""
    subject = f"destination {store.url}"
    try:
        skew = (datetime.now(UTC) - store.clock()).total_seconds()
        list(store.list_names())
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    if abs(skew) > _SKEW_LIMIT:
        way = "ahead of" if skew > 0 else "behind"
        said = f"this host's clock is {_duration(abs(skew))} {way} the store's"
        yield Finding("warning", subject, said, "Let NTP set the clock.")
    message = "reachable, and may be listed"
    if isinstance(destination, FileDestination):
        message += "; each backup proves first that it may create keys"
    yield Finding("ok", subject, message, facts={"skew_seconds": round(skew, 1)})


def _duration(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


def directory_findings(root: Path) -> Iterator[Finding]:
    """A destination on this host: whether it can be written to, and how full it is."""
    subject, directory = f"destination {root}", nearest(root)
    status = os.statvfs(directory)
    if status.f_flag & os.ST_RDONLY or not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("error", subject, "cannot be written to by this user", "Mount it read-write, or mend its mode.")
    free = status.f_bavail * status.f_frsize
    if free < _LOW_SPACE * status.f_blocks * status.f_frsize:
        yield Finding("warning", subject, f"only {free / 2**20:,.0f} MiB are free", "Free space: backups need room.")


def overdue_findings(store: Store, config: Config) -> Iterator[Finding]:
    """Whether a directory holds what ``archiver expire`` should have deleted."""
    for problem in overdue(store, config.classes, store.clock()):
        yield Finding(problem.severity, f"destination {store.url}", problem.message, problem.hint)


def examine_bucket(destination: S3Destination, store: Store, config: Config) -> Iterator[Finding]:
    """The bucket's settings, the permissions and the speed, once for all sources. Leaves nothing behind."""
    # boto3 takes a quarter of a second to import.
    from archiver.stores.s3_connection import S3Connection
    from archiver.stores.s3_examination import bucket_settings
    from archiver.stores.s3_probe import S3Probe

    place = f"s3://{destination.bucket}" + (f"/{destination.prefix}" if destination.prefix else "")
    try:
        with closing(S3Connection(destination.bucket, destination.prefix, destination.options)) as connection:
            yield from endpoint_findings(f"destination {store.url}", connection.endpoint)
            settings = bucket_settings(connection)
            region, base = connection.client.meta.region_name, connection.full_key("")
            lock = destination.options.object_lock
            yield from settings_findings(f"bucket {destination.bucket}", settings, region, base, config.classes, lock)
            beside = [*sharing_problems(store, config.classes)]
            if not isinstance(settings.lifecycle, Unknown):
                beside += left_problems(store, config.classes, settings.lifecycle)
            for problem in beside:
                yield Finding(problem.severity, f"bucket {destination.bucket}", problem.message, problem.hint)
            probe = S3Probe(connection, destination.options, attribution(config.classes))
            for source in itertools.islice(config.sources, 1):
                permissions, speed = _try(probe, settings, source, _newest(store, config.sources), store)
                yield from permission_findings(f"permissions in {place}", permissions)
                yield speed_finding(f"speed of {place}", speed)
                if archived := _archived_classes(config):
                    yield from thaw_findings(place, archived, probe.has_thaw(_probe_key(source)), connection.endpoint)
    except ArchiverError as error:
        yield Finding.of(f"destination {store.url}", error)


def endpoint_findings(subject: str, endpoint: str) -> Iterator[Finding]:
    """Whether what is sent to ``endpoint``, a URL, is protected on its way."""
    parts = urlsplit(endpoint)
    if parts.scheme == "http" and not _is_this_host(parts.hostname or ""):
        yield Finding(
            "warning", subject, f"{endpoint} is plain HTTP: who sits between can read and alter lists and answers",
            "Use an endpoint that begins with https://.",
        )  # fmt: skip


def permission_findings(subject: str, permissions: Permissions) -> Iterator[Finding]:
    """What is missing for a backup, and what is too much."""
    trials = {what: getattr(permissions, name) for name, what in _WANTED.items()}
    said = ", ".join(["list keys", *(what for what, trial in trials.items() if trial == "allowed")])
    if isinstance(permissions.delete, ArchiverError):
        said += "; may not delete, as it should be"
    yield Finding("ok", subject, f"may {said}", facts={name: _verdict(permissions, name) for name in _TRIED})
    for what, trial in trials.items():
        if isinstance(trial, ArchiverError):
            severity: Severity = "error" if what in _INDISPENSABLE else "warning"
            yield Finding(severity, subject, f"cannot {what}: {trial.message}", trial.hint)
    if isinstance(permissions.read, Unknown):
        yield Finding("ok", subject, f"not tried whether they may read: {permissions.read.reason}")
    if isinstance(permissions.delete, Unknown):
        yield Finding("ok", subject, f"not tried whether they may delete: {permissions.delete.reason}")
    if permissions.delete == "allowed":
        yield Finding(
            "warning", subject, "may delete objects: a thief of this host could delete backups",
            "Take s3:DeleteObject from these credentials: docs/iam/backup-host.json is a policy without it.",
        )  # fmt: skip


def thaw_findings(place: str, archived: str, found: bool | Unknown, endpoint: str) -> Iterator[Finding]:
    """Whether what the classes ``archived``, in words, keep in an archive class could be restored; ``found`` is whether
    the store has the request for that."""
    from archiver.stores.s3_examination import is_aws

    subject = f"archive of {place}"
    if isinstance(found, Unknown):
        if is_aws(endpoint):
            yield Finding("ok", subject, f"not tried whether it can be thawed: {found.reason}")
            return
        why = f"it is not known whether the store can thaw: {found.reason}"
    elif found:
        yield Finding("ok", subject, f"the store can thaw what lies in {archived}")
        return
    else:
        why = "the store has no RestoreObject: it keeps only the name, or what it archives cannot be read again"
    yield Finding(
        "warning", subject, f"{archived}: {why}",
        "Remove storage_class from the class, unless you know that the store can: docs/S3-COMPATIBILITY.md.",
    )  # fmt: skip


def _archived_classes(config: Config) -> str:
    """The classes whose objects are archived, in words; empty for none."""
    found = [(name, retention.storage_class) for name, retention in sorted(config.classes.items())]
    return ", ".join(f"class {name} ({kept})" for name, kept in found if kept in ARCHIVE_CLASSES)


def speed_finding(subject: str, speed: Speed) -> Finding:
    """How long a request takes, and how much one stream carries."""
    facts: dict[str, object] = {"latency_seconds": round(speed.latency, 6)}
    said = [f"a request takes {speed.latency * 1000:,.0f} ms"]
    for way, rate in (("up", speed.up), ("down", speed.down)):
        if isinstance(rate, Unknown):
            said.append(f"the way {way} was not measured: {rate.reason}")
            facts |= {f"{way}_bytes": None, f"{way}_seconds": None, f"{way}_bytes_per_second": None}
        else:
            said.append(f"{rate.per_second / 2**20:,.1f} MiB/s {way} in one stream ({rate.size / 2**20:,.1f} MiB)")
            facts |= {
                f"{way}_bytes": rate.size,
                f"{way}_seconds": round(rate.seconds, 6),
                f"{way}_bytes_per_second": round(rate.per_second),
            }
    return Finding("ok", subject, "; ".join(said), facts=facts)


def _try(
    probe: "S3Probe", settings: BucketSettings, source: str, newest: BackupPlace | None, store: Store
) -> tuple[Permissions, Speed]:
    """Try out what a backup of ``source`` needs; reading is tried with what the ``newest`` backup has left."""
    latency = probe.latency()
    create, abort, list_uploads, up = probe.upload(_probe_key(source))
    read: Trial = Unknown("there is no backup yet")
    down: Rate | Unknown = Unknown("there is no backup yet")
    if newest is not None:
        read = probe.read(newest.manifest)
        sample = _sample(store, newest)
        down = probe.download(sample.key, sample.size) if sample is not None else Unknown("there is no data yet")
    delete: Trial = Unknown("where old versions are kept, or may be, it would leave a delete marker")
    if settings.versioning == "off":
        delete = probe.delete(_probe_key(source))
    return Permissions(create, abort, list_uploads, read, delete), Speed(latency, up, down)


def _probe_key(source: str) -> str:
    """A key where a backup would create its own, that no other has and nothing will have."""
    return object_key(_PROBE_CLASS, source, new_object_id(), "file")


def _newest(store: Store, sources: Iterable[str]) -> BackupPlace | None:
    """The newest backup of all ``sources``; whether it can be trusted is no matter here."""
    places = (place for source in sources for place in Archive(store, source, None).places()[:1])
    return max(places, key=lambda place: place.backup, default=None)


def _sample(store: Store, newest: BackupPlace) -> StoredObject | None:
    """The largest of some objects beside those of ``newest``."""
    objects = store.list(data_prefix(newest.retention_class, newest.source))
    return max(itertools.islice(objects, _SAMPLE), key=lambda item: item.size, default=None)


def _verdict(permissions: Permissions, name: str) -> bool | None:
    trial: Trial = getattr(permissions, name)
    return None if isinstance(trial, Unknown) else trial == "allowed"


def _is_this_host(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
