"""What is to be known of an environment before a backup: the facts behind ``archiver doctor``."""

from dataclasses import dataclass
from pathlib import Path

from archiver.environment.locks import LockState, inspect_lock
from archiver.environment.meta import DATA_FILE, read_meta
from archiver.environment.snapshot import Method, pin
from archiver.errors import ArchiverError, BusyError, SourceError


@dataclass(frozen=True, slots=True)
class EnvironmentReport:
    """The state of one environment; sizes are bytes."""

    directory: Path
    file_size: int
    page_size: int
    map_size: int
    last_page: int
    txnid: int
    used_pages: int | None
    """Meta pages and pages of databases; None when the environment cannot be read safely just now."""
    lock: LockState
    method: Method | None
    """How a backup would be taken now; None when it would be refused, for ``refusal``."""
    refusal: ArchiverError | None

    @property
    def idle_pages(self) -> int | None:
        """Pages up to the last one that no database uses: free, the free list itself, or leaked."""
        return None if self.used_pages is None else self.last_page + 1 - self.used_pages

    @property
    def copy_size(self) -> int:
        """About how many bytes a compact copy has."""
        return self.page_size * (self.last_page + 1 if self.used_pages is None else self.used_pages)

    @property
    def fullness(self) -> float:
        """The part of the map that is taken, idle pages included, from 0 to 1 (or above, until the map is raised)."""
        return (self.last_page + 1) * self.page_size / self.map_size


def inspect(directory: Path) -> EnvironmentReport:
    """Look at the environment in ``directory``, taking and at once releasing a pin if that can be done.

    Raises ``NotFoundError`` without a data.mdb and ``FormatError`` for a corrupt one. Must not be called while this
    process has a snapshot of it.
    """
    data = directory / DATA_FILE
    meta = read_meta(data)
    lock = inspect_lock(directory)
    used_pages: int | None = None
    method: Method | None = None
    refusal: ArchiverError | None = None
    try:
        with pin(directory, name="inspection") as snapshot:
            meta, method = snapshot.meta, snapshot.method
            used_pages = snapshot.used_pages
    except (SourceError, BusyError) as error:
        refusal = error
    return EnvironmentReport(
        directory=directory,
        file_size=data.stat().st_size,
        page_size=meta.page_size,
        map_size=meta.map_size,
        last_page=meta.last_page,
        txnid=meta.txnid,
        used_pages=used_pages,
        lock=lock,
        method=method,
        refusal=refusal,
    )
