"""The format vectors: what earlier versions stored is still restored, and what is broken is still refused."""

import base64
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from archiver import errors
from archiver.catalog.manifest import decode_manifest, encode_manifest
from archiver.catalog.records import CONSISTENCIES
from archiver.crypto.card import parse_card
from archiver.crypto.identities import read_identity_file
from archiver.crypto.minisign import VerifyKey
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.operations.archive import Archive
from archiver.operations.backup import weakest
from archiver.operations.chain import Chain, Statement
from archiver.operations.restore import restore
from archiver.operations.restore_plan import layout_below, plan_restore
from archiver.operations.verify import verify
from archiver.progress import Silent
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.vectors.destination import CARD, DESTINATION, EXPECTED, SOURCE, VECTORS, describe
from tests.vectors.failures import FAILURES
from tests.vectors.histories import HISTORIES, describe_history
from tests.vectors.make_vectors import CONSISTENCY, FAILURE_DIRECTORY, TRUST, VARIANT_DIRECTORY
from tests.vectors.variants import VARIANTS

FAILURE_FILES = sorted(FAILURE_DIRECTORY.glob("*.json"))
COMMITTED = datetime(2026, 11, 22, 20, 3, 35, tzinfo=UTC).timestamp()
VARIANT_FILES = sorted(VARIANT_DIRECTORY.glob("*.json"))


def open_archive(root: Path) -> Archive:
    keys = parse_card(CARD.read_text("utf-8"), "the card").verify_keys
    return Archive(LocalStore(root, Journal(None)), SOURCE, keys, Keyring(read_identity_file(CARD)))


def altered_destination(directory: Path, files: dict[str, str | None]) -> Path:
    """A copy of the valid destination with the keys of a vector, in Base64, None for one that is missing. Its files are
    as old as the backup is: what a checkout makes of their times is no matter here."""
    root = directory / "destination"
    shutil.copytree(DESTINATION, root)
    for key, data in files.items():
        if data is None:
            (root / key).unlink()
        else:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(base64.b64decode(data))
    for path in root.rglob("*"):
        os.utime(path, (COMMITTED, COMMITTED))
    return root


def test_the_destination_is_restored(tmp_path: Path) -> None:
    archive = open_archive(altered_destination(tmp_path, {}))
    plan = plan_restore(archive, archive.find(), layout_below(tmp_path / "restored"))

    restore(archive, plan, Silent())

    expected = json.loads(EXPECTED.read_text("utf-8"))
    assert json.loads(json.dumps(describe(tmp_path / "restored"))) == expected
    assert (plan.backup.signature, plan.backup.dated) == ("verified", "store")


def test_the_destination_verifies(tmp_path: Path) -> None:
    archive = open_archive(altered_destination(tmp_path, {}))

    verified = verify(archive, archive.find(), "restore", Silent())

    assert (verified.environments, verified.files) == (1, 5)
    assert verified.objects == verified.backup.manifest.totals.objects


def test_every_failure_has_a_vector() -> None:
    assert {path.stem for path in FAILURE_FILES} >= {failure.name for failure in FAILURES}


def test_every_variant_has_a_vector() -> None:
    assert {path.stem for path in VARIANT_FILES} >= {variant.name for variant in VARIANTS}


@pytest.mark.parametrize("path", VARIANT_FILES, ids=lambda path: path.stem)
def test_a_variant_is_restored(path: Path, tmp_path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    archive = open_archive(altered_destination(tmp_path, vector["files"]))
    plan = plan_restore(archive, archive.find(), layout_below(tmp_path / "restored"))

    restore(archive, plan, Silent())

    expected = json.loads(EXPECTED.read_text("utf-8"))
    assert json.loads(json.dumps(describe(tmp_path / "restored"))) == expected
    found = plan.backup
    assert found.manifest.consistency == vector["consistency"]
    days = vector.get("promised_days", 35)
    assert found.promised_until == (None if days is None else found.manifest.started + timedelta(days=days))
    assert (found.irregular != ()) == vector.get("doubted", False)


def test_the_label_of_a_backup_is_that_of_its_weakest_environment() -> None:
    cases = json.loads(CONSISTENCY.read_text("utf-8"))

    assert len(cases) == 2 ** len(CONSISTENCIES)
    for case in cases:
        for methods in permutations(case["methods"]):
            assert weakest(methods) == case["consistency"]


@pytest.mark.parametrize("path", FAILURE_FILES, ids=lambda path: path.stem)
def test_a_failure_is_refused(path: Path, tmp_path: Path) -> None:
    vector = json.loads(path.read_text("utf-8"))
    archive = open_archive(altered_destination(tmp_path, vector["files"]))

    with pytest.raises(errors.IntegrityError) as caught:
        verify(archive, archive.find(), "restore", Silent())

    # The vectors know of no difference between a signature that is missing and one that is wrong.
    unsigned = isinstance(caught.value, errors.UnsignedError)
    assert (errors.AuthenticityError if unsigned else type(caught.value)).__name__ == vector["error"]
    assert vector["message"] in caught.value.message


@pytest.mark.parametrize("history", json.loads(TRUST.read_text("utf-8")), ids=lambda history: history["name"])
def test_a_history_is_judged(history: dict[str, Any]) -> None:
    chain = Chain(datetime.fromisoformat(history["now"]))
    for backup in history["backups"]:
        statement = _statement(backup, history["revoked"].get(backup["key"]))
        verdict = chain.judge(statement)
        chain.add(statement, verdict)
        found = (verdict.dated, verdict.refusal is not None, verdict.doubts != ())
        assert found == (backup["dated"], backup["refused"], backup["doubted"]), backup["backup"]
    present = {backup["backup"] for backup in history["backups"]}
    missed = chain.removed(present, datetime.fromisoformat(history["now"]))
    assert [item.previous.backup for item in missed] == history["removed"]


def test_every_history_has_a_vector() -> None:
    assert json.loads(TRUST.read_text("utf-8")) == [describe_history(history) for history in HISTORIES]


def _statement(backup: dict[str, Any], revoked: str | None) -> Statement:
    manifest = decode_manifest((VECTORS / "manifest.json").read_bytes(), "the vector")
    fields = {name: backup[name] for name in ("backup", "sequence", "started", "finished", "previous")}
    data = json.dumps(json.loads(encode_manifest(manifest)) | fields).encode()
    key = VerifyKey(backup["key"].encode() * 8, bytes(32))
    return Statement(
        decode_manifest(data, backup["backup"]),
        backup["blake3"],
        TrustedKey(key, None if revoked is None else datetime.fromisoformat(revoked)),
        datetime.fromisoformat(backup["modified"]),
        None if backup["began"] is None else datetime.fromisoformat(backup["began"]),
    )
