"""``python -m benchmarks [NODES] [RUNS]``: backup and restore beside the shell pipeline, to a directory, in one run.

Backup:  archiver backup, beside ``mdb_copy -c | zstd -3 -T2 | age -r``.
Restore: archiver restore, beside ``age -d | zstd -d``.
The environment has the shape of a Ucotron server's vector environment. Prints a table in Markdown.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from archiver.environment.sample import write_sample
from benchmarks.measure import Run, alternate

_NODES = 540_000


def main(nodes: int, runs: int) -> None:
    """Make the data, measure, print."""
    with tempfile.TemporaryDirectory(prefix="archiver-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        directory = Path(name)
        print(
            f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {runs} runs", flush=True
        )
        write_sample(directory / "data", nodes, map_size=64 << 30)
        shutil.rmtree(directory / "data" / "graph")
        archiver = [sys.executable, "-m", "archiver"]
        options = ["--config", "archiver.toml"]
        subprocess.run(
            [*archiver, "init", "--to", f"file://{directory}/destination", "--source", "bench",
             "--environment", f"vector={directory}/data/vector", "--card", "card.txt", *options],
            check=True, stdout=subprocess.DEVNULL, cwd=directory,
        )  # fmt: skip
        config = directory / "archiver.toml"
        config.write_text('state_directory = "state"\n' + config.read_text())
        recipient = _recipient(directory)
        pipeline = f"mdb_copy -c data/vector | zstd -q -3 -T2 | age -r {recipient} > pipeline.age"
        backup = alternate(
            {
                "archiver backup": [["rm", "-rf", "destination/daily"], [*archiver, "backup", *options]],
                "mdb_copy -c | zstd -3 -T2 | age": [["rm", "-f", "pipeline.age"], _durable(pipeline, "pipeline.age")],
            },
            runs,
            cwd=directory,
        )
        reverse = "mkdir -p other && age -d -i card.txt pipeline.age | zstd -q -d > other/data.mdb"
        restore = alternate(
            {
                "archiver restore": [
                    ["rm", "-rf", "restored"],
                    [*archiver, "restore", "--identity", "card.txt", "--to", "restored"],
                ],
                "age -d | zstd -d": [["rm", "-rf", "other"], _durable(reverse, "other/data.mdb")],
            },
            runs,
            cwd=directory,
        )
        size = (directory / "restored/vector/data.mdb").stat().st_size
        stored = sum(path.stat().st_size for path in (directory / "destination").rglob("*.mdb.zst.age"))
        piped = (directory / "pipeline.age").stat().st_size
        print(f"\nEnvironment: {size:,} bytes compacted; stored: archiver {stored:,}, pipeline {piped:,} bytes\n")
        _table({**backup, **restore}, size)


def _durable(pipeline: str, result: str) -> list[str]:
    """The pipeline with the fsync that archiver does as well: both answer for a power cut."""
    return ["bash", "-c", f"set -o pipefail; {pipeline} && sync {result}"]


def _recipient(directory: Path) -> str:
    """The operator's recipient, so that the card opens the pipeline's file too."""
    shown = subprocess.run(["age-keygen", "-y", "card.txt"], cwd=directory, check=True, capture_output=True, text=True)
    return shown.stdout.strip()


def _table(found: dict[str, Run], size: int) -> None:
    print("| | wall s | MB/s | CPU s | peak RssAnon MiB |\n|---|---|---|---|---|")
    for name, run in found.items():
        title = name.replace("|", "\\|")
        print(f"| {title} | {run.wall:.2f} | {size / run.wall / 1e6:.0f} | {run.cpu:.2f} | {run.peak / 2**20:.0f} |")
    names = list(found)
    for ours, theirs in (names[:2], names[2:]):
        print(f"\nwall, {ours} / {theirs}: {found[ours].wall / found[theirs].wall:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else _NODES, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
