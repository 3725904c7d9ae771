"""From ucotron.toml and the server's environment to directories."""

import re
from pathlib import Path

import pytest

from archiver.errors import ConfigError
from archiver.sources.environments import EnvironmentSpec
from archiver.sources.ucotron import expand

GIB = 1 << 30
SECRET = "sk-do-not-show-this"


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ucotron.toml"
    path.write_text(text)
    return path


def environment(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "data.mdb").touch()


def test_defaults_are_one_environment_under_the_working_directory(tmp_path: Path) -> None:
    layout = expand(config(tmp_path, ""), {}, Path("/app"))
    assert layout.environments == (EnvironmentSpec("data", Path("/app/data"), 10 * GIB),)
    assert layout.media is None


def test_two_directories_a_visual_one_and_media(tmp_path: Path) -> None:
    environment(tmp_path / "data" / "vector" / "visual")
    (tmp_path / "data" / "media").mkdir()
    text = '[storage.vector]\ndata_dir = "data/vector"\nmax_db_size = 1000\n[storage.graph]\ndata_dir = "/srv/graph"'
    layout = expand(config(tmp_path, text), {}, tmp_path)
    assert layout.environments == (
        EnvironmentSpec("vector", tmp_path / "data/vector", 1000),
        EnvironmentSpec("graph", Path("/srv/graph"), 10 * GIB),
        EnvironmentSpec("visual", tmp_path / "data/vector/visual", 1000),
    )
    assert layout.media == tmp_path / "data" / "media"


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    text = '[storage]\nmedia_dir = "a"\n[storage.vector]\ndata_dir = "b"\n[storage.graph]\ndata_dir = "c"'
    variables = {
        "UCOTRON_STORAGE_MEDIA_DIR": "/media",
        "UCOTRON_STORAGE_VECTOR_DATA_DIR": "/vector",
        "UCOTRON_STORAGE_GRAPH_DATA_DIR": "graph",
    }
    layout = expand(config(tmp_path, text), variables, Path("/app"))
    assert [spec.directory for spec in layout.environments] == [Path("/vector"), Path("/app/graph")]
    assert layout.media == Path("/media")


def test_shared_mode_replaces_both_data_directories_but_not_media(tmp_path: Path) -> None:
    text = (
        '[storage]\nmode = "shared"\nshared_data_dir = "/shared"\nmedia_dir = "media"\n'
        '[storage.vector]\ndata_dir = "ignored"\nmax_db_size = 7\n[storage.graph]\nmax_db_size = 5'
    )
    layout = expand(config(tmp_path, text), {}, Path("/app"))
    assert layout.environments == (EnvironmentSpec("data", Path("/shared"), 5),)
    assert layout.media == Path("/app/media")
    variables = {"UCOTRON_STORAGE_MODE": "embedded", "UCOTRON_STORAGE_GRAPH_DATA_DIR": "g"}
    layout = expand(config(tmp_path, text), variables, Path("/app"))
    assert [spec.directory for spec in layout.environments] == [Path("/app/ignored"), Path("/app/g")]
    variables = {"UCOTRON_STORAGE_MODE": "shared", "UCOTRON_STORAGE_SHARED_DATA_DIR": "s"}
    layout = expand(config(tmp_path, ""), variables, Path("/app"))
    assert [spec.directory for spec in layout.environments] == [Path("/app/s")]


def test_mode_external_changes_nothing_as_in_the_server(tmp_path: Path) -> None:
    path = config(tmp_path, '[storage]\nmode = "external"\nshared_data_dir = "/shared"')
    assert [spec.directory for spec in expand(path, {}, Path("/app")).environments] == [Path("/app/data")]


def test_the_same_directory_by_other_paths_is_one_environment(tmp_path: Path) -> None:
    environment(tmp_path / "data")
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "data.mdb").hardlink_to(tmp_path / "data" / "data.mdb")
    for other in ("link", "./data/../data", "hard"):
        text = f'[storage.graph]\ndata_dir = "{other}"'
        assert [spec.name for spec in expand(config(tmp_path, text), {}, tmp_path).environments] == ["data"]


def test_a_configured_media_directory_is_not_dropped_when_it_is_missing(tmp_path: Path) -> None:
    path = config(tmp_path, '[storage]\nmedia_dir = "data/media"')
    assert expand(path, {}, tmp_path).media == tmp_path / "data/media"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[storage]\nmode = "shared"', "storage.shared_data_dir: expected a directory in mode shared, got none"),
        (f'[storage]\nmode = "{SECRET}"', "storage.mode: expected one of embedded, external, shared, got another"),
        ("[storage]\nmode = 7", "storage.mode: expected a string, got an integer"),
        ('storage = "x"', "storage: expected a table, got a string"),
        ("[storage]\nvector = [1]", "storage.vector: expected a table, got an array"),
        ('[storage.vector]\ndata_dir = ""', "storage.vector.data_dir: expected a value, got an empty one"),
        ('[storage.graph]\nmax_db_size = "10GB"', "storage.graph.max_db_size: expected a number of bytes, got a str"),
        ("[storage.graph]\nmax_db_size = true", "storage.graph.max_db_size: expected a number of bytes, got a bool"),
        ("[storage.graph]\nmax_db_size = 0", "storage.graph.max_db_size: expected a positive number of bytes"),
        (f'[auth]\napi_key = "{SECRET}\n', "malformed TOML at line 2, column"),
        (f'[auth]\napi_key = "{SECRET}', "malformed TOML at its end"),
        (f'[auth]\n"{SECRET}" = 1\n"{SECRET}" = 2\n', "malformed TOML at line 3, column"),
    ],
)
def test_a_bad_file_is_named_with_key_or_line_and_never_quoted(tmp_path: Path, text: str, message: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(message)) as refusal:
        expand(path, {}, tmp_path)
    assert refusal.value.message.startswith(str(path))
    shown = [refusal.value.message, refusal.value.hint, refusal.value.__cause__, refusal.value.__context__]
    assert SECRET not in repr(shown)


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^UCOTRON_STORAGE_MEDIA_DIR: expected a value"):
        expand(config(tmp_path, ""), {"UCOTRON_STORAGE_MEDIA_DIR": ""}, tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        expand(tmp_path / "missing.toml", {}, tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'a = "\xe9"')
    with pytest.raises(ConfigError, match="is not UTF-8"):
        expand(tmp_path / "latin.toml", {}, tmp_path)
