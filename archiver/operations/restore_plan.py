"""What a restore would do, decided before anything is written: what to fetch, where it goes, what stands in the way."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from archiver.catalog.records import (
    EnvironmentRecord,
    FileRecord,
    HardLinkRecord,
    HeaderRecord,
    MediaRecord,
    WarningRecord,
)
from archiver.errors import BusyError, NotFoundError, TargetError, UsageError
from archiver.operations.archive import Archive
from archiver.operations.copies import easiest_copy
from archiver.operations.history import Backup
from archiver.operations.paths import DATA_FILE, MEDIA, item_path, selector
from archiver.operations.selection import StandIns, find_stand_ins, select
from archiver.operations.sources import Source
from archiver.operations.thaw import Archived
from archiver.sinks.environment import refuse_live
from archiver.sinks.files import is_unchanged
from archiver.sinks.owners import OwnerMap, by_name

STAGING = ".archiver-restore-"
BEFORE = ".archiver-before-"
_RESERVE = 64 * 1024 * 1024
"""Bytes that must stay free on the target's file system: directories and metadata take room too."""


class Landing(msgspec.Struct, frozen=True):
    """Where one environment, or the media tree, ends up. ``root`` is on the same file system as ``final``."""

    item: str
    """An environment's name, or ``media``."""
    final: Path
    root: Path

    def staging(self, backup: str) -> Path:
        return self.root / f"{STAGING}{backup}" / self.item


class Layout(msgspec.Struct, frozen=True):
    """Where everything ends up: below one directory, or in place, where the configuration says it lives."""

    landing: Callable[[str], Landing]
    max_sizes: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Map size in bytes with which the server opens each environment, where that is known."""
    environments: Sequence[Path] = ()
    """Directories of environments that may lie in or around the media tree, which must not touch them."""

    def is_environment(self, media: Path, path: bytes) -> bool:
        """Whether ``path`` below ``media`` is the data file of an environment."""
        place = os.path.realpath(os.path.join(os.fsencode(media), path))
        return any(place == os.fsencode(os.path.realpath(directory / DATA_FILE)) for directory in self.environments)


def layout_below(directory: Path) -> Layout:
    """``DIR/<environment>/data.mdb`` and ``DIR/media/…``."""
    root = Path(os.path.abspath(directory))
    return Layout(lambda item: Landing(item, root / item, root))


def layout_in_place(source: Source) -> Layout:
    """The directories that the source is configured with."""
    places = {spec.name: spec.directory for spec in source.environments}
    if source.media is not None:
        places[MEDIA] = source.media

    def landing(item: str) -> Landing:
        if item not in places:
            raise UsageError(
                f"the backup holds {item!r}, which source {source.name!r} has no place for",
                hint="Restore it with --to DIR, or leave it out with --only.",
            )
        return Landing(item, places[item], places[item])

    sizes = {spec.name: spec.max_size for spec in source.environments if spec.max_size is not None}
    return Layout(landing, sizes, [spec.directory for spec in source.environments])


class Plan(msgspec.Struct):
    """A restore, decided. Sizes are bytes."""

    backup: Backup
    selected: Callable[[str], bool]
    layout: Layout
    owners: OwnerMap = by_name
    everything: bool = False
    """Whether ``selected`` is true of all that there is."""
    environments: list[EnvironmentRecord] = msgspec.field(default_factory=list)
    has_media: bool = False
    stand_ins: StandIns = msgspec.field(default_factory=dict)
    files: int = 0
    file_bytes: int = 0
    fetch_bytes: int = 0
    """Of the files that are not in place already; without holes."""
    in_place: bool = False
    """Whether the target has any media, so that a file of the backup may be among them."""
    unchanged: int = 0
    """Files that are in place already, and are left alone."""
    linked: set[bytes] = msgspec.field(default_factory=set)
    """Paths of files that have hard links: these are always fetched, because a link needs its file beside it."""
    objects: set[str] = msgspec.field(default_factory=set)
    """Ids of the objects that are to be fetched."""
    archived: Sequence[Archived] = ()
    """Those of them that must be thawed first."""

    def is_unchanged(self, record: FileRecord) -> bool:
        """Whether ``record`` is in place already, to the last attribute, so that it is left alone."""
        if not self.in_place:
            return False
        place = self.layout.landing(MEDIA).final
        return record.path_bytes not in self.linked and is_unchanged(place, record, self.owners)

    @property
    def environment_bytes(self) -> int:
        return sum(record.size for record in self.environments)

    @property
    def landings(self) -> list[Landing]:
        items = [record.name for record in self.environments] + [MEDIA] * self.has_media
        return [self.layout.landing(item) for item in items]

    @property
    def roots(self) -> list[Path]:
        """Each directory in which something is staged, once."""
        return list(dict.fromkeys(landing.root for landing in self.landings))


def selected_media(archive: Archive, plan: Plan) -> Iterator[MediaRecord]:
    """The media records that ``plan`` needs; reads contents anew, and proves them at its end."""
    return _chosen(plan, _media(archive, plan.backup))


def _chosen(plan: Plan, media: Iterator[MediaRecord]) -> Iterator[MediaRecord]:
    # To select costs as much as to decode.
    return media if plan.everything else select(media, plan.selected, plan.stand_ins)


def _media(archive: Archive, backup: Backup) -> Iterator[MediaRecord]:
    for record in archive.contents(backup):
        if not isinstance(record, HeaderRecord | EnvironmentRecord | WarningRecord):
            yield record


def plan_restore(
    archive: Archive, backup: Backup, layout: Layout, only: Sequence[str] = (), owners: OwnerMap = by_name
) -> Plan:
    """Read all of contents and decide; raises ``NotFoundError`` when ``only`` selects nothing."""
    plan = Plan(backup, selector(only), layout, owners, everything=not only)
    media = _note_environments(archive, plan)
    if only:
        plan.stand_ins = find_stand_ins(media, plan.selected)
        media = _media(archive, backup)
    _note_media(plan, _chosen(plan, media))
    # What else may be in its place is for check_plan to refuse.
    if plan.has_media and (place := plan.layout.landing(MEDIA).final).is_dir() and _occupied(place):
        _note_unchanged(plan, selected_media(archive, plan))
    if not plan.environments and not plan.has_media:
        wanted = " or ".join(repr(pattern) for pattern in only) or "anything"
        raise NotFoundError(
            f"backup {backup.manifest.backup} does not hold {wanted}",
            hint=f"archiver ls {backup.manifest.backup} shows what it holds.",
        )
    plan.backup, plan.archived = easiest_copy(archive, backup, plan.objects)
    return plan


def _note_environments(archive: Archive, plan: Plan) -> Iterator[MediaRecord]:
    """All media records, while the environments among all records are noted in ``plan``."""
    names = set()
    for record in archive.contents(plan.backup):
        if isinstance(record, EnvironmentRecord):
            if record.name in names or record.name == MEDIA:
                raise UsageError(f"the backup holds two parts called {record.name!r}")
            names.add(record.name)
            if plan.selected(item_path(record)):
                plan.environments.append(record)
                plan.objects.update(extent.object for extent in record.extents)
        elif not isinstance(record, HeaderRecord | WarningRecord):
            yield record


def _note_media(plan: Plan, records: Iterator[MediaRecord]) -> None:
    """Note what ``records`` need, as if nothing of it were in place."""
    for media in records:
        plan.has_media = True
        if isinstance(media, HardLinkRecord):
            plan.linked.add(media.target_bytes)
        elif isinstance(media, FileRecord):
            plan.files += 1
            plan.file_bytes += media.size
            plan.fetch_bytes += sum(extent.length for extent in media.extents)
            plan.objects.update(extent.object for extent in media.extents)


def _note_unchanged(plan: Plan, records: Iterator[MediaRecord]) -> None:
    """Take out of ``plan`` the files that are in place, which can be told once all hard links are known."""
    plan.in_place = True
    plan.fetch_bytes = 0
    plan.objects = {extent.object for record in plan.environments for extent in record.extents}
    for media in records:
        if not isinstance(media, FileRecord):
            continue
        if plan.is_unchanged(media):
            plan.unchanged += 1
        else:
            plan.fetch_bytes += sum(extent.length for extent in media.extents)
            plan.objects.update(extent.object for extent in media.extents)


def check_plan(plan: Plan, *, force: bool) -> None:
    """Raise what stands in the way: a live process, files that would be replaced, too little room."""
    for root in plan.roots:
        _existing(root)
    for record in plan.environments:
        refuse_live(plan.layout.landing(record.name).final)
        limit = plan.layout.max_sizes.get(record.name)
        if limit is not None and record.size > limit:
            raise TargetError(
                f"environment {record.name!r} has {record.size} bytes, its server is configured for at most {limit}",
                hint=f"Raise storage.{record.name}.max_db_size: else the first write fails with MDB_MAP_FULL.",
            )
    for landing in plan.landings:
        _check_landing(landing)
        place = landing.root if landing.root.exists() else landing.final
        if not force and _occupied(place):
            raise BusyError(
                f"{place} is not empty",
                hint=f"Restore into a new directory, or give --force: what is replaced is kept in {BEFORE}….",
            )
    _check_room(plan)


def _check_landing(landing: Landing) -> None:
    """What is staged in the root must be able to move to its place by a rename, and to no place that a link names."""
    if landing.final == landing.root or not os.path.lexists(landing.final):
        return
    hint = "Move it away, or restore to another directory with --to."
    if landing.final.is_symlink():
        raise TargetError(f"{landing.final} is a symbolic link, expected a directory", hint=hint)
    if not landing.final.is_dir():
        raise TargetError(f"{landing.final} is not a directory", hint=hint)
    if landing.final.stat().st_dev != landing.root.stat().st_dev:
        raise TargetError(f"{landing.final} is on another file system than {landing.root}", hint=hint)


def _occupied(directory: Path) -> bool:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise TargetError(f"{directory} is not a directory") from None
    return any(not name.startswith((STAGING, BEFORE)) and name != "lost+found" for name in names)


def _check_room(plan: Plan) -> None:
    """Staged files need room beside what is there, on each file system."""
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for landing in plan.landings:
        place = _existing(landing.root)
        device = place.stat().st_dev
        places[device] = place
        sizes = {record.name: record.size for record in plan.environments}
        size = sizes.get(landing.item, plan.fetch_bytes)
        needed[device] = needed.get(device, _RESERVE) + size
    for device, size in needed.items():
        status = os.statvfs(places[device])
        free = status.f_bavail * status.f_frsize
        if free < size:
            raise TargetError(
                f"too little room on the file system of {places[device]}: {size / 2**20:.1f} MiB needed, "
                f"{free / 2**20:.1f} MiB free",
                hint="Free space, or restore to another file system with --to.",
            )


def _existing(path: Path) -> Path:
    """The nearest directory above ``path``, or ``path`` itself, that is there."""
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise TargetError(f"{path} is not a directory", hint="Give another directory with --to.")
    return path
