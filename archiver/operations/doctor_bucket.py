"""What ``archiver doctor`` says of a bucket's settings. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import asdict

from archiver.config import RetentionClass
from archiver.operations.findings import Finding
from archiver.operations.rules_in_words import days, describe_rule
from archiver.retention.checking import problems
from archiver.retention.rules import Rule
from archiver.stores.s3_facts import BucketSettings, Unknown

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
    subject: str, settings: BucketSettings, region: str, base: str, classes: Classes, lock: str | None = None
) -> Iterator[Finding]:
    """``region`` is the configured one; ``base`` is what full keys begin with, empty or with a ``/`` at its end;
    ``lock`` is the mode of Object Lock that the destination asks for."""
    yield Finding("ok", subject, _summary(settings), facts=_facts(settings))
    for name, value in asdict(settings).items():
        if isinstance(value, Unknown):
            yield Finding("ok", subject, f"{_NAMES[name]} cannot be read: {value.reason}")
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
        versioned = settings.versioning in ("enabled", "suspended")
        yield from lifecycle_findings(subject, settings.lifecycle, base, classes, versioned=versioned)
    yield from _lock_findings(subject, settings, lock)


def lifecycle_findings(
    subject: str, rules: Sequence[Rule], base: str, classes: Classes, *, versioned: bool
) -> Iterator[Finding]:
    """Which rules there are, which of them delete what is still promised, and which are missing."""
    if rules:
        yield Finding("ok", subject, f"lifecycle: {'; '.join(map(describe_rule, rules))}")
    for problem in problems(rules, classes, base, versioned=versioned):
        yield Finding(problem.severity, subject, problem.message, problem.hint)


def _lock_findings(subject: str, settings: BucketSettings, wanted: str | None) -> Iterator[Finding]:
    if wanted is not None and settings.object_lock is None:
        yield Finding(
            "error", subject, f"Object Lock is off, and the option object_lock asks for {wanted}: every backup fails",
            "Turn Object Lock on in the bucket, or remove the option.",
        )  # fmt: skip


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
        default = "without a default" if lock.days is None else f"{days(lock.days)}, {lock.mode}"
        said.append(f"Object Lock on ({default})")
    if not isinstance(settings.encryption, Unknown):
        said.append(f"default encryption {settings.encryption or 'none'}")
    if settings.unblocked == ():
        said.append("public access blocked")
    return "; ".join(said) or "none of its settings can be read"


def _facts(settings: BucketSettings) -> dict[str, object]:
    """``settings`` for machines, with those that cannot be read apart."""
    unknown = {name: value.reason for name, value in asdict(settings).items() if isinstance(value, Unknown)}
    # A time stays one: what prints it writes all times alike.
    found = msgspec.to_builtins(settings, builtin_types=(datetime,))
    return {name: value for name, value in found.items() if name not in unknown} | {"unknown": unknown}
