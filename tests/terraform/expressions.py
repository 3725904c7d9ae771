"""Terraform's expressions, as far as terraform/ uses them; ``ValueError`` for whatever is not known here.

test_terraform.py compares this with Terraform itself, where that is installed.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lark import Token

from tests.terraform.functions import FUNCTIONS
from tests.terraform.hcl import Expression, parts, text_of, tokens

Scope = Mapping[str, Any]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "&&": lambda left, right: left and right,
    "||": lambda left, right: left or right,
    "<=": lambda left, right: left <= right,
    ">=": lambda left, right: left >= right,
    "<": lambda left, right: left < right,
    ">": lambda left, right: left > right,
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
}
_ESCAPES = {'\\"': '"', "\\\\": "\\", "$${": "${"}


def evaluate(tree: Expression, scope: Scope) -> Any:
    """The value of an expression, in Python's types; names that it uses are looked up in ``scope``."""
    kind = str(tree.data)
    if kind not in _EVALUATORS:
        raise ValueError(f"this evaluator does not know {kind} of HCL")
    return _EVALUATORS[kind](tree, scope)


def _only(tree: Expression, scope: Scope) -> Any:
    (inner,) = parts(tree)
    return evaluate(inner, scope)


def _string(tree: Expression, scope: Scope) -> Any:
    pieces = [_string_part(part, scope) for part in parts(tree)]
    if any(piece is None or isinstance(piece, (list, dict, set)) for piece in pieces):
        raise ValueError(f"{pieces} cannot be joined to a text")
    return "".join(str(piece).lower() if isinstance(piece, bool) else str(piece) for piece in pieces)


def _string_part(tree: Expression, scope: Scope) -> Any:
    (child,) = tree.children
    if not isinstance(child, Token):
        return _only(child, scope)
    text = str(child)
    for written, meant in _ESCAPES.items():
        text = text.replace(written, meant)
    return text


def _number(tree: Expression, scope: Scope) -> int:
    return int(text_of(tree))


def _literal(tree: Expression, scope: Scope) -> bool | None:
    return {"true": True, "false": False, "null": None}[text_of(tree)]


def _name(tree: Expression, scope: Scope) -> Any:
    name = text_of(tree)
    if name not in scope:
        raise ValueError(f"nothing is called {name}")
    return scope[name]


def _attribute(tree: Expression, scope: Scope) -> Any:
    whole, attribute = parts(tree)
    (name,) = parts(attribute)
    return _element(evaluate(whole, scope), text_of(name))


def _indexed(tree: Expression, scope: Scope) -> Any:
    whole, index = parts(tree)
    return _element(evaluate(whole, scope), _only(index, scope))


def _element(whole: Any, key: Any) -> Any:
    try:
        return whole[key]
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{whole!r} has no {key!r}") from None


def _conditional(tree: Expression, scope: Scope) -> Any:
    condition, yes, no = parts(tree)
    return evaluate(yes if evaluate(condition, scope) else no, scope)


def _binary(tree: Expression, scope: Scope) -> Any:
    left, term = parts(tree)
    operator, right = parts(term)
    return _OPERATORS[text_of(operator)](evaluate(left, scope), evaluate(right, scope))


def _unary(tree: Expression, scope: Scope) -> Any:
    value = _only(tree, scope)
    return not value if tokens(tree)[0] == "!" else -value


def _tuple(tree: Expression, scope: Scope) -> list[Any]:
    return [evaluate(item, scope) for item in parts(tree)]


def _object(tree: Expression, scope: Scope) -> dict[str, Any]:
    return dict(_object_element(element, scope) for element in parts(tree))


def _object_element(tree: Expression, scope: Scope) -> tuple[str, Any]:
    key, value = parts(tree)
    (written,) = parts(key)
    bare = [part for part in parts(written) if part.data == "identifier"] if written.data == "expr_term" else []
    return text_of(bare[0]) if bare else str(evaluate(written, scope)), evaluate(value, scope)


def _list_for(tree: Expression, scope: Scope) -> list[Any]:
    intro, value, *condition = parts(tree)
    return [evaluate(value, inner) for inner in _loop(intro, condition, scope)]


def _object_for(tree: Expression, scope: Scope) -> dict[str, Any]:
    intro, key, value, *condition = parts(tree)
    return {evaluate(key, inner): evaluate(value, inner) for inner in _loop(intro, condition, scope)}


def _loop(intro: Expression, condition: list[Expression], scope: Scope) -> list[Scope]:
    """A scope for each element that is not left out, in Terraform's order: that of the keys."""
    *names, collection = parts(intro)
    inner = [
        {**scope, **dict(zip([text_of(name) for name in names], pair[-len(names) :], strict=True))}
        for pair in pairs(evaluate(collection, scope))
    ]
    return [each for each in inner if all(_only(test, each) for test in condition)]


def pairs(collection: Any) -> list[tuple[Any, Any]]:
    """Keys and values as a loop meets them; in a set both are the element."""
    if isinstance(collection, Mapping):
        return sorted(collection.items())
    if isinstance(collection, set):
        return [(element, element) for element in sorted(collection)]
    return list(enumerate(collection))


def _call(tree: Expression, scope: Scope) -> Any:
    name, *rest = parts(tree)
    function = text_of(name)
    given = parts(rest[0]) if rest else []
    if function == "can":
        try:
            evaluate(given[0], scope)
        except ValueError:
            return False
        return True
    values = [evaluate(argument, scope) for argument in given]
    if rest and any(token == "..." for token in tokens(rest[0])):
        values = [*values[:-1], *values[-1]]
    if function in _FILES:
        return _FILES[function](*values)
    if function not in FUNCTIONS:
        raise ValueError(f"this evaluator does not know the function {function} of Terraform")
    return FUNCTIONS[function](*values)


def _file_set(directory: str, pattern: str) -> set[str]:
    return {path.name for path in Path(directory).glob(pattern)}


_FILES: dict[str, Callable[..., Any]] = {
    "file": lambda path: Path(path).read_text("utf-8"),
    "fileexists": lambda path: Path(path).is_file(),
    "fileset": _file_set,
    "jsondecode": json.loads,
    "jsonencode": json.dumps,
}
_EVALUATORS: dict[str, Callable[[Expression, Scope], Any]] = {
    "expr_term": _only,
    "string": _string,
    "int_lit": _number,
    "literal_value": _literal,
    "identifier": _name,
    "get_attr_expr_term": _attribute,
    "index_expr_term": _indexed,
    "conditional": _conditional,
    "binary_op": _binary,
    "unary_op": _unary,
    "tuple": _tuple,
    "object": _object,
    "for_tuple_expr": _list_for,
    "for_object_expr": _object_for,
    "function_call": _call,
}
