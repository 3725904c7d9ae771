"""The format vectors: what earlier versions stored is still restored, and what is broken is still refused."""

import base64
import json
import shutil
from itertools import permutations
from pathlib import Path

import pytest

from archiver import errors
from archiver.catalog.records import CONSISTENCIES
from archiver.crypto.card import parse_card
from archiver.crypto.identities import read_identity_file
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.operations.archive import Archive
from archiver.operations.backup import weakest
from archiver.operations.restore import restore
from archiver.operations.restore_plan import layout_below, plan_restore
from archiver.operations.verify import verify
from archiver.progress import Silent
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore
from tests.vectors.destination import CARD, DESTINATION, EXPECTED, SOURCE, describe
from tests.vectors.failures import FAILURES
from tests.vectors.make_vectors import CONSISTENCY, FAILURE_DIRECTORY, VARIANT_DIRECTORY
from tests.vectors.variants import VARIANTS

FAILURE_FILES = sorted(FAILURE_DIRECTORY.glob("*.json"))
VARIANT_FILES = sorted(VARIANT_DIRECTORY.glob("*.json"))


def open_archive(root: Path) -> Archive:
    key = parse_card(CARD.read_text("utf-8"), "the card").verify_key
    assert key is not None
    return Archive(LocalStore(root, Journal(None)), SOURCE, [TrustedKey(key)], Keyring(read_identity_file(CARD)))


def altered_destination(directory: Path, files: dict[str, str | None]) -> Path:
    """A copy of the valid destination with the keys of a vector, in Base64, None for one that is missing."""
    root = directory / "destination"
    shutil.copytree(DESTINATION, root)
    for key, data in files.items():
        if data is None:
            (root / key).unlink()
        else:
            (root / key).write_bytes(base64.b64decode(data))
    return root


def test_the_destination_is_restored(tmp_path: Path) -> None:
    archive = open_archive(DESTINATION)
    plan = plan_restore(archive, archive.find(), layout_below(tmp_path))

    restore(archive, plan, Silent())

    expected = json.loads(EXPECTED.read_text("utf-8"))
    assert json.loads(json.dumps(describe(tmp_path))) == expected
    assert plan.backup.signature == "verified"


def test_the_destination_verifies() -> None:
    archive = open_archive(DESTINATION)

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
    assert plan.backup.manifest.consistency == vector["consistency"]


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

    assert type(caught.value).__name__ == vector["error"]
    assert vector["message"] in caught.value.message
