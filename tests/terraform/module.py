"""A module with its variables set: what its locals, outputs and resources then are.

What only AWS knows is made up by the test: the attributes of resources and of data sources.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.terraform.expressions import evaluate, pairs
from tests.terraform.hcl import Block, Body, Expression, parse_module, parts, text_of


class InvalidError(Exception):
    """The variables are not what the module takes; the message is the module's own where it has one."""


class _Lazy(Mapping[str, Any]):
    """Locals: each is evaluated when it is asked for."""

    def __init__(self, module: "Module") -> None:
        self._module = module
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = evaluate(self._module.local_expressions[name], self._module.scope)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.local_expressions)

    def __len__(self) -> int:
        return len(self._module.local_expressions)


class Module:
    """``attributes`` are those of resources by type and name, and of data sources below ``data``."""

    def __init__(self, directory: Path, variables: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        self.body: Body = parse_module(directory)
        self.scope: dict[str, Any] = {**attributes, "path": {"module": str(directory)}, "local": _Lazy(self)}
        self.scope["var"] = {
            block.labels[0]: _value(block, variables, self.scope) for block in self.body.of_type("variable")
        }
        for block in self.body.of_type("variable"):
            for rule in block.body.of_type("validation"):
                if not evaluate(rule.body.arguments["condition"], self.scope):
                    raise InvalidError(evaluate(rule.body.arguments["error_message"], self.scope))

    @cached_property
    def local_expressions(self) -> dict[str, Expression]:
        return {name: value for block in self.body.of_type("locals") for name, value in block.body.arguments.items()}

    def local(self, name: str) -> Any:
        return self.scope["local"][name]

    def output(self, name: str) -> Any:
        (block,) = [block for block in self.body.of_type("output") if block.labels == (name,)]
        return evaluate(block.body.arguments["value"], self.scope)

    def resource(self, kind: str, name: str, each: Any = None) -> dict[str, Any]:
        """Its arguments, and lists of its blocks by type; ``each`` is its key where it has ``for_each``."""
        (block,) = [block for block in self.body.of_type("resource") if block.labels == (kind, name)]
        scope = dict(self.scope)
        if "for_each" in block.body.arguments:
            scope["each"] = {"key": each, "value": dict(pairs(evaluate(block.body.arguments["for_each"], scope)))[each]}
        return _rendered(block.body, scope)

    def called(self, name: str) -> dict[str, Any]:
        """What it gives to another module."""
        (block,) = [block for block in self.body.of_type("module") if block.labels == (name,)]
        arguments = block.body.arguments
        return {key: evaluate(arguments[key], self.scope) for key in arguments.keys() - {"source", "providers"}}


def _rendered(body: Body, scope: Mapping[str, Any]) -> dict[str, Any]:
    skipped = ("count", "for_each", "depends_on", "provider")
    found = {name: evaluate(value, scope) for name, value in body.arguments.items() if name not in skipped}
    for block in body.blocks:
        if block.type == "dynamic":
            (content,) = block.body.of_type("content")
            kind = block.labels[0]
            for key, value in pairs(evaluate(block.body.arguments["for_each"], scope)):
                inner = {**scope, kind: {"key": key, "value": value}}
                found.setdefault(kind, []).append(_rendered(content.body, inner))
        else:
            found.setdefault(block.type, []).append(_rendered(block.body, scope))
    return found


def _value(block: Block, given: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    name, arguments = block.labels[0], block.body.arguments
    nullable = "nullable" not in arguments or evaluate(arguments["nullable"], scope)
    value = given.get(name)
    if value is None and (name not in given or not nullable) and "default" in arguments:
        value = evaluate(arguments["default"], scope)
    elif value is None and (name not in given or not nullable):
        raise InvalidError(f"{name} is missing")
    return _converted(value, arguments["type"], name, scope)


def _converted(value: Any, kind: Expression, name: str, scope: Mapping[str, Any]) -> Any:
    """``value`` as the type ``kind`` has it: fields that it does not know go, those that are optional come."""
    if value is None:
        return None
    (inner,) = parts(kind)
    if inner.data == "identifier" and text_of(inner) == "any":
        return value
    if inner.data == "identifier":
        if type(value) not in _SIMPLE[text_of(inner)]:
            raise InvalidError(f"{name}: expected {text_of(inner)}, got {value!r}")
        return value
    function, arguments = parts(inner)
    (argument, *_) = parts(arguments)
    match text_of(function), value:
        case "map", dict():
            return {key: _converted(item, argument, name, scope) for key, item in value.items()}
        case "list" | "set", list() | set():
            items = [_converted(item, argument, name, scope) for item in value]
            return items if text_of(function) == "list" else set(items)
        case "object", dict():
            return _converted_object(value, parts(argument)[0], name, scope)
    raise InvalidError(f"{name}: expected {text_of(function)}, got {value!r}")


def _converted_object(value: dict[str, Any], kind: Expression, name: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for element in parts(kind):
        key, wanted = parts(element)
        field = text_of(parts(parts(key)[0])[0])
        call = parts(wanted)[0]
        default = None
        if call.data == "function_call" and text_of(parts(call)[0]) == "optional":
            wanted, *rest = parts(parts(call)[1])
            default = evaluate(rest[0], scope) if rest else None
        elif field not in value:
            raise InvalidError(f"{name}: {field} is missing")
        item = value.get(field)
        found[field] = _converted(default if item is None else item, wanted, f"{name}.{field}", scope)
    return found


_SIMPLE: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "bool": (bool,)}
