"""Nothing that a backup or a restore does deletes a key: who calls Store.delete is known by name."""

import ast
from pathlib import Path

ARCHIVER = Path(__file__).parent.parent / "archiver"
ALLOWED = {
    # An administrator takes an operator's files away.
    ("operations/keys_remove.py", "store.delete"),
    # Not a store's: doctor tries with a random key whether deleting is refused, and says what came of it.
    ("operations/doctor_destination.py", "probe.delete"),
    ("operations/doctor_destination.py", "permissions.delete"),
}


def uses(text: str) -> set[str]:
    """Every way in which ``text`` gets at an attribute called ``delete``, as source code."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr == "delete":
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Constant) and node.value == "delete":
            found.add("'delete'")
    return found


def test_uses_are_found_however_they_are_written() -> None:
    assert uses("self._archive.store.delete(key)\nlist(map(store.delete, keys))") == {
        "self._archive.store.delete",
        "store.delete",
    }
    assert uses("getattr(store, 'delete')(key)") == {"'delete'"}
    assert uses("def delete(self): ...\nclient.delete_object()") == set()


def test_who_deletes() -> None:
    found = {
        (str(path.relative_to(ARCHIVER)), use)
        for path in ARCHIVER.rglob("*.py")
        for use in uses(path.read_text("utf-8"))
    }
    assert found == ALLOWED
