"""``archiver verify``."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from archiver.cli import human
from archiver.cli.options import PathArgument, access_options, command
from archiver.cli.output import Output, report

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions
    from archiver.operations.verify import Level


@command("verify", example="archiver verify --all\narchiver verify latest --level restore --identity recovery-card.txt")
@click.argument("backup", required=False)
@click.option("--all", "everything", is_flag=True, help="Every backup that is within its promise.")
@click.option(
    "--level",
    type=click.Choice(["storage", "data", "restore"]),
    default="storage",
    show_default=True,
    help="storage: signature, lists, objects present. data: read and hash everything. restore: also rebuild.",
)
@click.option("--work", type=PathArgument(), help="Where level restore puts environments together.")
@access_options
def verify(
    *, output: Output, access: "AccessOptions", backup: str | None, everything: bool, level: str, work: Path | None
) -> int:
    """Prove that BACKUP, by default the latest, is what it was. Levels data and restore need --identity.

    Exits with 4 when anything is not; with --all every backup is tried, and the worst exit code counts.
    """
    from archiver.errors import ArchiverError, NotFoundError, UsageError
    from archiver.operations.access import resolve_access
    from archiver.operations.archive import Unreadable
    from archiver.operations.verify import verify as prove

    if everything and backup is not None:
        raise UsageError(f"both a backup ({backup}) and --all", hint="Give one or the other.")
    worst = 0
    results: list[dict[str, object]] = []
    with resolve_access(access).open() as archive:
        candidates = archive.backups(archive.store.clock()) if everything else [archive.find(backup or "latest")]
        if not candidates:
            raise NotFoundError(f"{archive.store.url} has no backup of source {archive.source!r}", hint=archive.hint())
        for candidate in candidates:
            try:
                if isinstance(candidate, Unreadable):
                    raise candidate.error
                with output.progress():
                    found = prove(archive, candidate, cast("Level", level), output, directory=work)
            except ArchiverError as error:
                results.append({"backup": candidate.place.backup, "verified": False, "problem": error.message})
                if not everything:
                    raise
                # One JSON document: there the problem stands among the results.
                worst = max(worst, error.exit_code if output.json else report(output, error))
                continue
            manifest = found.backup.manifest
            results.append(
                {"backup": manifest.backup, "verified": True, "level": level, "objects": found.objects,
                 "stored_bytes": found.stored_bytes, "environments": found.environments, "files": found.files}
            )  # fmt: skip
            checked = f"{human.plural(found.objects, 'object')}, {human.size(found.stored_bytes)} stored"
            if found.environments is not None and found.files is not None:
                environments = human.plural(found.environments, "environment")
                checked += f", {environments} and {human.plural(found.files, 'file')}"
            output.line(f"{manifest.backup}: verified ({level}): {checked}, signature {found.backup.signature}")
    output.document(results)
    return worst
