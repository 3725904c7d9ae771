"""The environments of a backup: pinned together, each copied into objects."""

import time
from contextlib import closing

from archiver.buffers import split
from archiver.catalog.records import EnvironmentRecord, Extent, ObjectRecord
from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import Snapshot
from archiver.errors import PinGivenUpError, SnapshotChangedError
from archiver.operations.backup_lists import BackupLists
from archiver.operations.backup_request import BackupRequest
from archiver.operations.uploads import EXTENT_LIMIT, Uploads
from archiver.progress import Reporter
from archiver.sources.environments import Pins, environment_record, pin_all
from archiver.stages.measure import Meter, measured


class EnvironmentCopies:
    """Copies the environments of ``request`` once."""

    def __init__(self, request: BackupRequest, uploads: Uploads, lists: BackupLists, reporter: Reporter) -> None:
        self._request = request
        self._uploads = uploads
        self._lists = lists
        self._reporter = reporter

    def copy(self) -> tuple[list[EnvironmentRecord], float]:
        """All environments, pinned together; begun anew when somebody wrote to one that was copied without a pin, and
        after a pause when a pin was given up for the sake of the live server."""
        limits = self._request.pin
        for attempt in range(1, limits.attempts + 1):
            try:
                return self._copy_pinned()
            except (SnapshotChangedError, PinGivenUpError) as error:
                if attempt == limits.attempts:
                    raise
                pause = limits.pause if isinstance(error, PinGivenUpError) else 0
                self._reporter.warn(f"beginning anew{f' in {pause} s' if pause else ''}: {error.message}")
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _copy_pinned(self) -> tuple[list[EnvironmentRecord], float]:
        """All environments, pinned together, and the seconds between the first pin and the last."""
        request = self._request
        with pin_all(request.source.environments, request.pin, request.state_directory) as snapshots:
            for name, first in snapshots.duplicates:
                self._reporter.event("same environment", environment=name, backed_up_as=first)
            copies = [self._copy_environment(snapshot, snapshots) for snapshot in snapshots]
            skew = snapshots.skew.total_seconds()
        for _, objects in copies:
            for record in objects:
                self._lists.register(record)
        return [record for record, _ in copies], skew

    def _copy_environment(self, snapshot: Snapshot, pins: Pins) -> tuple[EnvironmentRecord, list[ObjectRecord]]:
        self._reporter.phase(f"environment {snapshot.name}", snapshot.estimated_copy_size)
        meter = Meter()
        objects: list[ObjectRecord] = []
        extents: list[Extent] = []
        copy = measured(pins.guard(copy_stream(snapshot, self._request.tuning.frame_size)), meter)
        offset = 0
        with closing(copy):
            for piece in split(copy, EXTENT_LIMIT):
                record = self._uploads.write("mdb", piece, pinned=True)
                objects.append(record)
                extents.append(Extent(offset=offset, length=record.plaintext_size, object=record.id, object_offset=0))
                offset += record.plaintext_size
        snapshot.release()
        return environment_record(snapshot, meter.size, meter.blake3, extents), objects
