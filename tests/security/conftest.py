"""A small source whose guarantees are tried."""

from pathlib import Path

import pytest

from tests.operations.scene import Scene
from tests.security.house import make_house


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Configured, not backed up yet. The working directory knows nothing of it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return make_house(tmp_path / "house")
