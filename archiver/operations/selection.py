"""Which media records a restore needs: what is selected, the directories above it, and what links in it stand for."""

from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace

from archiver.catalog.records import DirectoryRecord, FileRecord, HardLinkRecord, MediaRecord, encode_text
from archiver.operations.paths import item_path, media_path

Selected = Callable[[str], bool]
StandIns = dict[bytes, list[bytes]]
"""Paths of files that are not selected, each with the selected hard links to it, of which the first takes its place."""


def find_stand_ins(records: Iterable[MediaRecord], selected: Selected) -> StandIns:
    """The hard links among ``records`` that are selected without the file that they are one more name of."""
    found: StandIns = {}
    for record in records:
        if isinstance(record, HardLinkRecord) and selected(item_path(record)):
            target = record.target_bytes
            if not selected(media_path(target)):
                found.setdefault(target, []).append(record.path_bytes)
    return found


def select(records: Iterable[MediaRecord], selected: Selected, stand_ins: StandIns) -> Iterator[MediaRecord]:
    """The records to restore out of all ``records``, which come in path order."""
    above: dict[bytes, DirectoryRecord] = {}
    for record in records:
        if isinstance(record, FileRecord) and record.path_bytes in stand_ins:
            first, *others = stand_ins[record.path_bytes]
            yield from _directories_above(first, above)
            yield replace(record, **_path(first))
            for other in others:
                target, target_b64 = encode_text(first)
                yield HardLinkRecord(**_path(other), target=target, target_b64=target_b64)
        elif isinstance(record, HardLinkRecord) and record.target_bytes in stand_ins:
            continue
        elif selected(item_path(record)):
            if above:
                yield from _directories_above(record.path_bytes, above)
            yield record
        elif isinstance(record, DirectoryRecord):
            above[record.path_bytes] = record


def _directories_above(path: bytes, unselected: dict[bytes, DirectoryRecord]) -> Iterator[DirectoryRecord]:
    """The records of the directories that lead to ``path`` and were not selected themselves, each once."""
    segments = path.split(b"/")
    for place in (b".", *(b"/".join(segments[:depth]) for depth in range(1, len(segments)))):
        record = unselected.pop(place, None)
        if record is not None:
            yield record


def _path(path: bytes) -> dict[str, str | None]:
    text, encoded = encode_text(path)
    return {"path": text, "path_b64": encoded}
