"""What the expressions of a module refer to."""

from collections.abc import Iterator

from tests.terraform.hcl import Block, Body, Expression, parts, text_of

Reference = tuple[str, ...]
"""``("var", "classes")``, ``("aws_s3_bucket", "this", "arn")``: names and attributes, without indexes."""
_WORDS = frozenset({"type", "providers"})
"""Arguments that hold no expression but words of Terraform; a block ``terraform`` holds nothing else."""


def references(body: Body, bound: frozenset[str] = frozenset()) -> Iterator[Reference]:
    """Of all expressions in ``body``, but for names that it binds itself: those of loops and of dynamic blocks."""
    for name, value in body.arguments.items():
        if name not in _WORDS:
            yield from _in_expression(value, bound)
    for block in body.blocks:
        if block.type == "terraform":
            continue
        yield from references(block.body, bound | _bound_by(block))


def _bound_by(block: Block) -> frozenset[str]:
    names = set(block.labels[:1]) if block.type == "dynamic" else set()
    return frozenset(names | ({"each"} if "for_each" in block.body.arguments and block.type != "dynamic" else set()))


def _in_expression(tree: Expression, bound: frozenset[str]) -> Iterator[Reference]:
    if tree.data in ("for_tuple_expr", "for_object_expr"):
        intro, *rest = parts(tree)
        *names, collection = parts(intro)
        yield from _in_expression(collection, bound)
        for child in rest:
            yield from _in_expression(child, bound | {text_of(name) for name in names})
        return
    if tree.data == "object_elem_key" and _is_bare(tree):
        return
    chain = _chain(tree)
    if chain is not None:
        if chain[0] not in bound:
            yield chain
        yield from _in_indexes(tree, bound)
        return
    children = parts(tree)
    for child in children[1:] if tree.data == "function_call" else children:
        yield from _in_expression(child, bound)


def _is_bare(key: Expression) -> bool:
    (written,) = parts(key)
    return written.data == "expr_term" and parts(written)[0].data == "identifier"


def _chain(tree: Expression) -> Reference | None:
    """``a.b[0].c`` as names; None for what does not begin with a name."""
    match str(tree.data), parts(tree):
        case "identifier", _:
            return (text_of(tree),)
        case "expr_term", [inner]:
            return _chain(inner)
        case "get_attr_expr_term", [whole, attribute]:
            begun = _chain(whole)
            return None if begun is None else (*begun, text_of(parts(attribute)[0]))
        case "index_expr_term", [whole, _]:
            return _chain(whole)
    return None


def _in_indexes(tree: Expression, bound: frozenset[str]) -> Iterator[Reference]:
    match str(tree.data), parts(tree):
        case "expr_term", [inner]:
            yield from _in_indexes(inner, bound)
        case "get_attr_expr_term", [whole, _]:
            yield from _in_indexes(whole, bound)
        case "index_expr_term", [whole, index]:
            yield from _in_indexes(whole, bound)
            yield from _in_expression(index, bound)
