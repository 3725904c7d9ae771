"""Guarantees of docs/SECURITY.md, by number: who can read what. Each test says which change of the code it notices."""

import re
import subprocess
from pathlib import Path

import pytest

from archiver.crypto.keys import generate_identity
from tests.operations.operators import add, keys, make_operator
from tests.operations.scene import SOURCE, Scene, archiver
from tests.security.house import run
from tests.security.planting import plant, stored

PUBLIC = (".json", ".minisig", ".started", ".objects.jsonl.zst", ".placement.jsonl.zst")


def stanzas(data: bytes) -> list[str]:
    """The kinds of the recipients of an age file, in order."""
    header = data.partition(b"\n---")[0].decode("ascii")
    assert header.startswith("age-encryption.org/v1\n")
    return re.findall(r"^-> (\S+)", header, re.MULTILINE)


def test_g01_what_is_backed_up_is_stored_encrypted_only(tmp_path: Path) -> None:
    """Noticed: a list, name or label that is stored without ``seal``; a name that becomes part of a key."""
    planted = plant(tmp_path)
    public = 0
    for key, data in stored(planted.scene):
        assert planted.detector.find_stored(key, data) == set(), key
        public += key.endswith(PUBLIC)
        assert key.endswith((*PUBLIC, ".age")), key
    assert public == len(PUBLIC)


def test_g02_what_lies_on_a_backup_host_opens_no_backup(scene: Scene) -> None:
    """Noticed: ``init`` keeping an identity in the configuration, beside it or in the state; a vault that opens without
    an identity; an object that is sealed to a key which the host has."""
    scene.backup()
    card, host = scene.card, [path for path in scene.root.iterdir() if path not in (scene.card, scene.destination)]
    files = [inner for path in host for inner in ([path] if path.is_file() else path.rglob("*")) if inner.is_file()]
    assert {"archiver.toml", "archiver-signing.key"} <= {path.name for path in files}
    assert any(path.is_relative_to(scene.state) for path in files)
    everything = b"\n".join(path.read_bytes() for path in files if not path.is_relative_to(scene.data))
    assert b"AGE-SECRET-KEY-" not in everything.upper()
    sealed = list(scene.destination.rglob("*.age"))
    assert len(sealed) == 4
    for identity in files:
        done = archiver("verify", "--level", "data", "--identity", str(identity), "--config", str(scene.config))
        assert done.code == 2, (identity, done.errors)
        for path in sealed:
            assert subprocess.run(["age", "-d", "-i", identity, path], capture_output=True).returncode != 0, identity
    assert run(scene, "verify", "--level", "data").code == 0, card


def test_g03_each_encrypted_file_has_one_recipient(scene: Scene, tmp_path: Path) -> None:
    """Noticed: a second recipient in any file, such as a backdoor, or all operators in each object."""
    bob = make_operator(scene, "bob")
    assert add(scene, bob).code == 0
    scene.backup()
    vault = tmp_path / "vault.txt"
    sealed = sorted(scene.destination.rglob("*.age"))
    assert all(stanzas(path.read_bytes()) == ["X25519"] for path in sealed)
    # The stock tool opens each operator's file with his own key alone, and all else with the vault's.
    for name, own, other in (("bob", bob.path, scene.card), ("test", scene.card, bob.path)):
        (path,) = scene.destination.glob(f"vault/{SOURCE}/*/{name}.age")
        assert subprocess.run(["age", "-d", "-i", other, path], capture_output=True).returncode != 0
        vault.unlink(missing_ok=True)
        subprocess.run(["age", "-d", "-i", own, "-o", vault, path], check=True)
    objects = [path for path in sealed if "vault" not in path.parts]
    assert len(objects) == 3
    for path in objects:
        subprocess.run(["age", "-d", "-i", vault, path], check=True, stdout=subprocess.DEVNULL)


def test_g04_in_a_post_quantum_vault_nothing_hangs_on_x25519_alone(scene: Scene) -> None:
    """Noticed: objects, contents or vault files sealed to an X25519 recipient; a warning that is not given."""
    bob = make_operator(scene, "bob", post_quantum=True)
    text = scene.config.read_text()
    operators = re.search(r'(?m)^test = ".*"$', text)
    assert operators is not None
    scene.config.write_text(text.replace(operators[0], f'bob = "{bob.recipient}"'))
    before = set(scene.destination.rglob("*.age"))
    done = keys(scene, "rotate", "--post-quantum", *bob.identity)
    assert done.code == 0 or "'test' has a file in vault" in done.errors, done.errors
    done = archiver("backup", "--config", str(scene.config))
    assert done.code == 0, done.errors
    new = set(scene.destination.rglob("*.age")) - before
    assert len(new) == 4
    assert {kind for path in new for kind in stanzas(path.read_bytes())} == {"mlkem768x25519"}
    weak = generate_identity(post_quantum=False).recipient
    done = keys(scene, "add", "carol", "--recipient", str(weak), *bob.identity)
    assert "only as strong as X25519" in done.errors


@pytest.mark.parametrize("kind", [b"X25519 abc", b"scrypt abc 18"])
def test_recipients_are_counted(kind: bytes) -> None:
    """The tests above could not fail if this did not see a second one."""
    assert len(stanzas(b"age-encryption.org/v1\n-> X25519 x\nbody\n-> " + kind + b"\nbody\n--- mac\n")) == 2
