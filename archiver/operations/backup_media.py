"""The media tree of a backup: small files in packs, large ones as objects of their own."""

from archiver.catalog.records import ContentsRecord, Extent, ObjectRecord
from archiver.operations.backup_lists import BackupLists
from archiver.operations.uploads import EXTENT_LIMIT, Uploads
from archiver.progress import Reporter
from archiver.sources.entries import CHANGED, FileEntry, HardLinks, UnreadableError, warning_record
from archiver.sources.files import LargeFile
from archiver.sources.media import Batch, MediaTree, batches
from archiver.sources.packs import Member, Pack


class MediaCopy:
    """Copies the open ``tree`` once, in path order."""

    def __init__(self, tree: MediaTree, uploads: Uploads, lists: BackupLists, reporter: Reporter) -> None:
        self._tree = tree
        self._uploads = uploads
        self._lists = lists
        self._reporter = reporter
        self._links = HardLinks()

    def copy(self, expected: int) -> None:
        """Everything in the tree; the previous backup had ``expected`` files."""
        self._reporter.phase("media")
        for batch in batches(self._tree.walk()):
            self._copy_batch(batch)
        if expected and not self._lists.totals.files:
            reason = f"holds no file, the previous backup had {expected:,}: is its volume mounted?"
            self._lists.put(warning_record(b".", reason))

    def _copy_batch(self, batch: Batch) -> None:
        """A batch's small files as one pack, its large ones as objects of their own; then all records, in order."""
        pack = Pack(self._tree, batch.small, self._links)
        pack_id = ""
        if not pack.empty:
            record = self._uploads.write("tar", pack.buffers())
            self._lists.register(record)
            pack_id = record.id
        large: dict[bytes, list[ContentsRecord]] = {}
        for file in (*batch.large, *pack.grown):
            large[file.path] = self._copy_large(file)
        for entry in batch.entries:
            if entry.path in large:
                self._lists.put(*large[entry.path])
                continue
            outcome = pack.outcomes[entry.path] if isinstance(entry, FileEntry) else entry
            if not isinstance(outcome, Member):
                self._lists.put(outcome.record())
                continue
            self._lists.put(outcome.record(pack_id))
            if outcome.changed:
                self._lists.put(warning_record(entry.path, CHANGED))

    def _copy_large(self, file: FileEntry) -> list[ContentsRecord]:
        """The records that a large file becomes: itself or a link, and a warning where there is one."""
        link = self._links.find(file)
        if link is not None:
            return [link.record()]
        try:
            with LargeFile(self._tree, file.path) as source:
                objects: list[ObjectRecord] = []
                extents: list[Extent] = []
                for piece in source.pieces(EXTENT_LIMIT):
                    objects.append(self._uploads.write("file", piece.buffers()))
                    extents += piece.extents(objects[-1].id)
                result: list[ContentsRecord] = [source.record(extents)]
                if source.changed:
                    result.append(warning_record(file.path, CHANGED))
                self._links.remember(source.entry)
        except UnreadableError as error:
            return [error.skipped.record()]
        for record in objects:
            self._lists.register(record)
        return result
