"""Our age files opened by npm's age-encryption and theirs by us: the only other one here that is post-quantum."""

import os

import pytest

from archiver.crypto.age import AgeReader, seal_bytes, unseal_bytes
from archiver.crypto.header import parse_header
from archiver.crypto.identities import parse_identities
from archiver.crypto.keys import generate_identity, identity_file, parse_identity
from archiver.crypto.passphrase import PassphraseIdentity, PassphraseRecipient
from archiver.crypto.stream import CHUNK
from archiver.crypto.vault import Keyring, create_vault, open_vault, seal_vault
from archiver.errors import NoIdentityError
from tests.age_tools.typage import Typage, TypageError

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 16 * CHUNK, 5 * 1024 * 1024 + 1]
PASSPHRASE = "größer als zwölf Zeichen"
EACH_KIND = pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])


@EACH_KIND
def test_both_agree_on_the_recipient(post_quantum: bool, typage: Typage) -> None:
    ours = generate_identity(post_quantum=post_quantum)
    assert typage.recipient(ours.encode()) == str(ours.recipient)
    theirs = typage.generate(post_quantum=post_quantum)
    parsed = parse_identity(theirs)
    assert parsed.encode() == theirs
    assert str(parsed.recipient) == typage.recipient(theirs)
    (read,) = parse_identities(identity_file(parsed, "2026-11-25T08:00:00Z"), "key.txt")
    assert read.encode() == theirs


@EACH_KIND
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_ours(size: int, post_quantum: bool, typage: Typage) -> None:
    plaintext = os.urandom(size)
    identities = [generate_identity(post_quantum=post_quantum) for _ in range(2)]
    sealed = seal_bytes(plaintext, [identity.recipient for identity in identities])
    assert typage.decrypt(sealed, [identities[1].encode()]) == plaintext


@EACH_KIND
@pytest.mark.parametrize("size", SIZES)
def test_ours_opens_its(size: int, post_quantum: bool, typage: Typage) -> None:
    plaintext = os.urandom(size)
    identities = [generate_identity(post_quantum=post_quantum) for _ in range(2)]
    sealed = typage.encrypt(plaintext, [str(identity.recipient) for identity in identities])
    for identity in identities:
        assert unseal_bytes(sealed, [identity]) == plaintext
        # The header of two post-quantum recipients has about 3,400 bytes.
        reader = AgeReader(sealed[:4096], len(sealed), [identity])
        offset, length = reader.ciphertext_range(size // 2, size - size // 2)
        assert (
            reader.open_range(size // 2, size - size // 2, sealed[offset : offset + length]) == plaintext[size // 2 :]
        )


@EACH_KIND
def test_both_refuse_another_identity(post_quantum: bool, typage: Typage) -> None:
    identity, other = (generate_identity(post_quantum=post_quantum) for _ in range(2))
    with pytest.raises(TypageError, match="no identity matched"):
        typage.decrypt(seal_bytes(b"text", [identity.recipient]), [other.encode()])
    with pytest.raises(NoIdentityError):
        unseal_bytes(typage.encrypt(b"text", [str(identity.recipient)]), [other])


def test_ours_opens_what_is_for_both_kinds(typage: Typage) -> None:
    """The specification forbids to write such a file, which is as weak as X25519. age-encryption does, and so may
    others; the vector ``hybrid_and_x25519`` wants it to be read."""
    identities = [generate_identity(post_quantum=post_quantum) for post_quantum in (False, True)]
    sealed = typage.encrypt(b"text", [str(identity.recipient) for identity in identities])
    for identity in identities:
        assert unseal_bytes(sealed, [identity]) == b"text"


def test_both_open_each_other_by_passphrase(typage: Typage) -> None:
    plaintext = os.urandom(70_000)
    ours = seal_bytes(plaintext, [PassphraseRecipient(PASSPHRASE)])
    assert typage.decrypt(ours, passphrase=PASSPHRASE) == plaintext
    theirs = typage.encrypt(plaintext, passphrase=PASSPHRASE)
    assert parse_header(theirs)[0].stanzas[0].args[1] == parse_header(ours)[0].stanzas[0].args[1] == "18"
    assert unseal_bytes(theirs, [PassphraseIdentity(PASSPHRASE)]) == plaintext


def test_both_refuse_another_passphrase(typage: Typage) -> None:
    with pytest.raises(TypageError, match="no identity matched"):
        typage.decrypt(seal_bytes(b"text", [PassphraseRecipient(PASSPHRASE, work_factor=10)]), passphrase="another")
    with pytest.raises(NoIdentityError):
        unseal_bytes(typage.encrypt(b"text", passphrase=PASSPHRASE, work_factor=10), [PassphraseIdentity("another")])


def test_it_opens_a_post_quantum_vault_and_then_an_object(typage: Typage) -> None:
    operator, vault = generate_identity(post_quantum=True), create_vault(post_quantum=True)
    vault_file = seal_vault(vault, operator.recipient, "prod")
    plaintext = os.urandom(3 * 1024 * 1024)
    opened = typage.decrypt(vault_file, [operator.encode()]).decode("ascii")
    (secret,) = [line for line in opened.splitlines() if not line.startswith("#")]
    assert typage.decrypt(seal_bytes(plaintext, [vault.recipient]), [secret]) == plaintext


def test_ours_opens_a_vault_file_that_it_made(typage: Typage) -> None:
    operator, vault = typage.generate(post_quantum=True), typage.generate(post_quantum=True)
    vault_file = typage.encrypt(f"# made by hand\n{vault}\n".encode(), [typage.recipient(operator)])
    opened = open_vault(vault_file, "age", Keyring([parse_identity(operator)]), "prod", "0011223344556677")
    assert opened.encode() == vault
    assert unseal_bytes(typage.encrypt(b"an object", [str(opened.recipient)]), [opened]) == b"an object"
