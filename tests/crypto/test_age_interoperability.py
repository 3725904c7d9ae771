"""Our age files opened by the stock tools and theirs by us."""

import os
import subprocess
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest

from archiver.crypto.age import AgeReader, seal, seal_bytes, unseal, unseal_bytes
from archiver.crypto.identities import read_identity_file
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import DecryptionError

SIZES = [0, 1, 65535, 65536, 65537, 3 * 65536, 200_001]


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


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_and_ours_open_each_other(size: int) -> None:
    plaintext = os.urandom(size)
    theirs = [pyrage.x25519.Identity.generate() for _ in range(3)]
    ours = [X25519Identity.parse(str(identity)) for identity in theirs]
    sealed = seal_bytes(plaintext, [identity.recipient for identity in ours])
    # Rage adds a stanza of random kind and arguments to what it writes.
    written = pyrage.encrypt(plaintext, [identity.to_public() for identity in theirs])
    for their, our in zip(theirs, ours, strict=True):
        assert pyrage.decrypt(sealed, [their]) == plaintext
        assert unseal_bytes(written, [our]) == plaintext
