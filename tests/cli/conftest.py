"""A configured source without a backup."""

from pathlib import Path

import pytest

from tests.operations.scene import Scene, make_scene


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A configured source without a backup; the working directory knows nothing of it."""
    for name in ("elsewhere", "scene"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return make_scene(tmp_path / "scene")
