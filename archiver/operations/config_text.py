"""The commented ``archiver.toml`` that ``archiver init`` writes."""

import json
from collections.abc import Mapping
from pathlib import Path

from archiver.config import DEFAULT_CLASSES, DEFAULT_KEEP, DEFAULT_LEASE


def render_new(destination: str, signing_key: Path, verify_key: str) -> str:
    """A whole file but for its sources. A relative path of the key is relative to the file."""
    monthly = DEFAULT_CLASSES["monthly"]
    return f"""\
# archiver.toml: what is backed up, and where to. It holds no secret. docs/CONFIGURATION.md lists every key.

[destination]
# file:///path, or s3://bucket/prefix?region=eu-central-1 (and endpoint=…, profile=…, storage_class=…, path_style=…).
url = {_quote(destination)}

[signing]
# The minisign secret key that signs every manifest. Whoever has it can sign backups in this host's name.
key = {_quote(signing_key)}
# Public keys whose signatures this host believes when it reads backups.
trusted = [{_quote(verify_key)}]

[class.daily]
# A backup of this class is promised for `keep` days; its data stay `lease` days longer.
keep = {DEFAULT_KEEP}
lease = {DEFAULT_LEASE}

[class.monthly]
# The first backup of every {monthly.every} is copied into this class. Lifecycle rules go by age alone: when no backup
# succeeds for more than a month, this is what is left. With every = "never" nothing is copied.
keep = {monthly.keep}
lease = {monthly.lease}
every = {_quote(monthly.every)}
"""


def render_source(
    name: str,
    *,
    vault: str,
    operators: Mapping[str, str],
    environments: Mapping[str, Path] | None,
    media: Path | None,
    ucotron_config: Path | None,
) -> str:
    """One source's tables."""
    lines = [
        f"[source.{name}]",
        "# The vault's public recipient: everything is encrypted to it. Its operators open it.",
        f"vault = {_quote(vault)}",
    ]
    if ucotron_config is not None:
        lines += [
            "# Environments and media directory are taken from Ucotron's own configuration.",
            f"ucotron_config = {_quote(ucotron_config)}",
        ]
    if media is not None:
        lines.append(f"media = {_quote(media)}")
    lines += [
        "",
        f"[source.{name}.operators]",
        '# Who may restore: by name a recipient (age1…), the ARN of a KMS key, or "passphrase". Each has a file in the',
        "# destination, and only that opens anything: to change them, run archiver keys add, remove or rotate.",
    ]
    lines += [f"{key} = {_quote(value)}" for key, value in operators.items()]
    if environments:
        lines += ["", f"[source.{name}.environments]"]
        lines += [f"{key} = {_quote(path)}" for key, path in environments.items()]
    return "\n".join(lines) + "\n"


def _quote(value: object) -> str:
    """A TOML basic string: JSON's escapes are a subset of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)
