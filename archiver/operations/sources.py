"""From configuration to what is really there: the environments and the media directory of a source."""

import os
from dataclasses import dataclass
from pathlib import Path

from archiver.config import SourceConfig
from archiver.sources.environments import EnvironmentSpec
from archiver.sources.ucotron import expand


@dataclass(frozen=True, slots=True)
class Source:
    """What a source consists of on this host."""

    name: str
    environments: tuple[EnvironmentSpec, ...]
    media: Path | None
    exclude: tuple[str, ...]


def resolve_source(config: SourceConfig) -> Source:
    """Expand a Ucotron configuration, or take the environments and the media directory as they are listed."""
    if config.ucotron_config is not None:
        working = config.working_directory or config.ucotron_config.parent
        layout = expand(config.ucotron_config, os.environ, working)
        return Source(config.name, tuple(layout.environments), layout.media, config.exclude)
    specs = tuple(EnvironmentSpec(name, path, None) for name, path in config.environments.items())
    return Source(config.name, specs, config.media, config.exclude)
