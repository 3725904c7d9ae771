"""The trials: which source, where to and which phases, and how one is run."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import sources
from benchmarks.contenders import Contender, variables
from benchmarks.link import Line
from benchmarks.measure import measure
from benchmarks.results import ALL_PHASES, Measured, Phase, Result
from benchmarks.site import Site, site
from benchmarks.sources import Kind

LINE = Line(rate=25_000_000, round_trip=0.04)
"""200 Mbit/s in each direction."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison. ``share`` is how much of the size that was asked for it takes."""

    name: str
    kind: Kind
    line: Line | None = None
    share: float = 1.0
    phases: tuple[Phase, ...] = ALL_PHASES


TRIALS = (
    Trial("environment", "environment"),
    Trial("files", "files"),
    Trial("media", "media"),
    Trial("line-environment", "environment", LINE, 0.25, ("first", "restore")),
    Trial("line-files", "files", LINE, 0.1),
)


def run_trial(
    trial: Trial, contenders: Sequence[Contender], path: str, *, scale: float, runs: int, say: Callable[[str], None]
) -> Result:
    """Make the source and let each contender do all phases, each with a server of its own, in turn, and back in the
    next round. Everything lies in ``tempfile``'s directory and is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="source-") as name:
        source = Path(name) / "source"
        sources.make(trial.kind, source, scale * trial.share)
        result = Result(trial.kind, sources.size(source), runs, trial.line, [])
        say(f"{trial.name}: {result.size:,} bytes")
        for number in range(runs):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                measured = _compete(trial, contender, path, source, turn=len(result.measured))
                seconds = ", ".join(f"{one.phase} {one.wall:.2f} s" for one in measured)
                say(f"  {contender.name}: {seconds}")
                result.measured.extend(measured)
    return result


def _compete(trial: Trial, contender: Contender, path: str, source: Path, *, turn: int) -> list[Measured]:
    steps = contender.steps(trial.kind)
    sources.warm(source)
    found = []
    with _work(trial.kind) as work, site(trial.line) as place:
        settings = variables(path, source, work, place)
        measure(_script(steps.prepare), cwd=work, environment=settings)
        for phase in trial.phases:
            if phase == "changed":
                sources.change(trial.kind, source, turn)
            script = _script(steps.restore if phase == "restore" else steps.backup)
            found.append(_phase(contender.name, phase, script, work, settings, place))
        sources.compare(trial.kind, source, work / steps.restored)
    return found


@contextmanager
def _work(kind: Kind) -> Iterator[Path]:
    """An empty directory, removed at the end of the block. That of small files stays: for minutes after many were
    removed, an ext4 without a journal creates new ones at a fraction of its speed."""
    name = tempfile.mkdtemp(prefix="work-")
    try:
        yield Path(name)
    finally:
        if kind != "files":
            shutil.rmtree(name)


def _phase(
    contender: str, phase: Phase, script: Sequence[str], work: Path, settings: dict[str, str], place: Site
) -> Measured:
    # What others have left to be written is not to burden this one.
    os.sync()
    before, server = place.traffic(), place.server_seconds()
    run = measure(script, cwd=work, environment=settings)
    traffic = place.traffic() - before
    return Measured(
        contender=contender,
        phase=phase,
        wall=run.wall,
        cpu=run.cpu,
        server_cpu=place.server_seconds() - server,
        peak=run.peak,
        stored=place.stored(),
        sent=traffic.sent,
        received=traffic.received,
        requests=sum(traffic.requests.values()),
    )


def _script(text: str) -> list[str]:
    return ["bash", "-c", f"set -euo pipefail\n{text}"]
