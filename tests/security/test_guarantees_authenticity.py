"""Guarantees of docs/SECURITY.md, by number: what somebody who writes to the bucket cannot make a reader believe. Each
test says which change of the code it notices."""

import shutil
from pathlib import Path

import pytest

from archiver.catalog.names import vault_key
from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.identities import read_identity_file
from archiver.crypto.keys import generate_identity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import seal_vault
from archiver.stages.frames import compress
from tests.operations.scene import SOURCE, Scene, archiver
from tests.security.detector import decompressed
from tests.security.house import ago, forge, listed, manifest_file, restores, run, signing_key, vault_identity


@pytest.mark.parametrize("attack", ["unsigned", "altered", "other key", "same number"])
def test_g05_a_backup_counts_only_if_a_trusted_key_has_signed_it(scene: Scene, tmp_path: Path, attack: str) -> None:
    """Noticed: a signature that is not asked for, not compared with these bytes, or believed by the number of its
    key."""
    backup = scene.backup()
    manifest = manifest_file(scene, backup)
    signature = manifest.with_name("manifest.json.minisig")
    data = manifest.read_bytes()
    if attack == "unsigned":
        signature.unlink()
    elif attack == "altered":
        manifest.write_bytes(data.replace(b'"keep_days": 35', b'"keep_days": 36'))
        assert manifest.read_bytes() != data
    else:
        own = signing_key(scene).verify_key
        forger = SigningKey(own.number, bytes(32)) if attack == "same number" else SigningKey.generate()
        signature.write_text(forger.sign(data, f"archiver backup {backup} of {SOURCE}"))
    assert not restores(scene, tmp_path / "out")
    assert run(scene, "verify", "--level", "data").code == 4
    code, found = listed(scene)
    assert code == 4
    assert "problem" in found[0]


@pytest.mark.parametrize("moved", ["another id", "another source"])
def test_g06_a_signed_backup_counts_only_under_its_own_name(scene: Scene, tmp_path: Path, moved: str) -> None:
    """Noticed: a manifest that is not compared with the place where it lies. An old backup under a new id, with its
    good signature, would be the latest."""
    original = manifest_file(scene, scene.backup()).parent
    source = SOURCE if moved == "another id" else "other"
    shutil.copytree(original, original.parents[1] / source / "20991231T000000Z-000000")
    place = ("--from", scene.url, "--source", source, "--verify-key", str(signing_key(scene).verify_key))
    done = archiver("restore", "--to", str(tmp_path / "out"), *place)
    assert done.code == 4
    assert "moved or replayed" in done.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["mdb", "tar"])
def test_g07_an_object_counts_only_if_it_is_the_one_that_was_signed(scene: Scene, tmp_path: Path, kind: str) -> None:
    """Noticed: decryption taken for a proof. Anybody can encrypt to the vault, whose key is public: here the plaintext
    itself is that of the backup, and only the ciphertext is another."""
    scene.backup()
    vault = vault_identity(scene)
    (path,) = scene.destination.glob(f"daily/data/{SOURCE}/*.{kind}.zst.age")
    swapped = seal_bytes(unseal_bytes(path.read_bytes(), [vault]), [vault.recipient])
    assert len(swapped) == path.stat().st_size
    path.write_bytes(swapped)
    assert not restores(scene, tmp_path / "out")
    done = run(scene, "verify", "--level", "data")
    assert done.code == 4
    assert path.name in done.errors


@pytest.mark.parametrize("name", ["contents", "objects", "placement"])
@pytest.mark.parametrize("change", ["cut", "older", "rewritten"])
def test_g08_lists_are_whole_and_the_backups_own(scene: Scene, tmp_path: Path, name: str, change: str) -> None:
    """Noticed: a list whose hash is not compared with the manifest's, here of one that says the same in other bytes;
    the end of the data taken for the end of the list; an unsigned placement that is believed in more than where an
    object lies."""
    older, backup = scene.backup(), scene.backup()
    (path,) = scene.destination.glob(f"daily/data/{SOURCE}/{backup}.{name}.*")
    data = path.read_bytes()
    if change == "cut":
        path.write_bytes(data[:-1])
    elif change == "older":
        path.write_bytes(Path(str(path).replace(backup, older)).read_bytes())
    elif name == "contents":
        vault = vault_identity(scene)
        path.write_bytes(seal_bytes(unseal_bytes(data, [vault]), [vault.recipient]))
    else:
        path.write_bytes(b"".join(compress([decompressed(data)], level=lambda: 19)))
        assert path.read_bytes() != data
    # Nobody signs the placement: another one that says the right thing is as good.
    assert restores(scene, tmp_path / "out") == ((name, change) == ("placement", "rewritten"))


def test_g09_a_vault_counts_only_if_the_signed_backup_names_it(scene: Scene, tmp_path: Path) -> None:
    """Noticed: an identity that is taken from whatever file opens. Here one of an attacker's lies beside the operator's
    file, sealed to the operator, and then in its place."""
    scene.backup()
    (operator,) = read_identity_file(scene.card)
    (own,) = scene.destination.glob(f"vault/{SOURCE}/*/*.age")
    forged = seal_vault(generate_identity(post_quantum=False), operator.recipient, SOURCE)
    (own.parent / "a-first-one.age").write_bytes(forged)
    assert restores(scene, tmp_path / "beside")
    own.write_bytes(forged)
    assert not restores(scene, tmp_path / "instead")
    assert "another vault" in run(scene, "keys", "check").output + run(scene, "keys", "check").errors


def test_g10_what_is_planted_hides_nothing_and_stops_nothing(scene: Scene, tmp_path: Path) -> None:
    """Noticed: one bad manifest, list or vault file that ends a command about the others."""
    good = scene.backup()
    stranger = SigningKey.generate()
    forge(scene, good, ago(days=-700), stranger)
    garbage = scene.destination / f"daily/backups/{SOURCE}/20991231T000000Z-000000/manifest.json"
    garbage.parent.mkdir()
    garbage.write_bytes(b"\0" * 5_000_000)
    other = scene.destination / f"zzz/backups/{SOURCE}/{good}"
    shutil.copytree(manifest_file(scene, good).parent, other)
    vault = vault_id(str(vault_identity(scene).recipient))
    (scene.destination / vault_key(SOURCE, vault, "a-planted-one", "age")).write_bytes(b"age-encryption.org/v1\n")
    code, found = listed(scene)
    assert code == 4
    assert good in {entry["backup"] for entry in found if "problem" not in entry}
    assert restores(scene, tmp_path / "out", good)
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 3, done.errors
    assert "not continuing from" in done.errors
    assert restores(scene, tmp_path / "newer", done.document["backup"])
