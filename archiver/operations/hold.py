"""``archiver hold``: copy a backup into the class without an end."""

from dataclasses import dataclass

from archiver.config import HELD
from archiver.errors import AlreadyExistsError
from archiver.operations.copy_plan import CopyPlan, plan_copy
from archiver.operations.copy_site import CopySite
from archiver.operations.promotion import Copied, carry_out
from archiver.progress import Reporter


@dataclass(frozen=True, slots=True)
class Hold:
    """What a copy in ``held`` takes and, unless that was only asked for, what was done."""

    plan: CopyPlan
    copied: Copied | None


def hold(site: CopySite, reference: str, reporter: Reporter, *, dry_run: bool) -> Hold:
    """Copy the backup called ``reference`` into ``held``. Raises ``AlreadyExistsError`` for one that is there.

    What fails in between leaves keys in ``held`` that do not expire: holding it again goes on with them, releasing it
    removes them, and so does archiver expire after a while (release.LEFT_OVER).
    """
    backup = site.archive.find(reference)
    if HELD in backup.promises:
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
    if plan.promise is not None:
        reporter.warn(
            f"a rule of the bucket deletes what is held: this copy is sure until {plan.promise:%Y-%m-%d} only; "
            "archiver lifecycle check shows which one"
        )
    return Hold(plan, None if dry_run else carry_out(site.archive, plan, reporter))
