"""What the tests of docs/RECOVERY.md share: a source with a backup, and the page's blocks, run by bash."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from archiver.config import load_config
from archiver.operations.backup_setup import backup_source
from archiver.operations.init import InitRequest, init
from archiver.progress import Silent

DOCUMENT = Path(__file__).parent.parent / "docs" / "RECOVERY.md"
PATH = "/usr/local/bin:/usr/bin:/bin"
SOURCE = "example"
FRAME_SIZE = 64 * 1024


def back_up(site: Path, environments: list[str], *, post_quantum: bool = False) -> None:
    """A destination for ``site``'s data, and the first backup."""
    config = site / "archiver.toml"
    init(
        InitRequest(
            config=config,
            destination=(site / "destination").as_uri(),
            source=SOURCE,
            operator="alice",
            card=site / "card.txt",
            post_quantum=post_quantum,
            environments={name: site / "data" / name for name in environments},
            media=site / "data" / "media",
        )
    )
    text = config.read_text("utf-8")
    config.write_text(f'state_directory = "state"\n\n{text}\n[tuning]\nframe_size = {FRAME_SIZE}\n', "utf-8")
    back_up_again(site)


def back_up_again(site: Path) -> str:
    """One more backup; its id."""
    result, _ = backup_source(load_config(site / "archiver.toml"), None, "daily", "", Silent())
    return result.manifest.backup


def blocks(language: str) -> str:
    """The page's blocks in ``language``, one after the other."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return "".join(found)


def surroundings(site: Path, backup: str = "", more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the page's script."""
    places = {"CARD": site / "card.txt", "STORE": site / "destination", "OUT": site / "recovered"}
    return {"PATH": PATH, "BACKUP": backup} | {name: str(path) for name, path in places.items()} | dict(more or {})


def recover(site: Path, *, backup: str = "", more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the page's blocks with bash; nothing of this project is within its reach."""
    return subprocess.run(
        ["bash"],
        input=blocks("sh"),
        env=surroundings(site, backup, more),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=240,
    )
