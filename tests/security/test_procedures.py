"""The procedures of docs/SECURITY.md: their commands, as they stand there, lead to where the page says."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.operations.operators import add, make_operator
from tests.operations.scene import Scene, archiver
from tests.security.house import ago, backup_from, forge, make_house, signing_key
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE

TEXT = (REPOSITORY / "docs" / "SECURITY.md").read_text("utf-8")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A source with an old backup, its configuration, card and keys in the working directory."""
    monkeypatch.chdir(tmp_path)
    scene = make_house(tmp_path)
    backup_from(scene, ago(days=10))
    scene.card.rename(tmp_path / "recovery-card.txt")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "archiver").write_text(f'#!/bin/sh\nexec {sys.executable} -m archiver "$@"\n')
    (programs / "archiver").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return scene


def blocks(heading: str, language: str = "sh") -> list[str]:
    """The blocks below a heading, in order."""
    section = TEXT.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return found


def do(block: str, codes: Mapping[str, int] | None = None) -> dict[str, str]:
    """Run each line with bash; all must succeed, warnings aside. ``codes`` are those that the page gives for lines that
    begin so."""
    outputs = {}
    for line in block.splitlines():
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE)
        allowed = [code for beginning, code in (codes or {}).items() if line.startswith(beginning)] or [0, 3]
        assert done.returncode in allowed, (line, done.stdout, done.stderr)
        outputs[line] = done.stdout + done.stderr
    return outputs


def second_operator(scene: Scene, name: str) -> None:
    operator = make_operator(scene, name)
    scene.card.write_text((scene.root / "recovery-card.txt").read_text())
    assert add(scene, operator).code == 0
    scene.card.unlink()


def rename_first(scene: Scene) -> None:
    """The page calls the operator who has to go ``alice``."""
    text = scene.config.read_text()
    scene.config.write_text(text.replace('\ntest = "age1', '\nalice = "age1'))
    for path in scene.destination.glob("vault/*/*/test.age"):
        path.rename(path.with_name("alice.age"))


def opens(identity: str, backup: str = "latest") -> bool:
    done = archiver("verify", backup, "--level", "data", "--identity", identity, "--config", "archiver.toml")
    assert done.code in (0, 4), done.errors
    return done.code == 0


def test_the_backup_host_was_stolen(house: Scene) -> None:
    generate, rest = blocks("The backup host was stolen")
    (toml,) = blocks("The backup host was stolen", "toml")
    (old,) = {path.parent.name for path in house.destination.glob("daily/backups/*/*/manifest.json")}
    stolen = signing_key(house)
    (new_key,) = [output.strip() for output in do(generate).values()]
    table = toml.replace("NEW-KEY", new_key).replace("OLD-KEY", str(stolen.verify_key))
    table = table.replace("2026-11-20T00:00:00Z", f"{ago(days=5):%Y-%m-%dT%H:%M:%SZ}")
    text = house.config.read_text()
    signing = re.search(r"^\[signing\]\n.*?(?=^\[)", text, re.DOTALL | re.MULTILINE)
    assert signing is not None
    house.config.write_text(text.replace(signing[0], f"{table}\n"))
    forged = forge(house, old, ago(days=8), stolen)

    outputs = do(rest, {"archiver list": 4, "archiver verify --all": 4, "archiver keys check": 3, "archiver backup": 3})

    assert f"{forged} " in next(iter(outputs.values()))
    assert "is revoked since" in next(iter(outputs.values()))
    new_card = ("--identity", "recovery-card-2.txt")
    assert archiver("verify", "latest", "--level", "data", *new_card).code == 0
    assert archiver("verify", old, "--level", "data", *new_card).code == 0
    assert archiver("verify", forged, *new_card).code == 4
    # What the page says of old cards: they believe the stolen key, and not the new one.
    assert archiver("verify", "latest", "--identity", "recovery-card.txt").code == 4


def test_an_operators_key_was_stolen(house: Scene) -> None:
    second_operator(house, "bob")
    rename_first(house)
    old = house.root.joinpath("recovery-card.txt").read_text()
    vault = re.compile(r"^vault = .*$", re.MULTILINE)
    other_host = Path("other-host.toml")
    other_host.write_text(house.config.read_text())
    assert opens("recovery-card.txt")
    (block,) = blocks("An operator's key was stolen")

    do(block)

    Path("stolen.txt").write_text(old)
    for identity, expected in (("stolen.txt", False), ("bob.txt", True), ("recovery-card-2.txt", True)):
        assert opens(identity) == expected, identity
    first = min(path.name for path in house.destination.glob("daily/backups/*/*"))
    assert opens("recovery-card-2.txt", first)
    # Why the new key gets another name: a host that has the new vault line and still the old operators is noticed.
    (line,) = vault.findall(house.config.read_text())
    other_host.write_text(vault.sub(line, other_host.read_text()))
    said = archiver("doctor", "--config", str(other_host))
    assert "there is no alice.age" in said.output
    assert "alice-2.age belongs to no operator" in said.output


def test_a_key_is_lost_and_another_operator_is_left(house: Scene) -> None:
    second_operator(house, "bob")
    rename_first(house)
    Path("recovery-card.txt").unlink()

    do(blocks("An operator's key or card is lost")[0])

    assert opens("bob.txt")
    assert opens("recovery-card-2.txt")


def test_nobody_is_left(house: Scene) -> None:
    Path("recovery-card.txt").unlink()
    generate, begin = blocks("An operator's key or card is lost")[1:]
    (toml,) = blocks("An operator's key or card is lost", "toml")
    (recipient,) = [output.strip() for output in do(generate).values()]
    text = house.config.read_text()
    operators = re.search(r"^\[source\.prod\.operators\]\n(#.*\n)*(\w+ = .*\n)+", text, re.MULTILINE)
    assert operators is not None
    house.config.write_text(text.replace(operators[0], toml.replace("NEW-RECIPIENT", recipient)))

    do(begin)

    assert opens("recovery-card-2.txt")
    done = archiver("keys", "check", "--identity", "recovery-card-2.txt")
    assert done.code == 4, "the page says that old backups are still counted"


def test_the_bucket_may_have_been_tampered_with(house: Scene) -> None:
    (block,) = blocks("The bucket may have been tampered with")
    for output in do(block).values():
        assert "archiver: " not in output
    (path,) = house.destination.glob("daily/data/prod/*.tar.zst.age")
    path.write_bytes(path.read_bytes()[::-1])
    (own,) = house.destination.glob("vault/*/*/*.age")
    (own.parent / "planted.age").write_bytes(own.read_bytes())

    list_, verify, show = do(block, {"archiver verify": 4}).values()

    assert "archiver: " not in list_
    assert path.name in verify
    assert "planted" in show
