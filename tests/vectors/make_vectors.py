"""Makes the format vectors that are not there yet: ``python -m tests.vectors.make_vectors``.

A vector that exists is never written again: it says what the format was when it was released. Each file in
``failures/`` is the valid destination with one thing wrong: a comment, the error that a reader must raise with a part
of its message, and the keys that differ, as Base64 (null: the key is missing). Each in ``variants/`` is it with one
thing that is different and right, and what a reader must show. ``consistency.json`` says how the label of a
backup follows from the methods of its environments, ``trust.json`` which backups of a history are believed.
"""

import base64
import json
from itertools import combinations
from pathlib import Path

from tests.vectors.destination import DESTINATION, VECTORS, make_destination
from tests.vectors.failures import FAILURES
from tests.vectors.histories import HISTORIES, describe_history
from tests.vectors.mutations import Files
from tests.vectors.variants import VARIANTS

FAILURE_DIRECTORY = VECTORS / "failures"
VARIANT_DIRECTORY = VECTORS / "variants"
CONSISTENCY = VECTORS / "consistency.json"
TRUST = VECTORS / "trust.json"
WEAKEST_FIRST = ("frozen", "external", "cold", "locked")
"""Written down a second time: the vector is to notice when the code's order changes."""


def read_destination() -> Files:
    """Every key of the valid destination with its bytes."""
    paths = (path for path in sorted(DESTINATION.rglob("*")) if path.is_file())
    return {str(path.relative_to(DESTINATION)): path.read_bytes() for path in paths}


def difference(valid: Files, broken: Files) -> dict[str, str | None]:
    """The keys of ``broken`` that are not as in ``valid``."""
    changed: dict[str, str | None] = {
        key: base64.b64encode(data).decode("ascii") for key, data in broken.items() if valid.get(key) != data
    }
    return changed | dict.fromkeys(valid.keys() - broken.keys())


def make_failures(valid: Files) -> None:
    """What is missing of ``failures/``."""
    FAILURE_DIRECTORY.mkdir(exist_ok=True)
    for failure in FAILURES:
        path = FAILURE_DIRECTORY / f"{failure.name}.json"
        if path.exists():
            continue
        broken = dict(valid)
        failure.breaks(broken)
        vector = {
            "comment": failure.comment,
            "error": failure.error.__name__,
            "message": failure.message,
            "files": difference(valid, broken),
        }
        write(path, vector)


def make_variants(valid: Files) -> None:
    """What is missing of ``variants/``."""
    VARIANT_DIRECTORY.mkdir(exist_ok=True)
    for variant in VARIANTS:
        path = VARIANT_DIRECTORY / f"{variant.name}.json"
        if path.exists():
            continue
        altered = dict(valid)
        variant.alters(altered)
        vector = {
            "comment": variant.comment,
            "consistency": variant.consistency,
            "promised_days": variant.promised_days,
            "doubted": variant.doubted,
            "files": difference(valid, altered),
        }
        write(path, vector)


def make_consistency() -> None:
    """Every combination of methods, with the label that it gives."""
    cases = [
        {"methods": list(methods), "consistency": methods[0] if methods else "none"}
        for count in range(len(WEAKEST_FIRST) + 1)
        for methods in combinations(WEAKEST_FIRST, count)
    ]
    write(CONSISTENCY, cases)


def write(path: Path, vector: object) -> None:
    path.write_text(json.dumps(vector, indent=1) + "\n", "utf-8")


def main() -> None:
    """Make what is missing."""
    if not DESTINATION.exists():
        make_destination()
    if not CONSISTENCY.exists():
        make_consistency()
    if not TRUST.exists():
        write(TRUST, [describe_history(history) for history in HISTORIES])
    valid = read_destination()
    make_failures(valid)
    make_variants(valid)


if __name__ == "__main__":
    main()
