"""docs/HOT-BACKUP.md does what it says: its commands beside a live heed server, its settings, and every message."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from archiver import errors
from archiver.catalog.records import CONSISTENCIES
from archiver.config import PinLimits, load_config, parse_config
from archiver.environment.headroom import Room, refusal, shortage
from archiver.environment.snapshot import pin
from tests import heed
from tests.environment.live import make_environment, writer
from tests.heed import HeedWriter
from tests.operations.scene import SOURCE, Scene, archiver, configure
from tests.servers.process import REPOSITORY
from tests.waiting import PATIENCE

TEXT = (REPOSITORY / "docs" / "HOT-BACKUP.md").read_text("utf-8")
LOOK_AND_BACK_UP, MAKE_SMALL = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
PIN, PATHS, EXTERNAL, FROZEN = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
DESTINATION = '[destination]\nurl = "file:///mnt/backups"\n'
MODULES = ("external", "headroom", "helper", "locks", "pinning", "reader", "reader_table", "snapshot")
"""Those of archiver/environment in which a pin, or what stands for one, is refused or given up."""


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A place for a server's data; ``configured`` once there are some."""
    return Scene(tmp_path, (tmp_path / "destination").as_uri())


@contextmanager
def live_server(scene: Scene, binary: Path, rate: float) -> Iterator[HeedWriter]:
    """A heed server on the scene's data, which is configured as a source."""
    with HeedWriter.start(binary, scene.data, sync=False, rate=rate) as server:
        configure(scene)
        shutil.copy(scene.card, scene.root / f"recovery-card-{SOURCE}.txt")
        yield server


def run(script: str, scene: Scene, *, server: HeedWriter | None = None) -> subprocess.CompletedProcess[str]:
    """Run a block of the page with bash. ``systemctl stop`` ends ``server`` in the orderly way."""
    commands = scene.root / "commands"
    commands.mkdir(exist_ok=True)
    write_command(commands / "archiver", f'exec {sys.executable} -m archiver "$@"')
    if server is not None:
        # Its parent is the test, which does not wait for it meanwhile: it stays, as a zombie.
        until_ended = f"until grep -q '^State:.Z' /proc/{server.pid}/status; do sleep 0.02; done"
        write_command(commands / "systemctl", f'if [ "$1" = stop ]; then kill {server.pid}; {until_ended}; fi')
    environment = {
        "PATH": f"{commands}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(scene.root),
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        ["bash"], input=script, cwd=scene.root, env=environment, capture_output=True, text=True, timeout=240
    )


def write_command(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
    path.chmod(0o755)


def source(text: str, scene: Scene) -> Path:
    """A configuration of the scene's source, with ``text`` of the page added to it."""
    scene.config.write_text(f"{scene.config.read_text('utf-8')}\n{text}", "utf-8")
    return scene.config


def test_the_first_block_backs_up_a_live_server(scene: Scene, heed_writer: Path) -> None:
    with live_server(scene, heed_writer, rate=50) as server:
        result = run(LOOK_AND_BACK_UP, scene)
        assert server.stats().errors == 0

    assert result.returncode == 0, result.stderr
    assert "vector" in result.stdout
    assert re.search(r"^\d+T\d+Z-\w+ .* locked ", result.stdout, re.MULTILINE)
    restored = scene.root / "restored"
    assert scene.restore("--to", str(restored)).code == 0
    assert heed.check(heed_writer, restored).problem is None


def test_a_file_is_made_small_again(scene: Scene, heed_writer: Path) -> None:
    data = scene.data / "vector" / "data.mdb"
    with live_server(scene, heed_writer, rate=0) as server:
        with pin(data.parent, name="vector"):
            server.wait_for_commits(100)
        server.pause()
        before = data.stat().st_size
        result = run(f"set -e\n{MAKE_SMALL}", scene, server=server)

    assert result.returncode == 0, result.stderr
    assert data.stat().st_size < before / 2
    with HeedWriter.start(heed_writer, scene.data, paused=True) as server:
        assert server.commit() > 100
    assert heed.check(heed_writer, scene.data).problem is None


def test_the_settings_of_a_pin_are_the_defaults() -> None:
    assert parse_config(DESTINATION + PIN, Path("archiver.toml")).pin == PinLimits()


def test_the_sources_are_accepted() -> None:
    config = parse_config("\n".join((DESTINATION, PATHS, EXTERNAL, FROZEN)), Path("archiver.toml"))

    assert set(config.sources) == {"prod", "prod-snapshot"}
    assert config.source("prod").external["vector"][:2] == ("mdb_copy", "-c")
    assert config.source("prod-snapshot").frozen


def test_a_command_makes_the_copy(scene: Scene) -> None:
    make_environment(scene.data / "vector")
    configure(scene)
    config = source(EXTERNAL.replace("/srv/app", str(scene.data)), scene)
    with writer(scene.data / "vector"):
        done = archiver("backup", "--config", str(config), "--json")

    assert done.code == 0, done.errors
    assert done.document["consistency"] == "external"
    assert not list(scene.state.rglob("data.mdb"))


def test_a_snapshot_of_a_file_system_is_read(scene: Scene) -> None:
    make_environment(scene.data / "vector")
    configure(scene)
    snapshot = scene.root / "snapshot"
    shutil.copytree(scene.data / "vector", snapshot / "vector")
    shutil.copytree(scene.data / "vector", snapshot / "graph")
    (snapshot / "media").mkdir()
    vault = load_config(scene.config).source(None).vault
    text = re.sub(r"age1\w+", vault, FROZEN).replace("/mnt/snapshot", str(snapshot))
    scene.config.write_text(scene.config.read_text("utf-8").split(f"[source.{SOURCE}]")[0] + text, "utf-8")
    scene.config.write_text(scene.config.read_text("utf-8").replace("prod-snapshot", SOURCE), "utf-8")

    done = archiver("backup", "--config", str(scene.config), "--json")

    assert done.code == 0, done.errors
    assert done.document["consistency"] == "frozen"


@pytest.mark.parametrize("live", [True, False])
def test_a_read_only_mount_is_good_for_a_stopped_server_only(scene: Scene, heed_writer: Path, live: bool) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted")
    mounted = "mount --bind data data && mount -o remount,bind,ro data && exec archiver backup"
    with live_server(scene, heed_writer, rate=50) as server:
        if not live:
            server.stop()
        result = run(f"unshare --mount sh -c '{mounted}'", scene)

    assert result.returncode == (1 if live else 0), result.stderr
    assert ("lock.mdb cannot be written to" in result.stderr) == live
    assert (", cold\n" in result.stdout) == (not live)


def test_the_mdb_copy_lines_of_the_runbook_fail(scene: Scene, heed_writer: Path) -> None:
    with HeedWriter.start(heed_writer, scene.data, paused=True):
        for line in ("mdb_copy -c data/vector X", "mdb_copy data/vector X"):
            assert "-30794" in run(f"mkdir -p X; {line}", scene).stderr
    make_environment(scene.data / "ours")
    for line in ("mdb_copy -c data/ours Y.mdb", "mdb_copy data/ours Y"):
        result = run(line, scene)
        assert result.returncode != 0
        assert "No such file or directory" in result.stderr


def test_the_labels_stand_in_their_order() -> None:
    table = TEXT.split("## How an environment is read\n")[1].split("\n## ")[0]

    assert re.findall(r"^\| `(\w+)` ", table, re.MULTILINE) == list(CONSISTENCIES)


@pytest.mark.parametrize(
    ("writable", "beyond", "disk", "begins", "stays"),
    [
        (1536, 600, 15, True, True),
        (1535, 600, 15, False, True),
        (1024, 600, 15, False, True),
        (1023, 600, 15, False, False),
        (2000, 512, 15, True, True),
        (2000, 511, 15, False, True),
        (2000, 342, 15, False, True),
        (2000, 341, 15, False, False),
        (2000, 600, 14, False, True),
        (2000, 600, 10, False, True),
        (2000, 600, 9, False, False),
    ],
)
def test_the_bounds_for_10_gibibytes(writable: int, beyond: int, disk: int, begins: bool, stays: bool) -> None:
    mebibyte = 1 << 20
    room = Room(
        map_size=10240 * mebibyte,
        beyond=beyond * mebibyte,
        reusable=(writable - beyond) * mebibyte,
        disk_size=100 * mebibyte,
        disk_free=disk * mebibyte,
        growth=1000 * mebibyte,
    )

    assert "1.5 GiB, 1 GiB" in TEXT
    assert "512 MiB, 341 MiB" in TEXT
    assert (refusal(room, PinLimits().headroom / 100) is None) == begins
    assert (shortage(room, PinLimits().headroom / 100) is None) == stays


def test_every_message_has_its_row() -> None:
    table = flat(TEXT.split("## Troubleshooting\n")[1])
    missing = [message for message in messages() if characteristic(message) not in table]

    assert len(messages()) > 20
    assert not missing


def messages() -> list[str]:
    """The text of every error that is raised, and every reason that is returned, with ``…`` for what differs."""
    found = []
    for module in MODULES:
        tree = ast.parse((REPOSITORY / "archiver" / "environment" / f"{module}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[text, *_]) if hasattr(errors, name):
                    found.append(template(text))
                case ast.Return(value=ast.JoinedStr() as text) if module == "headroom":
                    found.append(template(text))
    return [message for message in found if re.search("[a-z]{3}", message)]


def template(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(template, parts))
        case ast.BinOp(left=left):
            return template(left)
    return "…"


def characteristic(message: str) -> str:
    """The longest stretch of words that a message has in every case."""
    return max((flat(part).strip(" :,") for part in re.split("…|: expected", message)), key=len)


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_link_leads_somewhere() -> None:
    for file, anchor in re.findall(r"\]\(([\w./-]*\.md)?(?:#([\w-]+))?\)", TEXT):
        path = REPOSITORY / "docs" / (file or "HOT-BACKUP.md")
        assert path.is_file(), file
        headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, anchor


def test_the_loop_of_the_sidecar_goes_on_and_ends(scene: Scene) -> None:
    loop = re.search(r"^ +- \|\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert loop is not None
    commands = scene.root / "commands"
    commands.mkdir()
    log = scene.root / "log"
    log.touch()
    write_command(commands / "archiver", f'echo "$@" >> {log}; exit 3')
    # A second to go, after two runs a thousand.
    write_command(commands / "date", f'[ "$1" = -d ] || exec echo 0; [ $(wc -l < {log}) = 2 ] && echo 1000 || echo 1')
    command = ["bash", "-c", textwrap.dedent(loop[1])]
    path = f"{commands}:{os.environ['PATH']}"
    with subprocess.Popen(
        command, env={"PATH": path}, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline() for _ in range(2)]
            process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    assert lines == ["archiver backup ended with 3\n"] * 2
    assert log.read_text("utf-8") == "backup prod\n" * 2
