"""Whole age files: streaming in any pieces, and every kind of damage refused."""

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.buffers import Buffer
from archiver.crypto.age import MAX_HEAD, seal, seal_bytes, unseal, unseal_bytes
from archiver.crypto.header import FILE_KEY_SIZE, Stanza, encode_header, parse_header
from archiver.crypto.hybrid import HybridIdentity
from archiver.crypto.passphrase import PassphraseIdentity, PassphraseRecipient
from archiver.crypto.recipients import Recipient
from archiver.crypto.stream import CHUNK, NONCE_SIZE, SEALED_CHUNK, PayloadSealer, plaintext_size, sealed_size
from archiver.crypto.x25519 import X25519Identity, X25519Recipient
from archiver.errors import DecryptionError, FormatError, IntegrityError, NoIdentityError, SourceError, UsageError

IDENTITY = X25519Identity.generate()
OTHER = X25519Identity.generate()
HYBRID = HybridIdentity.generate()
PASSPHRASE = PassphraseRecipient("correct horse battery", work_factor=2)
BOUNDARIES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 200_001, 16 * CHUNK, 16 * CHUNK + 1, 32 * CHUNK]
SIZES = st.one_of(st.integers(0, 3000), st.sampled_from(BOUNDARIES))
NOISE = os.urandom(32 * CHUNK)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def chunks_of(sealed: bytes) -> tuple[bytes, list[bytes]]:
    """Everything before the payload's chunks, and the chunks."""
    start = parse_header(sealed)[1] + NONCE_SIZE
    return sealed[:start], [sealed[at : at + SEALED_CHUNK] for at in range(start, len(sealed), SEALED_CHUNK)]


HEAD = len(chunks_of(seal_bytes(b"", [IDENTITY.recipient]))[0])


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.integers(0, 2**21), max_size=6), st.lists(st.integers(0, 2**21), max_size=6))
def test_unseal_inverts_seal_however_the_bytes_are_cut(size: int, cuts: list[int], sealed_cuts: list[int]) -> None:
    plaintext = NOISE[:size]
    sealed = b"".join(seal(split(plaintext, cuts), [IDENTITY.recipient]))
    head, chunks = chunks_of(sealed)
    assert len(sealed) == len(head) + sealed_size(size)
    assert len(chunks) == max(1, -(-size // CHUNK))
    assert b"".join(unseal(split(sealed, sealed_cuts), [IDENTITY])) == plaintext


def test_one_byte_at_a_time() -> None:
    sealed = b"".join(seal((NOISE[at : at + 1] for at in range(300)), [IDENTITY.recipient]))
    assert b"".join(unseal((sealed[at : at + 1] for at in range(len(sealed))), [IDENTITY])) == NOISE[:300]


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_takes_every_kind_of_buffer(view: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    sealed = b"".join(seal([view(NOISE[: 2 * CHUNK])], [IDENTITY.recipient]))
    assert b"".join(unseal([view(sealed)], [IDENTITY])) == NOISE[: 2 * CHUNK]


def test_yielded_buffers_are_never_reused() -> None:
    sealed = list(seal([NOISE], [IDENTITY.recipient]))
    assert len({id(buffer) for buffer in sealed}) == len(sealed) == 3
    opened = list(unseal(sealed, [IDENTITY]))
    assert len({id(buffer) for buffer in opened}) == len(opened) == 2
    assert b"".join(opened) == NOISE


def test_every_recipient_opens_and_no_one_else() -> None:
    sealed = seal_bytes(b"text", [IDENTITY.recipient, OTHER.recipient])
    assert unseal_bytes(sealed, [IDENTITY]) == unseal_bytes(sealed, [OTHER]) == b"text"
    assert unseal_bytes(sealed, [X25519Identity.generate(), OTHER]) == b"text"
    for identities in ([X25519Identity.generate()], []):
        with pytest.raises(DecryptionError, match=f"none of {len(identities)} identities") as caught:
            unseal_bytes(sealed, identities)
        assert caught.value.hint is not None


def test_recipients_that_cannot_be_used_fail_before_the_first_byte() -> None:
    for recipients in ([], [IDENTITY.recipient, X25519Recipient(bytes(32))]):
        with pytest.raises(UsageError):
            seal([b""], recipients)


@pytest.mark.parametrize(
    ("recipients", "kinds"),
    [
        ([HYBRID.recipient, IDENTITY.recipient], "2 recipients of the kinds postquantum and x25519"),
        ([IDENTITY.recipient, OTHER.recipient, HYBRID.recipient], "3 recipients of the kinds postquantum and x25519"),
        ([PASSPHRASE, IDENTITY.recipient], "2 recipients of the kinds passphrase and x25519"),
        ([HYBRID.recipient, PASSPHRASE], "2 recipients of the kinds passphrase and postquantum"),
        ([PASSPHRASE, PASSPHRASE], "2 recipients of the kinds passphrase"),
    ],
)
def test_no_file_is_weaker_than_one_of_its_recipients(recipients: list[Recipient], kinds: str) -> None:
    with pytest.raises(UsageError, match=f"cannot have {kinds}$") as caught:
        seal([b""], recipients)
    assert caught.value.hint is not None


def test_every_post_quantum_recipient_opens_and_no_one_else() -> None:
    other = HybridIdentity.generate()
    sealed = seal_bytes(b"text", [HYBRID.recipient, other.recipient])
    assert unseal_bytes(sealed, [HYBRID]) == unseal_bytes(sealed, [IDENTITY, other]) == b"text"
    with pytest.raises(NoIdentityError, match="none of 2 identities"):
        unseal_bytes(sealed, [HybridIdentity.generate(), IDENTITY])


def test_a_passphrase_opens_and_no_other() -> None:
    sealed = seal_bytes(b"text", [PASSPHRASE])
    assert unseal_bytes(sealed, [IDENTITY, PassphraseIdentity("correct horse battery")]) == b"text"
    with pytest.raises(NoIdentityError, match="none of 2 identities"):
        unseal_bytes(sealed, [IDENTITY, PassphraseIdentity("correct horse batterie")])


def test_two_files_share_no_key_material() -> None:
    first, second = (seal_bytes(bytes(100), [IDENTITY.recipient]) for _ in range(2))
    assert chunks_of(first)[0][-NONCE_SIZE:] != chunks_of(second)[0][-NONCE_SIZE:]
    assert chunks_of(first)[1] != chunks_of(second)[1]


@pytest.mark.parametrize("size", [0, 5, CHUNK - 1, CHUNK, CHUNK + 1, 16 * CHUNK, 20 * CHUNK, 32 * CHUNK])
@pytest.mark.parametrize("part", [1000, SEALED_CHUNK, 2**20])
def test_a_failing_source_never_makes_a_complete_file(size: int, part: int) -> None:
    """What is yielded is a beginning of the file, without its last chunk even where the source had given all of it."""

    def failing() -> Iterator[bytes]:
        yield from (NOISE[start : min(start + CHUNK, size)] for start in range(0, size, CHUNK))
        raise SourceError("the disk went away")

    written: list[Buffer] = []
    sealed = seal(failing(), [IDENTITY.recipient], size=part)
    with pytest.raises(SourceError, match="went away"):
        written.extend(sealed)
    assert list(sealed) == []
    assert all(len(buffer) == part for buffer in written)
    with pytest.raises(IntegrityError):
        unseal_bytes(b"".join(written), [IDENTITY])
    # Every full chunk but the last was sealed, and yielded up to the last whole part.
    assert len(written) == (HEAD + max(0, size // CHUNK - 1) * SEALED_CHUNK) // part


@pytest.mark.parametrize("part", [1, 100, HEAD, HEAD + 16, SEALED_CHUNK, 3 * SEALED_CHUNK + 7, 2**20])
@pytest.mark.parametrize("difference", [-1, 0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_parts_have_their_size_where_the_file_ends_at_a_part_s_end(part: int, difference: int, parts: int) -> None:
    stored = max(part * parts + difference, HEAD + 16)
    payload = stored - HEAD
    if 0 < payload % SEALED_CHUNK <= 16 and payload != 16:
        payload += 16  # no plaintext has this size: that of the next one
    plaintext = NOISE[: plaintext_size(payload)]
    buffers = list(seal([plaintext], [IDENTITY.recipient], size=part))
    sealed = b"".join(buffers)
    assert len(sealed) == HEAD + payload
    assert [len(buffer) for buffer in buffers[:-1]] == [part] * (len(buffers) - 1)
    assert 0 < len(buffers[-1]) <= part
    assert unseal_bytes(sealed, [IDENTITY]) == plaintext


@settings(max_examples=60, deadline=None)
@given(
    SIZES,
    st.lists(st.one_of(st.integers(0, 2**21), st.integers(0, 32).map(lambda n: n * CHUNK)), max_size=6),
    st.one_of(st.integers(1, 3000), st.integers(SEALED_CHUNK - 20, SEALED_CHUNK + 20), st.integers(2**17, 2**21)),
)
def test_the_bytes_are_the_same_however_they_are_cut(size: int, cuts: list[int], part: int) -> None:
    """With the same keys every cut of the source and every size of part gives what sealing all at once gives."""
    plaintext = NOISE[:size]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", bytes)
        # The stanza's ephemeral key is random all the same, so only what follows the header is compared.
        buffers = [bytes(buffer) for buffer in seal(split(plaintext, cuts), [IDENTITY.recipient], size=part)]
    whole = bytearray(sealed_size(size))
    PayloadSealer(bytes(FILE_KEY_SIZE), bytes(NONCE_SIZE)).seal_into(plaintext, whole, last=True)
    assert all(len(buffer) == part for buffer in buffers[:-1])
    assert b"".join(buffers)[HEAD:] == whole


def test_a_yielded_part_is_never_written_again() -> None:
    kept, seen = [], []
    for buffer in seal([NOISE], [IDENTITY.recipient], size=100_000):
        kept.append(buffer)
        seen.append(bytes(buffer))
    assert [bytes(buffer) for buffer in kept] == seen


def test_no_more_of_the_source_is_taken_than_a_part_needs() -> None:
    """One buffer ahead, which shows that the one before is not the last."""
    taken = 0

    def source() -> Iterator[bytes]:
        nonlocal taken
        for start in range(0, len(NOISE), CHUNK):
            taken += 1
            yield NOISE[start : start + CHUNK]

    sealed = seal(source(), [IDENTITY.recipient], size=4 * SEALED_CHUNK)
    assert taken == 0
    next(sealed)
    assert taken <= 5


@pytest.mark.parametrize("identity", [IDENTITY, OTHER], ids=["first", "second"])
@pytest.mark.parametrize("size", [0, 5])
def test_every_flipped_bit_is_refused(size: int, identity: X25519Identity) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient, OTHER.recipient])
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, DecryptionError)):
            unseal_bytes(damaged, [identity])


@pytest.mark.parametrize("size", [0, 5])
def test_every_truncation_of_a_small_file_is_refused(size: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    for length in range(len(sealed)):
        with pytest.raises((FormatError, DecryptionError)):
            unseal_bytes(sealed[:length], [IDENTITY])


@pytest.mark.parametrize("size", [3 * CHUNK, 3 * CHUNK + 9, 17 * CHUNK])
def test_truncation_and_extension_at_chunk_ends_are_refused(size: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    head, chunks = chunks_of(sealed)
    for count in range(len(chunks)):
        end = len(head) + count * SEALED_CHUNK
        for length in range(end - 1, end + 18):
            with pytest.raises((FormatError, DecryptionError)):
                unseal_bytes(sealed[:length], [IDENTITY])
    for extra in (b"\0", bytes(16), bytes(17), chunks[-1], chunks[0], sealed):
        with pytest.raises((FormatError, DecryptionError)):
            unseal_bytes(sealed + extra, [IDENTITY])


@pytest.mark.parametrize("tail", [0, 9])
def test_chunks_that_are_removed_repeated_or_moved_are_refused(tail: int) -> None:
    size = 4 * CHUNK + tail
    head, chunks = chunks_of(seal_bytes(NOISE[:size], [IDENTITY.recipient]))
    numbers = range(len(chunks))
    orders = [
        *([kept for kept in numbers if kept != removed] for removed in numbers),
        *(sorted([*numbers, repeated]) for repeated in numbers),
        *(list(order) for order in itertools.permutations(numbers) if list(order) != list(numbers)),
    ]
    for order in orders:
        with pytest.raises((FormatError, DecryptionError)):
            unseal_bytes(head + b"".join(chunks[number] for number in order), [IDENTITY])


def test_chunks_of_another_file_are_refused() -> None:
    first, second = (seal_bytes(NOISE[: 2 * CHUNK], [IDENTITY.recipient]) for _ in range(2))
    head, chunks = chunks_of(first)
    with pytest.raises(DecryptionError, match="chunk 1 "):
        unseal_bytes(head + chunks[0] + chunks_of(second)[1][1], [IDENTITY])
    with pytest.raises(DecryptionError, match="chunk 0 "):
        unseal_bytes(head + b"".join(chunks_of(second)[1]), [IDENTITY])


def test_an_empty_final_chunk_after_full_ones_is_refused_in_a_file() -> None:
    # 16 chunks fill one piece, so that the empty chunk comes alone.
    for count in (1, 16):
        header, sealer = sealed_head()
        body = bytearray(count * SEALED_CHUNK + 16)
        sealer.seal_into(NOISE[: count * CHUNK], body, last=False)
        sealer._cipher.encrypt_into(count.to_bytes(11, "big") + b"\x01", b"", None, memoryview(body)[-16:])
        with pytest.raises(FormatError):
            unseal_bytes(header + body, [IDENTITY])


def sealed_head(*extra: Stanza) -> tuple[bytes, PayloadSealer]:
    """Header and nonce of a new file with ``extra`` stanzas before and after ours, and what seals its payload."""
    file_key, nonce = os.urandom(FILE_KEY_SIZE), os.urandom(NONCE_SIZE)
    header = encode_header([*extra, IDENTITY.recipient.wrap(file_key), *extra], file_key)
    return header + nonce, PayloadSealer(file_key, nonce)


def test_unknown_stanzas_are_ignored() -> None:
    head, sealer = sealed_head(Stanza("x-grease", ("}", "~"), bytes(99)), Stanza("ssh-rsa", ("a",), b""))
    body = bytearray(4 + 16)
    sealer.seal_into(b"text", body, last=True)
    assert unseal_bytes(head + body, [IDENTITY]) == b"text"


def test_a_passphrase_file_is_refused_clearly() -> None:
    file_key = os.urandom(FILE_KEY_SIZE)
    header = encode_header([Stanza("scrypt", ("A" * 22, "18"), bytes(32))], file_key)
    with pytest.raises(DecryptionError, match="none of 1 identities"):
        unseal_bytes(header + bytes(NONCE_SIZE + 16), [IDENTITY])


def test_a_malformed_stanza_of_our_kind_is_refused_beside_a_good_one() -> None:
    head, _ = sealed_head(Stanza("X25519", (), bytes(32)))
    with pytest.raises(FormatError, match="expected 1 argument"):
        unseal_bytes(head + bytes(16), [IDENTITY])


def test_a_header_without_stanzas_is_refused() -> None:
    head = b"age-encryption.org/v1\n--- " + b"A" * 43 + b"\n"
    with pytest.raises(FormatError, match="no recipient stanza"):
        unseal_bytes(head + bytes(32), [IDENTITY])


def test_a_hostile_header_is_not_read_without_bound() -> None:
    consumed = 0

    def endless() -> Iterator[bytes]:
        nonlocal consumed
        yield b"age-encryption.org/v1\n-> "
        while True:
            consumed += 16
            yield b"x" * 16

    with pytest.raises(FormatError, match="longer than 65536"):
        next(unseal(endless(), [IDENTITY]))
    assert consumed <= MAX_HEAD
