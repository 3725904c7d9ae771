"""What else is valid: the destination with one thing that could as well have been written."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from archiver.catalog.records import CONSISTENCIES, Method
from tests.vectors.mutations import Files, edit_lines, edit_manifest


@dataclass(frozen=True, slots=True)
class Variant:
    """One vector: what is different, in words, and the label that a reader must show for the backup."""

    name: str
    comment: str
    consistency: Method
    alters: Callable[[Files], object]


def use_method(method: Method, files: Files) -> None:
    """Say that every environment was copied by ``method``."""
    edit_lines(
        files,
        "contents",
        lambda lines: [line.update(method=method) for line in lines if line["type"] == "environment"],
    )
    edit_manifest(files, consistency=method)


VARIANTS = tuple(
    Variant(
        f"method-{method}", f"the environment was copied by the method {method}", method, partial(use_method, method)
    )
    for method in CONSISTENCIES
    if method != "cold"
)
