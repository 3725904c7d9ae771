"""Finds planted secrets in bytes, in whatever usual form they were written there."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import zstandard

Kind = Literal["key", "content", "name"]
"""``key``: opens or signs something, or proves who somebody is. ``content``: of a file or a database. ``name``: of a
file, a database, or a label: private in the store, and for the operator's eyes elsewhere."""

PIECE = 16
"""Of a longer secret each piece of so many bytes counts: half a key is no less of a leak."""
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


@dataclass(frozen=True, slots=True)
class Secret:
    """One planted secret: its bytes, and the texts in which it is written down."""

    name: str
    kind: Kind
    raw: bytes
    texts: tuple[str, ...] = ()

    def forms(self) -> Iterator[bytes]:
        """All that is looked for."""
        for form in (*_encodings(self.raw), *(text.encode() for text in self.texts)):
            yield from (form[start : start + PIECE] for start in range(0, max(1, len(form) - PIECE + 1), PIECE))
        for text in self.texts:
            encoded = text.encode()
            yield from (encoding for encoding in _encodings(encoded) if encoding != encoded)
            yield quote(text, safe="").encode()


def _encodings(raw: bytes) -> Iterator[bytes]:
    """``raw`` itself, as Python shows it, in hex, and what Base64 makes of it at each of the three offsets."""
    yield raw
    yield repr(raw)[2:-1].encode()
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for offset in range(3):
        # The first and the last characters also hold bits of what stands beside it.
        start, end = (0, 2, 3)[offset], (offset + len(raw)) // 3 * 4
        encoded = base64.b64encode(bytes(offset) + raw + bytes(2))
        yield encoded[start:end]
        yield encoded[start:end].translate(bytes.maketrans(b"+/", b"-_"))


class Detector:
    """Knows all planted secrets."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._forms = [(form, secret) for secret in secrets for form in sorted(set(secret.forms()))]
        # A shorter one would be found by chance.
        assert min(len(form) for form, _ in self._forms) >= 10

    def find(self, data: bytes | str, *kinds: Kind) -> set[str]:
        """The names of the secrets of these ``kinds``, by default of all, that are in ``data``."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogateescape")
        return {secret.name for form, secret in self._forms if (not kinds or secret.kind in kinds) and form in data}

    def find_stored(self, key: str, data: bytes, *kinds: Kind) -> set[str]:
        """As ``find``, in the key and the bytes of an object, and in what zstd makes of them."""
        found = self.find(key, *kinds) | self.find(data, *kinds)
        if data.startswith(ZSTD_MAGIC):
            found |= self.find(decompressed(data), *kinds)
        return found


def decompressed(data: bytes) -> bytes:
    """The plaintext of a file of zstd frames."""
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return reader.read()
