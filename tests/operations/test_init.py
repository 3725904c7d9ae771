"""archiver init and keys generate: everything is made, or nothing; what is made is enough to restore."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.config import SourceConfig, load_config
from archiver.crypto.card import parse_card
from archiver.crypto.keys import generate_identity, parse_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import seal_vault
from archiver.operations import init as initialising
from archiver.operations.access import configured_keys
from tests.cli.checking import check
from tests.cli.terminal import typed
from tests.environment.live import make_environment
from tests.operations.scene import Done, Scene, archiver, tree
from tests.servers.kms import KmsService
from tests.servers.process import S3Server

PASSPHRASE = "five random words as a sentence"


@pytest.fixture
def kms(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


def set_up(root: Path, *arguments: str, source: str = "prod") -> Done:
    return archiver(*initialisation(root, *arguments, source=source))


def initialisation(root: Path, *arguments: str, source: str = "prod") -> list[str]:
    return [
        "init",
        "--to",
        (root / "destination").as_uri(),
        "--source",
        source,
        "--config",
        str(root / "archiver.toml"),
        "--card",
        str(root / f"card-{source}.txt"),
        *arguments,
        "--json",
    ]


def configured(root: Path) -> SourceConfig:
    return load_config(root / "archiver.toml").source("prod")


def back_up(root: Path) -> None:
    keep_state_in(root)
    done = archiver("backup", "--config", str(root / "archiver.toml"))
    assert done.code == 0, done.errors


def keep_state_in(root: Path) -> None:
    config = root / "archiver.toml"
    config.write_text('state_directory = "state"\n' + config.read_text())


def test_what_it_makes(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    done = set_up(tmp_path, "--environment", f"vector={tmp_path}/vector")
    assert done.code == 0, done.errors
    for name in ("archiver-signing.key", "card-prod.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    config = (tmp_path / "archiver.toml").read_text()
    card = (tmp_path / "card-prod.txt").read_text()
    secret = card.splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / "vector"]
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == ["card-prod.txt"]
    signing = (tmp_path / "archiver-signing.key").read_text().splitlines()[1]
    assert signing not in config + card
    source = configured(tmp_path)
    assert source.operators == done.document["operators"]
    (recipient,) = source.operators.values()
    assert recipient == str(parse_identity(secret).recipient)
    assert done.document["vault_key"] in {str(path.relative_to(tmp_path / "destination")) for path in files
                                          if path.is_relative_to(tmp_path / "destination")}  # fmt: skip
    keep_state_in(tmp_path)
    assert archiver("backup", "--config", str(tmp_path / "archiver.toml")).code == 0
    out = str(tmp_path / "out")
    assert archiver("restore", "--identity", str(tmp_path / "card-prod.txt"), "--to", out).code == 0


def test_an_operators_own_key(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    made = archiver("keys", "generate", "--output", str(tmp_path / "operator.txt"), "--json")
    assert made.code == 0
    assert stat.S_IMODE((tmp_path / "operator.txt").stat().st_mode) == 0o600
    recipient = made.document["recipient"]
    assert set_up(tmp_path, "--environment", f"vector={tmp_path}/vector", "--recipient", recipient).code == 0
    keep_state_in(tmp_path)
    assert archiver("backup", "--config", str(tmp_path / "archiver.toml")).code == 0
    card = tmp_path / "card-prod.txt"
    assert archiver("list", "--identity", str(card)).code == 0
    refused = archiver("restore", "--identity", str(card), "--to", str(tmp_path / "out"))
    check(refused, 2, f"needs an operator's identity, and {card} holds no secret key", "hint: Append the AGE-SECRET")
    assert "--passphrase" not in refused.errors
    assert not (tmp_path / "out").exists()
    config = str(tmp_path / "archiver.toml")
    with_both = ("--identity", str(tmp_path / "operator.txt"), "--config", config)
    assert archiver("restore", *with_both, "--to", str(tmp_path / "out")).code == 0
    with_card = ("--identity", str(tmp_path / "operator.txt"), "--identity", str(card))
    assert archiver("restore", *with_card, "--to", str(tmp_path / "beside")).code == 0
    card.write_text(card.read_text() + (tmp_path / "operator.txt").read_text().splitlines()[-1])
    assert archiver("restore", "--identity", str(card), "--to", str(tmp_path / "again")).code == 0


def test_all_is_post_quantum_if_it_is_asked_for(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    done = set_up(tmp_path, "--environment", f"vector={tmp_path}/vector", "--post-quantum")
    assert (done.code, done.errors) == (0, "")
    source = configured(tmp_path)
    assert source.vault.startswith("age1pq1")
    assert source.operators["operator"].startswith("age1pq1")
    assert source.operators["operator"] != source.vault
    card = (tmp_path / "card-prod.txt").read_text()
    assert card.splitlines()[-1].startswith("AGE-SECRET-KEY-PQ-1")
    assert "only age 1.3 or newer reads them" in card
    back_up(tmp_path)
    out = str(tmp_path / "out")
    assert archiver("restore", "--identity", str(tmp_path / "card-prod.txt"), "--to", out).code == 0


@pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])
def test_a_key_that_makes_its_vault_weaker_is_said(tmp_path: Path, *, post_quantum: bool) -> None:
    recipient = str(generate_identity(post_quantum=post_quantum).recipient)
    for vault in ("ordinary", "strong"):
        (tmp_path / vault).mkdir()
    ordinary = set_up(tmp_path / "ordinary", "--media", str(tmp_path), "--recipient", recipient)
    assert (ordinary.code, ordinary.errors) == (0, "")
    strong = set_up(tmp_path / "strong", "--media", str(tmp_path), "--recipient", recipient, "--post-quantum")
    expected = "warning: operator 'operator' has an X25519 key, so the post-quantum vault is only as strong as X25519\n"
    assert (strong.code, strong.errors) == ((0, "") if post_quantum else (3, expected))
    assert configured(tmp_path / "strong").operators == {"operator": recipient}


@pytest.mark.parametrize("post_quantum", [False, True], ids=["x25519", "post-quantum"])
def test_a_post_quantum_operator_of_an_ordinary_vault_is_told(tmp_path: Path, *, post_quantum: bool) -> None:
    recipient = str(generate_identity(post_quantum=post_quantum).recipient)
    arguments = [each for each in initialisation(tmp_path, "--media", str(tmp_path)) if each != "--json"]
    done = archiver(*arguments, "--recipient", recipient)
    assert done.code == 0, done.errors
    assert ("the vault itself is X25519: --post-quantum makes both so" in done.output) == post_quantum


def test_an_operator_with_a_passphrase(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    arguments = initialisation(tmp_path, "--environment", f"vector={tmp_path}/vector", "--new-passphrase")
    done = typed(arguments, ("New passphrase of the operator: ", PASSPHRASE), ("The same again: ", PASSPHRASE))
    assert done.code == 0, done.errors
    assert configured(tmp_path).operators == {"operator": "passphrase"}
    card = ("--identity", str(tmp_path / "card-prod.txt"))
    assert "give --passphrase, and archiver asks for it" in (tmp_path / "card-prod.txt").read_text()
    back_up(tmp_path)
    assert archiver("list", *card).code == 0
    refused = archiver("restore", *card, "--to", str(tmp_path / "out"))
    check(refused, 2, "needs an operator's identity", "--passphrase")
    restore = ["restore", *card, "--passphrase", "--to", str(tmp_path / "out")]
    check(typed(restore, ("Passphrase: ", PASSPHRASE + "s")), 4, "the passphrase opens none of: operator.age in vault")
    assert not (tmp_path / "out").exists()
    assert typed(restore, ("Passphrase: ", PASSPHRASE)).code == 0
    assert (tmp_path / "out/vector/data.mdb").exists()


def test_an_operator_with_a_key_of_kms(tmp_path: Path, kms: KmsService) -> None:
    make_environment(tmp_path / "vector", 20)
    done = set_up(tmp_path, "--environment", f"vector={tmp_path}/vector", "--kms-key", kms.alias())
    assert done.code == 0, done.errors
    assert done.document["vault_key"].endswith("/operator.kms")
    assert configured(tmp_path).operators == {"operator": kms.alias()}
    card = ("--identity", str(tmp_path / "card-prod.txt"))
    assert "give --kms." in (tmp_path / "card-prod.txt").read_text()
    back_up(tmp_path)
    check(archiver("restore", *card, "--to", str(tmp_path / "out")), 2, "needs an operator's identity", "--kms")
    assert archiver("restore", *card, "--kms", "--to", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/vector/data.mdb").exists()
    # What the card says to do without archiver; the aws command itself is not at hand here.
    file = tmp_path / "destination" / done.document["vault_key"]
    command = f"jq -r .ciphertext {file} | base64 -d"
    ciphertext = subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout
    context = {"archiver:source": "prod", "archiver:vault": done.document["vault"]}
    assert json.loads(file.read_text())["key"] == kms.key()
    opened = kms.client().decrypt(CiphertextBlob=ciphertext, EncryptionContext=context)["Plaintext"].decode()
    assert str(parse_identity(opened.splitlines()[-1]).recipient) == configured(tmp_path).vault


def test_kms_is_asked_before_anything_is_written(
    tmp_path: Path, kms: KmsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[Path]] = []

    def seal(*arguments: Any) -> bytes:
        there.append(list(tmp_path.iterdir()))
        return seal_vault(*arguments)

    monkeypatch.setattr(initialising, "seal_vault", seal)
    arn = kms.key().rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    check(archiver(*initialisation(tmp_path, "--media", str(tmp_path), "--kms-key", arn)[:-1]), 7, arn)
    assert (there, list(tmp_path.iterdir())) == ([[]], [])


def test_a_passphrase_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    arguments = initialisation(tmp_path, "--media", str(tmp_path), "--new-passphrase")[:-1]
    done = typed(arguments, ("New passphrase of the operator: ", PASSPHRASE), ("The same again: ", PASSPHRASE[1:]))
    check(done, 2, "the two passphrases differ")
    assert list(tmp_path.iterdir()) == []


def test_the_card_of_a_second_source_believes_what_the_configuration_does(tmp_path: Path) -> None:
    assert set_up(tmp_path, "--media", str(tmp_path), source="one").code == 0
    config = tmp_path / "archiver.toml"
    other = SigningKey.generate().verify_key
    text = config.read_text().replace('trusted = ["', f'trusted = ["{other}", "')
    config.write_text(f'{text}\n[signing.revoked]\n"{other}" = 2026-11-20\n')
    assert set_up(tmp_path, "--media", str(tmp_path), source="two").code == 0
    first, second = (parse_card((tmp_path / f"card-{name}.txt").read_text(), name) for name in ("one", "two"))
    trusted = configured_keys(load_config(config))
    assert [key.revoked is None for key in trusted] == [False, True]
    assert second.verify_keys == trusted
    assert first.verify_keys == (trusted[1],)
    # A key of this host that its own configuration does not believe is believed by the card all the same.
    config.write_text(text.replace(f', "{trusted[1].key}"', ""))
    assert set_up(tmp_path, "--media", str(tmp_path), source="three").code == 0
    third = parse_card((tmp_path / "card-three.txt").read_text(), "three")
    assert third.verify_keys == (trusted[1], TrustedKey(other))


def test_a_second_source_joins_the_first(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_environment(tmp_path / name, 20)
        done = set_up(tmp_path, "--environment", f"vector={tmp_path}/{name}", source=name)
        assert done.code == 0, done.errors
    keep_state_in(tmp_path)
    config = str(tmp_path / "archiver.toml")
    for name in ("one", "two"):
        assert archiver("backup", name, "--config", config).code == 0
        listed = archiver("list", "--identity", str(tmp_path / f"card-{name}.txt"), "--json").document
        assert [item["source"] for item in listed] == [name]
    unnamed = archiver("backup", "--config", config)
    assert unnamed.code == 2
    assert "Name one of: one, two" in unnamed.errors


def test_a_second_source_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    """A link goes on pointing, mode and line ends stay, and so does what the operator wrote."""
    (tmp_path / "media").mkdir()
    assert set_up(tmp_path, "--media", str(tmp_path / "media")).code == 0
    config, real = tmp_path / "archiver.toml", tmp_path / "elsewhere.toml"
    config.rename(real)
    real.write_bytes(b"# mine\r\n" + real.read_bytes().replace(b"\n", b"\r\n"))
    real.chmod(0o640)
    config.symlink_to(real.name)
    before = real.read_bytes()
    assert set_up(tmp_path, "--media", str(tmp_path / "media"), source="second").code == 0
    assert config.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_bytes().startswith(before.rstrip())
    assert set(load_config(config).sources) == {"prod", "second"}


def test_a_configuration_that_cannot_be_written_at_last_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        raise OSError(16, "Device or resource busy")

    (tmp_path / "media").mkdir()
    monkeypatch.setattr(Path, "replace", refuse)
    done = set_up(tmp_path, "--media", str(tmp_path / "media"))
    assert done.code == 2
    problem = done.document["error"]
    assert problem["message"] == f"{tmp_path / 'archiver.toml'} could not be written: device or resource busy"
    (left,) = (path for path in (tmp_path / "destination").rglob("*") if path.is_file())
    assert f"delete {left.relative_to(tmp_path / 'destination')} from the destination" in problem["hint"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["destination", "media"]


@pytest.mark.parametrize(
    "arguments",
    [["--config", "missing/archiver.toml"], ["--card", "missing/card.txt"], ["--config", "c" * 252]],
    ids=["signing key", "card", "configuration"],
)
def test_what_cannot_be_written_here_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = archiver("init", "--to", (tmp_path / "destination").as_uri(), "--source", "prod", "--media", ".", *arguments)
    check(done, 1, "hint: Run archiver init in a directory that this user may write", "--config and --card")
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_gets_its_rules_next(localstack_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = archiver("init", "--to", localstack_url, "--source", "prod", "--media", ".")
    assert done.code == 0, done.errors
    *_, first, second = done.output.splitlines()
    assert first == "Next, with an administrator's credentials: archiver lifecycle apply --config archiver.toml"
    assert second.endswith("archiver doctor --config archiver.toml, and archiver backup prod")


def test_one_operator_cannot_open_the_others_vault(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_environment(tmp_path / name, 20)
        assert set_up(tmp_path, "--environment", f"vector={tmp_path}/{name}", source=name).code == 0
    keep_state_in(tmp_path)
    config = str(tmp_path / "archiver.toml")
    assert archiver("backup", "one", "--config", config).code == 0
    wrong = ("--identity", str(tmp_path / "card-two.txt"), "--source", "one", "--config", config)
    done = archiver("restore", *wrong, "--to", str(tmp_path / "out"))
    assert done.code == 2
    assert "card-two.txt is the recovery card of source 'two', expected that of 'one'" in done.errors
    # Beside a configuration of several sources, the card says which one is meant.
    right = ("--identity", str(tmp_path / "card-one.txt"), "--config", config)
    assert archiver("verify", *right).code == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["destination", "config", "card", "signing key"])
def test_all_or_nothing(tmp_path: Path, stage: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if stage == "destination":
        (root / "destination").write_text("a file where a directory must be")
    elif stage == "config":
        (root / ".archiver.toml.new").mkdir()
    elif stage == "card":
        (root / "card-prod.txt").write_text("somebody's only key")
    else:
        (root / "archiver-signing.key").write_text("no key")
    before = tree(root, leave_out=[b"destination"])
    done = set_up(root, "--media", str(tmp_path))
    assert done.code != 0
    assert not list(root.rglob("*.age"))
    assert tree(root, leave_out=[b"destination"]) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--environment", "vector"], 2, "invalid --environment 'vector'"),
        (["--environment", "a=/x", "--environment", "a=/y"], 2, "invalid --environment 'a=/y'"),
        (["--environment", "../a=/x"], 2, "../a"),
        (["--environment", "media=/x"], 2, "media"),
        (["--media", "/x", "--ucotron-config", "/y"], 2, "ucotron_config or, instead, environments or media"),
        ([], 2, "ucotron_config or, instead, environments or media"),
        (["--media", "/x", "--recipient", "age1nonsense"], 2, "invalid --recipient: "),
        (["--media", "/x", "--recipient", "age1pq1nonsense"], 2, "invalid --recipient: "),
        (["--media", "/x", "--kms-key", "alias/mine"], 2, "invalid --kms-key: not the ARN of a KMS key"),
        (["--media", "/x", "--recipient", "age1x", "--kms-key", "y"], 2, "at most one of --recipient, --kms-key and"),
        (["--media", "/x", "--kms-key", "x", "--new-passphrase"], 2, "at most one of --recipient, --kms-key and"),
        (["--media", "/x", "--new-passphrase", "--recipient", "x"], 2, "at most one of --recipient, --kms-key and"),
        (["--media", "/x", "--operator", "Not/a name"], 2, "operator"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = archiver(
        "init", "--to", (tmp_path / "destination").as_uri(), "--source", "prod",
        "--config", str(tmp_path / "archiver.toml"), "--card", str(tmp_path / "card.txt"), *arguments,
    )  # fmt: skip
    assert done.code == code, done.errors
    assert message in done.errors
    assert [name for name in os.listdir(tmp_path) if name != "destination"] == []
    assert not list((tmp_path / "destination").rglob("*.age"))


def test_a_source_is_set_up_once(scene: Scene) -> None:
    before = tree(scene.root)
    arguments = ("init", "--config", str(scene.config), "--media", str(scene.media), "--card", str(scene.root / "new"))
    again = archiver(*arguments, "--to", scene.url, "--source", "prod")
    assert again.code == 6
    assert "has a source 'prod' already" in again.errors
    elsewhere = archiver(*arguments, "--to", "file:///somewhere/else", "--source", "other")
    assert elsewhere.code == 2
    assert tree(scene.root) == before


@pytest.mark.parametrize("kind", [[], ["--post-quantum"], ["--signing"]], ids=["x25519", "post-quantum", "signing"])
def test_generate_never_replaces_a_key(tmp_path: Path, kind: list[str]) -> None:
    path = tmp_path / "key.txt"
    assert archiver("keys", "generate", "--output", str(path), *kind).code == 0
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert archiver("keys", "generate", "--output", str(path), *kind).code == 6
    assert path.read_text() == text


def test_generate_a_post_quantum_key(tmp_path: Path) -> None:
    made = archiver("keys", "generate", "--output", str(tmp_path / "key.txt"), "--post-quantum")
    secret = (tmp_path / "key.txt").read_text().splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-PQ-1")
    assert made.output == f"{parse_identity(secret).recipient}\n"


def test_generate_a_signing_key(tmp_path: Path) -> None:
    made = archiver("keys", "generate", "--output", str(tmp_path / "sign.key"), "--signing", "--json").document
    assert made["signing_key"] == str(tmp_path / "sign.key")
    (tmp_path / "m").write_text("signed by the stock tool")
    for command in (["-S", "-s", "sign.key", "-W", "-m", "m"], ["-V", "-P", made["verify_key"], "-m", "m"]):
        subprocess.run(["minisign", *command], cwd=tmp_path, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    both = archiver("keys", "generate", "--output", str(tmp_path / "x"), "--signing", "--post-quantum")
    check(both, 2, "at most one of --post-quantum and --signing")
