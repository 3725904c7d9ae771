"""What was measured: kept as JSON, by trial, and reduced to medians."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.link import Line
from benchmarks.sources import Kind

Phase = Literal["first", "changed", "restore"]
ALL_PHASES: tuple[Phase, ...] = ("first", "changed", "restore")
_FIGURES = ("wall", "cpu", "server_cpu", "peak", "stored", "sent", "received", "requests")


@dataclass(frozen=True, slots=True)
class Measured:
    """One phase of one contender, once or in the middle of several runs. Times in seconds, the rest in bytes."""

    contender: str
    phase: Phase
    wall: float
    cpu: float
    server_cpu: float
    peak: int
    stored: int
    """In the bucket, after the phase."""
    sent: int
    """Over the line; 0 where there is none. So are the next two."""
    received: int
    requests: int


@dataclass(frozen=True, slots=True)
class Result:
    """One trial: the size of its source, every run in its order, and on what it ran."""

    kind: Kind
    size: int
    runs: int
    line: Line | None
    measured: list[Measured]
    date: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def medians(self, phase: Phase) -> list[Measured]:
        """One for each contender, in the order in which they came first."""
        taken: dict[str, list[Measured]] = {}
        for one in self.measured:
            if one.phase == phase:
                taken.setdefault(one.contender, []).append(one)
        return [
            replace(several[0], **{name: median(getattr(one, name) for one in several) for name in _FIGURES})
            for several in taken.values()
        ]

    def phases(self) -> Iterator[tuple[Phase, list[Measured]]]:
        """Those that were measured, each with its medians."""
        for phase in ALL_PHASES:
            if medians := self.medians(phase):
                yield phase, medians


def read(path: Path) -> dict[str, Result]:
    """By name of a trial; nothing where there is no file."""
    if not path.is_file():
        return {}
    return {name: _result(found) for name, found in json.loads(path.read_text()).items()}


def write(path: Path, results: Mapping[str, Result]) -> None:
    """What ``read`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1) + "\n")


def _result(found: dict[str, Any]) -> Result:
    line = found.pop("line")
    measured = [Measured(**one) for one in found.pop("measured")]
    return Result(line=line and Line(**line), measured=measured, **found)
