"""Puts the results into the document: tables between two marks, the plot and the figures themselves beside it."""

from collections.abc import Mapping

from benchmarks import results
from benchmarks.plot import plot
from benchmarks.results import Result
from benchmarks.tables import report
from tests.servers.process import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "BENCHMARKS.md"
_BEGIN = "<!-- scripts/bench --document writes from here -->\n"
_END = "<!-- to here -->\n"
_IMAGE = "![Wall times relative to archiver](benchmarks.svg)"


def write_document(kept: Mapping[str, Result]) -> None:
    """Write BENCHMARKS.md, benchmarks.svg and benchmarks.json."""
    DOCUMENT.write_text(filled(DOCUMENT.read_text(), f"{_IMAGE}\n\n{report(kept)}"))
    DOCUMENT.with_name("benchmarks.svg").write_text(plot(kept))
    results.write(DOCUMENT.with_name("benchmarks.json"), kept)


def filled(text: str, between: str) -> str:
    """``text`` with ``between`` in place of what stood between the marks."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} lacks one of the marks {_BEGIN.strip()} and {_END.strip()}")
    return f"{before}{begin}\n{between}\n{end}{after}"
