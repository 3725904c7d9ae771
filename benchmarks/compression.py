"""``python -m benchmarks.compression NAME=FILE …``: what each zstd level makes of frames of 4 MiB, and what it takes.

One thread, CPU seconds; all ways in turn, several rounds, the best of each. Prints a table in Markdown. The last lines
show what the stock format costs for vectors: the same bytes in four planes, one for each byte of a little-endian f32,
as a format of our own could have stored them.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import zstandard

from archiver.stages.frames import FRAME_SIZE

_FRAMES = 16
"""Per file, spread over it."""
_LEVELS = (-5, -1, 1, 2, 3, 4, 5, 6, 9, 12, 15, 19)
_PLANES = (1, 3, 6)
_SLOW = 9
"""Levels above this one get a single round."""
_ROUNDS = 5

Way = Callable[[bytes], bytes]


def main(files: Mapping[str, Path]) -> None:
    """Measure every way on the frames of each file, then print a row for each way."""
    samples = {name: sample(path) for name, path in files.items()}
    once = ways(level for level in _LEVELS if level > _SLOW)
    often = ways(level for level in _LEVELS if level <= _SLOW) | plane_ways()
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for number in range(_ROUNDS):
        for title, way in (often if number else once | often).items():
            for name, frames in samples.items():
                ratio, speed = measured(way, frames)
                best[title, name] = ratio, max(speed, best.get((title, name), (0, 0))[1])
    print(f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, {_FRAMES} frames of {FRAME_SIZE:,} bytes of each file\n")
    print("| level | " + " | ".join(f"{name}: stored | MB/s" for name in samples) + " |")
    print("|---" * (1 + 2 * len(samples)) + "|")
    for title in ways(_LEVELS) | often:
        figures = (best[title, name] for name in samples)
        print(f"| {title} | " + " | ".join(f"{ratio:.3f} | {speed:.0f}" for ratio, speed in figures) + " |")


def ways(levels: Iterable[int]) -> dict[str, Way]:
    """zstd as it is."""
    return {f"{level}": zstandard.ZstdCompressor(level=level).compress for level in levels}


def plane_ways() -> dict[str, Way]:
    """zstd of the same bytes in another order."""

    def way(compressor: zstandard.ZstdCompressor, frame: bytes) -> bytes:
        return compressor.compress(planes(frame))

    return {f"{level}, bytes in planes": partial(way, zstandard.ZstdCompressor(level=level)) for level in _PLANES}


def sample(path: Path) -> list[bytes]:
    """Frames from the start of equal shares of the file."""
    share = path.stat().st_size // _FRAMES
    with path.open("rb") as file:
        frames = []
        for number in range(_FRAMES):
            file.seek(number * share)
            frames.append(file.read(FRAME_SIZE))
    return frames


def planes(frame: bytes) -> bytes:
    """First the lowest byte of every four, then the second, and so on."""
    return b"".join(frame[plane::4] for plane in range(4))


def measured(way: Way, frames: list[bytes]) -> tuple[float, float]:
    """What remains of the frames, as a share of them, and MB of plaintext for each CPU second of this thread."""
    way(frames[0])
    began = time.thread_time()
    stored = sum(len(way(frame)) for frame in frames)
    seconds = time.thread_time() - began
    size = sum(map(len, frames))
    return stored / size, size / seconds / 1e6


if __name__ == "__main__":
    main({name: Path(path) for name, path in (argument.split("=", 1) for argument in sys.argv[1:])})
