"""Writing one object: plaintext through compression and encryption into the store."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from archiver.buffers import Buffer
from archiver.config import Tuning
from archiver.crypto.age import seal
from archiver.crypto.recipients import Recipient
from archiver.stages.compression import levels
from archiver.stages.frames import compress
from archiver.stages.measure import Meter, measured
from archiver.stores.base import Store, StoredObject


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one stream: sizes in bytes and BLAKE3 before and after the stages, and what the store says."""

    plaintext: Meter
    stored: Meter
    item: StoredObject


def write_object(
    store: Store,
    key: str,
    plaintext: Iterable[Buffer],
    recipients: Sequence[Recipient],
    tuning: Tuning,
    *,
    advance: Callable[[int], None] | None = None,
) -> Written:
    """Create ``key`` from ``plaintext``: compressed, and encrypted to ``recipients`` unless there are none (the public
    lists). Nothing is created when any part of the way fails. ``advance`` hears bytes of plaintext."""
    before, after = Meter(), Meter()
    frames = compress(
        measured(plaintext, before, advance),
        level=levels(tuning.compression),
        frame_size=tuning.frame_size,
        workers=tuning.workers,
    )
    stored: Iterable[Buffer] = seal(frames, recipients) if recipients else frames
    body = measured(stored, after)
    # Closing frames ends the compressing threads even where an error's traceback keeps this frame alive.
    with closing(frames), closing(body):
        item = store.create(key, body)
    return Written(before, after, item)
