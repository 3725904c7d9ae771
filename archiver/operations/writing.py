"""Writing one object: plaintext through compression and encryption into the store."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

import msgspec

from archiver.buffers import Buffer
from archiver.config import Tuning
from archiver.crypto.age import seal
from archiver.crypto.recipients import Recipient
from archiver.stages.compression import levels
from archiver.stages.frames import compress
from archiver.stages.measure import Count, Meter, counted, measured
from archiver.stores.base import Store, StoredObject


class Written(msgspec.Struct, frozen=True):
    """What became of one stream: bytes before the stages, bytes and BLAKE3 after them, and what the store says."""

    plaintext: Count
    stored: Meter
    item: StoredObject


class Sealing(msgspec.Struct, frozen=True):
    """One stream on its way through the stages; count and meter are complete when ``parts`` is used up."""

    parts: Iterator[Buffer]
    """Of exactly the size that was asked for, but for the last."""
    plaintext: Count
    stored: Meter


@contextmanager
def sealing(
    plaintext: Iterable[Buffer],
    recipients: Sequence[Recipient],
    tuning: Tuning,
    *,
    size: int,
    level: Callable[[], int],
    advance: Callable[[int], None] | None = None,
) -> Iterator[Sealing]:
    """``plaintext`` compressed, and encrypted to ``recipients`` unless there are none (the public lists), in parts of
    ``size`` bytes; no thread works on it when the block has ended. ``advance`` hears bytes of plaintext."""
    before, after = Count(), Meter()
    frames = compress(
        counted(plaintext, before, advance), level=level, frame_size=tuning.frame_size, workers=tuning.workers
    )
    parts: Iterable[Buffer] = seal(frames, recipients, size=size) if recipients else frames
    stored = measured(parts, after)
    # Closing frames ends the compressing threads even where an error's traceback keeps this frame alive.
    with closing(frames), closing(stored):
        yield Sealing(stored, before, after)


def write_object(
    store: Store,
    key: str,
    plaintext: Iterable[Buffer],
    recipients: Sequence[Recipient],
    tuning: Tuning,
) -> Written:
    """Create ``key`` from ``plaintext``, sealed as ``sealing`` does it. Nothing is created when any part of the way
    fails."""
    level = levels(tuning.compression)
    with sealing(plaintext, recipients, tuning, size=store.part_size, level=level) as sealed:
        item = store.create(key, sealed.parts)
    return Written(sealed.plaintext, sealed.stored, item)
