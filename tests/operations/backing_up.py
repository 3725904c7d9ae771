"""What the tests of backup share."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from archiver.catalog.names import check_class
from archiver.config import DEFAULT_CLASSES, PinLimits, Tuning, load_config
from archiver.crypto.minisign import SigningKey
from archiver.crypto.x25519 import X25519Recipient
from archiver.operations.backup_request import BackupRequest
from archiver.operations.sources import resolve_source
from archiver.stores.local import LocalStore
from tests.operations.scene import SOURCE, Scene


def pass_time(monkeypatch: pytest.MonkeyPatch, passed: timedelta) -> None:
    """Let so much time pass, by the clock of every directory."""
    clock = LocalStore.clock
    monkeypatch.setattr(LocalStore, "clock", lambda self: clock(self) + passed)


def request_for(scene: Scene) -> BackupRequest:
    """What the command makes of the scene's configuration."""
    config = load_config(scene.config)
    source = config.source(None)
    assert config.signing_key is not None
    return BackupRequest(
        source=resolve_source(source),
        retention_class=check_class("daily"),
        classes=DEFAULT_CLASSES,
        vault=X25519Recipient.parse(source.vault),
        signing_key=SigningKey.parse(config.signing_key.read_text()),
        state_directory=scene.state / SOURCE,
        tuning=replace(Tuning(), frame_size=1 << 18),
        pin=PinLimits(),
    )
