"""Which keys are believed and which open vaults: from the command line, the card, standard input and configuration."""

import io
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.config import Config, parse_config
from archiver.crypto.identities import MAX_IDENTITY_FILE, STANDARD_INPUT
from archiver.crypto.keys import generate_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.crypto.trust import TrustedKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import UsageError
from archiver.operations.access import AccessOptions, resolve_access, trusted_keys
from tests.cli.checking import check
from tests.cli.terminal import ARCHIVER
from tests.operations.scene import SOURCE, Scene, archiver
from tests.servers.process import REPOSITORY

GIVEN, CARD, CONFIGURED = (SigningKey.generate().verify_key for _ in range(3))
EARLY = datetime(2026, 11, 20, tzinfo=UTC)
LATE = EARLY + timedelta(days=1)


def configured(*keys: TrustedKey) -> Config:
    revoked = "".join(f'"{key.key}" = {key.revoked.isoformat()}\n' for key in keys if key.revoked is not None)
    trusted = ", ".join(f'"{key.key}"' for key in keys)
    text = f'[destination]\nurl = "file:///x"\n[signing]\ntrusted = [{trusted}]\n[signing.revoked]\n{revoked}'
    return parse_config(text, Path("archiver.toml"))


@pytest.mark.parametrize("given", [(), (str(GIVEN),)], ids=["-", "given"])
@pytest.mark.parametrize("on_card", [(), (TrustedKey(CARD),)], ids=["-", "card"])
@pytest.mark.parametrize("config", [None, configured(TrustedKey(CONFIGURED))], ids=["-", "configured"])
def test_the_first_list_counts_that_names_a_key(
    given: tuple[str, ...], on_card: tuple[TrustedKey, ...], config: Config | None
) -> None:
    if not given and not on_card and config is None:
        with pytest.raises(UsageError, match="no key to verify backups with"):
            trusted_keys(given, on_card, config)
        return
    expected = GIVEN if given else CARD if on_card else CONFIGURED
    assert trusted_keys(given, on_card, config) == (TrustedKey(expected),)


@pytest.mark.parametrize("where", ["given", "card", "configuration"])
@pytest.mark.parametrize("on_card", [None, EARLY, LATE], ids=["-", "early", "late"])
@pytest.mark.parametrize("in_config", [None, EARLY, LATE], ids=["-", "early", "late"])
def test_a_revocation_counts_wherever_it_stands(
    where: str, on_card: datetime | None, in_config: datetime | None
) -> None:
    key = CARD
    given = (str(key),) if where == "given" else ()
    # Where the configuration's list is to count there is no card.
    card = () if where == "configuration" else (TrustedKey(key, on_card),)
    dates = [date for date in (on_card if card else None, in_config) if date is not None]
    assert trusted_keys(given, card, configured(TrustedKey(key, in_config))) == (
        TrustedKey(key, min(dates, default=None)),
    )


def test_a_list_is_kept_whole_and_without_repetition() -> None:
    card = (TrustedKey(CARD, EARLY), TrustedKey(GIVEN))
    assert trusted_keys((), card, configured(TrustedKey(CONFIGURED), TrustedKey(GIVEN, LATE))) == (
        TrustedKey(CARD, EARLY),
        TrustedKey(GIVEN, LATE),
    )
    assert trusted_keys((str(GIVEN), str(GIVEN)), (), None) == (TrustedKey(GIVEN),)


@pytest.mark.parametrize("where", ["given", "configuration"])
def test_a_malformed_key_is_an_error_not_nothing(where: str) -> None:
    config = parse_config('[destination]\nurl = "file:///x"\n[signing]\ntrusted = ["RWx"]', Path("archiver.toml"))
    with pytest.raises(UsageError, match="invalid verification key"):
        trusted_keys(("RWx",) if where == "given" else (), (), config if where == "configuration" else None)


def test_a_card_with_several_keys_is_believed_as_it_is(scene: Scene) -> None:
    text = scene.card.read_text()
    scene.card.write_text(text.replace("# created:", f"# verify-key: {TrustedKey(GIVEN, EARLY)}\n# created:"))
    own = resolve_access(AccessOptions(config=scene.config)).trusted
    assert own is not None
    access = resolve_access(AccessOptions(identity=scene.card))
    assert access.trusted == (*own, TrustedKey(GIVEN, EARLY))
    # The configuration is not read: its revocation is not known.
    revoked = f'\n[signing.revoked]\n"{own[0].key}" = {EARLY.isoformat()}\n'
    scene.config.write_text(scene.config.read_text() + revoked)
    assert resolve_access(AccessOptions(identity=scene.card)).trusted == access.trusted
    both = resolve_access(AccessOptions(identity=scene.card, config=scene.config))
    assert both.trusted == (TrustedKey(own[0].key, EARLY), TrustedKey(GIVEN, EARLY))
    unsigned = AccessOptions(identity=scene.card, config=scene.config, trust_unsigned=True)
    assert resolve_access(unsigned).trusted is None


def test_all_that_opens_vaults_is_on_one_keyring(scene: Scene) -> None:
    passphrase = PassphraseIdentity("correct horse battery")
    access = resolve_access(AccessOptions(identity=scene.card, passphrase=passphrase, kms=True))
    identity, last = access.keyring.identities
    assert isinstance(identity, X25519Identity)
    assert scene.card.read_text().splitlines()[-1] == identity.encode()
    assert (last, access.keyring.kms) == (passphrase, True)
    nothing = resolve_access(AccessOptions(config=scene.config))
    assert not nothing.keyring
    assert not nothing.keyring.kms


def test_a_card_without_a_secret_is_good_beside_other_keys(scene: Scene) -> None:
    scene.card.write_text("".join(scene.card.read_text().splitlines(keepends=True)[:-1]))
    passphrase = PassphraseIdentity("correct horse battery")
    access = resolve_access(AccessOptions(identity=scene.card, passphrase=passphrase))
    assert (access.source, list(access.keyring.identities)) == (SOURCE, [passphrase])


def stand_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_the_card_on_standard_input(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scene.backup()
    card = scene.card.read_bytes()
    scene.card.unlink()
    stand_in(monkeypatch, card)
    listed = archiver("list", "--identity", "-", "--json")
    assert [item["backup"] for item in listed.document] == [made]
    stand_in(monkeypatch, card)
    assert archiver("restore", "--identity", "-", "--to", str(scene.root / "out")).code == 0
    assert (scene.root / "out/vector/data.mdb").exists()


def test_an_identity_that_age_decrypts_on_the_way_in(scene: Scene, tmp_path: Path) -> None:
    made = scene.backup()
    key, sealed = tmp_path / "key.txt", tmp_path / "card.age"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    subprocess.run(["age", "-e", "-i", key, "-o", sealed, scene.card], check=True)
    refused = archiver("list", "--identity", str(sealed))
    check(refused, 2, f"{sealed} is encrypted with age", "age -d FILE | archiver … --identity -")
    command = f'age -d -i {key} {sealed} | "{sys.executable}" -c "{ARCHIVER}" list --identity - --json'
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["sh", "-c", command], env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert made in done.stdout


def test_a_card_is_read_once_so_it_may_be_a_pipe(scene: Scene) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, scene.card.read_bytes())
    os.close(theirs)
    try:
        access = resolve_access(AccessOptions(identity=Path(f"/dev/fd/{ours}")))
    finally:
        os.close(ours)
    assert (access.source, len(access.keyring.identities)) == (SOURCE, 1)


def test_the_environment_names_a_file_and_an_option_wins(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scene.backup()
    other = scene.root / "other.txt"
    other.write_text(generate_identity(post_quantum=False).encode())
    monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", str(scene.card))
    assert [item["backup"] for item in archiver("list", "--json").document] == [made]
    config = ("--config", str(scene.config))
    assert archiver("verify", "--level", "data", *config).code == 0
    check(archiver("verify", "--level", "data", "--identity", str(other), *config), 4, "none of the given identities")
    monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", str(scene.root / "missing"))
    check(archiver("list"), 2, f"cannot read {scene.root}/missing")
    assert archiver("list", *scene.identity).code == 0
    monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", "")
    check(archiver("list"), 2, "no configuration at")


PRIVATE = "a2V5IGJ5dGVzIHRoYXQgbm9ib2R5IG1heSBzZWU="


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age-encryption.org/v1\n-> X25519 x\n" + PRIVATE, "is encrypted with age, expected an identity"),
        ("\ufeff\r\n-----BEGIN AGE ENCRYPTED FILE-----\r\n" + PRIVATE, "is encrypted with age, expected an identity"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n" + PRIVATE, "a private key as SSH and TLS use them"),
        ("-----BEGIN RSA PRIVATE KEY-----\r\n" + PRIVATE, "a private key as SSH and TLS use them"),
        ("-----BEGIN PRIVATE KEY-----\n" + PRIVATE, "a private key as SSH and TLS use them"),
        ("untrusted comment: minisign secret key\n" + PRIVATE, "is a minisign key, expected an age identity"),
        ("", "holds no identity"),
        (PRIVATE, "line 1 of {name} is not an age identity"),
        ("x" * (MAX_IDENTITY_FILE + 1), "is not a file of keys: it has more than 1048576 bytes"),
        ("\udcff", "is not a file of keys: it is not utf-8 text"),
    ],
    ids=["age", "armored", "openssh", "rsa", "pkcs8", "minisign", "empty", "nonsense", "large", "binary"],
)
@pytest.mark.parametrize("by", ["file", "standard input"])
def test_what_is_no_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, by: str) -> None:
    data = text.encode(errors="surrogateescape")
    path = STANDARD_INPUT if by == "standard input" else tmp_path / "key"
    if path == STANDARD_INPUT:
        stand_in(monkeypatch, data)
    else:
        path.write_bytes(data)
    name = "standard input" if path == STANDARD_INPUT else str(path)
    with pytest.raises(UsageError) as caught:
        resolve_access(AccessOptions(identity=path, destination="file:///x", source="prod", trust_unsigned=True))
    assert message.format(name=name) in caught.value.message
    assert caught.value.message.startswith((name, f"line 1 of {name}"))
    assert PRIVATE not in caught.value.message + (caught.value.hint or "")


def test_an_endless_pipe_is_not_read_into_memory() -> None:
    command = f'yes | "{sys.executable}" -c "{ARCHIVER}" list --identity -'
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["sh", "-c", command], env=settings, capture_output=True, text=True)
    assert done.returncode == 2
    assert "standard input is not a file of keys: it has more than 1048576 bytes" in done.stderr


def test_standard_input_that_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="cannot read standard input: it is closed"):
        resolve_access(AccessOptions(identity=STANDARD_INPUT))
    person, line = os.openpty()
    with os.fdopen(line) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(UsageError, match="expected an identity on standard input, got a terminal"):
            resolve_access(AccessOptions(identity=STANDARD_INPUT))
    os.close(person)
