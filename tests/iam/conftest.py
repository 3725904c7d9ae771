"""A place for policies to be enforced at."""

import pytest

from tests.iam.recording import Record, recorder
from tests.iam.territory import Keys, Territory
from tests.servers.process import S3Server


@pytest.fixture
def territory(seaweed_server: S3Server) -> Territory:
    return Territory.create(seaweed_server)


@pytest.fixture
def locking(seaweed_server: S3Server) -> Territory:
    """One whose bucket has Object Lock."""
    return Territory.create(seaweed_server, locking=True)


class Session:
    """Whose credentials archiver finds in the environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def login(self, keys: Keys) -> None:
        for name, value in keys.environment.items():
            self._monkeypatch.setenv(name, value)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(monkeypatch)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    return recorder(monkeypatch)
