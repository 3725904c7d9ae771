"""``archiver.toml``: parsed and validated, with the line and key of whatever is wrong.

docs/CONFIGURATION.md lists all keys. The file holds no secret: public recipients, public keys and the path of the
signing key.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self, cast

import msgspec
from msgspec.structs import replace

from archiver.errors import ConfigError
from archiver.tables import Origin, Table

DEFAULT_PATHS = (Path("archiver.toml"), Path("/etc/archiver/archiver.toml"))
_RECIPIENT = re.compile(r"age1[a-z0-9]{1,4096}")
_KMS_KEY = re.compile(r"arn:aws(-[a-z]+)*:kms:[a-z0-9-]{1,40}:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]{1,256}")
PASSPHRASE = "passphrase"  # noqa: S105 - the word, not one
"""What stands for an operator who has a passphrase: that itself is written nowhere."""
_MAX_OPERATORS = 64
_STORAGE_CLASS = re.compile(r"[A-Z0-9_-]{1,64}")
_MEDIA = "media"
DEFAULT_KEEP = 35
DEFAULT_LEASE = 7
Every = Literal["week", "month", "year"]
EVERY: Mapping[Every, int] = MappingProxyType({"week": 7, "month": 31, "year": 366})
"""The periods of which a class can hold one backup each, with the days of the longest: what such a class must keep."""
_NEVER = "never"
HELD = "held"
"""The class without an end: what ``archiver hold`` copies into. It stands in no configuration."""
_NO_CLASSES = ("vault", "hold")
ARCHIVE_CLASSES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that must be thawed, for hours, before a byte of them can be read or copied."""
UCOTRON_ENVIRONMENTS = ("vector", "graph", "data", "visual")
"""What the environments of a Ucotron server may be called (archiver/sources/ucotron.py)."""


class RetentionClass(msgspec.Struct, frozen=True):
    """Days that a backup of this class is kept, and that its data outlive it (docs/RETENTION.md)."""

    keep: int = DEFAULT_KEEP
    lease: int = DEFAULT_LEASE
    every: Every | None = None
    """Of each such period of the calendar (ISO weeks, UTC) the first finished backup is copied into this class; None:
    only what is backed up into it."""
    storage_class: str | None = None
    """The store's name of the storage class that objects of this class get. Manifests, lists and contents never do."""


DEFAULT_CLASSES: Mapping[str, RetentionClass] = MappingProxyType(
    {"daily": RetentionClass(), "monthly": RetentionClass(keep=400, lease=35, every="month")}
)
"""What is there unless the configuration says otherwise: lifecycle rules go by age alone, so only a long class outlives
a month in which no backup succeeded."""


class SourceConfig(msgspec.Struct, frozen=True):
    """One named thing to back up. Exactly one of ``ucotron_config`` and the pair ``environments``, ``media`` is set."""

    name: str
    vault: str
    environments: Mapping[str, Path] = msgspec.field(default_factory=dict)
    media: Path | None = None
    exclude: tuple[str, ...] = ()
    ucotron_config: Path | None = None
    working_directory: Path | None = None
    frozen: bool = False
    """The paths are those of a filesystem snapshot, which nothing writes to."""
    external: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """By name of an environment: the program and its arguments that write a copy of it to standard output."""
    operators: Mapping[str, str] = msgspec.field(default_factory=dict)
    """By name of an operator, what the vault is sealed to: a recipient, the ARN of a KMS key, or ``PASSPHRASE``. Empty
    where nothing is said of them."""


class PinLimits(msgspec.Struct, frozen=True):
    """How much a snapshot may cost the live server, and what happens after it was given up."""

    headroom: int = 15
    """Percent of the map and of the disk that must stay free while a snapshot is pinned."""
    seconds: int = 6 * 60 * 60
    """How long one may be pinned."""
    attempts: int = 3
    """How often the copies are begun in one run."""
    pause: int = 5 * 60
    """Seconds from a snapshot that was given up to the next attempt."""


Compression = Literal["auto", "fast", "balanced", "best"] | int
"""How hard to compress: by name, or a level of zstd."""
COMPRESSIONS = ("auto", "fast", "balanced", "best")
_BEST_LEVEL = 19
SLOWEST, FASTEST = 64 * 1024, 1024**4
"""Between these a limit may be, in bytes a second."""
_LARGEST_SPOOL = 1024**4
_MOST_WORKERS = 8


def usable_processors() -> int:
    """How many processors this process may use, at most 8: each costs the memory of two frames."""
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


class Tuning(msgspec.Struct, frozen=True):
    """How much of the machine and of its line a run may take. Sizes in bytes, rates in bytes a second."""

    compression: Compression = "auto"
    workers: int = msgspec.field(default_factory=usable_processors)
    """Threads that compress, or decompress."""
    frame_size: int = 4 * 1024 * 1024
    spool: int = 8 * 1024**3
    """How many sealed bytes may wait on disk for a store that is slower than this host."""
    limit_upload: int | None = None
    limit_download: int | None = None

    def overridden(
        self, *, workers: int | None = None, limit_upload: int | None = None, limit_download: int | None = None
    ) -> Self:
        """The same with what is given."""
        return replace(
            self,
            workers=workers or self.workers,
            limit_upload=limit_upload or self.limit_upload,
            limit_download=limit_download or self.limit_download,
        )


class Config(msgspec.Struct, frozen=True):
    """A whole configuration; ``path`` is where it came from."""

    path: Path
    destination: str
    destination_options: Mapping[str, object]
    sources: Mapping[str, SourceConfig]
    classes: Mapping[str, RetentionClass]
    signing_key: Path | None
    trusted: tuple[str, ...]
    """minisign public keys whose signatures are believed."""
    revoked: Mapping[str, datetime]
    """Those of ``trusted`` that are believed no longer, and since when (UTC)."""
    state_directory: Path
    pin: PinLimits
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
        hint="Name one with --config, or run where archiver.toml is; archiver init makes one.",
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
    root = Table(document, (), Origin(path, text))
    destination = root.table("destination")
    signing = root.table("signing")
    sources = root.table("source")
    classes = root.table("class")
    signing_key = signing.optional("key", str)
    trusted = tuple(signing.strings("trusted"))
    config = Config(
        path=path,
        destination=destination.required("url", str),
        destination_options=destination.rest(),
        sources={name: _source(name, sources.table(name)) for name in sources.names()},
        classes=_classes(classes),
        signing_key=None if signing_key is None else _resolve(path, signing_key),
        trusted=trusted,
        revoked=_revoked(signing.table("revoked"), trusted),
        state_directory=_resolve(path, root.optional("state_directory", str) or str(default_state_directory())),
        pin=_pin_limits(root.table("pin")),
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


def _source(name: str, table: Table) -> SourceConfig:
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
        frozen=table.boolean("frozen"),
        external=_external(table.table("external"), tuple(paths) if ucotron is None else UCOTRON_ENVIRONMENTS),
        operators=_operators(table.table("operators")),
    )
    if not _RECIPIENT.fullmatch(source.vault):
        # Not so much of it that a secret key which was put here would be shown.
        table.fail("vault", f"expected a recipient like age1…, got {source.vault[:16]!r}")
    if (source.ucotron_config is None) == (not paths and source.media is None):
        table.fail(None, "expected ucotron_config or, instead, environments or media; got both or none")
    if source.frozen and source.external:
        table.fail("external", "expected no commands for a source that is frozen")
    table.end()
    return source


def _operators(table: Table) -> dict[str, str]:
    """Whether a recipient or an ARN is a good one is seen when it is used."""
    operators = {}
    for name in table.names():
        table.check_name(name, "operator")
        operators[name] = value = table.required(name, str)
        if value != PASSPHRASE and not _RECIPIENT.fullmatch(value) and not _KMS_KEY.fullmatch(value):
            # What stands here by mistake may be a secret: it is not shown.
            table.fail(name, f'expected a recipient like age1…, the ARN of a KMS key, or "{PASSPHRASE}"')
    if len(operators) > _MAX_OPERATORS:
        table.fail(None, f"expected at most {_MAX_OPERATORS} operators, got {len(operators)}")
    return operators


def _external(table: Table, environments: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The command of each environment that has one; ``environments`` are the names that there can be."""
    commands = {}
    for name in table.names():
        commands[name] = tuple(table.strings(name))
        if name not in environments:
            expected = f"expected one of {', '.join(environments)}" if environments else "the source has none"
            table.fail(name, f"no such environment, {expected}")
        if not commands[name] or not commands[name][0]:
            table.fail(name, "expected a program and its arguments, got none")
    return commands


def _revoked(table: Table, trusted: tuple[str, ...]) -> dict[str, datetime]:
    """Since when each of these keys counts no longer. One that is not trusted would count at no time: a mistake."""
    revoked = {}
    for key in table.names():
        revoked[key] = table.moment(key)
        if key not in trusted:
            table.fail(key, "not in signing.trusted: a revoked key stays there, for what it signed before")
    return revoked


def _classes(table: Table) -> dict[str, RetentionClass]:
    """The default ones, each replaced by the one of the same name in ``table``."""
    for name in table.names():
        table.check_name(name, "class")
        if name in _NO_CLASSES:
            table.fail(name, "no class can be called so: choose another name")
        if name == HELD:
            table.fail(name, "this class has no end, and nothing of it can be set: archiver hold copies into it")
    given = {name: _retention_class(name, table.table(name)) for name in table.names()}
    return {**DEFAULT_CLASSES, **given}


def _retention_class(name: str, table: Table) -> RetentionClass:
    """What is not said of a default class is as it is by default."""
    default = DEFAULT_CLASSES.get(name, RetentionClass())
    every = table.optional("every", str) or default.every or _NEVER
    if every not in (*EVERY, _NEVER):
        table.fail("every", f"expected one of {', '.join((*EVERY, _NEVER))}, got {every!r}")
    storage_class = table.optional("storage_class", str)
    if storage_class is not None and not _STORAGE_CLASS.fullmatch(storage_class):
        table.fail("storage_class", f"expected a name such as STANDARD_IA, got {storage_class!r}")
    result = RetentionClass(
        keep=table.integer("keep", default.keep, 1, 36500),
        lease=table.integer("lease", default.lease, 1, 36500),
        every=next((period for period in EVERY if period == every), None),
        storage_class=storage_class,
    )
    if result.every is not None and result.keep < EVERY[result.every]:
        least = EVERY[result.every]
        table.fail("keep", f"expected at least {least} days for one backup every {result.every}, got {result.keep}")
    table.end()
    return result


def _pin_limits(table: Table) -> PinLimits:
    default = PinLimits()
    result = PinLimits(
        headroom=table.integer("headroom", default.headroom, 1, 90),
        seconds=table.integer("seconds", default.seconds, 10, 7 * 24 * 60 * 60),
        attempts=table.integer("attempts", default.attempts, 1, 10),
        pause=table.integer("pause", default.pause, 0, 24 * 60 * 60),
    )
    table.end()
    return result


def _tuning(table: Table) -> Tuning:
    default = Tuning()
    compression = table.word_or_integer("compression", "auto", COMPRESSIONS, 1, _BEST_LEVEL)
    spool = table.size("spool", 0, _LARGEST_SPOOL)
    result = Tuning(
        compression=cast(Compression, compression),
        workers=table.integer("workers", default.workers, 1, 64),
        frame_size=table.size("frame_size", 64 * 1024, 64 * 1024 * 1024) or default.frame_size,
        spool=default.spool if spool is None else spool,
        limit_upload=table.size("limit_upload", SLOWEST, FASTEST),
        limit_download=table.size("limit_download", SLOWEST, FASTEST),
    )
    table.end()
    return result


def _resolve(config_path: Path, value: str) -> Path:
    """Relative paths are relative to the configuration file, not to whoever runs it."""
    return Path(os.path.abspath(config_path.parent / Path(value).expanduser()))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
