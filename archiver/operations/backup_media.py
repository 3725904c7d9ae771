"""The media tree of a backup: small files in packs, large ones as objects of their own, unchanged ones where they
lie already."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from archiver.catalog.records import ContentsRecord, Extent, ObjectRecord
from archiver.operations.backup_lists import BackupLists
from archiver.operations.recognition import Recognition, Unchanged, first_names
from archiver.operations.remembered import now_ns, remembered
from archiver.operations.reuse import Reuse
from archiver.operations.uploads import EXTENT_LIMIT, Uploads
from archiver.progress import Reporter
from archiver.sources.entries import (
    CHANGED,
    DirectoryEntry,
    FileEntry,
    Found,
    HardLinkEntry,
    HardLinks,
    Skipped,
    SymlinkEntry,
    UnreadableError,
    warning_record,
)
from archiver.sources.files import LargeFile
from archiver.sources.media import Batch, MediaTree, batches
from archiver.sources.packs import Member, Pack

_Outcome = Member | HardLinkEntry | DirectoryEntry | SymlinkEntry | Skipped


class MediaCopy:
    """Copies the open ``tree`` once, in path order; ``reuse`` is prepared."""

    def __init__(self, tree: MediaTree, uploads: Uploads, lists: BackupLists, reuse: Reuse, reporter: Reporter) -> None:
        self._tree = tree
        self._uploads = uploads
        self._lists = lists
        self._reuse = reuse
        self._reporter = reporter
        self._links = HardLinks()
        self._recognition = Recognition(tree, reuse)
        self._used: dict[str, int] = {}

    @property
    def used(self) -> Mapping[str, int]:
        """Stored bytes, by id, of the objects of earlier backups that the files lie in."""
        return self._used

    def copy(self, expected: int) -> None:
        """Everything in the tree; the previous backup had ``expected`` files."""
        self._reporter.phase("media")
        # What is unchanged is no FileEntry, so it counts as an entry and not as bytes of a pack.
        for batch in batches(self._recognition.walk()):
            self._copy_batch(batch)
            self._recognition.flush()
        if expected and not self._lists.totals.files:
            reason = f"holds no file, the previous backup had {expected:,}: is its volume mounted?"
            self._lists.put(warning_record(b".", reason))
        self._reuse.finish()

    def _copy_batch(self, batch: Batch[Found | Unchanged]) -> None:
        """A batch's small files as one pack, its large ones as objects of their own; then all records, in order."""
        for linked in first_names(batch.entries):
            self._links.remember(linked)
        began = now_ns()
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
            if isinstance(entry, Unchanged):
                self._put_unchanged(entry)
            elif entry.path in large:
                self._lists.put(*large[entry.path])
            else:
                self._put(pack.outcomes[entry.path] if isinstance(entry, FileEntry) else entry, pack_id, began)

    def _put(self, outcome: _Outcome, pack_id: str, began: int) -> None:
        """What was found, or became of a small file that was read from ``began`` on."""
        if not isinstance(outcome, Member):
            self._lists.put(outcome.record())
            return
        record = outcome.record(pack_id)
        self._lists.put(record)
        if outcome.changed:
            self._lists.put(warning_record(outcome.file.path, CHANGED))
        self._remember(outcome.file, record.blake3, record.extents, None if outcome.changed else began)

    def _put_unchanged(self, item: Unchanged) -> None:
        """A file that lies in objects of earlier backups; its attributes are today's."""
        link = self._links.find(item.entry)
        if link is not None:
            self._lists.put(link.record())
            return
        self._links.remember(item.entry)
        for usable in item.objects:
            if usable.record.id not in self._used:
                self._used[usable.record.id] = usable.record.stored_size
                self._lists.register(usable.record, usable.key)
        extents = item.file.extents
        self._reuse.keep(extents)
        self._lists.put(item.entry.record(item.file.size, item.file.blake3, extents))

    def _copy_large(self, file: FileEntry) -> list[ContentsRecord]:
        """The records that a large file becomes: itself or a link, and a warning where there is one."""
        link = self._links.find(file)
        if link is not None:
            return [link.record()]
        began = now_ns()
        try:
            with LargeFile(self._tree, file.path) as source:
                objects: list[ObjectRecord] = []
                extents: list[Extent] = []
                for piece in source.pieces(EXTENT_LIMIT):
                    objects.append(self._uploads.write("file", piece.buffers()))
                    extents += piece.extents(objects[-1].id)
                record = source.record(extents)
                result: list[ContentsRecord] = [record]
                changed = source.changed
                if changed:
                    result.append(warning_record(file.path, CHANGED))
                self._links.remember(source.entry)
                entry = replace(source.entry, size=source.size)
        except UnreadableError as error:
            return [error.skipped.record()]
        for stored in objects:
            self._lists.register(stored)
        self._remember(entry, record.blake3, extents, None if changed else began)
        return result

    def _remember(self, file: FileEntry, blake3: str, extents: Sequence[Extent], began: int | None) -> None:
        self._reuse.keep(extents)
        self._recognition.remember(file.path, remembered(file, blake3, extents, began))
