"""The environments of a source: pinned all together, each once."""

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import overload

from archiver.catalog.records import DatabaseRecord, EnvironmentRecord, Extent, encode_text
from archiver.environment.meta import DATA_FILE
from archiver.environment.snapshot import Snapshot, pin
from archiver.errors import NotFoundError, SourceError
from archiver.filesystem import Identity, identity
from archiver.sources.entries import group_name, owner_name


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment to back up. ``max_size`` is the map size in bytes that its server opens it with, if known."""

    name: str
    directory: Path
    max_size: int | None


class Pins(Sequence[Snapshot]):
    """The snapshots of a source's environments, in the order of its configuration."""

    def __init__(self, resources: ExitStack) -> None:
        self._resources = resources
        self._snapshots: list[Snapshot] = []
        self._first_names: dict[Identity, str] = {}
        self.duplicates: list[tuple[str, str]] = []
        """(name, name that it was pinned under) of each environment that had been named before."""

    @overload
    def __getitem__(self, index: int) -> Snapshot: ...

    @overload
    def __getitem__(self, index: slice) -> list[Snapshot]: ...

    def __getitem__(self, index: int | slice) -> Snapshot | list[Snapshot]:
        return self._snapshots[index]

    def __len__(self) -> int:
        return len(self._snapshots)

    @property
    def skew(self) -> timedelta:
        """The time between the first pin and the last one that are held."""
        times = [snapshot.pinned for snapshot in self._snapshots]
        return max(times) - min(times) if times else timedelta(0)

    def add(self, spec: EnvironmentSpec) -> None:
        """Pin one more environment, unless it is pinned already under another name or path."""
        data = spec.directory / DATA_FILE
        try:
            status = data.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                f"environment {spec.name!r}: {data} does not exist",
                hint="Check the path, and that the volume it lies on is mounted.",
            ) from None
        except OSError as error:
            raise SourceError(
                f"environment {spec.name!r}: cannot open {data}: {str(error.strerror).lower()}"
            ) from error
        first_name = self._first_names.setdefault(identity(status), spec.name)
        if first_name != spec.name:
            self.duplicates.append((spec.name, first_name))
        else:
            self._snapshots.append(self._resources.enter_context(pin(spec.directory, name=spec.name)))


@contextmanager
def pin_all(specs: Sequence[EnvironmentSpec]) -> Iterator[Pins]:
    """Pin every environment, in order, before the block begins; it may release each of them before it ends.

    An environment that is named twice, by whatever path, is pinned once, under the first name. When one of them
    cannot be pinned none is, and the error is that of ``pin``.
    """
    with ExitStack() as resources:
        pins = Pins(resources)
        for spec in specs:
            pins.add(spec)
        yield pins


def database_records(snapshot: Snapshot) -> list[DatabaseRecord]:
    """The databases of ``snapshot`` as the catalog records them; the main one comes first and has no name."""
    records = []
    for database in snapshot.databases:
        text, encoded = (None, None) if database.name is None else encode_text(database.name)
        records.append(
            DatabaseRecord(name=text, name_b64=encoded, entries=database.entries, flags=list(database.flags))
        )
    return records


def environment_record(snapshot: Snapshot, size: int, blake3: str, extents: list[Extent]) -> EnvironmentRecord:
    """The catalog's record of ``snapshot``, whose compact copy has ``size`` bytes and lies in ``extents``."""
    status = (snapshot.directory / DATA_FILE).stat()
    return EnvironmentRecord(
        name=snapshot.name,
        method=snapshot.method,
        pinned=snapshot.pinned,
        txnid=snapshot.txnid,
        page_size=snapshot.page_size,
        map_size=snapshot.map_size,
        layout="compact",
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        owner=owner_name(status.st_uid),
        group=group_name(status.st_gid),
        size=size,
        blake3=blake3,
        databases=database_records(snapshot),
        extents=extents,
    )


def data_files(specs: Sequence[EnvironmentSpec]) -> frozenset[Identity]:
    """Which files the environments' ``data.mdb`` are: never opened by the media walk; ``pin`` reports missing ones."""
    found = set()
    for spec in specs:
        with suppress(FileNotFoundError, NotADirectoryError):
            found.add(identity((spec.directory / DATA_FILE).stat()))
    return frozenset(found)
