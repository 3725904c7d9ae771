"""From configuration to what is really there: the environments and the media directory of a source."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from archiver.config import SourceConfig
from archiver.errors import ConfigError
from archiver.sources.environments import EnvironmentSpec
from archiver.sources.ucotron import VISUAL, expand


class Source(msgspec.Struct, frozen=True):
    """What a source consists of on this host."""

    name: str
    environments: tuple[EnvironmentSpec, ...]
    media: Path | None
    exclude: tuple[str, ...]


def resolve_source(config: SourceConfig) -> Source:
    """Expand a Ucotron configuration, or take the environments and the media directory as they are listed.

    Raises ``ConfigError`` for a Ucotron configuration that the server would refuse, and for an external command of
    an environment that it does not have.
    """
    if config.ucotron_config is not None:
        working = config.working_directory or config.ucotron_config.parent
        layout = expand(config.ucotron_config, os.environ, working)
        return Source(config.name, _with_methods(layout.environments, config), layout.media, config.exclude)
    specs = (EnvironmentSpec(name, path, None) for name, path in config.environments.items())
    return Source(config.name, _with_methods(specs, config), config.media, config.exclude)


def _with_methods(specs: Iterable[EnvironmentSpec], config: SourceConfig) -> tuple[EnvironmentSpec, ...]:
    """``specs`` with what the source's configuration says of how they are to be read."""
    found = tuple(replace(spec, frozen=config.frozen, command=config.external.get(spec.name)) for spec in specs)
    names = [spec.name for spec in found]
    # ``visual`` comes and goes with the server's image models: what may be absent is no mistake.
    if unused := config.external.keys() - {*names, VISUAL}:
        raise ConfigError(
            f"source.{config.name}.external.{min(unused)}: no such environment, expected one of {', '.join(names)}",
            hint="Name the command after the environment; it is data where vector and graph are one directory.",
        )
    return found
