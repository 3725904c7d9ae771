"""What ``archiver doctor`` says of a bucket's settings. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields

from archiver.catalog.names import VAULTS
from archiver.config import RetentionClass
from archiver.operations.findings import Finding
from archiver.stores.s3_facts import BucketSettings, LifecycleRule, Unknown

Classes = Mapping[str, RetentionClass]

_NAMES = {
    "region": "its region",
    "versioning": "versioning",
    "lifecycle": "its lifecycle rules",
    "object_lock": "Object Lock",
    "encryption": "its default encryption",
    "unblocked": "the block of public access",
    "public": "whether its policy is public",
}


def settings_findings(
    subject: str, settings: BucketSettings, region: str, base: str, classes: Classes
) -> Iterator[Finding]:
    """``region`` is the configured one; ``base`` is what full keys begin with, empty or with a ``/`` at its end."""
    yield Finding("ok", subject, _summary(settings), facts=_facts(settings))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, Unknown):
            yield Finding("ok", subject, f"{_NAMES[field.name]} cannot be read: {value.reason}")
    if isinstance(settings.region, str) and settings.region != region:
        yield Finding(
            "warning", subject, f"it is in {settings.region}, and requests are signed for {region}",
            f"Set the option region to {settings.region}.",
        )  # fmt: skip
    if settings.public is True:
        yield Finding("error", subject, "its policy opens it to everybody", "Remove that from the bucket's policy.")
    if not isinstance(settings.unblocked, Unknown) and settings.unblocked:
        yield Finding(
            "warning", subject, f"public access is not blocked: {', '.join(settings.unblocked)} off",
            "Block all public access in the bucket's settings, unless the whole account does.",
        )  # fmt: skip
    if not isinstance(settings.lifecycle, Unknown):
        yield from lifecycle_findings(subject, settings.lifecycle, base, classes)


def lifecycle_findings(subject: str, rules: Sequence[LifecycleRule], base: str, classes: Classes) -> Iterator[Finding]:
    """Which rules there are, which of them delete what is still promised, and which are missing."""
    if rules:
        yield Finding("ok", subject, f"lifecycle: {'; '.join(map(_description, rules))}")
    # archiver gives no tags: a rule for tagged objects never meets its keys.
    rules = [rule for rule in rules if not rule.tagged]
    for rule in rules:
        if deleted := [what for what, prefix, days in _needed(base, classes) if _deletes(rule, prefix, days)]:
            hint = "Correct the rule, or keep and lease of the class in archiver.toml."
            if _deletes(rule, base + VAULTS):
                hint = f"Give the rule a prefix that leaves out {base}{VAULTS}."
            yield Finding(
                "error",
                subject,
                f"lifecycle rule {rule.name!r} {_expiry(rule)}, too soon for {'; '.join(deleted)}",
                hint,
            )
    data = {name: _data(base, name) for name in sorted(classes)}
    if kept := [name for name, prefix in data.items() if not any(_deletes(rule, prefix) for rule in rules)]:
        yield Finding(
            "warning", subject,
            f"no lifecycle rule lets backups of {_listing(kept)} expire: they stay until somebody deletes them",
            f"Add rules: {'; '.join(_wanted(base, name, classes[name]) for name in kept)}.",
        )  # fmt: skip
    if unended := [name for name, prefix in data.items() if not any(_aborts(rule, prefix) for rule in rules)]:
        yield Finding(
            "warning", subject,
            f"no lifecycle rule aborts incomplete uploads of {_listing(unended)}: what killed runs leave costs money",
            f"Add a rule for {base or 'the whole bucket'} that aborts incomplete multipart uploads after 7 days.",
        )  # fmt: skip


def _wanted(base: str, name: str, retention: RetentionClass) -> str:
    backups, data = f"{base}{name}/backups/", _data(base, name)
    return f"{backups} expires after {retention.keep} days, {data} after {retention.keep + retention.lease}"


def _needed(base: str, classes: Classes) -> Iterator[tuple[str, str, int | None]]:
    """What must stay, below which prefix, and for how many days; None: for ever."""
    yield "vault files, without which nobody can restore", base + VAULTS, None
    for name, retention in sorted(classes.items()):
        days = retention.keep + retention.lease
        yield f"manifests of {name}, promised for {retention.keep} days", f"{base}{name}/backups/", retention.keep
        yield f"data of {name}, needed for {days} days", _data(base, name), days


def _data(base: str, name: str) -> str:
    return f"{base}{name}/data/"


def _deletes(rule: LifecycleRule, prefix: str, days: int | None = None) -> bool:
    """Whether some key below ``prefix`` goes by ``rule``, and sooner than ``days`` after its creation."""
    if not rule.prefix.startswith(prefix) and not prefix.startswith(rule.prefix):
        return False
    if rule.expires_at is not None:
        return True
    return rule.expires_days is not None and (days is None or rule.expires_days < days)


def _aborts(rule: LifecycleRule, prefix: str) -> bool:
    return rule.aborts_days is not None and not rule.sized and prefix.startswith(rule.prefix)


def _expiry(rule: LifecycleRule) -> str:
    if rule.expires_at is not None:
        return f"deletes on {rule.expires_at:%Y-%m-%d}"
    return "" if rule.expires_days is None else f"deletes after {_days(rule.expires_days)}"


def _description(rule: LifecycleRule) -> str:
    does = [_expiry(rule)] if _expiry(rule) else []
    if rule.aborts_days is not None:
        does.append(f"aborts uploads after {_days(rule.aborts_days)}")
    only = " of certain tags" if rule.tagged else " of certain sizes" if rule.sized else ""
    return f"{rule.name!r} for {rule.prefix or 'all keys'}{only} {' and '.join(does) or 'deletes no current key'}"


def _summary(settings: BucketSettings) -> str:
    said = []
    if isinstance(settings.region, str):
        said.append(f"in {settings.region}")
    if not isinstance(settings.versioning, Unknown):
        said.append(f"versioning {settings.versioning}")
    lock = settings.object_lock
    if lock is None:
        said.append("Object Lock off")
    elif not isinstance(lock, Unknown):
        default = "without a default" if lock.days is None else f"{_days(lock.days)}, {lock.mode}"
        said.append(f"Object Lock on ({default})")
    if not isinstance(settings.encryption, Unknown):
        said.append(f"default encryption {settings.encryption or 'none'}")
    if settings.unblocked == ():
        said.append("public access blocked")
    return "; ".join(said) or "none of its settings can be read"


def _facts(settings: BucketSettings) -> dict[str, object]:
    """``settings`` for machines, with those that cannot be read apart."""
    found = {field.name: getattr(settings, field.name) for field in fields(settings)}
    unknown = {name: value.reason for name, value in found.items() if isinstance(value, Unknown)}
    return {name: value for name, value in asdict(settings).items() if name not in unknown} | {"unknown": unknown}


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count:,} days"


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
