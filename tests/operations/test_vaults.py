"""Opening a vault by any of its operators' files, whatever else lies beside them."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from archiver.catalog.names import VaultPlace, vault_key
from archiver.crypto.identities import read_identity_file
from archiver.crypto.keys import SecretKey, generate_identity
from archiver.crypto.kms import KmsKey
from archiver.crypto.passphrase import PassphraseIdentity, PassphraseRecipient
from archiver.crypto.recipients import Identity, vault_id
from archiver.crypto.vault import MAX_VAULT_FILE, Keyring, OperatorKey, create_vault, seal_vault, vault_form
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import (
    ArchiverError,
    DecryptionError,
    FormatError,
    IntegrityError,
    NoIdentityError,
    StorageError,
    UsageError,
)
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.archive import Archive
from archiver.operations.restore import restore
from archiver.operations.restore_plan import layout_below, plan_restore
from archiver.operations.vaults import read_small, unlock_vault, vault_places
from archiver.progress import Silent
from archiver.stores.base import Store
from archiver.stores.destination import open_store, parse_destination
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from archiver.stores.memory import MemoryStore
from tests.operations.scene import check_restored, make_scene, tree
from tests.servers.answering import Answer, AnsweringServer, answering
from tests.servers.kms import KmsService
from tests.servers.process import S3Server

SOURCE = "prod"
PASSPHRASE = "correct horse battery staple"
AWS = KmsKey.parse("arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab")
ADA, GRACE, STRANGER = X25519Identity.generate(), generate_identity(post_quantum=True), X25519Identity.generate()


@dataclass(frozen=True)
class Site:
    """One vault in a store."""

    store: Store
    vault: SecretKey

    @property
    def id(self) -> str:
        return vault_id(str(self.vault.recipient))

    @property
    def places(self) -> list[VaultPlace]:
        return vault_places(self.store, SOURCE, self.id)

    def add(self, operator: str, key: OperatorKey) -> str:
        """Seal the vault to an operator; the file's key."""
        return self.plant(operator, vault_form(key), seal_vault(self.vault, key, SOURCE))

    def plant(self, operator: str, form: str, data: bytes) -> str:
        """Put any file beside the others; its key."""
        key = vault_key(SOURCE, self.id, operator, form)
        self.store.create(key, [data])
        return key

    def opened_by(self, keyring: Keyring, recipient: str | None = "own") -> str:
        """The name of the file that opens the vault for ``keyring``."""
        own = str(self.vault.recipient) if recipient == "own" else recipient
        opened = unlock_vault(self.store, self.places, keyring, own)
        assert opened.identity.encode() == self.vault.encode()
        return f"{opened.place.operator}.{opened.place.form}"


@pytest.fixture
def site() -> Site:
    return Site(MemoryStore(), create_vault())


@pytest.fixture
def service(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    """A KMS that refuses everything."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with answering(lambda _: Answer(b'{"__type": "AccessDeniedException"}', 400)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        yield server


def kms_file(site: Site, *, key: KmsKey = AWS, source: str = SOURCE, vault: str | None = None) -> bytes:
    """A well-formed file whose ciphertext is nobody's."""
    context = {"archiver:source": source, "archiver:vault": vault or site.id}
    return json.dumps({"version": 1, "key": str(key), "context": context, "ciphertext": "AQID"}).encode()


@pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])
def test_every_operator_opens_the_vault(service: KmsService, tmp_path: Path, *, post_quantum: bool) -> None:
    """Of four kinds, each alone and whatever else lies beside it."""
    site = Site(LocalStore(tmp_path, Journal(None)), create_vault(post_quantum=post_quantum))
    site.add("ada", ADA.recipient)
    site.add("grace", GRACE.recipient)
    site.add("carol", PassphraseRecipient(PASSPHRASE, work_factor=10))
    site.add("aws", KmsKey.parse(service.key()))
    assert sorted(f"{place.operator}.{place.form}" for place in site.places) == [
        "ada.age", "aws.kms", "carol.age", "grace.age",
    ]  # fmt: skip
    assert site.opened_by(Keyring([ADA])) == "ada.age"
    assert site.opened_by(Keyring([STRANGER, GRACE])) == "grace.age"
    assert site.opened_by(Keyring([PassphraseIdentity(PASSPHRASE)])) == "carol.age"
    assert site.opened_by(Keyring(kms=True)) == "aws.kms"
    assert site.opened_by(Keyring([STRANGER], kms=True), recipient=None) == "aws.kms"


def test_an_operator_may_have_both_forms(service: KmsService, site: Site) -> None:
    site.add("ada", ADA.recipient)
    site.add("ada", KmsKey.parse(service.key()))
    assert len(site.places) == 2
    assert site.opened_by(Keyring([ADA])) == "ada.age"
    assert site.opened_by(Keyring(kms=True)) == "ada.kms"


def test_the_vaults_of_a_source(site: Site) -> None:
    other = replace(site, vault=create_vault())
    site.add("ada", ADA.recipient)
    other.add("ada", ADA.recipient)
    site.store.create(f"vault/{SOURCE}/{site.id}/ada.txt", [b"no operator's file"])
    site.store.create(vault_key(f"{SOURCE}-2", site.id, "eve", "age"), [b"of another source"])
    assert {place.vault for place in vault_places(site.store, SOURCE)} == {site.id, other.id}
    assert [place.operator for place in site.places] == ["ada"]
    assert vault_places(site.store, "missing") == []


def test_the_vaults_of_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert vault_places(LocalStore(tmp_path / "missing", Journal(None)), SOURCE) == []


Plant = Callable[[Site], bytes]


@pytest.mark.parametrize("form", ["age", "kms"])
@pytest.mark.parametrize("name", ["aaa", "zzz"], ids=["before", "after"])
@pytest.mark.parametrize(
    "planted",
    [
        lambda _: b"",
        lambda _: b"garbage",
        lambda _: bytes(MAX_VAULT_FILE + 1),
        lambda _: seal_vault(create_vault(), ADA.recipient, SOURCE),
        lambda site: seal_vault(site.vault, STRANGER.recipient, SOURCE),
        lambda site: seal_vault(site.vault, ADA.recipient, SOURCE)[:-1] + b"\x00",
        kms_file,
        lambda site: kms_file(site, source="other"),
        lambda site: kms_file(site, vault="0011223344556677"),
    ],
    ids=[
        "empty", "garbage", "too large", "another vault", "a stranger's", "altered", "somebody else's key",
        "another source's context", "another vault's context",
    ],
)  # fmt: skip
def test_a_planted_file_never_keeps_a_good_one_from_opening(
    refusing: AnsweringServer, site: Site, name: str, form: str, planted: Plant
) -> None:
    site.add("ada", ADA.recipient)
    site.plant(name, form, planted(site))
    assert site.opened_by(Keyring([ADA], kms=True)) == "ada.age"
    # Age files come first, so that nobody is asked in vain.
    assert refusing.questions == []


@pytest.mark.parametrize("name", ["aaa", "zzz"], ids=["before", "after"])
@pytest.mark.parametrize("planted", [lambda _: b"garbage", kms_file], ids=["garbage", "somebody else's key"])
def test_nor_one_of_kms(service: KmsService, site: Site, name: str, planted: Plant) -> None:
    site.add("aws", KmsKey.parse(service.key()))
    site.plant(name, "kms", planted(site))
    site.plant(name, "age", b"garbage")
    assert site.opened_by(Keyring([ADA], kms=True)) == "aws.kms"


def test_the_order_does_not_matter(service: KmsService, site: Site) -> None:
    site.add("aws", KmsKey.parse(service.key()))
    site.plant("eve", "age", b"garbage")
    site.plant("mallory", "kms", kms_file(site))
    site.add("zoe", STRANGER.recipient)
    own = str(site.vault.recipient)
    for places in itertools.permutations(site.places):
        assert unlock_vault(site.store, places, Keyring([ADA], kms=True), own).place.operator == "aws"


def test_nothing_is_asked_of_kms_unless_the_operator_says_so(refusing: AnsweringServer, site: Site) -> None:
    site.plant("aws", "kms", kms_file(site))
    with pytest.raises(NoIdentityError, match=r"sealed to: aws\.kms") as caught:
        site.opened_by(Keyring([ADA]))
    assert "--kms" in str(caught.value.hint)
    assert "--identity" not in str(caught.value.hint)
    assert refusing.questions == []
    with pytest.raises(StorageError):
        site.opened_by(Keyring([ADA], kms=True))
    assert len(refusing.questions) == 1


def test_what_belongs_elsewhere_is_not_sent_to_kms(refusing: AnsweringServer, site: Site) -> None:
    site.plant("aws", "kms", kms_file(site, source="other"))
    with pytest.raises(FormatError, match=r"aws\.kms: .* it was moved or replayed"):
        site.opened_by(Keyring(kms=True))
    assert refusing.questions == []


@pytest.mark.parametrize("name", ["aaa", "zzz"], ids=["before", "after"])
@pytest.mark.parametrize("form", ["age", "kms"])
def test_a_failure_of_kms_is_told_whatever_lies_beside_it(
    refusing: AnsweringServer, site: Site, name: str, form: str
) -> None:
    """It may be mended, and then the vault opens; a planted file must not hide that."""
    site.plant("aws", "kms", kms_file(site))
    site.plant(name, form, b"garbage")
    site.add("zoe", STRANGER.recipient)
    with pytest.raises(StorageError, match=f"refused kms:Decrypt with {AWS}: access denied") as caught:
        site.opened_by(Keyring([ADA], kms=True))
    assert caught.value.exit_code == 7
    assert "Allow kms:Decrypt" in str(caught.value.hint)


def test_a_failure_of_the_store_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    good = site.add("zoe", ADA.recipient)
    bad = site.plant("aaa", "age", b"garbage")
    read = site.store.read

    def failing(broken: str) -> Callable[..., Iterator[bytes]]:
        def attempt(key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
            if key == broken:
                raise StorageError(f"cannot read {key}")
            return read(key, start, length)

        return attempt

    monkeypatch.setattr(site.store, "read", failing(bad))
    assert site.opened_by(Keyring([ADA])) == "zoe.age"
    monkeypatch.setattr(site.store, "read", failing(good))
    with pytest.raises(StorageError, match=r"cannot read .*zoe\.age"):
        site.opened_by(Keyring([ADA]))


@pytest.mark.parametrize(
    ("planted", "error", "message"),
    [
        (lambda _: b"garbage", FormatError, r"^vault/prod/[0-9a-f]{16}/eve\.age: "),
        (lambda _: bytes(MAX_VAULT_FILE + 1), FormatError, r"^vault/prod/[0-9a-f]{16}/eve\.age has more than 65536"),
        (
            lambda _: seal_vault(create_vault(), ADA.recipient, SOURCE),
            IntegrityError,
            r"^vault/prod/[0-9a-f]{16}/eve\.age holds the identity of another vault$",
        ),
        (
            lambda site: seal_vault(site.vault, ADA.recipient, SOURCE)[:-1] + b"\x00",
            DecryptionError,
            r"^vault/prod/[0-9a-f]{16}/eve\.age: ",
        ),
    ],
    ids=["garbage", "too large", "another vault", "altered"],
)
def test_what_is_wrong_is_told_when_nothing_opens(
    site: Site, planted: Plant, error: type[ArchiverError], message: str
) -> None:
    site.add("ada", STRANGER.recipient)
    site.plant("eve", "age", planted(site))
    site.add("zoe", STRANGER.recipient)
    for recipient in (str(site.vault.recipient), None):
        with pytest.raises(error, match=message) as caught:
            site.opened_by(Keyring([ADA]), recipient)
        assert type(caught.value) is error
        assert caught.value.hint


def test_the_wrong_identity_learns_whose_would_be_right(site: Site) -> None:
    site.add("ada", ADA.recipient)
    site.add("carol", PassphraseRecipient(PASSPHRASE, work_factor=10))
    site.plant("aws", "kms", kms_file(site))
    for keyring in (Keyring([STRANGER]), Keyring([PassphraseIdentity("wrong")])):
        with pytest.raises(NoIdentityError, match=r"\(it is sealed to: ada\.age, aws\.kms, carol\.age\)") as caught:
            site.opened_by(keyring)
        hint = str(caught.value.hint)
        assert all(option in hint for option in ("--identity", "--passphrase", "--kms"))


@pytest.mark.parametrize("phrased", [False, True])
@pytest.mark.parametrize("kms", [False, True])
@pytest.mark.parametrize("given", ["key", "passphrase", "kms", "key and passphrase", "all"])
def test_each_thing_that_was_given_is_told_why_it_is_of_no_use(
    site: Site, given: str, *, phrased: bool, kms: bool
) -> None:
    site.add("ada", ADA.recipient)
    if phrased:
        site.add("carol", PassphraseRecipient(PASSPHRASE, work_factor=10))
    if kms:
        site.plant("aws", "kms", kms_file(site, source="other"))
    has_key, has_passphrase = given in ("key", "key and passphrase", "all"), "passphrase" in given or given == "all"
    asks_kms = given in ("kms", "all")
    secrets: list[Identity] = [STRANGER] if has_key else []
    secrets += [PassphraseIdentity("wrong")] if has_passphrase else []
    if asks_kms and kms:
        # Then it is KMS's own answer that is told.
        return
    with pytest.raises(NoIdentityError) as caught:
        site.opened_by(Keyring(secrets, kms=asks_kms))
    message, hint = caught.value.message, str(caught.value.hint)
    assert ("none of the given identities opens vault" in message) == has_key
    assert ("the passphrase opens none of: carol.age in vault" in message) == (has_passphrase and phrased)
    assert (f"no operator of vault {site.id} of 'prod' has a passphrase" in message) == (has_passphrase and not phrased)
    assert (f"no operator of vault {site.id} of 'prod' uses a KMS key" in message) == asks_kms
    assert ("--passphrase" in hint, "--kms" in hint) == (phrased, kms)


@pytest.mark.parametrize("vault", ["same", "other"])
def test_a_card_of_before_a_rotation_is_said_to_be_one(site: Site, vault: str) -> None:
    site.add("ada", ADA.recipient)
    named = site.id if vault == "same" else "0011223344556677"
    with pytest.raises(NoIdentityError) as caught:
        site.opened_by(Keyring([STRANGER], card="card.txt", card_vault=named))
    stale = "card.txt is of vault 0011223344556677: look for another card, such as a newer one. "
    assert str(caught.value.hint).startswith(stale if vault == "other" else "Give --identity")


def test_a_card_without_a_key_is_said_to_have_none(site: Site) -> None:
    site.add("carol", PassphraseRecipient(PASSPHRASE, work_factor=10))
    with pytest.raises(UsageError, match=r"identity, and card\.txt holds no secret key \(it is") as caught:
        site.opened_by(Keyring(card="card.txt", card_vault=site.id))
    assert "--passphrase" in str(caught.value.hint)


def test_what_may_not_be_read_may_have_a_passphrase(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("ada", ADA.recipient)

    def refuse(*_: object) -> Iterator[bytes]:
        raise StorageError("refused")

    monkeypatch.setattr(site.store, "read", refuse)
    with pytest.raises(UsageError) as caught:
        site.opened_by(Keyring())
    assert "--passphrase" in str(caught.value.hint)


def test_nothing_opens_without_keys(site: Site) -> None:
    site.add("ada", ADA.recipient)
    with pytest.raises(UsageError, match=r"needs an operator's identity \(it is sealed to: ada\.age\)") as caught:
        site.opened_by(Keyring())
    assert "--kms" not in str(caught.value.hint)
    assert "--passphrase" not in str(caught.value.hint)


def test_another_vault_of_the_same_operator_is_not_taken_for_this_one(site: Site) -> None:
    """A file that was moved to another vault's prefix; with and without a manifest that says whose it is."""
    other = replace(site, vault=create_vault())
    site.plant("ada", "age", seal_vault(other.vault, ADA.recipient, SOURCE))
    for recipient in (str(site.vault.recipient), None):
        with pytest.raises(IntegrityError, match="another vault"):
            unlock_vault(site.store, site.places, Keyring([ADA]), recipient)
    # What the manifest says counts, even against the place.
    opened = unlock_vault(site.store, site.places, Keyring([ADA]), str(other.vault.recipient))
    assert opened.identity.encode() == other.vault.encode()


@pytest.mark.parametrize("size", [0, 5, 6])
def test_a_small_file_is_bounded(site: Site, size: int) -> None:
    site.store.create("key", [bytes(size)])
    if size <= 5:
        assert read_small(site.store, "key", 5) == bytes(size)
    else:
        with pytest.raises(FormatError, match="key has more than 5 bytes"):
            read_small(site.store, "key", 5)


def test_a_blank_machine_restores_with_kms_alone(service: KmsService, localstack_url: str, tmp_path: Path) -> None:
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, localstack_url)
    access = resolve_access(AccessOptions(identity=scene.card))
    store = open_store(parse_destination(localstack_url))
    (place,) = vault_places(store, SOURCE)
    opened = unlock_vault(store, [place], Keyring(read_identity_file(scene.card)), None)
    site = Site(store, opened.identity)
    site.add(place.operator, KmsKey.parse(service.key()))
    store.delete(place.key)
    name = scene.backup()
    original = tree(scene.media)
    scene.config.unlink()
    shutil.rmtree(scene.state)

    without = Archive(store, SOURCE, access.trusted, Keyring(read_identity_file(scene.card)))
    with pytest.raises(NoIdentityError, match=r"sealed to: test\.kms"):
        without.unlock(without.find().manifest.vaults[0])
    archive = Archive(store, SOURCE, access.trusted, Keyring(kms=True))
    plan = plan_restore(archive, archive.find(), layout_below(tmp_path / "out"))
    restore(archive, plan, Silent())

    assert plan.backup.place.backup == name
    check_restored(scene, tmp_path / "out", media=original)
    store.close()
