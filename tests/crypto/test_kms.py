"""Operators that are keys of AWS KMS, with LocalStack's KMS in two regions."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from archiver.crypto.keys import SecretKey
from archiver.crypto.kms import KmsKey, encryption_context, kms_open, kms_seal, parse_kms
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import MAX_VAULT_FILE, Keyring, create_vault, open_vault, seal_vault, vault_form
from archiver.errors import DecryptionError, FormatError, NoIdentityError, StorageError
from tests.servers.answering import Answer, answering
from tests.servers.kms import KmsService
from tests.servers.localstack import EU_REGION, REGION
from tests.servers.process import REPOSITORY, S3Server

SOURCE = "prod"
MAX_PLAINTEXT = 4096
"""Bytes that kms:Encrypt takes."""
CONTEXT = encryption_context(SOURCE, "0011223344556677")


@pytest.fixture
def service(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


def opened(data: bytes, vault: SecretKey, *, source: str = SOURCE) -> SecretKey:
    return open_vault(data, "kms", Keyring(kms=True), source, vault_id(str(vault.recipient)))


def edited(data: bytes, **changes: Any) -> bytes:
    """A ``.kms`` file with other fields."""
    return json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize("region", [REGION, EU_REGION])
@pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])
def test_the_operator_opens_the_vault(service: KmsService, region: str, *, post_quantum: bool) -> None:
    vault = create_vault(post_quantum=post_quantum)
    key = KmsKey.parse(service.key(region))
    assert vault_form(key) == "kms"
    sealed = seal_vault(vault, key, SOURCE)
    assert opened(sealed, vault).encode() == vault.encode()
    with pytest.raises(NoIdentityError, match="not to be asked"):
        open_vault(sealed, "kms", Keyring([vault]), SOURCE, vault_id(str(vault.recipient)))


def test_the_file_of_an_operator(service: KmsService) -> None:
    vault = create_vault(post_quantum=True)
    sealed = seal_vault(vault, KmsKey.parse(service.key()), SOURCE)
    assert len(sealed) < MAX_VAULT_FILE
    assert sealed.endswith(b"}\n")
    content = json.loads(sealed)
    ciphertext = base64.b64decode(content.pop("ciphertext"), validate=True)
    assert content == {
        "version": 1,
        "key": service.key(),
        "context": {"archiver:source": "prod", "archiver:vault": vault_id(str(vault.recipient))},
    }
    plaintext = service.client().decrypt(CiphertextBlob=ciphertext, EncryptionContext=content["context"])["Plaintext"]
    public = str(vault.recipient)
    assert plaintext.decode() == f"# archiver vault {vault_id(public)}\n# public key: {public}\n{vault.encode()}\n"


def test_kms_takes_no_more_than_it_documents(service: KmsService) -> None:
    key = KmsKey.parse(service.key())
    assert kms_open(kms_seal(bytes(MAX_PLAINTEXT), key, CONTEXT), CONTEXT) == bytes(MAX_PLAINTEXT)
    with pytest.raises(StorageError, match="ValidationException"):
        kms_seal(bytes(MAX_PLAINTEXT + 1), key, CONTEXT)


def test_an_alias_stands_for_its_key_of_today(service: KmsService) -> None:
    vault = create_vault()
    sealed = seal_vault(vault, KmsKey.parse(service.alias()), SOURCE)
    assert parse_kms(sealed).key == service.key()
    assert opened(sealed, vault).encode() == vault.encode()


def test_a_multi_region_key_is_an_operator_per_region(service: KmsService) -> None:
    first = service.new_key(MultiRegion=True)
    assert ":key/mrk-" in first
    service.client().replicate_key(KeyId=first, ReplicaRegion=EU_REGION)
    vault = create_vault()
    for arn in (first, first.replace(REGION, EU_REGION)):
        sealed = seal_vault(vault, KmsKey.parse(arn), SOURCE)
        assert parse_kms(sealed).key == arn
        assert opened(sealed, vault).encode() == vault.encode()


@pytest.mark.parametrize("other", ["source", "vault", "less", "more"])
def test_another_context_is_refused_before_anything_is_sent(
    service: KmsService, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    sealed = kms_seal(b"plaintext", KmsKey.parse(service.key()), CONTEXT)
    contexts = {
        "source": encryption_context("other", CONTEXT["archiver:vault"]),
        "vault": encryption_context(SOURCE, "7766554433221100"),
        "less": {"archiver:source": SOURCE},
        "more": CONTEXT | {"more": ""},
    }
    with answering(lambda _: Answer(status=400)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        with pytest.raises(FormatError, match="it was moved or replayed"):
            kms_open(sealed, contexts[other])
        assert server.questions == []
        with pytest.raises(StorageError):
            kms_open(sealed, CONTEXT)
        assert len(server.questions) == 1


def test_kms_refuses_an_edited_context(service: KmsService) -> None:
    sealed = kms_seal(b"plaintext", KmsKey.parse(service.key()), CONTEXT)
    other = encryption_context("other", CONTEXT["archiver:vault"])
    with pytest.raises(DecryptionError, match="not of this key and context, or was altered"):
        kms_open(edited(sealed, context=other), other)
    assert kms_open(sealed, CONTEXT) == b"plaintext"


@pytest.mark.parametrize("position", [0, 40, -1])
def test_kms_refuses_an_altered_ciphertext(service: KmsService, position: int) -> None:
    sealed = kms_seal(b"plaintext", KmsKey.parse(service.key()), CONTEXT)
    ciphertext = bytearray(base64.b64decode(json.loads(sealed)["ciphertext"]))
    ciphertext[position] ^= 1
    with pytest.raises(DecryptionError, match="was altered"):
        kms_open(edited(sealed, ciphertext=base64.b64encode(ciphertext).decode()), CONTEXT)


def test_a_key_of_another_region(service: KmsService) -> None:
    """The ciphertext of one region under the name of another's key, and a key that the other region does not have."""
    sealed = kms_seal(b"plaintext", KmsKey.parse(service.key()), CONTEXT)
    with pytest.raises(DecryptionError, match="not of this key"):
        kms_open(edited(sealed, key=service.key(EU_REGION)), CONTEXT)
    with pytest.raises(StorageError, match="there is no such key"):
        kms_open(edited(sealed, key=service.key().replace(REGION, EU_REGION)), CONTEXT)


def test_an_unknown_key(service: KmsService) -> None:
    for arn in (service.key()[:-12] + "000000000000", service.alias() + "-missing"):
        with pytest.raises(StorageError, match=f"refused kms:Encrypt with {arn}: there is no such key") as caught:
            kms_seal(b"plaintext", KmsKey.parse(arn), CONTEXT)
        assert "region" in str(caught.value.hint)


def test_a_disabled_key(service: KmsService) -> None:
    arn = service.new_key()
    sealed = kms_seal(b"plaintext", KmsKey.parse(arn), CONTEXT)
    service.client().disable_key(KeyId=arn)
    with pytest.raises(StorageError, match=r"refused kms:Decrypt with .* the key is disabled") as caught:
        kms_open(sealed, CONTEXT)
    assert caught.value.hint == "Enable the key, or use another operator's identity."
    service.client().enable_key(KeyId=arn)
    assert kms_open(sealed, CONTEXT) == b"plaintext"


def test_a_key_that_is_to_be_deleted(service: KmsService) -> None:
    arn = service.new_key()
    sealed = kms_seal(b"plaintext", KmsKey.parse(arn), CONTEXT)
    service.client().schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    with pytest.raises(StorageError, match="pending deletion") as caught:
        kms_open(sealed, CONTEXT)
    assert "Cancel" in str(caught.value.hint)


def test_a_key_of_another_kind(service: KmsService) -> None:
    arn = service.new_key(KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC")
    with pytest.raises(StorageError, match="the key is of another kind") as caught:
        kms_seal(b"plaintext", KmsKey.parse(arn), CONTEXT)
    assert "symmetric" in str(caught.value.hint)


def test_importing_it_does_not_import_boto3() -> None:
    script = (
        "import sys, archiver.crypto.vault as module; print([n for n in ('boto3', 'botocore') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
