"""docs/FORMAT.md names every field, and its example is that of the vectors."""

import json
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from archiver.catalog.lines import MAX_LINE
from archiver.catalog.manifest import MAX_MANIFEST, Digest, Manifest, Previous, Totals, Vault
from archiver.catalog.names import BackupPlace, object_key, vault_key
from archiver.catalog.records import (
    CONSISTENCIES,
    DatabaseRecord,
    DirectoryRecord,
    EnvironmentRecord,
    Extent,
    FileRecord,
    HardLinkRecord,
    HeaderRecord,
    ObjectRecord,
    PlacementRecord,
    SymlinkRecord,
    WarningRecord,
)
from archiver.catalog.terms import MAX_TERMS, Terms
from archiver.config import ARCHIVE_CLASSES, HELD
from archiver.crypto.header import MAX_HEADER
from archiver.crypto.vault import MAX_VAULT_FILE
from archiver.operations.release import LEFT_OVER
from archiver.operations.uploads import EXTENT_LIMIT
from archiver.stages.frames import MAX_FRAME_SIZE, MAX_FRAMES, MAX_WINDOW
from tests.vectors.destination import DESTINATION, VAULT, VECTORS

TEXT = (Path(__file__).parent.parent / "docs" / "FORMAT.md").read_text("utf-8")
SECTIONS = dict(section.split("\n", 1) for section in TEXT.split("\n## ")[1:])
MIB = 1 << 20


@pytest.mark.parametrize("struct", [Manifest, Digest, Totals, Previous, Vault])
def test_every_field_of_the_manifest_is_named(struct: type[msgspec.Struct]) -> None:
    names = {field.encode_name for field in msgspec.structs.fields(struct)}

    assert names <= set(re.findall(r"`(\w+)`", SECTIONS["manifest.json"]))


@pytest.mark.parametrize(
    "struct",
    [
        HeaderRecord,
        EnvironmentRecord,
        DatabaseRecord,
        Extent,
        FileRecord,
        DirectoryRecord,
        SymlinkRecord,
        HardLinkRecord,
        WarningRecord,
        ObjectRecord,
        PlacementRecord,
    ],
)
def test_every_field_of_the_lists_is_named(struct: type[msgspec.Struct]) -> None:
    names = {field.encode_name for field in msgspec.structs.fields(struct)}

    assert names <= set(re.findall(r"`(\w+)`", SECTIONS["The lists"]))


def test_every_field_of_the_terms_is_named() -> None:
    names = [field.encode_name for field in msgspec.structs.fields(Terms)]

    assert re.findall(r"^\| `(\w+)` \|", SECTIONS["Copies"], re.MULTILINE) == names


def test_every_form_of_a_key_is_named() -> None:
    block = re.search(r"```\n(.*?)```", SECTIONS["Keys"], re.DOTALL)
    assert block is not None
    parts = {
        "class": "daily",
        "source": "prod",
        "backup-id": "20261122T020000Z-3f9c2a",
        "object-id": "0123456789abcdef" * 2,
        "copy": "0a1b2c3d",
        "kind": "mdb",
        "vault-id": "0011223344556677",
        "operator": "ada",
    }
    named = {re.sub(r"<([a-z-]+)>", lambda part: parts[part[1]], line) for line in block[1].splitlines()}
    place = BackupPlace("daily", "prod", parts["backup-id"])
    assert named == {
        *(vault_key("prod", parts["vault-id"], "ada", form) for form in ("age", "kms")),
        *(object_key("daily", "prod", parts["object-id"], "mdb", copy) for copy in ("", parts["copy"])),
        *(place.started, place.contents, place.objects, place.placement),
        *(place.terms, place.signature, place.manifest),
    }
    assert f"`{HELD}`" in SECTIONS["Keys"]


def test_the_methods_are_those_of_the_code_from_the_best_to_the_weakest() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", SECTIONS["Consistency"], re.MULTILINE)) == CONSISTENCIES


def test_the_limits_are_those_of_the_code() -> None:
    stated = {
        "Objects": [
            f"{MAX_FRAME_SIZE // MIB} MiB of plaintext",
            f"{MAX_FRAMES:,}",
            f"{MAX_WINDOW // MIB} MiB",
            f"{MAX_HEADER:,} bytes",
            f"at most {EXTENT_LIMIT // MIB // 1024} GiB of plaintext",
        ],
        "manifest.json": [f"at most {MAX_MANIFEST // MIB} MiB"],
        "The lists": [f"longer than {MAX_LINE // MIB} MiB"],
        "Copies": [
            f"at most {MAX_TERMS:,} bytes",
            f"older than {LEFT_OVER.days} days",
            " and ".join(sorted(ARCHIVE_CLASSES, reverse=True)),
        ],
        "Vault and operators": [f"at most {MAX_VAULT_FILE:,} bytes"],
    }
    for section, limits in stated.items():
        for limit in limits:
            assert limit in " ".join(SECTIONS[section].split()), limit


def test_the_bytes_of_the_example_are_those_of_the_vectors() -> None:
    name = re.search(r"^`(destination/.*)`$", SECTIONS["Example"], re.MULTILINE)
    assert name is not None
    stored = VECTORS / name[1]
    compressed = run("age", "-d", "-i", str(VAULT), str(stored))

    dumps = re.findall(r"```hexdump\n(.*?)```", SECTIONS["Example"], re.DOTALL)

    assert len(dumps) == 2
    for dump, data in zip(dumps, (stored.read_bytes(), compressed), strict=True):
        for line in dump.splitlines():
            offset, row = int(line[:8], 16), bytes.fromhex(line[10:50])
            assert data[offset : offset + 16] == row


def test_the_records_of_the_example_are_those_of_the_vectors() -> None:
    lists = {path.name.split(".")[1]: path for path in DESTINATION.glob("daily/data/*/*.jsonl.zst*")}
    plain = [run("zstd", "-dcq", str(lists[name])) for name in ("objects", "placement")]
    contents = run("age", "-d", "-i", str(VAULT), str(lists["contents"]))
    plain.append(subprocess.run(["zstd", "-dcq"], input=contents, capture_output=True, check=True).stdout)
    known = [json.loads(line) for line in b"".join(plain).splitlines()]

    blocks = re.findall(r"```json\n(.*?)```", SECTIONS["Example"], re.DOTALL)

    shown = [json.loads(record) for block in blocks for record in re.split(r"\n(?=\{|\Z)", block) if record]
    assert len(shown) == 7
    assert all(record in known for record in shown)


def run(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout
