"""Terraform's files as bodies of arguments and blocks, parsed by python-hcl2. Expressions stay lark trees."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import hcl2
from lark import Token, Tree

from tests.servers.process import REPOSITORY

TERRAFORM = REPOSITORY / "terraform"
MODULES = (
    TERRAFORM,
    TERRAFORM / "replication",
    TERRAFORM / "examples" / "single-region",
    TERRAFORM / "examples" / "disaster-recovery",
)
Expression = Tree[Token]
Node = Expression | Token


@dataclass(frozen=True)
class Block:
    """``type "label" ... { ... }``."""

    type: str
    labels: tuple[str, ...]
    body: "Body"


@dataclass
class Body:
    """What stands between braces, or in all files of a module."""

    arguments: dict[str, Expression] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def of_type(self, kind: str) -> Iterator[Block]:
        return (block for block in self.blocks if block.type == kind)


@cache
def parse_module(directory: Path) -> Body:
    """All ``.tf`` files of a directory, as Terraform reads them: as if they were one."""
    module = Body()
    for path in sorted(directory.glob("*.tf")):
        (tree,) = hcl2.parses_to_tree(path.read_text("utf-8")).children
        assert isinstance(tree, Tree)
        module.blocks += parse_body(tree).blocks
    return module


def parse_body(tree: Expression) -> Body:
    body = Body()
    for child in parts(tree):
        if child.data == "attribute":
            name, value = parts(child)
            body.arguments[text_of(name)] = value
        else:
            *names, inner = parts(child)
            kind, *labels = [text_of(name) for name in names]
            body.blocks.append(Block(kind, tuple(labels), parse_body(inner)))
    return body


def parts(tree: Expression) -> list[Expression]:
    """The children that are trees: neither punctuation, nor line breaks and comments."""
    return [child for child in tree.children if isinstance(child, Tree) and child.data != "new_line_or_comment"]


def tokens(tree: Expression) -> list[Token]:
    return [child for child in tree.children if isinstance(child, Token)]


def text_of(tree: Expression) -> str:
    """An identifier, or a string without interpolations."""
    if tree.data == "string":
        return "".join(text_of(part) for part in parts(tree))
    (token,) = tree.children
    return str(token)
