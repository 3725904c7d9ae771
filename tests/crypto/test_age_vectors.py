"""The C2SP/CCTV vectors of age: each opens, or is refused for the reason that it is made for."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator

import pytest

from archiver.buffers import Buffer
from archiver.crypto import age
from archiver.crypto.age import MAX_HEAD, AgeReader, unseal, unseal_bytes
from archiver.crypto.header import encode_header, parse_header
from archiver.crypto.keys import parse_identity
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.crypto.recipients import Identity
from archiver.crypto.stream import CHUNK, NONCE_SIZE, OVERHEAD, SEALED_CHUNK, PayloadOpener, PayloadSealer, sealed_size
from archiver.errors import ArchiverError, DecryptionError, FormatError, NoIdentityError
from tests.age_tools.installation import AgeTools
from tests.age_tools.vectors import Expected, Listed, Vector, listed_vectors, read_vector

LISTED = listed_vectors()
BINARY = [listed for listed in LISTED if not listed.armored]
ARMORED = [listed for listed in LISTED if listed.armored]
HEADER_PARSES: set[Expected] = {"success", "payload failure", "no match", "HMAC failure"}


def each(chosen: list[Listed], *expected: Expected) -> pytest.MarkDecorator:
    """One test for each of the ``chosen`` vectors, or for those of certain classes."""
    names = [listed.name for listed in chosen if not expected or listed.expected in expected]
    assert names
    return pytest.mark.parametrize("vector", names, indirect=True)


@pytest.fixture
def vector(request: pytest.FixtureRequest, age_tools: AgeTools) -> Vector:
    return read_vector(age_tools.vectors / request.param)


def identities_of(vector: Vector) -> list[Identity]:
    return [
        *(parse_identity(text) for text in vector.identities),
        *(PassphraseIdentity(text) for text in vector.passphrases),
    ]


def digest(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()


def check_refusal(expected: Expected, error: ArchiverError) -> None:
    """Fail unless ``error`` is of the class that belongs to what is wrong."""
    match expected:
        case "no match":
            assert type(error) is NoIdentityError
        case "HMAC failure":
            assert type(error) is DecryptionError
            assert "its mac does not match" in error.message
        case "header failure" | "armor failure":
            assert isinstance(error, FormatError)
        case "payload failure":
            assert isinstance(error, DecryptionError | FormatError)
            assert not isinstance(error, NoIdentityError)
            assert "header" not in error.message
            assert "stanza" not in error.message
        case _:
            raise AssertionError(f"refused: {error}") from error


def payload_of(vector: Vector) -> tuple[bytes, bytes]:
    """The nonce and the sealed chunks."""
    start = parse_header(vector.file)[1]
    return vector.file[start : start + NONCE_SIZE], vector.file[start + NONCE_SIZE :]


def authentic_chunks(vector: Vector) -> Iterator[bytes]:
    """The plaintext of each chunk in order, the final one too, until one does not open or follows the final one.

    The vectors' hashes of damaged payloads are made so: by a reader that looks no further than the chunk at hand.
    """
    nonce, payload = payload_of(vector)
    assert vector.file_key is not None
    opener = PayloadOpener(vector.file_key, nonce)
    for index, start in enumerate(range(0, len(payload), SEALED_CHUNK)):
        chunk = payload[start : start + SEALED_CHUNK]
        for last in (False, True):
            out = bytearray(max(0, len(chunk) - OVERHEAD))
            try:
                opener.open_into(index, chunk, out, last=last)
            except (DecryptionError, FormatError):
                continue
            yield bytes(out)
            break
        else:
            return
        if last:
            return


def read_range(reader: AgeReader, vector: Vector, start: int, length: int) -> memoryview:
    offset, size = reader.ciphertext_range(start, length)
    return reader.open_range(start, length, vector.file[offset : offset + size])


def test_the_package_holds_the_listed_vectors(age_tools: AgeTools) -> None:
    found = [read_vector(path) for path in sorted(age_tools.vectors.iterdir())]
    assert [Listed(vector.name, vector.expected, vector.armored) for vector in found] == LISTED
    assert Counter(listed.expected for listed in LISTED) == {
        "success": 26,
        "no match": 13,
        "HMAC failure": 1,
        "header failure": 62,
        "payload failure": 19,
        "armor failure": 22,
    }
    assert (len(LISTED), len(ARMORED)) == (143, 33)


@each(BINARY, "success")
def test_opens(vector: Vector) -> None:
    assert digest(unseal_bytes(vector.file, identities_of(vector))) == vector.payload
    cuts = [0, 1, 22, 100, 200, 300, 65_000, 66_000, len(vector.file)]
    pieces = [vector.file[start:end] for start, end in itertools.pairwise(sorted(cuts))]
    assert digest(b"".join(unseal(pieces, identities_of(vector)))) == vector.payload


@each(BINARY, "success")
def test_opens_at_any_place(vector: Vector) -> None:
    reader = AgeReader(vector.file[:MAX_HEAD], len(vector.file), identities_of(vector))
    found = bytearray(reader.plaintext_size)
    for start in reversed(range(0, reader.plaintext_size or 1, CHUNK)):
        length = min(CHUNK, reader.plaintext_size - start)
        found[start : start + length] = read_range(reader, vector, start, length)
    assert digest(found) == vector.payload


@each(BINARY, "no match", "HMAC failure", "header failure")
def test_is_refused_before_the_payload(vector: Vector) -> None:
    with pytest.raises(ArchiverError) as caught:
        next(unseal([vector.file], identities_of(vector)))
    check_refusal(vector.expected, caught.value)
    with pytest.raises(ArchiverError) as caught:
        AgeReader(vector.file[:MAX_HEAD], len(vector.file), identities_of(vector))
    check_refusal(vector.expected, caught.value)


@pytest.mark.parametrize("piece_chunks", [1, 16])
@each(BINARY, "payload failure")
def test_releases_nothing_but_the_authentic_beginning(
    vector: Vector, piece_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    authentic = b"".join(authentic_chunks(vector))
    assert digest(authentic) == vector.payload
    monkeypatch.setattr(age, "_PIECE_CHUNKS", piece_chunks)
    released = bytearray()
    with pytest.raises(ArchiverError) as caught:
        for buffer in unseal([vector.file], identities_of(vector)):
            released += buffer
    check_refusal(vector.expected, caught.value)
    # A piece is released whole, and only when there is another behind it: less than a reader of single chunks gives
    # that does not look ahead, but never anything else.
    assert authentic.startswith(released)
    if piece_chunks == 1:
        assert len(authentic) - len(released) <= CHUNK


def test_small_pieces_release_something(age_tools: AgeTools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, an ``unseal`` that releases nothing at all would pass above."""
    vector = read_vector(age_tools.vectors / "stream_bad_tag_second_chunk")
    monkeypatch.setattr(age, "_PIECE_CHUNKS", 1)
    released = next(unseal([vector.file], identities_of(vector)))
    assert digest(released) == vector.payload


@each(BINARY, "payload failure")
def test_is_refused_at_any_place(vector: Vector) -> None:
    with pytest.raises(ArchiverError) as caught:
        reader = AgeReader(vector.file[:MAX_HEAD], len(vector.file), identities_of(vector))
        read_range(reader, vector, 0, reader.plaintext_size)
    check_refusal(vector.expected, caught.value)


@each(BINARY, "payload failure")
def test_what_opens_at_any_place_belongs_there(vector: Vector) -> None:
    authentic = b"".join(authentic_chunks(vector))
    try:
        reader = AgeReader(vector.file[:MAX_HEAD], len(vector.file), identities_of(vector))
    except FormatError as error:
        check_refusal(vector.expected, error)
        return
    starts = range(0, reader.plaintext_size or 1, CHUNK)
    opened = []
    for start in starts:
        length = min(CHUNK, reader.plaintext_size - start)
        try:
            plaintext = read_range(reader, vector, start, length)
        except DecryptionError:
            continue
        opened.append(start)
        # Behind a chunk that claims to be the final one another may truly be it. Whoever reads that one alone cannot
        # see the first; only a writer with the file key can have made both.
        if start + length < reader.plaintext_size or not vector.name.startswith("stream_two_final_chunks"):
            assert plaintext == authentic[start : start + length]
    assert len(opened) < len(starts)


@each(ARMORED)
def test_armor_is_refused(vector: Vector) -> None:
    with pytest.raises(FormatError):
        next(unseal([vector.file], identities_of(vector)))
    with pytest.raises(FormatError):
        AgeReader(vector.file[:MAX_HEAD], len(vector.file), identities_of(vector))


@each(BINARY, *HEADER_PARSES)
def test_the_header_is_written_as_it_was_read(vector: Vector) -> None:
    header, length = parse_header(vector.file)
    assert vector.file_key is not None
    written = encode_header(header.stanzas, vector.file_key)
    assert (written == vector.file[:length]) == (vector.expected != "HMAC failure")


@each(BINARY, "success")
def test_the_payload_is_sealed_as_it_was_read(vector: Vector) -> None:
    plaintext = unseal_bytes(vector.file, identities_of(vector))
    nonce, payload = payload_of(vector)
    assert vector.file_key is not None
    out = bytearray(sealed_size(len(plaintext)))
    PayloadSealer(vector.file_key, nonce).seal_into(plaintext, out, last=True)
    assert out == payload
