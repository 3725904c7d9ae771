"""Backups as JSON documents and as lines, the same in every command."""

from typing import TYPE_CHECKING

from archiver.cli import human

if TYPE_CHECKING:
    from archiver.catalog.records import DatabaseRecord
    from archiver.operations.archive import Backup, Unreadable


def backup_document(backup: "Backup") -> dict[str, object]:
    """What the manifest says, and what is known of its signature."""
    manifest = backup.manifest
    return {
        "backup": manifest.backup,
        "source": manifest.source,
        "class": backup.place.retention_class,
        "started": human.time(manifest.started),
        "finished": human.time(manifest.finished),
        "promised_until": human.time(manifest.promised_until),
        "consistency": manifest.consistency,
        "sequence": manifest.sequence,
        "signature": backup.signature,
        "signer": manifest.signer,
        "environments": manifest.totals.environments,
        "files": manifest.totals.files,
        "objects": manifest.totals.objects,
        "plaintext_bytes": manifest.totals.plaintext_bytes,
        "stored_bytes": manifest.totals.stored_bytes,
        "warnings": manifest.totals.warnings,
    }


def database_name(database: "DatabaseRecord") -> str:
    """What a database is called; one whose name is not UTF-8 by its Base64, the main one in parentheses."""
    if database.name is not None:
        return database.name
    return "(main)" if database.name_b64 is None else f"base64:{database.name_b64}"


def unreadable_document(found: "Unreadable") -> dict[str, object]:
    """What looks like a backup and is not to be trusted."""
    return {
        "backup": found.place.backup,
        "source": found.place.source,
        "class": found.place.retention_class,
        "problem": found.error.message,
    }
