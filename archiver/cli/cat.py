"""``archiver cat``."""

import sys
from typing import TYPE_CHECKING

import click

from archiver.cli.options import access_options, command, download_options
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions


@command("cat", example="archiver cat latest media/42.png --identity recovery-card.txt > 42.png")
@click.argument("backup")
@click.argument("path")
@access_options
@download_options
def cat(*, output: Output, access: "AccessOptions", backup: str, path: str) -> None:
    """Write one file of BACKUP to stdout, fetching only what it needs.

    Of a backup with copies in several classes it is read from one that is whole; CLASS/BACKUP names the one to read.
    Its hash is checked at the end: what was written before an exit code other than 0 is not to be trusted.
    """
    from archiver.buffers import tune_heap
    from archiver.operations.access import resolve_access
    from archiver.operations.listing import read_file

    tune_heap()
    with resolve_access(access).open() as archive:
        for buffer in read_file(archive, archive.find(backup), path, output.warn):
            sys.stdout.buffer.write(buffer)
    sys.stdout.buffer.flush()
