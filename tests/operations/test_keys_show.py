"""archiver keys show: what lies in the destination, told apart from what the configuration says."""

import shutil
from collections.abc import Iterator

import pytest

from archiver.crypto.kms import KmsKey
from archiver.errors import StorageError
from archiver.operations import keys_show
from archiver.stores.local import LocalStore
from tests.operations.operators import (
    OWNER,
    add,
    current_vault,
    keys,
    make_operator,
    operators,
    state,
    use_cheap_passphrases,
)
from tests.operations.scene import Scene, archiver

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234"
KMS_FILE = f"""\
{{"version": 1, "key": "{ARN}", "context": {{"archiver:source": "prod", "archiver:vault": "0"}}, "ciphertext": "AAAA"}}
"""


def shown(scene: Scene, *arguments: str) -> dict[str, tuple[str, str | None]]:
    """By operator of the current vault: the kind, and what is not as the configuration has it."""
    done = keys(scene, "show", "--json", *arguments)
    assert done.code in (0, 3), done.errors
    (vault,) = [vault for vault in done.document["vaults"] if vault["current"]]
    return {item["operator"]: (item["kind"], item["difference"]) for item in vault["operators"]}


def test_kinds_are_told_apart(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = scene.destination / f"vault/prod/{current_vault(scene)}"
    assert add(scene, make_operator(scene, "bob", post_quantum=True)).code == 0
    use_cheap_passphrases(monkeypatch)
    monkeypatch.setattr("archiver.cli.operators.ask_new_passphrase", lambda _: "correct horse battery staple")
    assert keys(scene, "add", "carol", "--new-passphrase", *scene.identity).code == 0
    monkeypatch.setattr("archiver.operations.keys_add.seal_vault", lambda *_: KMS_FILE.encode())
    assert keys(scene, "add", "cloud", "--kms-key", ARN, *scene.identity).code == 0
    assert shown(scene) == {
        OWNER: ("x25519", None),
        "bob": ("post-quantum", None),
        "carol": ("passphrase", None),
        "cloud": ("kms", None),
    }
    done = keys(scene, "show", "--json")
    assert (done.code, done.errors) == (0, "")
    (vault,) = done.document["vaults"]
    assert [item["kms_key"] for item in vault["operators"]] == [None, None, ARN, None]
    assert KmsKey.parse(ARN).arn in keys(scene, "show").output
    (directory / "carol.age").write_bytes(b"age-encryption.org/v1\n-> odd\n\n--- AAAA\n")
    (directory / "cloud.kms").write_bytes(b"{}")
    assert (shown(scene)["carol"][0], shown(scene)["cloud"][0]) == ("malformed", "malformed")


def test_differences_are_marked(scene: Scene) -> None:
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    directory = scene.destination / f"vault/prod/{current_vault(scene)}"
    shutil.copy(directory / "bob.age", directory / "mallory.age")
    text = scene.config.read_text().replace(str(bob.recipient), "passphrase")
    table = "[source.prod.operators]\n"
    scene.config.write_text(text.replace(table, f'{table}zoe = "passphrase"\n'))
    done = keys(scene, "show")
    assert done.code == 3
    assert f"'zoe' is an operator of the configuration and has no file in vault {current_vault(scene)}" in done.errors
    assert "mallory.age: not in the configuration" in done.errors
    assert "bob.age: the configuration has a key of the kind passphrase" in done.errors
    assert shown(scene) == {
        OWNER: ("x25519", None),
        "bob": ("x25519", "the configuration has a key of the kind passphrase"),
        "mallory": ("x25519", "not in the configuration"),
    }
    assert keys(scene, "show", "--json").document["vaults"][0]["missing"] == ["zoe"]


def test_a_file_of_another_key_of_kms_is_marked(scene: Scene) -> None:
    directory = scene.destination / f"vault/prod/{current_vault(scene)}"
    (directory / "cloud.kms").write_text(KMS_FILE)
    alias = ARN.replace("key/1234", "alias/backups")
    table = "[source.prod.operators]\n"
    before = scene.config.read_text()
    for configured, difference in [
        (ARN, None),
        (ARN.replace("1234", "5678"), f"the configuration has {ARN.replace('1234', '5678')}"),
        # What an alias stands for is not known here.
        (alias, None),
    ]:
        scene.config.write_text(before.replace(table, f'{table}cloud = "{configured}"\n'))
        assert shown(scene)["cloud"] == ("kms", difference)


def test_a_configured_vault_that_has_no_file_is_shown(scene: Scene) -> None:
    old = current_vault(scene)
    assert keys(scene, "rotate").code == 0
    new = current_vault(scene)
    shutil.rmtree(scene.destination / f"vault/prod/{new}")
    done = keys(scene, "show", "--json")
    assert done.code == 3
    assert [(vault["vault"], vault["current"], vault["missing"]) for vault in done.document["vaults"]] == [
        (new, True, [OWNER]),
        (old, False, []),
    ]


def test_files_that_may_not_be_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the policy of a backup host has it: it may list them."""

    def refuse(*_: object) -> Iterator[bytes]:
        raise StorageError("access denied")

    monkeypatch.setattr(LocalStore, "read", refuse)
    done = keys(scene, "show")
    assert (done.code, "kinds are unknown" in done.errors) == (0, True), done.errors
    assert shown(scene) == {OWNER: ("unknown", None)}


def test_signing_keys_and_revocations(scene: Scene) -> None:
    text = scene.config.read_text()
    key = next(line for line in scene.card.read_text().splitlines() if line.startswith("# verify-key")).split()[-1]
    scene.config.write_text(text.replace("[class", f'[signing.revoked]\n"{key}" = 2026-11-20T00:00:00Z\n\n[class', 1))
    document = keys(scene, "show", "--json").document
    (signer,) = document["signing_keys"]
    assert (signer["verify_key"], signer["revoked"]) == (key, "2026-11-20T00:00:00Z")
    assert f"{key}, revoked 2026-11-20T00:00:00Z" in keys(scene, "show").output


def test_without_a_configuration(scene: Scene) -> None:
    scene.backup()
    done = archiver("keys", "show", *scene.identity, "--json")
    assert (done.code, done.errors) == (0, "")
    assert [(vault["vault"], vault["current"]) for vault in done.document["vaults"]] == [(current_vault(scene), True)]
    shutil.copytree(
        scene.destination / "vault/prod" / current_vault(scene), scene.root / "other/vault/prod/0123456789abcdef"
    )
    other = archiver("keys", "show", *scene.identity, "--from", (scene.root / "other").as_uri())
    assert (other.code, f"holds no key file of vault {current_vault(scene)}, which" in other.errors) == (3, True)
    (scene.root / "empty").mkdir()
    nobody = archiver("keys", "show", *scene.identity, "--from", (scene.root / "empty").as_uri())
    assert (nobody.code, "holds no vault of source 'prod'" in nobody.errors) == (5, True), nobody.errors


def test_a_broken_configuration_that_nobody_named_is_left_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    monkeypatch.chdir(scene.root)
    scene.config.write_text("[source")
    done = archiver("keys", "show", *scene.identity, "--json")
    assert (done.code, "a configuration was not looked at: " in done.errors) == (3, True), done.errors
    assert [vault["vault"] for vault in done.document["vaults"] if vault["current"]]
    assert keys(scene, "show").code == 2


def test_a_key_that_weakens_a_post_quantum_vault_is_warned_of(scene: Scene) -> None:
    assert keys(scene, "rotate", "--post-quantum").code == 3
    done = keys(scene, "show")
    assert done.code == 3
    assert f"operator {OWNER!r} has an X25519 key" in done.errors
    assert operators(scene).keys() == {OWNER}


def test_it_changes_nothing(scene: Scene) -> None:
    scene.backup()
    before = state(scene)
    assert keys(scene, "show").code == 0
    assert state(scene) == before


def test_every_kind_of_stanza_that_is_opened_has_a_name() -> None:
    assert set(keys_show._STANZAS) == {"X25519", "mlkem768x25519", "scrypt"}
