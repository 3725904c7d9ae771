"""Wall times as bars in an SVG, relative to the first contender of each phase. Standard library only."""

from collections.abc import Mapping
from xml.etree import ElementTree as Xml

from benchmarks.results import Result
from benchmarks.tables import PHASES, title

_WIDTH = 760
_LEFT = 190
_RIGHT = 110
_BAR = 14
_GAP = 10
_HEADING = 34
_LONGEST = 4.0
"""Bars beyond it are cut; their label says what they are."""
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Of Okabe and Ito: those who see fewer colours can tell them apart."""


def plot(results: Mapping[str, Result]) -> str:
    """An SVG with a panel for each trial and a bar for each contender in each phase."""
    root = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "font-family": "sans-serif"})
    Xml.SubElement(root, "rect", width="100%", height="100%", fill="white")
    top = 28.0
    _text(root, 10, top, "Wall time relative to archiver (shorter is faster)", size=15, weight="bold")
    for result in results.values():
        top = _panel(root, top + _HEADING, result)
    root.set("viewBox", f"0 0 {_WIDTH} {top + _GAP:.0f}")
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"


def _panel(root: Xml.Element, top: float, result: Result) -> float:
    """Draw a trial below ``top``; returns where it ends."""
    _text(root, 10, top, title(result), size=13, weight="bold")
    top += _GAP
    one_at = f"{_across(1):.1f}"
    ruler = Xml.SubElement(root, "line", {"x1": one_at, "x2": one_at, "y1": f"{top}", "stroke": "#999"})
    for phase, medians in result.phases():
        for number, one in enumerate(medians):
            relative = one.wall / medians[0].wall
            end = _across(min(relative, _LONGEST))
            middle = top + _BAR - 3
            if number == 0:
                _text(root, 10, middle, PHASES[phase], size=12)
            _text(root, _LEFT - 6, middle, one.contender, size=11, anchor="end")
            Xml.SubElement(
                root, "rect", x=f"{_LEFT}", y=f"{top:.0f}", width=f"{end - _LEFT:.1f}", height=f"{_BAR - 2}",
                fill=_COLOURS[number % len(_COLOURS)],
            )  # fmt: skip
            cut = " →" if relative > _LONGEST else ""
            _text(root, end + 4, middle, f"{relative:.2f}{cut} ({one.wall:.1f} s)", size=11)
            top += _BAR
        top += _GAP
    ruler.set("y2", f"{top - _GAP}")
    return top


def _across(relative: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * relative / _LONGEST


def _text(
    root: Xml.Element, x: float, y: float, text: str, *, size: int, weight: str = "normal", anchor: str = "start"
) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    element = Xml.SubElement(root, "text", place | {"fill": "#222", "font-size": f"{size}", "font-weight": weight})
    element.text = text
