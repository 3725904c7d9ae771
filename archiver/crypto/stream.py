"""The payload of an age file: ChaCha20-Poly1305 in 64 KiB chunks, sealed in order and opened in any order.

Source: the age v1 specification, https://c2sp.org/age, section "Payload". The nonce of a chunk is its index in 11
bytes, big endian, and a byte that is 1 for the final chunk. Every chunk but the final one is full; the final one is
empty only where the whole plaintext is.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from archiver.buffers import Buffer
from archiver.crypto.header import derive_key
from archiver.errors import DecryptionError, FormatError

CHUNK = 65536
"""Bytes of plaintext in every chunk but the last."""
OVERHEAD = 16
"""Bytes that sealing adds to a chunk: the Poly1305 tag."""
SEALED_CHUNK = CHUNK + OVERHEAD
NONCE_SIZE = 16
"""Bytes between the header and the first chunk, from which the payload's key is derived."""


def chunk_count(plaintext_size: int) -> int:
    """How many chunks hold ``plaintext_size`` bytes: at least one."""
    return max(1, -(-plaintext_size // CHUNK))


def sealed_size(plaintext_size: int) -> int:
    """Bytes of all sealed chunks of ``plaintext_size`` bytes, without header and nonce."""
    return plaintext_size + chunk_count(plaintext_size) * OVERHEAD


def plaintext_size(payload_size: int) -> int:
    """The inverse of ``sealed_size``; raises ``FormatError`` for a size that no plaintext has.

    The size alone proves nothing: it holds once the last chunk has opened as the final one.
    """
    full, rest = divmod(payload_size, SEALED_CHUNK)
    if payload_size < OVERHEAD or 0 < rest < OVERHEAD or (rest == OVERHEAD and full):
        raise FormatError(f"encrypted payload is truncated or extended: {payload_size} bytes are no whole chunks")
    return payload_size - (full + (rest > 0)) * OVERHEAD


class PayloadSealer:
    """Seals the chunks of one payload in order. ``nonce`` is random and new for every file."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = _payload_cipher(file_key, nonce)
        self._index = 0
        self._finished = False

    def seal_into(self, plaintext: Buffer, out: bytearray | memoryview, *, last: bool) -> int:
        """Seal the next chunks into the start of ``out``; returns the bytes written, ``sealed_size(len(plaintext))``.

        Without ``last``, ``plaintext`` is one or more full chunks; with it, what remains, which is empty only where
        nothing went before. Raises ``ValueError`` for anything else and after the last chunk.
        """
        source, target = memoryview(plaintext), memoryview(out)
        size = len(source)
        whole = size > 0 and size % CHUNK == 0
        if self._finished or not (whole or (last and (size or not self._index))):
            raise ValueError(f"cannot seal {size} bytes after chunk {self._index}, finished={self._finished}")
        written = 0
        for start in range(0, size or 1, CHUNK):
            chunk = source[start : start + CHUNK]
            nonce = _chunk_nonce(self._index, final=last and start + CHUNK >= size)
            written += self._cipher.encrypt_into(nonce, chunk, None, target[written : written + len(chunk) + OVERHEAD])
            self._index += 1
        self._finished = last
        return written


class PayloadOpener:
    """Opens the chunks of one payload, in any order and from several threads."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = _payload_cipher(file_key, nonce)

    def open_into(self, index: int, sealed: Buffer, out: bytearray | memoryview, *, last: bool) -> int:
        """Open consecutive chunks, from the one at ``index`` on, into the start of ``out``; returns the bytes written.

        ``last`` says that ``sealed`` ends with the final chunk, which proves that the payload is complete; without
        it, ``sealed`` is full chunks only. Raises ``FormatError`` for impossible sizes and ``DecryptionError`` when a
        chunk was altered or is not the one that belongs there; ``out`` then holds nothing of value.
        """
        source, target = memoryview(sealed), memoryview(out)
        size = len(source)
        if not size or (not last and size % SEALED_CHUNK):
            raise FormatError(f"expected whole chunks of {SEALED_CHUNK} bytes, got {size} bytes")
        if last and index and size == OVERHEAD:
            raise FormatError("the final chunk of an encrypted payload is empty: the payload is malformed")
        plaintext_size(size)
        written = 0
        for start in range(0, size, SEALED_CHUNK):
            chunk = source[start : start + SEALED_CHUNK]
            nonce = _chunk_nonce(index, final=last and start + SEALED_CHUNK >= size)
            try:
                written += self._cipher.decrypt_into(
                    nonce, chunk, None, target[written : written + len(chunk) - OVERHEAD]
                )
            except InvalidTag:
                raise DecryptionError(
                    f"chunk {index} of an encrypted payload was altered, moved, or its end was cut off or extended"
                ) from None
            index += 1
        return written


def _payload_cipher(file_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive_key(file_key, salt=nonce, info=b"payload"))


def _chunk_nonce(index: int, *, final: bool) -> bytes:
    """The chunk's nonce; an index beyond 11 bytes raises ``OverflowError`` instead of repeating a nonce."""
    return index.to_bytes(11, "big") + (b"\x01" if final else b"\x00")
