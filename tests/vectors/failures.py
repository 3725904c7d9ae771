"""What can be wrong with a destination, one thing at a time."""

from collections.abc import Callable
from dataclasses import dataclass

from archiver.crypto.minisign import SigningKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import AuthenticityError, DecryptionError, FormatError, IntegrityError
from tests.vectors.mutations import (
    Files,
    alter_comment,
    alter_mac,
    cut_contents,
    cut_object,
    drop_last_newline,
    edit_lines,
    edit_manifest,
    edit_placement,
    edit_record,
    find,
    flip,
    hide_vault,
    promote_without,
    remove,
    reseal_object,
    sign_manifest,
)

Breaker = Callable[[Files], object]


@dataclass(frozen=True, slots=True)
class Failure:
    """One vector: what is wrong in words, and the error, with a part of its message, that a reader must raise."""

    name: str
    comment: str
    error: type[IntegrityError]
    message: str
    breaks: Breaker


FAILURES = (
    Failure(
        "manifest-bit-flipped",
        "one bit of the manifest differs from what was signed",
        AuthenticityError,
        "is not of these bytes",
        lambda files: flip(files, r"manifest\.json$", -10),
    ),
    Failure(
        "manifest-unsigned",
        "the manifest has no signature",
        AuthenticityError,
        "has no signature",
        lambda files: remove(files, r"\.minisig$"),
    ),
    Failure(
        "manifest-signed-by-another",
        "the manifest is signed, but by a key that is not trusted",
        AuthenticityError,
        "expected key",
        lambda files: sign_manifest(files, files[find(files, r"manifest\.json$")], SigningKey.generate()),
    ),
    Failure(
        "manifest-comment-altered",
        "the signature's trusted comment was altered",
        AuthenticityError,
        "trusted comment",
        alter_comment,
    ),
    Failure(
        "manifest-replayed",
        "a rightly signed manifest describes another backup than the one in whose place it lies",
        AuthenticityError,
        "moved or replayed",
        lambda files: edit_manifest(files, backup="20261121T020000Z-000000"),
    ),
    Failure(
        "manifest-started-at-another-time",
        "a rightly signed manifest says that it was started a second later than its id does",
        AuthenticityError,
        "not as its id says",
        lambda files: edit_manifest(files, started="2026-11-22T20:03:35.642903Z"),
    ),
    Failure(
        "manifest-dated-in-the-future",
        "a rightly signed manifest says that it was finished long after the store got it",
        AuthenticityError,
        "dated in the future",
        lambda files: edit_manifest(files, finished="9000-01-01T00:00:00Z"),
    ),
    Failure(
        "manifest-previous-without-promise",
        "a rightly signed manifest does not say until when the backup before it is promised",
        FormatError,
        "promised_until",
        lambda files: edit_manifest(files, previous={"backup": "20261121T020000Z-000000", "blake3": "0" * 64}),
    ),
    Failure(
        "manifest-vault-of-another-id",
        "a rightly signed manifest gives a vault the id of another one",
        FormatError,
        "is not that of the recipient that it names",
        lambda files: edit_manifest(
            files, vaults=[{"id": "52d4c36485504eae", "recipient": str(X25519Identity(bytes(32)).recipient)}]
        ),
    ),
    Failure(
        "manifest-newer-version",
        "a rightly signed manifest has a later format version",
        FormatError,
        "format version 2",
        lambda files: edit_manifest(files, version=2),
    ),
    Failure(
        "manifest-unknown-field",
        "a rightly signed manifest has a field that version 1 does not know",
        FormatError,
        "surprise",
        lambda files: edit_manifest(files, surprise=1),
    ),
    Failure(
        "manifest-malformed-hash",
        "a hash in a rightly signed manifest is in upper case",
        FormatError,
        "blake3",
        lambda files: edit_manifest(files, objects={"stored_size": 1, "blake3": "A" * 64}),
    ),
    Failure(
        "manifest-unknown-consistency",
        "a rightly signed manifest has a label that version 1 does not know",
        FormatError,
        "consistency",
        lambda files: edit_manifest(files, consistency="guessed"),
    ),
    Failure(
        "contents-bit-flipped",
        "one bit of contents differs from what the manifest's hash is of",
        IntegrityError,
        "with BLAKE3",
        lambda files: flip(files, r"\.contents\.", -1),
    ),
    Failure(
        "contents-cut-off",
        "contents ends one byte early, and the signed manifest says so: the age file is not complete",
        DecryptionError,
        "cut off",
        cut_contents,
    ),
    Failure(
        "contents-without-header",
        "the first record of contents is not the header",
        FormatError,
        "does not begin with the header",
        lambda files: edit_lines(files, "contents", lambda lines: lines.pop(0)),
    ),
    Failure(
        "contents-last-line-without-newline",
        "contents ends without a line feed",
        FormatError,
        "cut off",
        drop_last_newline,
    ),
    Failure(
        "contents-unknown-type",
        "a record of contents has a type that version 1 does not know",
        FormatError,
        "type",
        lambda files: edit_lines(files, "contents", lambda lines: lines.append({"type": "device", "path": "null"})),
    ),
    Failure(
        "contents-unknown-method",
        "an environment was copied by a method that version 1 does not know",
        FormatError,
        "method",
        lambda files: edit_lines(files, "contents", lambda lines: lines[1].update(method="guessed")),
    ),
    Failure(
        "contents-path-outside",
        "a file's path leads out of the media directory",
        FormatError,
        "unsafe path",
        lambda files: edit_record(files, "photo.jpg", path="notes/../../photo.jpg"),
    ),
    Failure(
        "contents-path-twice",
        "a file's path is given both as text and in Base64",
        FormatError,
        "got both or neither",
        lambda files: edit_record(files, "photo.jpg", path_b64="cGhvdG8uanBn"),
    ),
    Failure(
        "contents-extents-overlap",
        "an extent of a file begins before the one before it ends",
        FormatError,
        "overlap",
        lambda files: edit_record(files, "photo.jpg", extent={"offset": 0}),
    ),
    Failure(
        "contents-extent-beyond-object",
        "an extent ends beyond the plaintext of its object",
        IntegrityError,
        "an extent ends at byte",
        lambda files: edit_record(files, "photo.jpg", extent={"object_offset": 1 << 30}),
    ),
    Failure(
        "contents-unknown-object",
        "an extent names an object that the objects list does not have",
        IntegrityError,
        "not in the objects list",
        lambda files: edit_record(files, "photo.jpg", extent={"object": "0" * 32}),
    ),
    Failure(
        "contents-wrong-hash",
        "the bytes of a file do not have the hash that its record says",
        IntegrityError,
        "photo.jpg",
        lambda files: edit_record(files, "photo.jpg", blake3="0" * 64),
    ),
    Failure(
        "objects-bit-flipped",
        "one bit of the objects list, in its seek table, differs from what the manifest's hash is of",
        IntegrityError,
        "with BLAKE3",
        lambda files: flip(files, r"\.objects\.", -12),
    ),
    Failure(
        "placement-outside",
        "the placement names a key that is not one of an object",
        FormatError,
        "placement names",
        lambda files: edit_placement(files, lambda lines: lines[0].update(key="../../etc/passwd")),
    ),
    Failure(
        "placement-of-another-object",
        "the placement names the key of another object",
        FormatError,
        "placement names",
        lambda files: edit_placement(files, lambda lines: lines[0].update(key=lines[1]["key"])),
    ),
    Failure(
        "placement-without-object",
        "the placement does not say where one of the objects lies",
        IntegrityError,
        "does not say where",
        lambda files: edit_placement(files, lambda lines: lines.pop()),
    ),
    Failure(
        "placement-malformed-copy-part",
        "the placement names a key whose copy part has seven hex digits",
        FormatError,
        "placement names",
        lambda files: edit_placement(
            files, lambda lines: lines[0].update(key=lines[0]["key"].replace(".", ".0a1b2c3.", 1))
        ),
    ),
    Failure(
        "promoted-without-signature",
        "all that is left is a copy in another class, and its signature is missing",
        AuthenticityError,
        "has no signature",
        lambda files: promote_without(files, r"\.minisig$"),
    ),
    Failure(
        "promoted-without-lent-object",
        "a copy refers to an object in a longer class, where it is missing",
        IntegrityError,
        "is missing",
        lambda files: promote_without(files, "^yearly/"),
    ),
    Failure(
        "object-missing",
        "an object is not there",
        IntegrityError,
        "is missing",
        lambda files: remove(files, r"\.tar\.zst\.age$"),
    ),
    Failure(
        "object-cut-off",
        "an object ends one byte early",
        IntegrityError,
        "bytes, expected",
        cut_object,
    ),
    Failure(
        "object-payload-bit-flipped",
        "one bit of an object's payload differs from what was sealed",
        DecryptionError,
        "was altered",
        lambda files: flip(files, r"\.mdb\.zst\.age$", -1),
    ),
    Failure(
        "object-header-altered",
        "the mac in an object's header is another one",
        DecryptionError,
        "header of an encrypted file was altered",
        alter_mac,
    ),
    Failure(
        "object-replaced",
        "an object holds what it should and is encrypted to the vault, but is not the one that was stored",
        IntegrityError,
        "stored bytes hash to",
        lambda files: reseal_object(files, "tar", lambda data: data, restate=False),
    ),
    Failure(
        "object-frame-with-other-size",
        "a seek table says that a frame holds one byte more than it does",
        FormatError,
        "where the seek table says",
        lambda files: reseal_object(
            files, "file", lambda data: data[:-13] + bytes([data[-13] + 1]) + data[-12:], restate=True
        ),
    ),
    Failure(
        "object-without-seek-table",
        "an object's zstd file ends without a seek table",
        FormatError,
        "no valid seek table",
        lambda files: reseal_object(files, "file", lambda data: data[:-17], restate=True),
    ),
    Failure(
        "vault-of-another",
        "an operator's vault file holds the identity of another vault",
        IntegrityError,
        "another vault",
        hide_vault,
    ),
)
