"""archiver init and keys generate: everything is made, or nothing; what is made is enough to restore."""

import os
import stat
from pathlib import Path

import pytest

from tests.environment.live import make_environment
from tests.operations.scene import Done, Scene, archiver, tree


def set_up(root: Path, *arguments: str, source: str = "prod") -> Done:
    return archiver(
        "init",
        "--to",
        (root / "destination").as_uri(),
        "--source",
        source,
        "--config",
        str(root / "archiver.toml"),
        "--card",
        str(root / f"card-{source}.txt"),
        *arguments,
        "--json",
    )


def keep_state_in(root: Path) -> None:
    config = root / "archiver.toml"
    config.write_text('state_directory = "state"\n' + config.read_text())


def test_what_it_makes(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    done = set_up(tmp_path, "--environment", f"vector={tmp_path}/vector")
    assert done.code == 0, done.errors
    for name in ("archiver-signing.key", "card-prod.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name
    config = (tmp_path / "archiver.toml").read_text()
    card = (tmp_path / "card-prod.txt").read_text()
    secret = card.splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path / "vector"]
    assert [path.name for path in files if secret.encode() in path.read_bytes()] == ["card-prod.txt"]
    signing = (tmp_path / "archiver-signing.key").read_text().splitlines()[1]
    assert signing not in config + card
    assert done.document["vault_key"] in {str(path.relative_to(tmp_path / "destination")) for path in files
                                          if path.is_relative_to(tmp_path / "destination")}  # fmt: skip
    keep_state_in(tmp_path)
    assert archiver("backup", "--config", str(tmp_path / "archiver.toml")).code == 0
    out = str(tmp_path / "out")
    assert archiver("restore", "--identity", str(tmp_path / "card-prod.txt"), "--to", out).code == 0


def test_an_operators_own_key(tmp_path: Path) -> None:
    make_environment(tmp_path / "vector", 20)
    made = archiver("keys", "generate", "--output", str(tmp_path / "operator.txt"), "--json")
    assert made.code == 0
    assert stat.S_IMODE((tmp_path / "operator.txt").stat().st_mode) == 0o600
    recipient = made.document["recipient"]
    assert set_up(tmp_path, "--environment", f"vector={tmp_path}/vector", "--recipient", recipient).code == 0
    keep_state_in(tmp_path)
    assert archiver("backup", "--config", str(tmp_path / "archiver.toml")).code == 0
    card = tmp_path / "card-prod.txt"
    refused = archiver("restore", "--identity", str(card), "--to", str(tmp_path / "out"))
    assert (refused.code, (tmp_path / "out").exists()) == (2, False)
    config = str(tmp_path / "archiver.toml")
    with_both = ("--identity", str(tmp_path / "operator.txt"), "--config", config)
    assert archiver("restore", *with_both, "--to", str(tmp_path / "out")).code == 0
    card.write_text(card.read_text() + (tmp_path / "operator.txt").read_text().splitlines()[-1])
    assert archiver("restore", "--identity", str(card), "--to", str(tmp_path / "again")).code == 0


def test_a_second_source_joins_the_first(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_environment(tmp_path / name, 20)
        done = set_up(tmp_path, "--environment", f"vector={tmp_path}/{name}", source=name)
        assert done.code == 0, done.errors
    keep_state_in(tmp_path)
    config = str(tmp_path / "archiver.toml")
    for name in ("one", "two"):
        assert archiver("backup", name, "--config", config).code == 0
        listed = archiver("list", "--identity", str(tmp_path / f"card-{name}.txt"), "--json").document
        assert [item["source"] for item in listed] == [name]
    unnamed = archiver("backup", "--config", config)
    assert unnamed.code == 2
    assert "Name one of: one, two" in unnamed.errors


def test_one_operator_cannot_open_the_others_vault(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_environment(tmp_path / name, 20)
        assert set_up(tmp_path, "--environment", f"vector={tmp_path}/{name}", source=name).code == 0
    keep_state_in(tmp_path)
    config = str(tmp_path / "archiver.toml")
    assert archiver("backup", "one", "--config", config).code == 0
    wrong = ("--identity", str(tmp_path / "card-two.txt"), "--source", "one", "--config", config)
    done = archiver("restore", *wrong, "--to", str(tmp_path / "out"))
    assert done.code == 2
    assert "card-two.txt is the recovery card of source 'two', expected that of 'one'" in done.errors
    # Beside a configuration of several sources, the card says which one is meant.
    right = ("--identity", str(tmp_path / "card-one.txt"), "--config", config)
    assert archiver("verify", *right).code == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["destination", "config", "card", "signing key"])
def test_all_or_nothing(tmp_path: Path, stage: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if stage == "destination":
        (root / "destination").write_text("a file where a directory must be")
    elif stage == "config":
        (root / ".archiver.toml.new").mkdir()
    elif stage == "card":
        (root / "card-prod.txt").write_text("somebody's only key")
    else:
        (root / "archiver-signing.key").write_text("no key")
    before = tree(root, leave_out=[b"destination"])
    done = set_up(root, "--media", str(tmp_path))
    assert done.code != 0
    assert tree(root, leave_out=[b"destination"]) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--environment", "vector"], 2, "invalid --environment 'vector'"),
        (["--environment", "a=/x", "--environment", "a=/y"], 2, "invalid --environment 'a=/y'"),
        (["--environment", "../a=/x"], 2, "../a"),
        (["--environment", "media=/x"], 2, "media"),
        (["--media", "/x", "--ucotron-config", "/y"], 2, "ucotron_config or, instead, environments or media"),
        ([], 2, "ucotron_config or, instead, environments or media"),
        (["--media", "/x", "--recipient", "age1nonsense"], 2, "recipient"),
        (["--media", "/x", "--operator", "Not/a name"], 2, "operator"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    done = archiver(
        "init", "--to", (tmp_path / "destination").as_uri(), "--source", "prod",
        "--config", str(tmp_path / "archiver.toml"), "--card", str(tmp_path / "card.txt"), *arguments,
    )  # fmt: skip
    assert done.code == code, done.errors
    assert message in done.errors
    assert [name for name in os.listdir(tmp_path) if name != "destination"] == []
    assert not list((tmp_path / "destination").rglob("*.age"))


def test_a_source_is_set_up_once(scene: Scene) -> None:
    before = tree(scene.root)
    arguments = ("init", "--config", str(scene.config), "--media", str(scene.media), "--card", str(scene.root / "new"))
    again = archiver(*arguments, "--to", scene.url, "--source", "prod")
    assert again.code == 6
    assert "has a source 'prod' already" in again.errors
    elsewhere = archiver(*arguments, "--to", "file:///somewhere/else", "--source", "other")
    assert elsewhere.code == 2
    assert tree(scene.root) == before


def test_generate_never_replaces_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    assert archiver("keys", "generate", "--output", str(path)).code == 0
    text = path.read_text()
    assert archiver("keys", "generate", "--output", str(path)).code == 6
    assert path.read_text() == text
