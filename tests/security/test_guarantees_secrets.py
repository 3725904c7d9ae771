"""Guarantees of docs/SECURITY.md, by number: secrets are told to nobody. The files of planted secrets try many
more ways. Each test says which change of the code it notices."""

import stat
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archiver.cli.main import archiver as commands
from tests.operations.scene import SOURCE, Scene, archiver
from tests.security.planting import check, no_umask, plant

NAMES_A_FILE = {"identity", "config", "card", "output", "path"}
PUBLIC = {"recipient", "kms_key", "verify_key"}
"""Keys that are no secret."""


def test_g33_no_command_says_writes_or_logs_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed: an identity, a key or content of a backup in any message, hint, log record, exception or traceback."""
    planted = plant(tmp_path)
    scene = planted.scene
    identity = scene.card.read_text()
    last = identity.rstrip().rpartition("\n")[2]
    broken = (last[:-1], last.lower(), last + last, f"{last[:20]} {last[20:]}")
    for mode in ((), ("--verbose",), ("--json", "--verbose")):
        check(planted, planted.run(monkeypatch, "verify", "--level", "data", *scene.identity, *mode), 0)
        for text in broken:
            scene.card.write_text(identity.replace(last, text))
            check(planted, planted.run(monkeypatch, "verify", "--level", "data", *scene.identity, *mode), 2)
        scene.card.write_text(identity)


def test_g34_files_of_secrets_are_for_their_owner_only_and_never_replaced(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noticed: a file that is created with the rights that the umask leaves, here all of them, or over another one."""
    monkeypatch.chdir(tmp_path)
    init = ("init", "--to", (tmp_path / "new").as_uri(), "--source", SOURCE, "--media", str(scene.media))
    makers = {
        f"recovery-card-{SOURCE}.txt": init,
        "archiver-signing.key": init,
        "operator.txt": ("keys", "generate", "--output", "operator.txt"),
        "quantum.txt": ("keys", "generate", "--post-quantum", "--output", "quantum.txt"),
        "signing.key": ("keys", "generate", "--signing", "--output", "signing.key"),
        "card.txt": ("keys", "card", "--output", "card.txt", *scene.identity, "--config", str(scene.config)),
    }
    with no_umask():
        for arguments in dict.fromkeys(makers.values()):
            done = archiver(*arguments)
            assert done.code == 0, done.errors
    for name, arguments in makers.items():
        data = Path(name).read_bytes()
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600, name
        assert archiver(*arguments).code == 6, name
        assert Path(name).read_bytes() == data
    assert b"AGE-SECRET-KEY-PQ-1" in Path("quantum.txt").read_bytes()


def parameters(command: click.Command, name: str) -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of ``command`` and of those below it."""
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from parameters(one, f"{name} {inner}")
    for parameter in command.params:
        yield f"{name} {parameter.name}", parameter


def test_g35_no_argument_of_a_command_is_a_secret(scene: Scene) -> None:
    """Noticed: an option that takes one. Everybody on a host can read the arguments of all processes."""
    seen = dict(parameters(commands, "archiver"))
    assert {"archiver restore passphrase", "archiver keys add new_passphrase", "archiver init recipient"} <= seen.keys()
    for name, parameter in seen.items():
        word = name.rpartition(" ")[2]
        if any(part in word for part in ("pass", "secret", "key", "identity", "token", "credential")):
            is_flag = isinstance(parameter, click.Option) and parameter.is_flag
            assert is_flag or word in NAMES_A_FILE | PUBLIC, name
    # An identity in place of the file that holds one is not taken, and not repeated.
    identity = scene.card.read_text().rstrip().rpartition("\n")[2]
    done = archiver("list", "--identity", identity, "--config", str(scene.config))
    assert done.code == 2
    assert identity[20:40] not in done.output + done.errors
