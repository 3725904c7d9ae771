"""``archiver doctor``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.cli import human
from archiver.cli.options import command, config_option
from archiver.cli.output import WARNINGS_EXIT_CODE, Output

if TYPE_CHECKING:
    from archiver.environment.inspection import EnvironmentReport, ReaderReport
    from archiver.environment.processes import Process
    from archiver.operations.findings import Finding

_INDENT = " " * 9
_FAMILIES = {1: "LMDB 0.9", 2: "mdb.master, as heed uses it"}


@command("doctor", example="archiver doctor")
@config_option
def doctor(*, output: Output, config: Path | None) -> int:
    """Check that the next backup can work and that it could be restored.

    Changes no data. Beside a live server it takes a pin for a moment, which clears reader slots that dead archivers
    have left. Of environments it reads meta pages, the list of free pages and little else; only a backup reads all.

    In a bucket it tries what a backup needs: it sends up to 9 MiB into an upload that it aborts, and reads as much of
    the data of a backup.

    Exits with 1 when something is wrong, with 3 when there are only warnings.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.doctor import examine

    findings = []
    for finding in examine(load_config(find_config(config))):
        findings.append(finding)
        if output.quiet and finding.severity == "ok":
            continue
        output.line(f"{finding.severity:8} {finding.subject}: {finding.message}")
        if finding.hint is not None:
            output.line(f"{_INDENT}hint: {finding.hint}")
        if finding.environment is not None:
            for line in describe(finding.environment, datetime.now(UTC)):
                output.line(f"{_INDENT}{line}")
    output.document([_document(finding) for finding in findings])
    severities = {finding.severity for finding in findings}
    return 1 if "error" in severities else WARNINGS_EXIT_CODE if "warning" in severities else 0


def describe(report: "EnvironmentReport", now: datetime) -> list[str]:
    """The facts on an environment, one line for each."""
    meta, pages = report.meta, report.pages
    used = f"{human.number(meta.last_page + 1)}, used and free ones not counted, as commits came too fast"
    room = ""
    if pages is not None:
        used = f"{human.number(pages.used)} in use, {human.number(pages.free)} free"
        room = f", {human.mebibytes(pages.room.beyond + pages.room.reusable)} can still be written to"
    return [
        f"file: {report.directory}/data.mdb, {human.size(report.file_size)}",
        f"pages: {used}, {meta.page_size} bytes each",
        f"map: {human.mebibytes(meta.map_size)}, {report.fullness:.1%} taken{room}",
        f"lock: {_lock(report)}",
        f"live: {_live(report)}",
        *(f"reader: {_reader(reader, now)}" for reader in report.readers if reader.txnid is not None),
    ]


def _lock(report: "EnvironmentReport") -> str:
    lock = report.lock
    if not lock.present:
        return "no lock.mdb: the next process makes one"
    if lock.version is None:
        return "lock.mdb is not LMDB's"
    family = f"format {lock.version} ({_FAMILIES.get(lock.version, 'not known to archiver')})"
    if not lock.live:
        left = f"{family}, of no live process"
        return f"{left}: harmless, as the next one makes it anew; nothing to delete" if report.may_start else left
    return f"{family}, {len(report.readers)} of {report.reader_slots} reader slots taken"


def _live(report: "EnvironmentReport") -> str:
    if not report.lock.live:
        return "no process"
    known = [_name(process) for process in report.processes]
    known += [f"pid {number} of another container or namespace" for number in report.elsewhere]
    return ", ".join(known) or report.lock.holder_text


def _reader(reader: "ReaderReport", now: datetime) -> str:
    if reader.state == "archiver":
        owner = "an archiver's pin"
    elif reader.state == "stale":
        owner = f"dead ({reader.number})"
    elif reader.process is None:
        owner = f"pid {reader.number} of another container or namespace"
    else:
        owner = _name(reader.process)
    age = ""
    if reader.process is not None:
        age = f", for at most {human.duration((now - reader.process.started).total_seconds())}"
    return f"{owner}, {human.plural(reader.behind or 0, 'transaction')} behind{age}"


def _name(process: "Process") -> str:
    return f"pid {process.pid} ({process.name})"


def _document(finding: "Finding") -> dict[str, object]:
    report = finding.environment
    return {
        "severity": finding.severity,
        "subject": finding.subject,
        "message": finding.message,
        "hint": finding.hint,
        "facts": finding.facts if report is None else _facts(report),
    }


def _facts(report: "EnvironmentReport") -> dict[str, object]:
    pages, room = report.pages, None if report.pages is None else report.pages.room
    return {
        "path": str(report.directory),
        "method": report.way if isinstance(report.way, str) else None,
        "file_bytes": report.file_size,
        "page_bytes": report.meta.page_size,
        "pages": report.meta.last_page + 1,
        "used_pages": None if pages is None else pages.used,
        "free_pages": None if pages is None else pages.free,
        "leaked_pages": report.leaked_pages,
        "held_bytes": None if pages is None else pages.held * report.meta.page_size,
        "txnid": report.meta.txnid,
        "map_bytes": report.meta.map_size,
        "map_taken_bytes": report.meta.size,
        "map_writable_bytes": None if room is None else room.beyond + room.reusable,
        "disk_free_bytes": None if room is None else room.disk_free,
        "lock_version": report.lock.version,
        "live": report.lock.live,
        "processes": [_process(process) for process in report.processes],
        "pids_elsewhere": list(report.elsewhere),
        "reader_slots": report.reader_slots,
        "readers": [
            {
                "number": reader.number,
                "state": reader.state,
                "process": None if reader.process is None else _process(reader.process),
                "txnid": reader.txnid,
                "transactions_behind": reader.behind,
            }
            for reader in report.readers
        ],
    }


def _process(process: "Process") -> dict[str, object]:
    return {"pid": process.pid, "name": process.name, "started": human.time(process.started)}
