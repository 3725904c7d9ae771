"""``archiver ls``."""

import stat
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions

_TYPES = {"directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


@command("ls", example="archiver ls latest media/2026 --identity recovery-card.txt")
@click.argument("backup")
@click.argument("path", default="")
@access_options
def ls(*, output: Output, access: "AccessOptions", backup: str, path: str) -> None:
    """List what BACKUP holds at and below PATH, or matching it as a glob.

    With --json, one JSON object per line.
    """
    from archiver.errors import NotFoundError
    from archiver.operations.access import resolve_access
    from archiver.operations.listing import list_entries

    count = 0
    with resolve_access(access).open() as archive:
        found = archive.find(backup)
        for entry in list_entries(archive, found, path.strip("/")):
            count += 1
            modified = "" if entry.modified is None else human.time(entry.modified)
            output.document(
                {
                    "path": entry.path,
                    "kind": entry.kind,
                    "size": entry.size,
                    "mode": f"{entry.mode:04o}",
                    "modified": modified or None,
                    "target": entry.target,
                }
            )
            mode = stat.filemode(_TYPES.get(entry.kind, stat.S_IFREG) | entry.mode)
            target = f" -> {entry.target}" if entry.target is not None else ""
            name = f"{entry.path}{target}".replace("\n", "\\n")
            output.line(f"{mode}  {human.size(entry.size):>10}  {modified:20}  {name}")
    if not count:
        raise NotFoundError(f"backup {found.manifest.backup} has no {path!r}")
