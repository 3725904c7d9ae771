"""The C2SP/CCTV vectors of age, as the package ``cctv-age`` describes them in its README. Standard library only."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Expected = Literal["success", "no match", "HMAC failure", "header failure", "payload failure", "armor failure"]
_KEYS = {"expect", "payload", "identity", "passphrase", "armored", "compressed", "file key", "comment"}


@dataclass(frozen=True)
class Vector:
    """One vector: an age file, who is to open it, and what must come of that."""

    name: str
    expected: Expected
    armored: bool
    identities: tuple[str, ...]
    passphrases: tuple[str, ...]
    payload: str | None
    """SHA-256 of all the plaintext that may be released; None where nothing can be."""
    file_key: bytes | None
    file: bytes


@dataclass(frozen=True)
class Listed:
    """What ``vectors.tsv`` says of a vector. So the tests have the same names whether it is installed or not."""

    name: str
    expected: Expected
    armored: bool


def listed_vectors() -> list[Listed]:
    """The vectors that the package must hold."""
    lines = Path(__file__).with_name("vectors.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return [Listed(name, _expected(expected), form == "armored") for name, expected, form in rows]


def read_vector(path: Path) -> Vector:
    """The vector in the file at ``path``."""
    head, _, file = path.read_bytes().partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in head.decode("utf-8").split("\n"):
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value)
    # The README says to ignore vectors with other keys; there are none, and a new one is to be looked at.
    assert fields.keys() <= _KEYS, fields.keys() - _KEYS
    if "compressed" in fields:
        assert fields["compressed"] == ["zlib"]
        file = zlib.decompress(file)
    file_key = _only(fields, "file key")
    return Vector(
        path.name,
        _expected(_only(fields, "expect") or ""),
        _only(fields, "armored") == "yes",
        tuple(fields.get("identity", ())),
        tuple(fields.get("passphrase", ())),
        _only(fields, "payload"),
        bytes.fromhex(file_key) if file_key else None,
        file,
    )


def _only(fields: Mapping[str, list[str]], key: str) -> str | None:
    values = fields.get(key, [])
    assert len(values) <= 1, key
    return values[0] if values else None


def _expected(text: str) -> Expected:
    for value in get_args(Expected):
        if text == value:
            return value  # type: ignore[no-any-return]
    raise AssertionError(f"unknown expectation {text!r}")
