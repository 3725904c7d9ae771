"""``archiver doctor``."""

from pathlib import Path

from archiver.cli.options import command, config_option
from archiver.cli.output import WARNINGS_EXIT_CODE, Output


@command("doctor", example="archiver doctor")
@config_option
def doctor(*, output: Output, config: Path | None) -> int:
    """Check that the next backup can work and that it could be restored; changes nothing.

    Exits with 1 when something is wrong, with 3 when there are only warnings.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.doctor import examine

    findings = []
    for finding in examine(load_config(find_config(config))):
        findings.append(finding)
        output.line(f"{finding.severity:8} {finding.subject}: {finding.message}")
        if finding.hint is not None:
            output.line(f"         hint: {finding.hint}")
    output.document(
        [
            {"severity": item.severity, "subject": item.subject, "message": item.message, "hint": item.hint}
            for item in findings
        ]
    )
    severities = {finding.severity for finding in findings}
    return 1 if "error" in severities else WARNINGS_EXIT_CODE if "warning" in severities else 0
