"""Every name that terraform/ uses is there, and what is there is used: in place of ``terraform validate``."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.terraform.hcl import MODULES, TERRAFORM, Block, Body, parse_module, text_of
from tests.terraform.provider import ARGUMENTS, ATTRIBUTES
from tests.terraform.references import Reference, references

_OF_TERRAFORM = frozenset({"count", "for_each", "depends_on", "provider", "lifecycle"})
_OF_MODULES = frozenset({"source", "providers", "count", "for_each", "depends_on"})
modules = pytest.mark.parametrize("directory", MODULES, ids=lambda path: path.name)


def declared(module: Body) -> dict[str, set[str]]:
    """Names by what begins a reference to them."""
    found: dict[str, set[str]] = {
        "var": {block.labels[0] for block in module.of_type("variable")},
        "local": {name for block in module.of_type("locals") for name in block.body.arguments},
        "module": {block.labels[0] for block in module.of_type("module")},
    }
    for kind, begins in (("resource", ""), ("data", "data.")):
        for block in module.of_type(kind):
            found.setdefault(begins + block.labels[0], set()).add(block.labels[1])
    return found


def joined(reference: Reference) -> Reference:
    """A data source's reference with ``data.TYPE`` as one word."""
    return (f"data.{reference[1]}", *reference[2:]) if reference[0] == "data" else reference


def used(module: Body) -> set[Reference]:
    return {joined(reference) for reference in references(module)}


def child(directory: Path, block: Block) -> Body:
    """The module that a module block calls."""
    source = block.body.arguments["source"]
    (inner,) = [part for part in source.iter_subtrees() if part.data == "string"]
    return parse_module((directory / text_of(inner)).resolve())


def names(body: Body, begin: str = "") -> Iterator[str]:
    """``rule``, ``rule.id``: arguments and blocks of a resource, as ``ARGUMENTS`` has them."""
    yield from (begin + name for name in body.arguments if begin or name not in _OF_TERRAFORM)
    for block in body.blocks:
        if block.type == "dynamic":
            (content,) = block.body.of_type("content")
            yield begin + block.labels[0]
            yield from names(content.body, f"{begin}{block.labels[0]}.")
        elif begin or block.type not in _OF_TERRAFORM:
            yield begin + block.type
            yield from names(block.body, f"{begin}{block.type}.")


def test_all_modules_are_known_here() -> None:
    assert {path.parent for path in TERRAFORM.rglob("*.tf") if ".terraform" not in path.parts} == set(MODULES)


@modules
def test_every_reference_resolves(directory: Path) -> None:
    module = parse_module(directory)
    there = declared(module)
    found = used(module)

    assert found
    unresolved = [each for each in found if each != ("path", "module") and each[1] not in there.get(each[0], ())]
    assert not unresolved


def test_every_attribute_is_one_that_the_provider_has() -> None:
    found: dict[str, set[str]] = {}
    for directory in MODULES:
        for kind, _, *rest in used(parse_module(directory)):
            if rest and kind not in ("var", "local", "module", "path"):
                found.setdefault(kind, set()).add(rest[0])

    assert found == {kind: set(listed.split()) for kind, listed in ATTRIBUTES.items()}


@modules
def test_nothing_is_declared_in_vain(directory: Path) -> None:
    module = parse_module(directory)
    needed = {each[:2] for each in used(module)}
    kinds = ("var", "local", "module", *(kind for kind in declared(module) if kind.startswith("data.")))
    unused = [(kind, name) for kind in kinds for name in declared(module)[kind] if (kind, name) not in needed]

    assert not unused


@modules
def test_modules_get_what_they_take_and_give_what_is_read(directory: Path) -> None:
    module = parse_module(directory)
    for block in module.of_type("module"):
        called = child(directory, block)
        variables = {each.labels[0]: each.body.arguments for each in called.of_type("variable")}
        given = block.body.arguments.keys() - _OF_MODULES

        assert given <= variables.keys()
        assert {name for name, arguments in variables.items() if "default" not in arguments} <= given
        read = {each[2] for each in used(module) if each[:2] == ("module", block.labels[0])}
        assert read <= {each.labels[0] for each in called.of_type("output")}


def test_every_argument_is_one_that_the_provider_has() -> None:
    found: dict[str, set[str]] = {}
    for directory in MODULES:
        for block in parse_module(directory).of_type("resource"):
            found.setdefault(block.labels[0], set()).update(names(block.body))

    assert found == {kind: set(listed.split()) for kind, listed in ARGUMENTS.items()}


@modules
def test_everything_is_described(directory: Path) -> None:
    module = parse_module(directory)
    for block in (*module.of_type("variable"), *module.of_type("output")):
        assert "description" in block.body.arguments, block.labels


def test_the_page_names_every_input_and_output() -> None:
    page = (TERRAFORM / "README.md").read_text("utf-8")
    for directory in MODULES[:2]:
        module = parse_module(directory)
        for block in (*module.of_type("variable"), *module.of_type("output")):
            assert f"`{block.labels[0]}`" in page, block.labels
