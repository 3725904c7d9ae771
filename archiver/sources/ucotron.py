"""From a Ucotron server's configuration to the environments and the media directory that it uses.

The rules are those of the server (its ucotron_config crate and main.rs): variables of the environment win over
ucotron.toml; relative paths belong to the server's working directory; mode ``shared`` replaces both data directories
by ``shared_data_dir`` but leaves ``media_dir`` alone. Mode ``external`` and the ``backend`` settings change nothing:
the server opens its LMDB directories whatever they say. A third environment, ``visual``, lies below the vector
directory where image models were installed at some time. ucotron.toml can hold keys, so no message quotes a value.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from archiver.environment.meta import DATA_FILE
from archiver.errors import ConfigError, SourceError
from archiver.sources.environments import EnvironmentSpec

_MODES = ("embedded", "external", "shared")
_DATA_DIRECTORY = "data"
_MEDIA_DIRECTORY = "data/media"
_MAX_DB_SIZE = 10 * 1024**3
VISUAL = "visual"
"""The environment that there is only where image models were installed."""


class UcotronLayout(msgspec.Struct, frozen=True):
    """What a Ucotron server has on disk."""

    environments: tuple[EnvironmentSpec, ...]
    """``vector`` and ``graph``, or ``data`` where both are in one directory, and ``visual`` where there is one."""
    media: Path | None
    """None when no media directory is configured and the default one was never made: it is made by the first upload."""


def expand(config_path: Path, environ: Mapping[str, str], working_directory: Path) -> UcotronLayout:
    """The layout that ``config_path`` and the server's environment variables ``environ`` describe.

    ``working_directory`` is the server's. Raises ``ConfigError`` for a configuration that the server would refuse.
    That the directories exist is checked where they are read.
    """
    settings = _Settings(config_path, environ)
    vector, graph = (_data_directory(settings, part, working_directory) for part in ("vector", "graph"))
    vector_size, graph_size = (
        settings.size(f"storage.{part}.max_db_size", _MAX_DB_SIZE) for part in ("vector", "graph")
    )
    if _is_same_environment(vector, graph):
        # The server opens it twice; a file larger than the smaller map would be refused by one of the two.
        environments = [EnvironmentSpec("data", vector, min(vector_size, graph_size))]
    else:
        environments = [EnvironmentSpec("vector", vector, vector_size), EnvironmentSpec("graph", graph, graph_size)]
    if _exists(vector / VISUAL / DATA_FILE):
        environments.append(EnvironmentSpec(VISUAL, vector / VISUAL, vector_size))
    return UcotronLayout(tuple(environments), _media_directory(settings, working_directory))


class _Settings:
    """The values of ucotron.toml, each with its override from the environment."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self._root = _load(path)

    def text(self, key: str) -> str | None:
        """A string, None when it is not set anywhere; set but empty is an error."""
        variable = "UCOTRON_" + key.replace(".", "_").upper()
        value = self._environ.get(variable)
        origin = variable
        if value is None:
            value = self._find(key)
            origin = f"{self._path}: {key}"
        if value is None:
            return None
        if not isinstance(value, str):
            raise ConfigError(f"{origin}: expected a string, got {_kind(value)}")
        if not value:
            raise ConfigError(f"{origin}: expected a value, got an empty one")
        return value

    def mode(self) -> str:
        mode = self.text("storage.mode") or _MODES[0]
        if mode not in _MODES:
            raise ConfigError(f"{self._path}: storage.mode: expected one of {', '.join(_MODES)}, got another value")
        return mode

    def size(self, key: str, default: int) -> int:
        """A number of bytes."""
        value = self._find(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self._path}: {key}: expected a number of bytes, got {_kind(value)}")
        if value <= 0:
            raise ConfigError(f"{self._path}: {key}: expected a positive number of bytes")
        return value

    def fail(self, key: str, reason: str) -> ConfigError:
        return ConfigError(f"{self._path}: {key}: {reason}")

    def _find(self, key: str) -> Any:
        value: Any = self._root
        for depth, part in enumerate(key.split(".")):
            if not isinstance(value, dict):
                table = ".".join(key.split(".")[:depth])
                raise ConfigError(f"{self._path}: {table}: expected a table, got {_kind(value)}")
            value = value.get(part)
            if value is None:
                return None
        return value


def _data_directory(settings: _Settings, part: str, working_directory: Path) -> Path:
    own = settings.text(f"storage.{part}.data_dir") or _DATA_DIRECTORY
    if settings.mode() != "shared":
        return working_directory / own
    shared = settings.text("storage.shared_data_dir")
    if shared is None:
        raise settings.fail("storage.shared_data_dir", "expected a directory in mode shared, got none")
    return working_directory / shared


def _media_directory(settings: _Settings, working_directory: Path) -> Path | None:
    configured = settings.text("storage.media_dir")
    if configured is not None:
        return working_directory / configured
    default = working_directory / _MEDIA_DIRECTORY
    return default if _exists(default) else None


def _is_same_environment(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    return _exists(one / DATA_FILE) and _exists(other / DATA_FILE) and (one / DATA_FILE).samefile(other / DATA_FILE)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        # What cannot be looked at must not be taken for absent: it would be missing from every backup.
        raise SourceError(f"cannot tell whether {path} exists: {str(error.strerror).lower()}") from error
    return True


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {str(error.strerror).lower()}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        # Neither the parser's message nor its exception goes further: they can quote the file.
        found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        place = f"line {found[1]}, column {found[2]}" if found else "its end"
    raise ConfigError(f"{path}: malformed TOML at {place}")


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    return names.get(type(value), "a date or time")
