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
    # This configuration is not at the usual place: its revocation is not known.
    revoked = f'\n[signing.revoked]\n"{own[0].key}" = {EARLY.isoformat()}\n'
    scene.config.write_text(scene.config.read_text() + revoked)
    assert resolve_access(AccessOptions(identity=scene.card)).trusted == access.trusted
    both = resolve_access(AccessOptions(identity=scene.card, config=scene.config))
    assert both.trusted == (TrustedKey(own[0].key, EARLY), TrustedKey(GIVEN, EARLY))
    unsigned = AccessOptions(identity=scene.card, config=scene.config, trust_unsigned=True)
    assert resolve_access(unsigned).trusted is None


def revoke_own_key(scene: Scene) -> TrustedKey:
    (own,) = resolve_access(AccessOptions(config=scene.config)).trusted or ()
    scene.config.write_text(scene.config.read_text() + f'\n[signing.revoked]\n"{own.key}" = {EARLY.isoformat()}\n')
    return TrustedKey(own.key, EARLY)


def test_an_old_card_beside_the_configuration_knows_its_revocations(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the host itself the thief's backup must not look verified because the card is of before."""
    revoked = revoke_own_key(scene)
    scene.config.write_text(scene.config.read_text().replace("trusted = [", f'trusted = ["{GIVEN}", '))
    assert resolve_access(AccessOptions(identity=scene.card)).trusted == (TrustedKey(revoked.key),)
    monkeypatch.chdir(scene.root)
    access = resolve_access(AccessOptions(identity=scene.card))
    # Only the revocation counts: not the list, and nothing else of it.
    assert (access.trusted, access.config) == ((revoked,), None)
    by_options = AccessOptions(destination=scene.url, source=SOURCE, verify_keys=(str(revoked.key),))
    assert resolve_access(by_options).trusted == (revoked,)


@pytest.mark.parametrize("of", ["another destination", "another source", "no toml", "a malformed key"])
def test_a_configuration_of_something_else_does_not_count(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """Nor does one that is damaged stand in the way of a restore with the card."""
    revoked = revoke_own_key(scene)
    old, new = {
        "another destination": (scene.url, f"{scene.url}-2"),
        "another source": (f"[source.{SOURCE}", "[source.other"),
        "no toml": ("[signing]", "[signing"),
        "a malformed key": ('trusted = ["RW', 'trusted = ["RWx", "RW'),
    }[of]
    assert old in scene.config.read_text()
    scene.config.write_text(scene.config.read_text().replace(old, new))
    monkeypatch.chdir(scene.root)
    assert resolve_access(AccessOptions(identity=scene.card)).trusted == (TrustedKey(revoked.key),)


def test_a_card_that_knows_the_signing_key_no_longer_is_said_to_be_old(scene: Scene) -> None:
    text = scene.card.read_text()
    key = next(line for line in text.splitlines() if "verify-key" in line)
    scene.backup()
    scene.card.write_text(text.replace(key, f"# verify-key: {GIVEN}"))
    done = scene.restore("--to", "out")
    check(done, 4, f"expected key {GIVEN.key_id}", "If the signing key was changed, this recovery card", "newest card")


def test_a_secret_key_among_the_trusted_ones(scene: Scene) -> None:
    secret = (scene.root / "archiver-signing.key").read_text().splitlines()[1]
    text = scene.config.read_text()
    scene.config.write_text(text.replace('trusted = ["', f'trusted = ["{secret}", "'))
    done = archiver("list", "--config", str(scene.config))
    check(done, 2, f"{scene.config}: signing.trusted[0] is a secret key: take it out", "Treat it as stolen")
    assert secret[8:24] not in done.errors


def bare_card(scene: Scene) -> Path:
    """A copy of the card, whose last line is in key.txt."""
    *lines, secret = scene.card.read_text().splitlines(keepends=True)
    path = scene.root / "bare.txt"
    path.write_text("".join(lines))
    (scene.root / "key.txt").write_text(secret)
    return path


def test_a_card_without_a_secret_and_the_key_in_a_file_of_its_own(scene: Scene) -> None:
    made, bare, key = scene.backup(), str(bare_card(scene)), str(scene.root / "key.txt")
    for files in ((bare, key), (key, bare), (key, bare, key)):
        identities = [argument for file in files for argument in ("--identity", file)]
        done = archiver("verify", "--level", "data", *identities, "--json")
        assert done.code == 0, done.errors
        assert made in done.output
    access = resolve_access(AccessOptions(identity=(Path(key), Path(bare))))
    assert (access.source, len(access.keyring.identities), access.keyring.card) == (SOURCE, 1, bare)
    # Each is read once: one may be standard input.
    assert len(resolve_access(AccessOptions(identity=(scene.card, scene.card))).keyring.identities) == 1


def test_two_cards_are_refused(scene: Scene) -> None:
    bare = bare_card(scene)
    done = archiver("list", *scene.identity, "--identity", str(bare))
    check(done, 2, f"{scene.card} and {bare} are both recovery cards, expected one", "newest card")


def test_a_key_file_alone_is_told_what_it_lacks(scene: Scene) -> None:
    bare_card(scene)
    key = scene.root / "key.txt"
    done = archiver("keys", "check", "--identity", str(key))
    check(done, 2, "no configuration at", f"{key} holds a key, but is no recovery card", "--verify-key RW…")
    assert "--identity" in archiver("list").errors
    check(archiver("list", "--config", "/none.toml"), 2, "no configuration at /none.toml")


def test_a_name_with_a_space_in_the_environment_is_one_name(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scene.backup()
    spaced = scene.card.rename(scene.root / "my card.txt")
    monkeypatch.setenv("ARCHIVER_IDENTITY_FILE", str(spaced))
    assert [item["backup"] for item in archiver("list", "--json").document] == [made]


def test_the_card_of_another_destination_is_not_mixed_with_this_configuration(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.backup()
    monkeypatch.chdir(scene.root)
    own = scene.url
    scene.config.write_text(scene.config.read_text().replace(own, f"{own}-2"))
    done = archiver("restore", "--in-place", "--force", *scene.identity)
    check(done, 2, f"the recovery card belongs to {own}, archiver.toml to {own}-2", "--config", "--to DIR")
    check(archiver("restore", "--in-place", "--from", own, *scene.identity), 2, "--in-place needs the configuration")


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


KEY = generate_identity(post_quantum=False).encode()
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
        (KEY[:-1], "wrong checksum, so a character is missing or mistyped"),
        (KEY[:30] + " " + KEY[30:], "line 1 of {name} is not an age identity: there is a space inside the key"),
        (str(generate_identity(post_quantum=True).recipient), "it is a public key (age1…), expected the secret one"),
        ('state_directory = "state"\n[destination]\nurl = ""\n', "this is archiver.toml, not a key"),
        ("x" * (MAX_IDENTITY_FILE + 1), "is not a file of keys: it has more than 1048576 bytes"),
        ("\udcff", "is not a file of keys: it is not utf-8 text"),
    ],
    ids=[
        "age",
        "armored",
        "openssh",
        "rsa",
        "pkcs8",
        "minisign",
        "empty",
        "nonsense",
        "cut",
        "space",
        "public",
        "configuration",
        "large",
        "binary",
    ],
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
    told = caught.value.message + (caught.value.hint or "")
    assert PRIVATE not in told
    assert not any(piece in told for piece in (KEY[20:30], KEY[32:50]))


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
