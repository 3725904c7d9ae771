"""``archiver.toml``: parsed and validated, with the line and key of whatever is wrong.

docs/CONFIGURATION.md lists all keys. The file holds no secret: public recipients, public keys and the path of the
signing key.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from archiver.errors import ConfigError

DEFAULT_PATHS = (Path("archiver.toml"), Path("/etc/archiver/archiver.toml"))
_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
_RECIPIENT = re.compile(r"age1[a-z0-9]+")
_MEDIA = "media"
_KEY_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_KEY})\s*\]")
_PAIR = re.compile(rf"\s*({_KEY})\s*=")
DEFAULT_KEEP = 35
DEFAULT_LEASE = 7


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """Days that a backup of this class is kept, and that its data outlive it (docs/ARCHITECTURE.md, "Retention")."""

    keep: int = DEFAULT_KEEP
    lease: int = DEFAULT_LEASE


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One named thing to back up. Exactly one of ``ucotron_config`` and the pair ``environments``, ``media`` is set."""

    name: str
    vault: str
    environments: Mapping[str, Path] = field(default_factory=dict)
    media: Path | None = None
    exclude: tuple[str, ...] = ()
    ucotron_config: Path | None = None
    working_directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes in bytes, counts of threads, the zstd level."""

    level: int = 3
    workers: int = 2
    frame_size: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration; ``path`` is where it came from."""

    path: Path
    destination: str
    destination_options: Mapping[str, object]
    sources: Mapping[str, SourceConfig]
    classes: Mapping[str, RetentionClass]
    signing_key: Path | None
    trusted: tuple[str, ...]
    state_directory: Path
    tuning: Tuning

    def source(self, name: str | None) -> SourceConfig:
        """The source called ``name``; without a name the only one."""
        if name is None:
            if len(self.sources) == 1:
                return next(iter(self.sources.values()))
            raise ConfigError(
                f"{self.path} defines {len(self.sources)} sources, expected a name",
                hint=f"Name one of: {', '.join(sorted(self.sources)) or 'none is defined yet, run archiver init'}.",
            )
        if name not in self.sources:
            raise ConfigError(
                f"{self.path} has no source {name!r}",
                hint=f"Name one of: {', '.join(sorted(self.sources)) or 'none is defined yet, run archiver init'}.",
            )
        return self.sources[name]

    def retention_class(self, name: str) -> RetentionClass:
        """Keep and lease of the class called ``name``."""
        if name not in self.classes:
            raise ConfigError(
                f"{self.path} has no class {name!r}", hint=f"Name one of: {', '.join(sorted(self.classes))}."
            )
        return self.classes[name]


def find_config(given: Path | None) -> Path:
    """``given``, else the first of the default places that exists; raises ``ConfigError`` when there is none."""
    for path in (given,) if given is not None else DEFAULT_PATHS:
        if path.is_file():
            return path
    wanted = given or " or ".join(str(path) for path in DEFAULT_PATHS)
    raise ConfigError(
        f"no configuration at {wanted}",
        hint="Run archiver init, name one with --config, or give --from URL --source NAME --identity FILE.",
    )


def load_config(path: Path) -> Config:
    """Read and validate the file at ``path``; raises ``ConfigError`` with line and key."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    return parse_config(text, path)


def parse_config(text: str, path: Path) -> Config:
    """Validate the text of a configuration; ``path`` is used in messages and to resolve relative paths."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_lower_first(str(error))}") from None
    root = _Table(document, (), _Origin(path, text))
    destination = root.table("destination")
    signing = root.table("signing")
    sources = root.table("source")
    classes = root.table("class")
    signing_key = signing.optional("key", str)
    config = Config(
        path=path,
        destination=destination.required("url", str),
        destination_options=destination.rest(),
        sources={name: _source(name, sources.table(name)) for name in sources.names()},
        classes={"daily": RetentionClass()} | {name: _retention_class(classes.table(name)) for name in classes.names()},
        signing_key=None if signing_key is None else _resolve(path, signing_key),
        trusted=tuple(signing.strings("trusted")),
        state_directory=_resolve(path, root.optional("state_directory", str) or str(default_state_directory())),
        tuning=_tuning(root.table("tuning")),
    )
    signing.end()
    root.end()
    return config


def default_state_directory() -> Path:
    """``/var/lib/archiver`` for root, else the user's XDG state directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/archiver")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "archiver"


def _source(name: str, table: "_Table") -> SourceConfig:
    table.check_name(name, "source")
    base = table.origin.path
    environments = table.table("environments")
    paths = {key: _resolve(base, environments.required(key, str)) for key in environments.names()}
    for key in paths:
        environments.check_name(key, "environment")
    if _MEDIA in paths:
        environments.fail(_MEDIA, "an environment cannot be called so: it is the name of the media tree")
    media = table.optional("media", str)
    ucotron = table.optional("ucotron_config", str)
    working = table.optional("working_directory", str)
    source = SourceConfig(
        name=name,
        vault=table.required("vault", str),
        environments=paths,
        media=None if media is None else _resolve(base, media),
        exclude=tuple(table.strings("exclude")),
        ucotron_config=None if ucotron is None else _resolve(base, ucotron),
        working_directory=None if working is None else _resolve(base, working),
    )
    if not _RECIPIENT.fullmatch(source.vault):
        table.fail("vault", f"expected a recipient like age1…, got {source.vault[:20]!r}")
    if (source.ucotron_config is None) == (not paths and source.media is None):
        table.fail(None, "expected ucotron_config or, instead, environments or media; got both or none")
    table.end()
    return source


def _retention_class(table: "_Table") -> RetentionClass:
    result = RetentionClass(
        keep=table.integer("keep", DEFAULT_KEEP, 1, 36500), lease=table.integer("lease", DEFAULT_LEASE, 1, 36500)
    )
    table.end()
    return result


def _tuning(table: "_Table") -> Tuning:
    default = Tuning()
    result = Tuning(
        level=table.integer("level", default.level, 1, 19),
        workers=table.integer("workers", default.workers, 1, 64),
        frame_size=table.integer("frame_size", default.frame_size, 64 * 1024, 64 * 1024 * 1024),
    )
    table.end()
    return result


def _resolve(config_path: Path, value: str) -> Path:
    """Relative paths are relative to the configuration file, not to whoever runs it."""
    return Path(os.path.abspath(config_path.parent / Path(value).expanduser()))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


@dataclass(frozen=True, slots=True)
class _Origin:
    path: Path
    text: str

    def line(self, keys: tuple[str, ...]) -> int | None:
        """The line on which ``keys`` is set, for messages; tomllib does not keep it."""
        current: tuple[str, ...] = ()
        first_below: int | None = None
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := _HEADER.match(line):
                found = current = _split_key(header[1])
            elif pair := _PAIR.match(line):
                found = current + _split_key(pair[1])
            else:
                continue
            if found == keys:
                return number
            if first_below is None and found[: len(keys)] == keys:
                first_below = number
        return first_below


def _split_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_KEY_PART, text))


def _join_key(keys: tuple[str, ...]) -> str:
    """``keys`` in one printable line."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else repr(key) for key in keys)


class _Table:
    """A TOML table that knows its place in the file and notices keys that nobody asked for."""

    def __init__(self, values: dict[str, Any], keys: tuple[str, ...], origin: _Origin) -> None:
        self._values = values
        self._keys = keys
        self._unread = set(values)
        self.origin = origin

    def fail(self, key: str | None, problem: str) -> NoReturn:
        keys = self._keys if key is None else (*self._keys, key)
        line = self.origin.line(keys) or self.origin.line(self._keys)
        place = f", line {line}" if line is not None else ""
        raise ConfigError(
            f"{self.origin.path}{place}: {_join_key(keys)}: {problem}",
            hint="docs/CONFIGURATION.md lists every key.",
        )

    def check_name(self, name: str, what: str) -> None:
        if not _NAME.fullmatch(name):
            self.fail(None, f"invalid {what} name {name!r}, expected up to 63 of a-z, 0-9, - and _")

    def names(self) -> list[str]:
        return list(self._values)

    def table(self, key: str) -> "_Table":
        value = self._take(key, dict)
        return _Table({} if value is None else value, (*self._keys, key), self.origin)

    def required(self, key: str, kind: type[str]) -> str:
        value: str | None = self._take(key, kind)
        if not value:
            self.fail(key, "missing, expected a text")
        return value

    def optional(self, key: str, kind: type[str]) -> str | None:
        value: str | None = self._take(key, kind)
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self._take(key, int)
        if value is None:
            return default
        if isinstance(value, bool) or not low <= value <= high:
            self.fail(key, f"expected a whole number from {low} to {high}, got {value!r}")
        return int(value)

    def strings(self, key: str) -> list[str]:
        value = self._take(key, list)
        if value is None:
            return []
        if not all(isinstance(item, str) for item in value):
            self.fail(key, "expected a list of texts")
        return list(value)

    def rest(self) -> dict[str, object]:
        """Every key that was not read yet: the destination's options, which the stores check."""
        taken, self._unread = self._unread, set()
        return {key: self._values[key] for key in sorted(taken)}

    def end(self) -> None:
        for key in sorted(self._unread):
            self.fail(key, "unknown key")

    def _take(self, key: str, kind: type) -> Any:
        self._unread.discard(key)
        value = self._values.get(key)
        if value is not None and not isinstance(value, kind):
            names = {dict: "a table", str: "a text", int: "a whole number", list: "a list"}
            self.fail(key, f"expected {names[kind]}, got {value!r}")
        return value
