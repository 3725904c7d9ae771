"""archiver beside a shell pipeline, restic and rclone, on one machine, in one run.

Each contender has a SeaweedFS of its own on 127.0.0.1, fresh for its first backup. Sources, servers and all that
contenders write lie in a directory under $BENCH_DIR, or under the system's for temporary files, which is removed at the
end. Results are kept by trial, so that one can be measured again alone.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, results
from benchmarks.contenders import CONTENDERS, install, versions
from benchmarks.document import write_document
from benchmarks.measure import CommandError
from benchmarks.tables import report
from benchmarks.trials import TRIALS, Trial, run_trial
from tests.servers.process import ServerError, cache_directory

_WARM_UP = Trial("warm-up", "files")
_WARM_UP_SCALE = 0.01
_ROOM = 22e9
"""Bytes on disk at scale 1: the largest source, two backups of it that are not compressed, and a copy or a restore."""


def main(arguments: Sequence[str]) -> None:
    """Measure, keep, print; or write the document from what was kept."""
    options = _parser().parse_args(arguments)
    kept = results.read(options.results)
    if options.document:
        write_document(kept)
        return
    chosen = [contender for contender in CONTENDERS if contender.name in options.contenders]
    path = install(chosen)
    with _temporary_directory():
        _require_room(_ROOM * options.scale)
        described = machine.description()
        used = machine.own_versions() | versions(chosen, path)
        run_trial(_WARM_UP, chosen, path, scale=_WARM_UP_SCALE, runs=1, say=_say)
        measured = {}
        for trial in TRIALS:
            if trial.name in options.only:
                date = f"{datetime.now(UTC):%Y-%m-%d}"
                result = run_trial(trial, chosen, path, scale=options.scale, runs=options.runs, say=_say)
                measured[trial.name] = kept[trial.name] = replace(result, date=date, machine=described, versions=used)
                results.write(options.results, {trial.name: kept[trial.name] for trial in TRIALS if trial.name in kept})
    print(report(measured))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    trials, contenders = [trial.name for trial in TRIALS], [contender.name for contender in CONTENDERS]
    parser.add_argument("--scale", type=float, default=1.0, help="size of all sources, relative to 4 GB (default: 1)")
    parser.add_argument("--runs", type=int, default=1, help="rounds, of which medians are shown (default: 1)")
    parser.add_argument(
        "--only", nargs="+", choices=trials, default=trials, metavar="TRIAL", help=f"of {', '.join(trials)}"
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=contenders,
        default=contenders,
        metavar="NAME",
        help=f"of {', '.join(contenders)}",
    )
    parser.add_argument(
        "--results", type=Path, default=cache_directory() / "benchmarks.json", help="where they are kept (%(default)s)"
    )
    parser.add_argument(
        "--document", action="store_true", help="measure nothing: write the results into docs/BENCHMARKS.md"
    )
    return parser


@contextmanager
def _temporary_directory() -> Iterator[None]:
    """Let ``tempfile`` use a directory under $BENCH_DIR, which is gone at the end of the block, as all in it is."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_DIR")) as name:
        tempfile.tempdir = name
        try:
            yield
        finally:
            tempfile.tempdir = before


def _require_room(needed: float) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        raise SystemExit(
            f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB free, expected {needed / 1e9:.0f} GB: set BENCH_DIR"
        )


def _say(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True)  # noqa: DTZ005 - for who is waiting


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    # As Ctrl-C does: every block is left, and ends what it has started.
    signal.signal(signal.SIGTERM, _end)
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except (CommandError, ServerError) as error:
        sys.exit(str(error))
