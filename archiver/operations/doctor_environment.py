"""What ``archiver doctor`` finds in one environment: how a backup would be taken, and what is wrong or will be."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from archiver.config import PinLimits
from archiver.environment.headroom import refusal
from archiver.environment.inspection import EnvironmentReport, ReaderReport, inspect
from archiver.environment.locks import LOCK_FILE, OWN_NUMBERS
from archiver.environment.messages import Declared
from archiver.environment.meta import DATA_FILE
from archiver.errors import ArchiverError, NotFoundError
from archiver.operations.findings import Finding, nearest
from archiver.sources.environments import EnvironmentSpec, damage_explained

_HELD = 0.1
"""The share of the map that a reader may keep from being used again before it is worth a warning. How far it is behind
says little: ten thousand small commits may cost less than ten large ones."""
_MISSING = "Check the path and, in a container, that its volume is mounted there (volumes: in docker-compose.yml)."
_GROW = "Raise the server's map size (max_db_size) or free disk space, before its writes fail with MDB_MAP_FULL."
_REBUILD = "Rebuild it while the server is stopped: mdb_dump -a of it into mdb_load of a new directory."


def examine_environment(source: str, spec: EnvironmentSpec, limits: PinLimits, state: Path) -> Iterator[Finding]:
    """All findings on ``spec``; ``state`` is the state directory, which takes what an external command copies."""
    subject = f"environment {spec.name} of {source}"
    if spec.command is not None:
        yield from _program(subject, spec, spec.command[0])
    try:
        with damage_explained(spec):
            report = inspect(spec.directory, limits=limits, declared=_declared(spec), max_size=spec.max_size)
    except NotFoundError as error:
        if spec.command is None:
            yield Finding("error", subject, _what_is_missing(spec.directory, error), _MISSING)
        else:
            yield Finding("ok", subject, f"{way(spec, None)}; {spec.directory} cannot be seen from here")
        return
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    yield _verdict(subject, spec, report)
    yield from _size(subject, spec, report)
    yield from _room(subject, report, limits)
    yield from _readers(subject, report)
    yield from _lock_file(subject, report)
    if spec.command is not None:
        yield from _space_for_copy(subject, report, state)


def way(spec: EnvironmentSpec, report: EnvironmentReport | None) -> str:
    """How a backup would be taken now, and why; ``report`` may be missing where a command makes the copy."""
    if spec.command is not None:
        return f"external: the configured command {spec.command[0]!r} makes the copy"
    if spec.frozen:
        return "frozen: it is declared a snapshot of a file system, which nothing writes to"
    if report is not None and report.way == "locked":
        return "locked: a process has it open, and a slot in its reader table protects the snapshot"
    return "cold: no process has it open, so it is read without locks and looked at again afterwards"


def _declared(spec: EnvironmentSpec) -> Declared | None:
    if spec.command is not None:
        return "external"
    return "frozen" if spec.frozen else None


def _verdict(subject: str, spec: EnvironmentSpec, report: EnvironmentReport) -> Finding:
    if isinstance(report.way, ArchiverError):
        return replace(Finding.of(subject, report.way), environment=report)
    if report.leaked_pages:
        leaked = _count(report.leaked_pages, "leaked page")
        message = f"it has {leaked}, neither in use nor free, and LMDB makes no compact copy of such a file"
        return Finding("error", subject, message, _REBUILD, report)
    return Finding("ok", subject, f"a backup would be {way(spec, report)}", environment=report)


def _program(subject: str, spec: EnvironmentSpec, program: str) -> Iterator[Finding]:
    if shutil.which(program) is None:
        yield Finding(
            "error", subject, f"the configured command {program!r} is no program that this user may run",
            f"Install it, or give its absolute path in external.{spec.name} of archiver.toml.",
        )  # fmt: skip


def _what_is_missing(directory: Path, error: NotFoundError) -> str:
    return error.message if directory.is_dir() else f"{directory} does not exist, or is no directory"


def _size(subject: str, spec: EnvironmentSpec, report: EnvironmentReport) -> Iterator[Finding]:
    if spec.max_size is not None and report.meta.size > spec.max_size:
        yield Finding(
            "warning", subject,
            f"its pages take {_mebibytes(report.meta.size)}, more than the server's max_db_size of "
            f"{_mebibytes(spec.max_size)}: it opens, and the first write fails with MDB_MAP_FULL",
            "Increase max_db_size in the server's configuration, and start it anew.",
        )  # fmt: skip


def _room(subject: str, report: EnvironmentReport, limits: PinLimits) -> Iterator[Finding]:
    """Little room: a live server's backup was refused already, and others would be once a server runs."""
    if report.pages is None or report.way == "frozen" or isinstance(report.way, ArchiverError):
        return
    if reason := refusal(report.pages.room, limits.headroom / 100):
        yield Finding("warning", subject, f"{reason}; backups beside a busy server are refused or given up", _GROW)


def _readers(subject: str, report: EnvironmentReport) -> Iterator[Finding]:
    dead = [reader for reader in report.readers if reader.state == "stale" and reader.txnid is not None]
    if dead:
        numbers = ", ".join(str(reader.number) for reader in dead)
        behind = _count(max(reader.behind or 0 for reader in dead), "transaction")
        yield Finding(
            "warning", subject,
            f"readers that are dead ({numbers}), up to {behind} behind, keep pages from being used again",
            _clearing(report, dead),
        )  # fmt: skip
    if report.pages is None or not report.pages.held:
        return
    held = report.pages.held * report.meta.page_size
    oldest = max(report.readers, key=lambda reader: reader.behind or 0)
    if held > _HELD * report.meta.map_size and oldest.state != "stale":
        yield Finding(
            "warning", subject,
            f"reader {oldest.number}, {_count(oldest.behind or 0, 'transaction')} behind, keeps "
            f"{held / report.meta.map_size:.0%} of the map from being used again",
            "Let it end its read transaction, or restart its process; a backup of archiver's ends by itself.",
        )  # fmt: skip


def _clearing(report: EnvironmentReport, dead: list[ReaderReport]) -> str:
    if all(reader.number in OWN_NUMBERS for reader in dead):
        # Every pin of archiver's does so, also the one for this look.
        cleared = "looking has cleared them" if report.way == "locked" else "the next backup clears them"
        return f"They are archiver's own: {cleared}."
    check = f"run mdb_stat -rr {report.directory}, or " if report.lock.version == 1 else ""
    return f"To clear them, {check}restart the server."


def _lock_file(subject: str, report: EnvironmentReport) -> Iterator[Finding]:
    data, lock = report.data_access, report.lock_access
    if lock is not None and not report.may_start:
        path = report.directory / LOCK_FILE
        yield Finding(
            "warning", subject,
            f"{LOCK_FILE} is of user {lock.uid} with mode {lock.mode:04o}, so that user {data.uid}, who has "
            f"{DATA_FILE}, cannot write it: a server of that user does not start",
            f"Give it to that user: chown {data.uid}:{data.gid} {path}.",
        )  # fmt: skip


def _space_for_copy(subject: str, report: EnvironmentReport, state: Path) -> Iterator[Finding]:
    directory = nearest(state)
    free = shutil.disk_usage(directory).free
    # A command that does not compact writes the whole file.
    if free < report.file_size:
        yield Finding(
            "warning", subject,
            f"the external command's copy may not fit: {directory} has {_mebibytes(free)} free, "
            f"expected {_mebibytes(report.file_size)}",
            "Free space, or set state_directory in archiver.toml to a larger disk.",
        )  # fmt: skip


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
