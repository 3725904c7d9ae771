"""Our age files opened by the stock ``age`` and by pyrage, and theirs by us."""

import os
import subprocess
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from archiver.crypto.age import AgeReader, seal, seal_bytes, unseal, unseal_bytes
from archiver.crypto.header import parse_header
from archiver.crypto.identities import read_identity_file
from archiver.crypto.passphrase import MAX_WORK_FACTOR, PassphraseIdentity, PassphraseRecipient
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import DecryptionError, FormatError, NoIdentityError
from tests.age_tools.terminal import answer_prompts

SIZES = [0, 1, 65535, 65536, 65537, 3 * 65536, 200_001]
PASSPHRASE = "größer als zwölf Zeichen"


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Three identity files that age-keygen made."""
    paths = [tmp_path / f"key{number}.txt" for number in range(3)]
    for path in paths:
        subprocess.run(["age-keygen", "-o", path], check=True, capture_output=True)
    return paths


@pytest.mark.parametrize("size", SIZES)
def test_age_opens_ours(size: int, keys: list[Path], tmp_path: Path) -> None:
    plaintext = os.urandom(size)
    identities = [read_identity_file(path)[0] for path in keys]
    recipients = [identity.recipient for identity in identities if isinstance(identity, X25519Identity)]
    (tmp_path / "sealed.age").write_bytes(b"".join(seal([plaintext], recipients[:2])))
    for path in keys[:2]:
        opened = subprocess.run(["age", "-d", "-i", path, tmp_path / "sealed.age"], capture_output=True, check=True)
        assert opened.stdout == plaintext
    refused = subprocess.run(["age", "-d", "-i", keys[2], tmp_path / "sealed.age"], capture_output=True)
    assert refused.returncode != 0


@pytest.mark.parametrize("size", SIZES)
def test_ours_opens_age(size: int, keys: list[Path]) -> None:
    plaintext = os.urandom(size)
    recipients = [
        subprocess.run(["age-keygen", "-y", key], capture_output=True, text=True, check=True).stdout.strip()
        for key in keys
    ]
    assert recipients == [str(read_identity_file(path)[0].recipient) for path in keys]
    command = ["age", "-r", recipients[0], "-r", recipients[1]]
    sealed = subprocess.run(command, input=plaintext, capture_output=True, check=True).stdout
    for path in keys[:2]:
        assert b"".join(unseal([sealed], read_identity_file(path))) == plaintext
        reader = AgeReader(sealed[:1000], len(sealed), read_identity_file(path))
        offset, length = reader.ciphertext_range(size // 2, size - size // 2)
        assert (
            reader.open_range(size // 2, size - size // 2, sealed[offset : offset + length]) == plaintext[size // 2 :]
        )
    with pytest.raises(DecryptionError):
        unseal_bytes(sealed, read_identity_file(keys[2]))


def test_age_and_ours_open_each_other_by_passphrase(tmp_path: Path) -> None:
    plaintext = os.urandom(70_000)
    # With the work factor that is the default of both.
    (tmp_path / "ours.age").write_bytes(seal_bytes(plaintext, [PassphraseRecipient(PASSPHRASE)]))
    assert answer_prompts(["age", "-d", "-o", "opened", "ours.age"], [PASSPHRASE], tmp_path) == 0
    assert (tmp_path / "opened").read_bytes() == plaintext
    assert answer_prompts(["age", "-d", "-o", "refused", "ours.age"], [PASSPHRASE + "x"], tmp_path) == 1

    assert answer_prompts(["age", "-p", "-o", "theirs.age", "opened"], [PASSPHRASE, PASSPHRASE], tmp_path) == 0
    sealed = (tmp_path / "theirs.age").read_bytes()
    assert parse_header(sealed)[0].stanzas[0].args[1] == "18"
    assert unseal_bytes(sealed, [PassphraseIdentity(PASSPHRASE)]) == plaintext
    with pytest.raises(NoIdentityError):
        unseal_bytes(sealed, [PassphraseIdentity(PASSPHRASE + "x")])


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_and_ours_open_each_other(size: int) -> None:
    plaintext = os.urandom(size)
    theirs = [pyrage.x25519.Identity.generate() for _ in range(3)]
    ours = [X25519Identity.parse(str(identity)) for identity in theirs]
    assert [str(identity.recipient) for identity in ours] == [str(identity.to_public()) for identity in theirs]
    sealed = seal_bytes(plaintext, [identity.recipient for identity in ours])
    # Rage adds a stanza of random kind and arguments to what it writes.
    written = pyrage.encrypt(plaintext, [identity.to_public() for identity in theirs])
    for their, our in zip(theirs, ours, strict=True):
        assert pyrage.decrypt(sealed, [their]) == plaintext
        assert unseal_bytes(written, [our]) == plaintext


def test_pyrage_opens_ours_by_passphrase() -> None:
    plaintext = os.urandom(70_000)
    # Rage refuses what would take it much longer than a second, by a measurement of a few milliseconds that a busy
    # machine spoils. So not the default.
    sealed = seal_bytes(plaintext, [PassphraseRecipient(PASSPHRASE, work_factor=12)])
    assert pyrage.passphrase.decrypt(sealed, PASSPHRASE) == plaintext
    with pytest.raises(pyrage.DecryptError):
        pyrage.passphrase.decrypt(sealed, PASSPHRASE + "x")


def test_ours_opens_pyrage_by_passphrase() -> None:
    plaintext = os.urandom(70_000)
    sealed = pyrage.passphrase.encrypt(plaintext, PASSPHRASE)
    if int(parse_header(sealed)[0].stanzas[0].args[1]) > MAX_WORK_FACTOR:
        # Rage takes what costs about a second here: on a very fast machine, more than we read.
        with pytest.raises(FormatError, match="expected a work factor from 1 to 20"):
            unseal_bytes(sealed, [PassphraseIdentity(PASSPHRASE)])
    else:
        assert unseal_bytes(sealed, [PassphraseIdentity(PASSPHRASE)]) == plaintext
