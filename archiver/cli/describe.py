"""Backups as JSON documents and as lines, the same in every command."""

from typing import TYPE_CHECKING

from archiver.cli import human

if TYPE_CHECKING:
    from datetime import datetime

    from archiver.catalog.records import DatabaseRecord
    from archiver.cli.output import Output
    from archiver.operations.chain import Removed
    from archiver.operations.history import Backup, Unreadable
    from archiver.operations.needs import Guarantee

DATED_BY = {"store": "the store", "chain": "a later backup", "unproven": "itself alone"}
"""What vouches for the time of a backup, in words."""


def end(moment: "datetime | None") -> str:
    """Until when something is kept, for people."""
    return "for ever" if moment is None else human.time(moment)


def guarantee_document(guarantee: "Guarantee") -> dict[str, object]:
    """Until when a backup is sure to be restorable (null: for ever), and what ends it."""
    return {"guaranteed_until": guarantee.until and human.time(guarantee.until), "guaranteed_by": guarantee.reason}


def backup_document(backup: "Backup", guarantee: "Guarantee | None" = None) -> dict[str, object]:
    """What the manifest says, where copies of it lie, and what is known of its signature and its time."""
    manifest, promised_until = backup.manifest, backup.promised_until
    return {
        "backup": manifest.backup,
        "source": manifest.source,
        "class": backup.place.retention_class,
        "classes": [place.retention_class for place in backup.places],
        "started": human.time(manifest.started),
        "finished": human.time(manifest.finished),
        "promised_until": promised_until and human.time(promised_until),
        **({} if guarantee is None else guarantee_document(guarantee)),
        "consistency": manifest.consistency,
        "sequence": manifest.sequence,
        **authorship(backup),
        "environments": manifest.totals.environments,
        "files": manifest.totals.files,
        "objects": manifest.totals.objects,
        "plaintext_bytes": manifest.totals.plaintext_bytes,
        "stored_bytes": manifest.totals.stored_bytes,
        "warnings": manifest.totals.warnings,
    }


def authorship(backup: "Backup") -> dict[str, object]:
    """Who signed a backup, what vouches for its time, and what is doubtful about it."""
    return {
        "signature": backup.signature,
        "signer": backup.key_id,
        "dated": backup.dated,
        "doubts": list(backup.doubts),
    }


def signed(backup: "Backup") -> str:
    """The same in a few words."""
    key = "" if backup.signer is None else f" by key {backup.key_id}"
    return f"signature {backup.signature}{key}, dated by {DATED_BY[backup.dated]}"


def warn_of_doubts(output: "Output", backup: "Backup", told: "Backup | None" = None) -> None:
    """Warn of what an operator should know before he relies on ``backup``; what he was ``told`` of it is not said
    again."""
    for doubt in backup.doubts:
        if told is None or doubt not in told.doubts:
            output.warn(doubt)


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


def removed_document(found: "Removed", source: str) -> dict[str, object]:
    """What is not there any more."""
    return {"backup": found.previous.backup, "source": source, "class": None, "problem": removal(found)}


def removal(found: "Removed") -> str:
    """In which way a backup is missing."""
    return (
        f"it was removed: {found.named_by} names it as the one before, and it is promised until "
        f"{human.time(found.previous.promised_until)}"
    )
