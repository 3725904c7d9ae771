"""The vault: its identity goes to an operator and comes back, with stock age too."""

import subprocess
from pathlib import Path

import pytest

from archiver.crypto.age import seal_bytes
from archiver.crypto.identities import write_secret_file
from archiver.crypto.keys import SecretKey
from archiver.crypto.recipients import Identity, vault_id
from archiver.crypto.vault import MAX_VAULT_FILE, Keyring, create_vault, open_vault, seal_vault
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import DecryptionError, FormatError

SOURCE = "prod"
OPERATOR = X25519Identity.generate()


def opened(data: bytes, *identities: Identity) -> SecretKey:
    return open_vault(data, "age", Keyring(identities), SOURCE, "0011223344556677")


def test_the_operator_opens_the_vault_and_no_one_else() -> None:
    vault = create_vault()
    sealed = seal_vault(vault, OPERATOR.recipient, SOURCE)
    assert opened(sealed, X25519Identity.generate(), OPERATOR).encode() == vault.encode()
    with pytest.raises(DecryptionError):
        opened(sealed, X25519Identity.generate())


def test_age_twice_opens_an_object(tmp_path: Path) -> None:
    vault = create_vault()
    write_secret_file(tmp_path / "operator.txt", OPERATOR.encode() + "\n")
    (tmp_path / "vault.age").write_bytes(seal_vault(vault, OPERATOR.recipient, SOURCE))
    (tmp_path / "object.age").write_bytes(seal_bytes(b"an object", [vault.recipient]))
    script = "set -e; age -d -i operator.txt vault.age > vault.txt; age -d -i vault.txt object.age"
    opened = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert opened.stdout == b"an object"
    public = str(vault.recipient)
    assert (tmp_path / "vault.txt").read_text() == (
        f"# archiver vault {vault_id(public)}\n# public key: {public}\n{vault.encode()}\n"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "holds no identity"),
        (b"nonsense", "line 1 of the vault file is not an age identity"),
        (f"{OPERATOR.encode()}\n{OPERATOR.encode()}\n".encode(), "expected one identity in a vault file, got 2"),
        ("# ä\n".encode(), "not ascii"),
        (bytes(MAX_VAULT_FILE), "expected at most 65536"),
    ],
)
def test_refuses_what_is_no_vault_identity(text: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        opened(seal_bytes(text, [OPERATOR.recipient]), OPERATOR)
