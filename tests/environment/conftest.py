"""Fixtures of the environment's tests: a live server of either kind."""

import sys
from pathlib import Path

import pytest

from tests.environment.server import Serve, heed_server, serve_lmdb


@pytest.fixture(scope="session", params=["lmdb", "heed"])
def server_binary(request: pytest.FixtureRequest) -> Path | None:
    """The heed writer, or None for py-lmdb. Of the session, because cargo needs the HOME that each test hides."""
    return request.getfixturevalue("heed_writer") if request.param == "heed" else None


@pytest.fixture
def serve(server_binary: Path | None, tmp_path: Path) -> Serve:
    """Starts a server that writes lock version 1, and in the same test once more one that writes version 2."""
    return serve_lmdb if server_binary is None else heed_server(server_binary, tmp_path)


@pytest.fixture
def faithful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers wait an hour, not a second, for a server that has ended: here one may take long to start again."""
    program = "from archiver.environment import helper; helper._FAREWELL = 3600.0; helper.main()"
    monkeypatch.setattr("archiver.environment.snapshot.COMMAND", (sys.executable, "-P", "-c", program))
