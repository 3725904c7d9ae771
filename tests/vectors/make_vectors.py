"""Makes the format vectors that are not there yet: ``python -m tests.vectors.make_vectors``.

A vector that exists is never written again: it says what the format was when it was released. Each file in
``failures/`` is the valid destination with one thing wrong: a comment, the error that a reader must raise with a part
of its message, and the keys that differ, as Base64 (null: the key is missing).
"""

import base64
import json

from tests.vectors.destination import DESTINATION, VECTORS, make_destination
from tests.vectors.failures import FAILURES
from tests.vectors.mutations import Files

FAILURE_DIRECTORY = VECTORS / "failures"


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


def main() -> None:
    """Make what is missing."""
    if not DESTINATION.exists():
        make_destination()
    FAILURE_DIRECTORY.mkdir(exist_ok=True)
    valid = read_destination()
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
        path.write_text(json.dumps(vector, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
