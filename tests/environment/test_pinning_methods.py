"""Which way a snapshot is taken in which state of the lock file, or why none is."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from archiver.environment.lockfile import Layout
from archiver.environment.locks import LockState
from archiver.environment.pinning import choose_method
from archiver.errors import SourceError

LIVE = LockState(
    present=True,
    format_word=0x10001,
    live=True,
    holder=4711,
    writable=True,
    layout=Layout(version=1, mutex=8, committed=48, used=56, slots=128),
    glibc=True,
)
PLACE = Path("/srv/data/graph")


@pytest.mark.parametrize(
    "state",
    [
        LockState(),
        replace(LIVE, live=False),
        replace(LIVE, live=False, writable=False),
        replace(LIVE, live=False, format_word=None, layout=None, glibc=False),
    ],
)
def test_cold_when_nobody_is_there(state: LockState) -> None:
    assert choose_method(state, PLACE) == "cold"


def test_locked_when_somebody_is() -> None:
    assert choose_method(LIVE, PLACE) == "locked"


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        (replace(LIVE, writable=False), "lock.mdb cannot be written to", "read-write"),
        (replace(LIVE, glibc=False), "it does not run on glibc", "same Debian release"),
        (replace(LIVE, layout=None, format_word=0x2A002), "expected that of LMDB 0.9 .* got 0x2a002", "HOT-BACKUP"),
        (replace(LIVE, layout=None, format_word=None), "unknown lock format: .* got none", "HOT-BACKUP"),
        # What the user can do least about comes first.
        (replace(LIVE, layout=None, glibc=False, writable=False), "unknown lock format", "HOT-BACKUP"),
        (replace(LIVE, glibc=False, writable=False), "does not run on glibc", "same Debian release"),
    ],
)
def test_refused_when_no_way_is_safe(state: LockState, message: str, hint: str) -> None:
    with pytest.raises(SourceError, match=rf"cannot pin /srv/data/graph: .*pid 4711.*{message}") as caught:
        choose_method(state, PLACE)
    assert hint in str(caught.value.hint)
    assert choose_method(replace(state, live=False), PLACE) == "cold"


@pytest.mark.parametrize("problem", [ValueError, OSError])
def test_refused_when_archiver_itself_is_not_on_glibc(
    monkeypatch: pytest.MonkeyPatch, problem: type[Exception]
) -> None:
    def unknown(name: str) -> str:
        raise problem(name)

    monkeypatch.setattr(os, "confstr", unknown)
    with pytest.raises(SourceError, match="archiver does not run on glibc"):
        choose_method(LIVE, PLACE)
    assert choose_method(LockState(), PLACE) == "cold"
