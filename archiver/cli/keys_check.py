"""``archiver keys check``."""

from typing import TYPE_CHECKING

from archiver.cli import human
from archiver.cli.options import access_options, command
from archiver.cli.output import Output

if TYPE_CHECKING:
    from archiver.operations.access import AccessOptions

_FAILED = 4


@command("check", example="archiver keys check --identity recovery-card.txt")
@access_options
def check(*, output: Output, access: "AccessOptions") -> int:
    """Prove that your own key opens every vault that is needed: that of new backups, and those of backups within their
    promise.

    Exits with 4 when there is one that it does not open. Run it after every change of the keys, and now and then.
    """
    from archiver.operations.keys_access import open_site
    from archiver.operations.keys_check import check_keys

    with open_site(access, reporter=output) as site:
        vaults = check_keys(site, output)
    output.document(
        [
            {
                "vault": vault.id,
                "current": vault.is_current,
                "backups": len(vault.backups),
                "newest": vault.backups[0] if vault.backups else None,
                "opened_by": vault.opened_by,
                "problem": None if vault.problem is None else vault.problem.message,
            }
            for vault in vaults
        ]
    )
    rows = [
        (
            vault.id,
            "yes" if vault.is_current else "no",
            human.number(len(vault.backups)),
            vault.backups[0] if vault.backups else "-",
            vault.opened_by or "NOT OPENED",
        )
        for vault in vaults
    ]
    output.table(("VAULT", "IN USE", "BACKUPS", "NEWEST", "OPENED BY"), rows, right=(2,))
    problems = [vault.problem for vault in vaults if vault.problem is not None]
    for hint in dict.fromkeys(problem.hint for problem in problems):
        for problem in problems:
            if problem.hint == hint:
                output.warn(problem.message)
        if hint:
            output.note(f"hint: {hint}")
    return _FAILED if problems else output.exit_code()
