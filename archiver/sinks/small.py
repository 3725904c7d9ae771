"""A restored file whose content is at hand as a whole, which is nearly all files: made with few system calls."""

import os

from blake3 import blake3

from archiver.buffers import Buffer
from archiver.catalog.records import FileRecord
from archiver.errors import FormatError
from archiver.filesystem import Beneath, printable
from archiver.sinks.durability import sync_file
from archiver.sinks.files import damage, data_runs, translation, write_all
from archiver.sinks.owners import OwnerMap, dress

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def put_file(tree: Beneath, record: FileRecord, content: Buffer, owners: OwnerMap) -> None:
    """Prove ``content``, then make the file of ``record`` in ``tree`` out of it, with its owner, mode and time.

    What a StagedFile promises holds: nothing is written through a link, blocks of zeros become holes, the errors are
    the same. It has its mode, less the umask, from the beginning: what keeps others away is the staging directory.
    Raises ``FileNotFoundError`` where its directory is missing, and nothing has been done.
    """
    view = memoryview(content)
    path = record.path_bytes
    if len(view) != record.size:
        raise FormatError(f"{printable(path)}: data up to byte {len(view)}, expected {record.size} bytes")
    found = blake3(view).hexdigest()
    if found != record.blake3:
        raise damage(printable(path), found, record.blake3)
    try:
        descriptor = tree.open(path, _NEW, record.mode & 0o777)
        try:
            end = 0
            for first, last in data_runs(view):
                write_all(descriptor, view[first:last], first)
                end = last
            if end < record.size:
                os.ftruncate(descriptor, record.size)
            dress(descriptor, record, owners)
            sync_file(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except (OSError, OverflowError) as error:
        raise translation(printable(path), error) from error
