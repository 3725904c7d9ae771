"""What else is valid: the destination with one thing that could as well have been written."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from archiver.catalog.records import CONSISTENCIES, Method
from tests.vectors.mutations import HELD_TERMS, PROMOTED_TERMS, Files, edit_lines, edit_manifest, promote


@dataclass(frozen=True, slots=True)
class Variant:
    """One vector: what is different, in words, and what a reader must show for the backup: its label, for how many days
    from its start it is promised (None: for ever), and whether there is something to warn of."""

    name: str
    comment: str
    consistency: Method
    alters: Callable[[Files], object]
    promised_days: int | None = 35
    doubted: bool = False


def use_method(method: Method, files: Files) -> None:
    """Say that every environment was copied by ``method``."""
    edit_lines(
        files,
        "contents",
        lambda lines: [line.update(method=method) for line in lines if line["type"] == "environment"],
    )
    edit_manifest(files, consistency=method)


_METHODS = tuple(
    Variant(
        f"method-{method}", f"the environment was copied by the method {method}", method, partial(use_method, method)
    )
    for method in CONSISTENCIES
    if method != "cold"
)
_COPIES = (
    Variant(
        "promoted",
        "the backup was copied into the class monthly: some objects lie there, at a plain or a further key, others in "
        "yearly; the original has expired",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS, lent="yearly"),
        promised_days=400,
    ),
    Variant(
        "promoted-beside-the-original",
        "the backup lies in daily and in monthly: the longest promise counts",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS, original=True),
        promised_days=400,
    ),
    Variant(
        "held",
        "all that is left is the copy in held, which is promised for ever",
        "cold",
        lambda files: promote(files, "held", HELD_TERMS),
        promised_days=None,
    ),
    Variant(
        "promoted-without-terms",
        "a copy in another class without terms.json is promised for as long as its manifest says",
        "cold",
        lambda files: promote(files, "monthly", None),
    ),
    Variant(
        "terms-shorter",
        "terms.json says less than the manifest: somebody planted it, and the copy is promised for as long as its "
        "manifest says",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS.replace(b"400", b"10")),
    ),
    Variant(
        "terms-oversized",
        "terms.json has 1,025 bytes: the copy is promised for as long as its manifest says, with a warning",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS.ljust(1025)),
        doubted=True,
    ),
    Variant(
        "terms-malformed",
        "terms.json is no JSON: the same",
        "cold",
        lambda files: promote(files, "monthly", b"keep_days = 400\n"),
        doubted=True,
    ),
    Variant(
        "terms-of-a-later-version",
        "terms.json has a version that nobody knows: the same",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS.replace(b'"version":1', b'"version":2')),
        doubted=True,
    ),
    Variant(
        "terms-half-null",
        "terms.json has no days to keep, and days of lease: the same",
        "cold",
        lambda files: promote(files, "monthly", PROMOTED_TERMS.replace(b"400", b"null")),
        doubted=True,
    ),
)
VARIANTS = (*_METHODS, *_COPIES)
