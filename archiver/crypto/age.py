"""Whole age files: sealed and opened as streams of buffers, and opened at any place.

Source: the age v1 specification, https://c2sp.org/age. The files are binary, never armored.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from archiver.buffers import Buffer, filled, multiples, rechunk
from archiver.crypto.header import FILE_KEY_SIZE, MAX_HEADER, Header, IncompleteHeaderError, encode_header, parse_header
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import Identity, Recipient
from archiver.crypto.stream import (
    CHUNK,
    NONCE_SIZE,
    SEALED_CHUNK,
    PayloadOpener,
    PayloadSealer,
    chunk_count,
    plaintext_size,
    sealed_size,
)
from archiver.errors import FormatError, NoIdentityError, UsageError

MAX_HEAD = MAX_HEADER + NONCE_SIZE
"""With so many first bytes of a file, or all of a shorter one, ``AgeReader`` never needs more."""

PIECE = 1024 * 1024
_PIECE_CHUNKS = 16
"""Chunks that travel as one buffer: 1 MiB, so that what Python does per buffer is lost in the cipher's time."""


def seal(buffers: Iterable[Buffer], recipients: Sequence[Recipient], *, size: int = PIECE) -> Iterator[Buffer]:
    """The age file whose plaintext is ``buffers``, for ``recipients``, in new buffers of exactly ``size`` bytes; only
    the last is shorter.

    The file key is wrapped at once: a recipient that cannot be used raises ``UsageError`` from the call itself. The
    final chunk is sealed only after ``buffers`` ended: what ``buffers`` raises passes through, and what was yielded
    until then, which may be nothing, is never a complete file.

    Memory: one new buffer, of at most 1 MiB for a short file, and one buffer of the source, which is held
    until the next one shows that it is not the last. Only chunks that straddle an end of either are copied.
    """
    _check_labels(recipients)
    file_key, nonce = os.urandom(FILE_KEY_SIZE), os.urandom(NONCE_SIZE)
    header = encode_header([recipient.wrap(file_key) for recipient in recipients], file_key)
    return filled(size, _AgeFile(header + nonce, buffers, PayloadSealer(file_key, nonce)).read_into)


def unseal(buffers: Iterable[Buffer], identities: Sequence[Identity]) -> Iterator[Buffer]:
    """The plaintext of the age file ``buffers``; every buffer that it yields is new and was authenticated.

    The plaintext is complete only when the iterator ends without an error. Raises ``FormatError`` for a malformed or
    truncated file, ``NoIdentityError`` when no identity opens it, and ``DecryptionError`` when its bytes were altered,
    or it was cut or extended at a chunk's end.
    """
    source = iter(buffers)
    opener, sealed = _open_head(source, identities)
    index = 0
    pending: Buffer | None = None
    for piece in rechunk(sealed, _PIECE_CHUNKS * SEALED_CHUNK):
        if pending is not None:
            yield _open_piece(opener, index, pending, last=False)
            index += _PIECE_CHUNKS
        pending = piece
    if pending is None:
        raise FormatError("an encrypted file ends before its payload")
    plaintext = _open_piece(opener, index, pending, last=True)
    if plaintext:
        yield plaintext


def seal_bytes(data: Buffer, recipients: Sequence[Recipient]) -> bytes:
    """The age file of ``data``: ``seal`` for what fits in memory."""
    return b"".join(seal([data], recipients))


def unseal_bytes(data: Buffer, identities: Sequence[Identity]) -> bytes:
    """The plaintext of the age file ``data``: ``unseal`` for what fits in memory; it never returns a part."""
    return b"".join(unseal([data], identities))


class AgeReader:
    """Opens any stretch of an age file of which only the first bytes and the size are at hand.

    ``head`` is the first bytes of the file, ``size`` the length of all of it. Raises ``IncompleteHeaderError`` when
    ``head`` is too short to hold header and nonce, never when it has ``MAX_HEAD`` bytes; ``FormatError`` for a
    malformed header or an impossible size; ``NoIdentityError`` when no identity opens it. May be used from several
    threads.

    ``size`` is authenticated by the last chunk: once a range that ends with the plaintext has opened, it is proven.
    """

    def __init__(self, head: Buffer, size: int, identities: Sequence[Identity]) -> None:
        try:
            header, nonce, payload = _parse_head(head)
        except IncompleteHeaderError as error:
            if len(head) < size:
                raise
            raise FormatError(f"an encrypted file of {size} bytes is truncated: it ends before its payload") from error
        self.payload_offset = payload
        """Bytes before the first chunk: header and nonce."""
        self.plaintext_size = plaintext_size(size - payload)
        self._opener = _authenticated_opener(header, nonce, identities)

    def ciphertext_range(self, start: int, length: int) -> tuple[int, int]:
        """Offset in the file and size of the whole chunks that hold ``length`` bytes of plaintext from ``start`` on.

        No bytes need no chunks, except in an empty file, whose one chunk proves that it is empty. Raises
        ``FormatError`` for a range that is not within the plaintext.
        """
        first, end = self._chunks(start, length)
        payload_end = sealed_size(self.plaintext_size)
        offset = min(first * SEALED_CHUNK, payload_end)
        return self.payload_offset + offset, min(end * SEALED_CHUNK, payload_end) - offset

    def open_range(
        self,
        start: int,
        length: int,
        ciphertext: Buffer,
        *,
        before: Buffer = b"",
        room: Callable[[int], memoryview] = lambda size: memoryview(bytearray(size)),
    ) -> memoryview:
        """The ``length`` bytes of plaintext from ``start`` on, out of the bytes that ``ciphertext_range`` asks for.

        ``before`` is the first chunks of these, where they do not lie with the rest. The plaintext lies in a new
        buffer, or in what ``room`` gives when it is asked for so many bytes. Raises ``FormatError`` when there are more
        or fewer, ``DecryptionError`` when they were altered.
        """
        size = self.ciphertext_range(start, length)[1]
        given = len(before) + len(ciphertext)
        if given != size:
            raise FormatError(f"expected {size} bytes of an encrypted file, got {given}")
        if not size:
            return memoryview(b"")
        first, end = self._chunks(start, length)
        last = end == chunk_count(self.plaintext_size)
        plaintext = room(plaintext_size(size))
        opened = 0
        if before:
            opened = self._opener.open_into(first, before, plaintext, last=last and not ciphertext)
        if ciphertext:
            self._opener.open_into(first + opened // CHUNK, ciphertext, plaintext[opened:], last=last)
        return plaintext[start - first * CHUNK :][:length]

    def _chunks(self, start: int, length: int) -> tuple[int, int]:
        """The index of the first chunk that the range touches, and one past that of the last."""
        if start < 0 or length < 0 or start + length > self.plaintext_size:
            raise FormatError(
                f"expected a range within {self.plaintext_size} bytes of plaintext, got {length} bytes from {start} on"
            )
        first = start // CHUNK
        if not length:
            return first, first + (self.plaintext_size == 0)
        return first, (start + length - 1) // CHUNK + 1


def _check_labels(recipients: Sequence[Recipient]) -> None:
    """Refuse what would make a file weaker than one of its recipients is."""
    labels = {recipient.label for recipient in recipients}
    if len(labels) > 1 or (len(recipients) > 1 and PassphraseRecipient.label in labels):
        kinds = " and ".join(sorted(label or "x25519" for label in labels))
        raise UsageError(
            f"an encrypted file cannot have {len(recipients)} recipients of the kinds {kinds}",
            hint="Encrypt one file for each of them.",
        )


class _AgeFile:
    """The age file that begins with ``head`` and goes on with ``buffers`` sealed, to be read from start to end."""

    def __init__(self, head: bytes, buffers: Iterable[Buffer], sealer: PayloadSealer) -> None:
        self._sealer = sealer
        self._runs = _with_last(multiples(buffers, CHUNK))
        self._ready = memoryview(head)
        """Bytes of the file that did not fit into what was read before."""
        self._rest: memoryview | None = None
        """What of the current run is not sealed yet; None between two."""
        self._last = False
        """Whether the current run is the last one."""

    def read_into(self, target: memoryview) -> int:
        """Fill ``target`` from its start; returns the bytes written, fewer than it has only at the end of the file."""
        filled = 0
        while filled < len(target):
            room = target[filled:]
            if self._ready:
                taken = min(len(self._ready), len(room))
                room[:taken] = self._ready[:taken]
                self._ready = self._ready[taken:]
                filled += taken
                continue
            if self._rest is None:
                following = next(self._runs, None)
                if following is None:
                    break
                self._rest, self._last = memoryview(following[0]), following[1]
            filled += self._seal(self._rest, room)
        return filled

    def _seal(self, run: memoryview, room: memoryview) -> int:
        """Seal what of ``run`` fits into ``room``; where no chunk does, one aside, to be copied from there."""
        if sealed_size(len(run)) <= len(room):
            self._rest = None
            return self._sealer.seal_into(run, room, last=self._last)
        fitting = len(room) // SEALED_CHUNK * CHUNK
        if fitting:
            self._rest = run[fitting:]
            return self._sealer.seal_into(run[:fitting], room, last=False)
        chunk, self._rest = run[:CHUNK], run[CHUNK:] or None
        aside = bytearray(sealed_size(len(chunk)))
        self._sealer.seal_into(chunk, aside, last=self._last and self._rest is None)
        self._ready = memoryview(aside)
        return 0


def _with_last(runs: Iterable[Buffer]) -> Iterator[tuple[Buffer, bool]]:
    """Each of ``runs``, none of which is empty, and whether it is the last one; without any, an empty last one."""
    pending: Buffer = b""
    for run in runs:
        if pending:
            yield pending, False
        pending = run
    yield pending, True


def _open_piece(opener: PayloadOpener, index: int, sealed: Buffer, *, last: bool) -> memoryview:
    out = memoryview(bytearray(plaintext_size(len(sealed))))
    opener.open_into(index, sealed, out, last=last)
    return out


def _open_head(source: Iterator[Buffer], identities: Sequence[Identity]) -> tuple[PayloadOpener, Iterator[Buffer]]:
    """Consume header and nonce: what opens the payload, and the payload."""
    head = bytearray()
    for buffer in source:
        known = len(head)
        head += memoryview(buffer)[: MAX_HEAD - known]
        try:
            header, nonce, length = _parse_head(head)
        except IncompleteHeaderError:
            continue
        opener = _authenticated_opener(header, nonce, identities)
        return opener, itertools.chain([memoryview(buffer)[length - known :]], source)
    raise FormatError(f"an encrypted file is truncated: it ends within its header, after {len(head)} bytes")


def _parse_head(head: Buffer) -> tuple[Header, bytes, int]:
    """Header, nonce, and the offset of the payload; raises ``IncompleteHeaderError`` as ``parse_header`` does."""
    header, length = parse_header(head)
    nonce = bytes(memoryview(head)[length : length + NONCE_SIZE])
    if len(nonce) < NONCE_SIZE:
        raise IncompleteHeaderError("an encrypted file ends within its nonce")
    return header, nonce, length + NONCE_SIZE


def _authenticated_opener(header: Header, nonce: bytes, identities: Sequence[Identity]) -> PayloadOpener:
    file_key = _unwrap(header, identities)
    header.authenticate(file_key)
    return PayloadOpener(file_key, nonce)


def _unwrap(header: Header, identities: Sequence[Identity]) -> bytes:
    for identity in identities:
        for stanza in header.stanzas:
            file_key = identity.unwrap(stanza)
            if file_key is not None:
                return file_key
    raise NoIdentityError(
        f"none of {len(identities)} identities opens an encrypted file for {len(header.stanzas)} recipients",
        hint="Give the identity that belongs to one of the recipients that the file was encrypted to.",
    )
