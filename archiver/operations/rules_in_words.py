"""What a lifecycle rule does, in words. Pure."""

from archiver.retention.rules import Rule


def describe_rule(rule: Rule) -> str:
    """``'NAME' for PREFIX deletes after 35 days``."""
    return f"{rule.name!r} for {scope(rule)} {' and '.join(actions(rule)) or 'deletes no current key'}"


def scope(rule: Rule) -> str:
    """Which keys it is for."""
    only = " of certain tags" if rule.tagged else " of certain sizes" if rule.sized else ""
    return f"{rule.prefix or 'all keys'}{only}"


def actions(rule: Rule) -> list[str]:
    """What it does to them, as far as that matters here."""
    does = []
    if rule.expires_at is not None:
        does.append(f"deletes on {rule.expires_at:%Y-%m-%d}")
    if rule.expires_days is not None:
        does.append(f"deletes after {days(rule.expires_days)}")
    if rule.archives_days is not None:
        does.append(f"archives after {days(rule.archives_days)}")
    if rule.aborts_days is not None:
        does.append(f"aborts uploads after {days(rule.aborts_days)}")
    if rule.noncurrent_days is not None:
        does.append(f"deletes old versions after {days(rule.noncurrent_days)}")
    if rule.removes_markers:
        does.append("removes delete markers that hide nothing")
    return does


def days(count: int) -> str:
    return "1 day" if count == 1 else f"{count:,} days"
