"""The environments of a source: pinned all together, each once."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import overload

import msgspec

from archiver.buffers import Buffer
from archiver.catalog.records import DatabaseRecord, EnvironmentRecord, Extent, encode_text
from archiver.config import PinLimits
from archiver.environment.external import external_copy, no_copy
from archiver.environment.headroom import Gauge
from archiver.environment.messages import Declared
from archiver.environment.meta import DATA_FILE, opening_hint, read_meta
from archiver.environment.snapshot import Helper, Snapshot
from archiver.errors import FormatError, NotFoundError, SourceError
from archiver.filesystem import Identity, identity
from archiver.parallel import uninterrupted
from archiver.sources.entries import group_name, owner_name

_RESTORE = "The server fails with MDB_INVALID on such a file: restore this environment from the last good backup."
_EMPTY = (
    "A full disk leaves such a file behind, and a server would begin anew in it: free disk space, and restore this "
    "environment from the last good backup."
)
_RETAKE = "Take a new snapshot of the file system; if its file is the same, the server's own one is damaged."


class EnvironmentSpec(msgspec.Struct, frozen=True):
    """An environment to back up. ``max_size`` is the map size in bytes that its server opens it with, if known."""

    name: str
    directory: Path
    max_size: int | None
    frozen: bool = False
    """The directory is that of a filesystem snapshot."""
    command: tuple[str, ...] | None = None
    """The program and its arguments that write a copy to standard output."""


class Pins(Sequence[Snapshot]):
    """The snapshots of a source's environments, in the order of its configuration."""

    def __init__(self, snapshots: Sequence[Snapshot], duplicates: Sequence[tuple[str, str]]) -> None:
        self._snapshots = list(snapshots)
        self.duplicates = duplicates
        """(name, name that it was pinned under) of each environment that had been named before."""

    @overload
    def __getitem__(self, index: int) -> Snapshot: ...

    @overload
    def __getitem__(self, index: slice) -> list[Snapshot]: ...

    def __getitem__(self, index: int | slice) -> Snapshot | list[Snapshot]:
        return self._snapshots[index]

    def __len__(self) -> int:
        return len(self._snapshots)

    def guard(self, buffers: Iterable[Buffer]) -> Iterator[Buffer]:
        """``buffers``, until one of the pins that wait for their copy is lost: then the others are worth nothing."""
        for buffer in buffers:
            for snapshot in self._snapshots:
                snapshot.check()
            yield buffer

    @property
    def skew(self) -> timedelta:
        """The time between the first pin and the last one that are held."""
        times = [snapshot.pinned for snapshot in self._snapshots]
        return max(times) - min(times) if times else timedelta(0)


@contextmanager
def pin_all(specs: Sequence[EnvironmentSpec], limits: PinLimits, workspace: Path) -> Iterator[Pins]:
    """Pin every environment before the block begins; it may release each of them before it ends.

    An environment that is named twice, by whatever path, is pinned once, under the first name. What commands copy
    comes first, into ``workspace``, because it takes long; the rest is pinned at once, by helper processes that are
    all running by then. When one of them cannot be pinned none is, and the error is that of ``Helper.pin``.
    """
    unique, duplicates = _unique(specs)
    with ExitStack() as resources:
        copies = {
            spec.name: (
                spec.command,
                datetime.now(UTC),
                resources.enter_context(_external(spec, spec.command, limits, workspace)),
            )
            for spec in unique
            if spec.command is not None
        }
        # An interrupt must not fall between a helper's start and its clean-up.
        with uninterrupted():
            helpers = [resources.enter_context(Helper()) for _ in unique]
        snapshots = []
        for spec, helper in zip(unique, helpers, strict=True):
            if spec.name in copies:
                snapshot = _pin_copy(helper, spec, limits, *copies[spec.name])
            else:
                snapshot = _pin(helper, spec, limits)
            snapshots.append(snapshot)
        yield Pins(snapshots, duplicates)


@contextmanager
def damage_explained(spec: EnvironmentSpec) -> Iterator[None]:
    """Let a ``FormatError`` in the block, on the file that the server of ``spec`` itself uses, say what to do."""
    try:
        yield
    except FormatError as error:
        if spec.frozen:
            error.hint = error.hint or _RETAKE
        elif _is_empty(spec.directory / DATA_FILE):
            error.hint = _EMPTY
        else:
            error.hint = error.hint or _RESTORE
        raise


def _is_empty(data: Path) -> bool:
    try:
        return data.is_file() and data.stat().st_size == 0
    except OSError:
        return False


def _pin(helper: Helper, spec: EnvironmentSpec, limits: PinLimits) -> Snapshot:
    declared: Declared | None = "frozen" if spec.frozen else None
    with damage_explained(spec):
        return helper.pin(spec.directory, name=spec.name, limits=limits, declared=declared, max_size=spec.max_size)


def _pin_copy(
    helper: Helper, spec: EnvironmentSpec, limits: PinLimits, command: Sequence[str], began: datetime, copy: Path
) -> Snapshot:
    """Pin what ``command``, started at ``began``, wrote to the directory ``copy``."""
    try:
        snapshot = helper.pin(copy, name=spec.name, limits=limits, declared="external")
    except FormatError as error:
        raise no_copy(error, copy, command, spec.directory) from error
    snapshot.pinned, snapshot.origin = began, spec.directory
    return snapshot


def _unique(specs: Sequence[EnvironmentSpec]) -> tuple[list[EnvironmentSpec], list[tuple[str, str]]]:
    """``specs`` without those that are the environment of an earlier one, and (their name, its name)."""
    unique: list[EnvironmentSpec] = []
    duplicates = []
    first_names: dict[Identity, str] = {}
    for spec in specs:
        status = _data_status(spec)
        first_name = spec.name if status is None else first_names.setdefault(identity(status), spec.name)
        if first_name == spec.name:
            unique.append(spec)
        else:
            duplicates.append((spec.name, first_name))
    return unique, duplicates


def _data_status(spec: EnvironmentSpec) -> os.stat_result | None:
    """That of ``data.mdb``; None where only the external command can see it."""
    data = spec.directory / DATA_FILE
    try:
        return data.stat()
    except OSError as error:
        if spec.command is not None:
            return None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFoundError(
                f"environment {spec.name!r}: {data} does not exist",
                hint="Check the path, and that the volume it lies on is mounted.",
            ) from None
        raise SourceError(
            f"environment {spec.name!r}: cannot open {data}: {str(error.strerror).lower()}",
            hint=opening_hint(error, data),
        ) from error


@contextmanager
def _external(spec: EnvironmentSpec, command: Sequence[str], limits: PinLimits, workspace: Path) -> Iterator[Path]:
    """The directory of the copy that ``command`` makes; it reads a snapshot, too, so the server's room is watched."""
    data = spec.directory / DATA_FILE
    give_way: Callable[[], str | None] = _never
    # It may be another user's, whom the command becomes.
    if os.access(data, os.R_OK):
        with damage_explained(spec):
            txnid = read_meta(data).txnid
        give_way = partial(_shortage, Gauge(data, lambda: txnid, limits.headroom / 100, spec.max_size))
    with external_copy(command, spec.directory, workspace, seconds=limits.seconds, give_way=give_way) as copy:
        yield copy


def _never() -> None:
    return None


def _shortage(gauge: Gauge) -> str | None:
    try:
        return gauge.shortage()
    except FormatError:
        # Until the command has begun to read, nothing keeps the server from changing the list while it is looked at.
        return None


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
    try:
        status = (snapshot.origin / DATA_FILE).stat()
    except OSError:
        # Only the external command can see it.
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
        with suppress(OSError):
            found.add(identity((spec.directory / DATA_FILE).stat()))
    return frozenset(found)
