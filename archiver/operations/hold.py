"""``archiver hold``: copy a backup into the class without an end."""

import msgspec

from archiver.config import HELD
from archiver.errors import AlreadyExistsError, IntegrityError
from archiver.operations.archive import Archive
from archiver.operations.copy_plan import CopyPlan, plan_copy
from archiver.operations.copy_site import CopySite
from archiver.operations.history import Backup
from archiver.operations.needs import check_vaults, missing, needs
from archiver.operations.promotion import Copied, carry_out
from archiver.progress import Reporter


class Hold(msgspec.Struct, frozen=True):
    """What a copy in ``held`` takes and, unless that was only asked for, what was done."""

    plan: CopyPlan
    copied: Copied | None


def hold(site: CopySite, reference: str, reporter: Reporter, *, dry_run: bool) -> Hold:
    """Copy the backup called ``reference`` into ``held``. Raises ``AlreadyExistsError`` for one that is there, and
    ``IntegrityError`` where a copy is there that does not hold it, and where a vault that it needs has no key file.

    What fails in between leaves keys in ``held`` that do not expire: holding it again goes on with them, releasing it
    removes them, and so does archiver expire after a while (release.LEFT_OVER).
    """
    # CLASS/ID would be that copy alone, and its placement believed: the oldest copy's is to count.
    backup = site.archive.find(reference.rpartition("/")[2])
    check_vaults(site.archive, backup)
    if HELD in backup.promises:
        _check_held(site.archive, backup)
        raise AlreadyExistsError(
            f"{backup.manifest.backup} is held already",
            hint=f"archiver verify {HELD}/{backup.manifest.backup} --level data proves that copy; one that is not "
            "whole is to be released, then held again.",
        )
    for doubt in backup.doubts:
        reporter.warn(doubt)
    if backup.signer is not None and backup.signer.revoked is not None:
        reporter.warn(
            f"{backup.manifest.backup} is signed by a key that is revoked: once only the held copy is left, nothing "
            "shows that it is older than the revocation, and only --trust-unsigned restores it"
        )
    plan = plan_copy(site.archive, backup, HELD, site.terms)
    shortened = site.shortened(HELD)
    if shortened is not None:
        reporter.warn(shortened)
    return Hold(plan, None if dry_run else carry_out(site.archive, plan, reporter))


def _check_held(archive: Archive, backup: Backup) -> None:
    """Raise ``IntegrityError`` unless the copy of ``backup`` in ``held`` has no end, and LIST shows all of it there.
    Somebody may have planted another, or deleted some of it."""
    name = backup.manifest.backup
    need = next(need for need in needs(archive, [backup]) if need.retention_class == HELD)
    gone, promise = missing(need), backup.promises[HELD]
    elsewhere = [key for key in need.keys if not key.startswith(f"{HELD}/")]
    if promise is not None:
        problem = f"it is promised until {promise:%Y-%m-%d} only"
    elif elsewhere:
        problem = f"it needs {elsewhere[0]}, which is not in {HELD}"
    elif gone:
        problem = f"{gone[0]} is missing, or not what it should be"
    else:
        return
    raise IntegrityError(
        f"the copy of {name} in {HELD} does not hold it: {problem}",
        hint=f"archiver release {name} removes that copy; then hold it again.",
    )
