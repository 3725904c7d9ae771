"""With what keys are created."""

import pytest

from archiver.config import RetentionClass
from archiver.retention.attributes import Attributes, attribution, no_attributes

CLASSES = {"daily": RetentionClass(35, 7), "yearly": RetentionClass(800, 60, "year", "DEEP_ARCHIVE")}
OBJECT = f"data/prod/{'0' * 32}"
LISTS = "data/prod/20261122T020000Z-3f9c2a"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (f"yearly/{OBJECT}.tar.zst.age", Attributes("DEEP_ARCHIVE", archivable=True, retain_days=860)),
        (f"yearly/{OBJECT}.0123abcd.mdb.zst.age", Attributes("DEEP_ARCHIVE", archivable=True, retain_days=860)),
        (f"daily/{OBJECT}.file.zst.age", Attributes(archivable=True, retain_days=42)),
        (f"held/{OBJECT}.file.zst.age", Attributes(archivable=True, legal_hold=True)),
        (f"strange/{OBJECT}.file.zst.age", Attributes(archivable=True)),
        (f"yearly/{LISTS}.contents.jsonl.zst.age", Attributes(retain_days=860)),
        (f"yearly/{LISTS}.objects.jsonl.zst", Attributes(retain_days=860)),
        (f"yearly/{LISTS}.started", Attributes(retain_days=860)),
        ("yearly/backups/prod/20261122T020000Z-3f9c2a/manifest.json", Attributes(retain_days=860)),
        ("held/backups/prod/20261122T020000Z-3f9c2a/manifest.json", Attributes(legal_hold=True)),
        ("vault/prod/52d4c36485504eae/alice.age", Attributes(retain_days=860)),
    ],
)
def test_the_attributes_of_a_key(key: str, expected: Attributes) -> None:
    assert attribution(CLASSES)(key) == expected
    assert no_attributes(key) == Attributes(archivable=expected.archivable)


def test_without_classes_nothing_is_locked() -> None:
    assert attribution({})("vault/prod/52d4c36485504eae/alice.age") == Attributes()
