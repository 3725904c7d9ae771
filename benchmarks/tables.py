"""Results as tables in Markdown."""

from collections.abc import Mapping

from benchmarks.link import Line
from benchmarks.results import Measured, Phase, Result

PHASES: Mapping[Phase, str] = {"first": "first backup", "changed": "after 1 % changed", "restore": "restore"}
_LOCAL = ("CPU s", "server's CPU s", "peak RssAnon MiB", "stored MB")
_LINE = ("sent MB", "received MB", "requests", "of the line", "stored MB")


def title(result: Result) -> str:
    """What a trial is about, as a heading."""
    size = f"{result.size / 1e9:.1f} GB" if result.size >= 1e9 else f"{result.size / 1e6:.0f} MB"
    what = {"environment": "An environment of", "files": "Small files,", "media": "Incompressible media,"}[result.kind]
    return f"{what} {size}{'' if result.line is None else ', ' + _line(result.line)}"


def table(result: Result) -> str:
    """One row for each phase and contender, with wall times also relative to the first contender's."""
    columns = ("phase", "contender", "wall s", "relative", *(_LINE if result.line else _LOCAL))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for phase, medians in result.phases():
        for one in medians:
            figures = _local(one) if result.line is None else _over_line(one, result.line)
            relative = one.wall / medians[0].wall
            cells = (PHASES[phase], one.contender, f"{one.wall:.2f}", f"{relative:.2f}", *figures)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def report(results: Mapping[str, Result]) -> str:
    """All tables, and what they were measured on."""
    parts = []
    for number, group in enumerate(_by_machine(results)):
        any_of_them = next(iter(group.values()))
        versions = ", ".join(f"{name}: {version}" for name, version in any_of_them.versions.items())
        parts.append(f"{'Machine' if number == 0 else 'Another run'}: {any_of_them.machine}.\n\nVersions: {versions}.")
        for name, result in group.items():
            runs = "1 run" if result.runs == 1 else f"medians of {result.runs} runs"
            parts.append(f"### {title(result)}\n\n`{name}`, {result.date}, {runs}.\n\n{table(result)}")
    return "\n\n".join(parts) + "\n"


def _by_machine(results: Mapping[str, Result]) -> list[dict[str, Result]]:
    groups: list[dict[str, Result]] = []
    for name, result in results.items():
        for group in groups:
            other = next(iter(group.values()))
            if (other.machine, other.versions) == (result.machine, result.versions):
                group[name] = result
                break
        else:
            groups.append({name: result})
    return groups


def _local(one: Measured) -> tuple[str, ...]:
    return f"{one.cpu:.1f}", f"{one.server_cpu:.1f}", f"{one.peak / 2**20:.0f}", f"{one.stored / 1e6:,.0f}"


def _over_line(one: Measured, line: Line) -> tuple[str, ...]:
    # The direction that had more to carry is the one that could be full.
    share = max(one.sent, one.received) / one.wall / line.rate
    return (
        f"{one.sent / 1e6:,.1f}", f"{one.received / 1e6:,.1f}", f"{one.requests:,.0f}", f"{share:.0%}",
        f"{one.stored / 1e6:,.0f}",
    )  # fmt: skip


def _line(line: Line) -> str:
    return f"over {line.rate * 8 / 1e6:.0f} Mbit/s and {line.round_trip * 1e3:.0f} ms"
