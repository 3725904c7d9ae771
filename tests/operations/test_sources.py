"""From configuration to the environments of a source, and how each of them is to be read."""

from pathlib import Path

import pytest

from archiver.config import UCOTRON_ENVIRONMENTS, SourceConfig
from archiver.errors import ConfigError
from archiver.operations.sources import resolve_source
from archiver.sources.environments import EnvironmentSpec

TWO_DIRECTORIES = '[storage.vector]\ndata_dir = "v"\n[storage.graph]\ndata_dir = "g"\n'


def ucotron(directory: Path, text: str, *commands: str) -> SourceConfig:
    path = directory / "ucotron.toml"
    path.write_text(text)
    return SourceConfig("prod", "age1x", ucotron_config=path, external={name: (name, "-c") for name in commands})


def commands(config: SourceConfig) -> dict[str, tuple[str, ...] | None]:
    return {spec.name: spec.command for spec in resolve_source(config).environments}


def test_listed_environments_are_read_as_the_source_says() -> None:
    paths = {"graph": Path("/g"), "notes": Path("/n")}
    plain = SourceConfig("prod", "age1x", paths, Path("/m"), ("*.tmp",))
    assert resolve_source(plain).environments == (
        EnvironmentSpec("graph", Path("/g"), None, frozen=False, command=None),
        EnvironmentSpec("notes", Path("/n"), None, frozen=False, command=None),
    )
    assert (resolve_source(plain).media, resolve_source(plain).exclude) == (Path("/m"), ("*.tmp",))
    assert commands(SourceConfig("prod", "age1x", paths, external={"notes": ("copy", "it")})) == {
        "graph": None,
        "notes": ("copy", "it"),
    }
    frozen = SourceConfig("prod", "age1x", paths, frozen=True)
    assert [spec.frozen for spec in resolve_source(frozen).environments] == [True, True]


def test_a_ucotron_servers_environments_too(tmp_path: Path) -> None:
    assert commands(ucotron(tmp_path, TWO_DIRECTORIES, "graph")) == {"vector": None, "graph": ("graph", "-c")}
    assert commands(ucotron(tmp_path, "", "data")) == {"data": ("data", "-c")}
    frozen = SourceConfig("prod", "age1x", ucotron_config=tmp_path / "ucotron.toml", frozen=True)
    assert [spec.frozen for spec in resolve_source(frozen).environments] == [True]


def test_a_visual_environment_may_be_absent(tmp_path: Path) -> None:
    config = ucotron(tmp_path, TWO_DIRECTORIES, "visual")
    assert commands(config) == {"vector": None, "graph": None}
    (tmp_path / "v" / "visual").mkdir(parents=True)
    (tmp_path / "v" / "visual" / "data.mdb").touch()
    assert commands(config) == {"vector": None, "graph": None, "visual": ("visual", "-c")}
    assert {*commands(config), *commands(ucotron(tmp_path, ""))} == set(UCOTRON_ENVIRONMENTS)


@pytest.mark.parametrize(
    ("text", "name", "expected"), [("", "graph", "data"), (TWO_DIRECTORIES, "data", "vector, graph")]
)
def test_a_command_that_would_never_be_used_is_a_mistake(tmp_path: Path, text: str, name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_source(ucotron(tmp_path, text, name))
    assert caught.value.message == f"source.prod.external.{name}: no such environment, expected one of {expected}"
