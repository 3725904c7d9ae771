"""docs/RECOVERY.md with every kind of key: several that sign, and whatever may open a vault."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.catalog.names import vault_key
from archiver.crypto.identities import parse_identities
from archiver.crypto.kms import KmsKey
from archiver.crypto.minisign import SigningKey
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import OperatorKey, seal_vault, vault_form
from archiver.operations.access import AccessOptions, resolve_access
from archiver.operations.vaults import unlock_vault, vault_places
from tests.age_tools.installation import AgeTools
from tests.age_tools.terminal import answer_prompts
from tests.recovering import SOURCE, back_up, back_up_again, blocks, recover, surroundings
from tests.servers import aws_cli
from tests.servers.kms import KmsService
from tests.servers.process import S3Server, ServerError

CONTENT = b"what is to be recovered"
PASSPHRASE = "five random words as advised"
LOW_COST = 10


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A backup of one file, and its card, with a key that opens it."""
    return make_site(tmp_path)


def make_site(directory: Path, *, post_quantum: bool = False) -> Path:
    (directory / "data" / "media").mkdir(parents=True)
    (directory / "data" / "media" / "file").write_bytes(CONTENT)
    back_up(directory, [], post_quantum=post_quantum)
    return directory


def is_recovered(site: Path) -> bool:
    return (site / "recovered" / "media" / "file").read_bytes() == CONTENT


def verify_key(site: Path) -> str:
    (found,) = re.findall(r"^# verify-key: (.*)$", (site / "card.txt").read_text(), re.MULTILINE)
    return str(found)


def put_verify_keys(site: Path, *keys: str) -> None:
    """Let the card name ``keys`` and no other."""
    card = site / "card.txt"
    lines = "".join(f"# verify-key: {key}\n" for key in keys)
    card.write_text(re.sub(r"^# verify-key: .*\n", lines, card.read_text(), count=1, flags=re.MULTILINE))


def replace_operators(site: Path, *operators: OperatorKey) -> None:
    """Seal the vault to ``operators``, and take the card's own key away, from the card too."""
    access = resolve_access(AccessOptions(identity=site / "card.txt"))
    with access.open() as archive:
        places = vault_places(archive.store, SOURCE)
        vault = unlock_vault(archive.store, places, access.keyring, None).identity
        for number, operator in enumerate(operators):
            key = vault_key(SOURCE, vault_id(str(vault.recipient)), f"operator-{number}", vault_form(operator))
            archive.store.create(key, [seal_vault(vault, operator, SOURCE)])
    for place in places:
        (site / "destination" / place.key).unlink()
    card = site / "card.txt"
    card.write_text(re.sub(r"^AGE-SECRET-KEY-.*\n", "", card.read_text(), flags=re.MULTILINE))


# Keys that sign.


def test_any_key_on_the_card_may_have_signed(site: Path) -> None:
    own = verify_key(site)
    put_verify_keys(site, f"{SigningKey.generate().verify_key} revoked 2026-01-01T00:00:00+00:00", own)

    result = recover(site)

    assert result.returncode == 0, result.stderr
    assert f"signed by {own}, in the store since 20" in result.stdout
    assert "revoked" not in result.stdout
    assert is_recovered(site)


def test_none_of_the_keys_on_the_card_has_signed(site: Path) -> None:
    put_verify_keys(site, *(str(SigningKey.generate().verify_key) for _ in range(3)))

    result = recover(site)

    assert result.returncode != 0
    assert "no good signature by a key on the card" in result.stderr


@pytest.mark.parametrize(("hours", "counts"), [(1, True), (-1, False)])
def test_with_a_revoked_key_only_backups_from_before_count(site: Path, hours: int, counts: bool) -> None:
    revoked = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    put_verify_keys(site, f"{verify_key(site)} revoked {revoked}")

    result = recover(site)

    assert f"this key is revoked since {revoked}" in result.stdout
    assert (result.returncode == 0) == counts, result.stderr
    assert ("started after its key was revoked" in result.stderr) == (not counts)
    assert not counts or is_recovered(site)


# Keys that open.


def test_a_passphrase_is_asked_for(site: Path) -> None:
    replace_operators(site, PassphraseRecipient(PASSPHRASE, LOW_COST))
    script = site / "recover.sh"
    script.write_text(blocks("sh"))
    variables = [f"{name}={value}" for name, value in surroundings(site).items()]
    # All but the question, which goes to the terminal itself.
    run = ["env", "-i", *variables, "bash", "-c", 'bash "$1" > "$2" 2>&1', "-", str(script), str(site / "said")]

    assert answer_prompts(run, ["not the right words"], site) != 0
    assert "opens vault" in (site / "said").read_text()
    for left in (site / "recovered" / ".recovery").iterdir():
        left.unlink()
    (site / "recovered" / ".recovery").rmdir()
    assert answer_prompts(run, [PASSPHRASE], site) == 0, (site / "said").read_text()
    assert "the passphrase of operator operator-0:" in (site / "said").read_text()
    assert is_recovered(site)


def test_a_passphrase_is_not_asked_for_where_a_key_opens(site: Path) -> None:
    """There is no terminal here to ask on."""
    card = (site / "card.txt").read_text()
    replace_operators(site, PassphraseRecipient(PASSPHRASE, LOW_COST), identity_of(card))
    (site / "card.txt").write_text(card)

    result = recover(site)

    assert result.returncode == 0, result.stderr
    assert "the passphrase of" not in result.stdout


def identity_of(card: str) -> OperatorKey:
    return parse_identities(card, "the card")[0].recipient


@pytest.fixture
def kms(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


@pytest.fixture(scope="session")
def aws_command() -> Path:
    """The directory of the stock ``aws``."""
    try:
        return aws_cli.install()
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def test_kms_is_asked_on_request(site: Path, kms: KmsService, aws_command: Path) -> None:
    replace_operators(site, KmsKey(kms.key()))
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_KMS")
    more = {name: os.environ[name] for name in names} | {"PATH": f"{surroundings(site)['PATH']}:{aws_command}"}

    refused = recover(site, more=more)
    assert refused.returncode != 0
    assert "opens vault" in refused.stderr
    (site / "recovered" / ".recovery").rmdir()
    result = recover(site, more=more | {"KMS": "yes"})

    assert result.returncode == 0, result.stderr
    assert is_recovered(site)


def test_post_quantum_keys_with_what_stands_in_for_age(tmp_path: Path, age_tools: AgeTools) -> None:
    site = make_site(tmp_path, post_quantum=True)
    back_up_again(site)
    assert "AGE-SECRET-KEY-PQ-1" in (site / "card.txt").read_text()
    refused = recover(site)
    assert refused.returncode != 0
    assert "recovery failed: this card needs age 1.3 or newer" in refused.stderr
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "node_modules").symlink_to(age_tools.directory / "node_modules")
    (tools / "age.mjs").write_text(blocks("js"))
    for name in ("age", "age-keygen"):
        (tools / name).write_text(f'#!/bin/sh\nexec {age_tools.node} {tools}/age.mjs "$@"\n')
        (tools / name).chmod(0o755)

    result = recover(site, more={"PATH": f"{tools}:{surroundings(site)['PATH']}"})

    assert result.returncode == 0, result.stderr
    assert is_recovered(site)


def test_an_age_that_is_too_old_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    site = make_site(tmp_path, post_quantum=True)
    replace_operators(site, PassphraseRecipient(PASSPHRASE, LOW_COST))
    assert "AGE-SECRET-KEY-PQ-1" not in (site / "card.txt").read_text()

    result = recover(site)

    assert result.returncode != 0
    assert "recovery failed: this card needs age 1.3 or newer" in result.stderr
    assert "the passphrase of" not in result.stdout
    assert not any((site / "recovered").iterdir()), "it can be run again at once"
