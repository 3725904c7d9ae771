"""``archiver verify``."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from archiver.cli import human
from archiver.cli.describe import authorship, removal, removed_document, signed, warn_of_doubts
from archiver.cli.options import PathArgument, access_options, command, download_options
from archiver.cli.output import Output, report
from archiver.errors import ArchiverError, IntegrityError, is_unreachable

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions
    from archiver.operations.history import Backup, Survey
    from archiver.operations.verify import Level, Verified


@command("verify", example="archiver verify --all\narchiver verify latest --level restore --identity recovery-card.txt")
@click.argument("backup", required=False)
@click.option("--all", "everything", is_flag=True, help="Every copy of every backup that is within its promise.")
@click.option(
    "--level",
    type=click.Choice(["storage", "data", "restore"]),
    default="storage",
    show_default=True,
    help="storage: signature, lists, objects present. data: read and hash everything. restore: also rebuild.",
)
@click.option("--work", type=PathArgument(), help="Where level restore puts environments together.")
@access_options
@download_options
def verify(
    *, output: Output, access: "AccessOptions", backup: str | None, everything: bool, level: str, work: Path | None
) -> int:
    """Prove that BACKUP, by default the latest, is what it was. Levels data and restore need --identity.

    Of a backup with copies in several classes, one that is whole is looked at, or the one that CLASS/BACKUP names.
    Exits with 4 when anything is not what it was; with --all every copy is tried, and the worst exit code counts: 4
    also for a backup that was removed before the end of its promise. Exits with 3 when nothing vouches for the time
    that it claims, or another copy of it is damaged.
    """
    from archiver.buffers import tune_heap
    from archiver.errors import NotFoundError, UsageError
    from archiver.operations.access import resolve_access
    from archiver.operations.copies import naming_copies, whole_copy
    from archiver.operations.verify import memory_of
    from archiver.operations.verify import verify as prove

    tune_heap()
    if everything and backup is not None:
        raise UsageError(f"both a backup ({backup}) and --all", hint="Give one or the other.")
    resolved = resolve_access(access)
    memory = memory_of(resolved)
    with resolved.open() as archive:

        def check(found: "Backup") -> dict[str, object]:
            warn_of_doubts(output, found)
            with output.progress():
                verified = prove(archive, found, cast("Level", level), output, directory=work, memory=memory)
            return _show(output, verified)

        if not everything:
            found = archive.find(backup or "latest")
            with naming_copies(found, "verify", "--level", level):
                copy = whole_copy(archive, found)
            with naming_copies(copy, "verify", "--level", level):
                output.document([check(copy)])
            return output.exit_code()
        survey = archive.survey(archive.store.clock())
        if not survey.backups and not survey.removed:
            raise NotFoundError(
                f"{archive.store.url} has no backup of source {archive.source!r} within its promise",
                hint=archive.hint(),
            )
        results, worst = _check_all(output, survey, check)
        output.document(results + [removed_document(item, archive.source) for item in survey.removed])
    return worst or output.exit_code()


def _check_all(
    output: Output, survey: "Survey", check: Callable[["Backup"], dict[str, object]]
) -> tuple[list[dict[str, object]], int]:
    """What each copy of each backup comes to, and the worst exit code among them."""
    from msgspec.structs import replace

    from archiver.operations.history import Unreadable

    worst = 0
    results: list[dict[str, object]] = []
    for found in survey.backups:
        copies = [found] if isinstance(found, Unreadable) else [replace(found, place=place) for place in found.places]
        for copy in copies:
            try:
                if isinstance(copy, Unreadable):
                    raise copy.error
                results.append(check(copy))
            except ArchiverError as error:
                if is_unreachable(error):
                    raise
                place = copy.place
                results.append(
                    {
                        "backup": place.backup,
                        "class": place.retention_class,
                        "verified": False,
                        "problem": error.message,
                        "hint": error.hint,
                    }
                )
                # One JSON document: there the problem stands among the results.
                error.message = f"{place.backup} in {place.retention_class}: {error.message}"
                worst = max(worst, error.exit_code if output.json else report(output, error))
    for missing in survey.removed:
        output.warn(f"{missing.previous.backup} is missing: {removal(missing)}")
        worst = max(worst, IntegrityError.exit_code)
    return results, worst


def _show(output: Output, verified: "Verified") -> dict[str, object]:
    """One backup that was proven, for people; what there is to say for machines."""
    backup = verified.backup
    checked = f"{human.plural(verified.objects, 'object')}, {human.size(verified.stored_bytes)} stored"
    if verified.environments is not None and verified.files is not None:
        environments = human.plural(verified.environments, "environment")
        checked += f", {environments} and {human.plural(verified.files, 'file')}"
    name = f"{backup.manifest.backup} in {backup.place.retention_class}"
    output.line(f"{name}: verified ({verified.level}): {checked}, {signed(backup)}")
    return {
        "backup": backup.manifest.backup,
        "class": backup.place.retention_class,
        "verified": True,
        "level": verified.level,
        **authorship(backup),
        "objects": verified.objects,
        "stored_bytes": verified.stored_bytes,
        "environments": verified.environments,
        "files": verified.files,
    }
