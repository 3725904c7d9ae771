"""What the tests of archiver doctor share."""

from collections.abc import Iterable

from archiver.operations.findings import Finding


def problems(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Severity and message of what is not ok, each with a sentence of advice."""
    found = [finding for finding in findings if finding.severity != "ok"]
    for finding in found:
        assert finding.hint is not None
        assert finding.hint[0].isupper()
        assert finding.hint.endswith(".")
    return [(finding.severity, finding.message) for finding in found]
