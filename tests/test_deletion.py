"""Nothing that a backup or a restore does deletes a key, or makes one deletable: who does is known by name."""

import ast
from pathlib import Path

ARCHIVER = Path(__file__).parent.parent / "archiver"
ALLOWED = {
    # An administrator takes an operator's files away.
    ("operations/keys_remove.py", "store.delete"),
    # An administrator gives up a copy that is held.
    ("operations/release.py", "store.delete"),
    # An administrator, or cron beside a directory, does what a bucket's lifecycle rules do.
    ("operations/expire.py", "store.delete"),
    # What it says it is doing.
    ("operations/expire.py", "'delete'"),
    # Not a store's: what this host remembers of unchanged files, in its own LMDB.
    ("environment/state.py", "transaction.delete"),
    # Not a store's: doctor tries with a random key whether deleting is refused, and says what came of it.
    ("operations/doctor_destination.py", "probe.delete"),
    ("operations/doctor_destination.py", "permissions.delete"),
}


UNLOCKING = {("operations/release.py", "store.unlock"), ("operations/expire.py", "store.unlock")}
"""What is held is deleted by these alone."""


def uses(text: str, name: str = "delete") -> set[str]:
    """Every way in which ``text`` gets at an attribute called ``name``, as source code."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr == name:
            found.add(ast.unparse(node))
        elif isinstance(node, ast.Constant) and node.value == name:
            found.add(f"'{name}'")
    return found


def test_uses_are_found_however_they_are_written() -> None:
    assert uses("self._archive.store.delete(key)\nlist(map(store.delete, keys))") == {
        "self._archive.store.delete",
        "store.delete",
    }
    assert uses("getattr(store, 'delete')(key)") == {"'delete'"}
    assert uses("def delete(self): ...\nclient.delete_object()") == set()


def test_who_deletes() -> None:
    assert everywhere("delete") == ALLOWED


def test_who_takes_a_legal_hold_off() -> None:
    # Vaults and reader slots are unlocked too.
    found = {(path, use) for path, use in everywhere("unlock") if "store" in use or use == "'unlock'"}
    assert found == UNLOCKING


def everywhere(name: str) -> set[tuple[str, str]]:
    """By file every use in archiver."""
    return {
        (str(path.relative_to(ARCHIVER)), use)
        for path in ARCHIVER.rglob("*.py")
        for use in uses(path.read_text("utf-8"), name)
    }
