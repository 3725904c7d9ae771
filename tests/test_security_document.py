"""docs/SECURITY.md and the tests belong together: every guarantee has its test, and what the page names is there."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archiver.cli.main import archiver as commands

REPOSITORY = Path(__file__).parents[1]
DOCUMENT = REPOSITORY / "docs" / "SECURITY.md"
TEXT = DOCUMENT.read_text("utf-8")
GUARANTEES = re.findall(r"^- \*\*G(\d+)\.\*\* ", TEXT, re.MULTILINE)
SECTION = TEXT.partition("\n## Guarantees\n")[2].partition("\n## ")[0]


def names_in(path: Path) -> list[str]:
    """The names of the tests in a file."""
    tree = ast.parse(path.read_text("utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def numbered() -> Iterator[tuple[int, Path, str]]:
    """Every test of a guarantee: its number, file and name."""
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for name in names_in(path):
            match = re.match(r"test_g(\d+)_", name)
            if match is not None:
                yield int(match[1]), path, name


def test_the_guarantees_are_numbered_in_order() -> None:
    assert [int(number) for number in GUARANTEES] == list(range(1, len(GUARANTEES) + 1))
    assert len(GUARANTEES) > 30


def test_every_guarantee_has_one_test_and_every_such_test_a_guarantee() -> None:
    assert sorted(number for number, _, _ in numbered()) == [int(number) for number in GUARANTEES]


def test_a_guarantee_is_tested_in_the_file_that_its_heading_names() -> None:
    places = {}
    file = None
    for line in SECTION.splitlines():
        heading = re.fullmatch(r"[A-Z][a-z ]+: `(tests/security/test_guarantees_\w+\.py)`", line)
        if heading is not None:
            file = REPOSITORY / heading[1]
        match = re.match(r"- \*\*G(\d+)\.\*\* ", line)
        if match is not None:
            places[int(match[1])] = file
    assert places == {number: path for number, path, _ in numbered()}


def test_every_test_of_a_guarantee_says_what_it_notices() -> None:
    for _, path, name in numbered():
        tree = ast.parse(path.read_text("utf-8"))
        node = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        assert (ast.get_docstring(node) or "").startswith("Noticed: "), name


def test_every_file_and_test_that_is_cited_exists() -> None:
    cited = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(cited) > 15
    for file, name in cited:
        path = REPOSITORY / file
        assert path.is_file(), file
        assert not name or name in names_in(path), (file, name)


def test_every_number_that_is_mentioned_is_a_guarantee() -> None:
    assert set(re.findall(r"\bG(\d+)\b", TEXT)) <= set(GUARANTEES)


@pytest.mark.parametrize("document", ["SECURITY.md", "RECOVERY.md", "OPERATIONS.md"])
def test_links_lead_somewhere(document: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", (DOCUMENT.parent / document).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for text, place in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", prose):
        file, _, anchor = place.partition("#")
        target = DOCUMENT.parent / (file or document)
        assert target.exists(), (text, place)
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, place


def commands_of_the_page() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return lines + [inline for inline in re.findall(r"`(archiver [^`]*)`", TEXT) if "…" not in inline]


@pytest.mark.parametrize("line", commands_of_the_page())
def test_a_command_and_its_options_exist(line: str) -> None:
    program, *words = shlex.split(line)
    if program.endswith("archiver.toml"):
        return
    assert program == "archiver"
    command: click.Command = commands
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        assert not word.startswith("-") or word in known | {"-"}, (line, word)
