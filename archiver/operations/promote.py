"""``archiver promote``: copy into the calendar's classes what belongs there. Every backup does so at its end."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from archiver.errors import ArchiverError, RefusedError, is_unreachable
from archiver.operations.archive import Archive
from archiver.operations.copy_plan import CopyPlan, plan_copy
from archiver.operations.history import Backup
from archiver.operations.needs import check_vaults
from archiver.operations.promotion import Copied, promote_copy
from archiver.progress import Reporter
from archiver.retention.policy import Term
from archiver.retention.promotion import Known, Promotion, promotions

_REFUSALS = 3
"""In a row, after which nothing more is tried in a class: the store lets nothing be copied into it."""


class Promoted(msgspec.Struct, frozen=True):
    """A promotion that was due and is done."""

    promotion: Promotion
    copied: Copied


class Due(msgspec.Struct, frozen=True):
    """A promotion that is due."""

    promotion: Promotion
    plan: CopyPlan | ArchiverError
    """What it takes, as long as no other is done before it; or why it cannot be done."""


def promote_due(archive: Archive, terms: Mapping[str, Term], reporter: Reporter) -> list[Promoted]:
    """Do the promotions that are due under ``terms``, those of the configuration, longest class first.

    One that fails is told, and the next backup of the same period takes its place: a damaged one must not leave the
    period without any. Where none can, it is due again the next time. A store that cannot be reached ends it, and one
    that refuses several in a row ends that class. For the one run that holds the source's lock.
    """
    backups, candidates = _believed(archive)
    now = archive.store.clock()
    done: list[Promoted] = []
    made: set[str] = set()
    for name in dict.fromkeys(promotion.target for promotion in promotions(candidates, terms, now)):
        failed: set[str] = set()
        refused = 0
        while refused < _REFUSALS:
            lasting = [replace(item, lasting=item.lasting and item.backup not in failed) for item in candidates]
            due = promotions(lasting, {name: terms[name]}, now)
            if not due:
                break
            promotion = due[0]
            try:
                check_vaults(archive, backups[promotion.backup])
                copied = promote_copy(archive, backups[promotion.backup], name, terms, reporter, made)
            except ArchiverError as error:
                reporter.warn(failure(promotion, error))
                if is_unreachable(error):
                    return done
                failed.add(promotion.backup)
                refused = refused + 1 if isinstance(error, RefusedError) else 0
            else:
                refused = 0
                done.append(Promoted(promotion, copied))
                made.update(copied.keys)
                candidates = [_with_copy(item, promotion.backup, name, copied.promise) for item in candidates]
    return done


def preview_due(archive: Archive, terms: Mapping[str, Term]) -> list[Due]:
    """What ``promote_due`` would do; nothing is written."""
    found = []
    backups, candidates = _believed(archive)
    for promotion in promotions(candidates, terms, archive.store.clock()):
        try:
            check_vaults(archive, backups[promotion.backup])
            plan = plan_copy(archive, backups[promotion.backup], promotion.target, terms)
            found.append(Due(promotion, plan))
        except ArchiverError as error:
            found.append(Due(promotion, error))
    return found


def failure(promotion: Promotion, error: ArchiverError) -> str:
    """Why a promotion was not done, in a line."""
    hint = f" ({error.hint})" if error.hint else ""
    return f"{promotion.backup} cannot be copied into {promotion.target}: {error.message}{hint}"


def known(backups: Sequence[Backup]) -> list[Known]:
    """What decides about promotions and a rescue, of backups that are believed."""
    return [
        Known(
            backup=backup.manifest.backup,
            started=backup.manifest.started,
            finished=backup.manifest.finished,
            promised=backup.manifest.promised_until,
            promises=backup.promises,
            # A copy is younger than the revocation, and would be refused once the original is gone (chain.py).
            lasting=backup.signer is not None and backup.signer.revoked is None,
        )
        for backup in backups
    ]


def _believed(archive: Archive) -> tuple[dict[str, Backup], list[Known]]:
    backups = {item.manifest.backup: item for item in archive.backups() if isinstance(item, Backup)}
    return backups, known(list(backups.values()))


def _with_copy(item: Known, backup: str, name: str, promise: datetime | None) -> Known:
    return replace(item, promises={**item.promises, name: promise}) if item.backup == backup else item
