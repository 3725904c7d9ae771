"""What ends the wait for archived objects, and whether it is said that the store goes on: only where it does."""

from pathlib import Path

import pytest

from archiver.errors import RefusedError, StorageError
from archiver.operations.thaw import Archived, thaw
from archiver.progress import Silent
from archiver.stores.base import Availability
from archiver.stores.journal import Journal
from archiver.stores.local import LocalStore

KEYS = ("daily/data/prod/a", "daily/data/prod/b")


class Refusing(LocalStore):
    """Archived for ever: thaws are refused, but for those of the keys ``accepts``."""

    def __init__(self, root: Path, *accepts: str, error: BaseException) -> None:
        super().__init__(root, Journal(None))
        self._accepts = accepts
        self._error = error

    def availability(self, key: str) -> Availability:  # noqa: ARG002
        return "archived"

    def thaw(self, key: str, days: int) -> None:  # noqa: ARG002
        if key not in self._accepts:
            raise self._error


class Telling(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def archived(*states: str) -> list[Archived]:
    return [
        Archived(key, 1, "GLACIER", "thawing" if state == "thawing" else "archived")
        for key, state in zip(KEYS, states, strict=True)
    ]


@pytest.mark.parametrize(
    ("accepts", "states", "goes_on"),
    [
        ((), ("archived", "archived"), False),
        (KEYS[:1], ("archived", "archived"), True),
        ((), ("archived", "thawing"), True),
    ],
)
def test_a_store_that_took_nothing_does_not_go_on(
    tmp_path: Path, accepts: tuple[str, ...], states: tuple[str, str], goes_on: bool
) -> None:
    error = RefusedError("MethodNotAllowed", hint="Ask.")
    with pytest.raises(StorageError, match="MethodNotAllowed") as caught:
        thaw(Refusing(tmp_path, *accepts, error=error), archived(*states), Silent())
    assert caught.value.hint == ("Ask. " if goes_on else "Ask.") + goes_on * (
        "Run the same restore again: the store goes on thawing meanwhile."
    )


def test_ctrl_c_before_anything_was_asked_for(tmp_path: Path) -> None:
    for accepts, count in (((), 0), (KEYS[:1], 1)):
        reporter = Telling()
        with pytest.raises(KeyboardInterrupt):
            thaw(Refusing(tmp_path, *accepts, error=KeyboardInterrupt()), archived("archived", "archived"), reporter)
        assert len(reporter.warnings) == count
