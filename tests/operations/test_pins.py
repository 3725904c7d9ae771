"""archiver backup beside a server: locked, given up and taken again, cold and then locked, external, frozen."""

import json
import os
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from archiver.buffers import Buffer
from archiver.catalog.records import ObjectKind, ObjectRecord
from archiver.operations.uploads import Uploads
from tests import heed
from tests.environment.damage import crash_lmdb
from tests.environment.live import read_content
from tests.environment.traces import alive, children, nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.operations.scene import ENVIRONMENTS, MIB, SOURCE, Done, Scene, archiver, configure, finish, spawn
from tests.waiting import PATIENCE, wait_until

MAP_SIZE = 192 * MIB


@pytest.fixture
def served(heed_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """The data of a heed server that is not running, without media."""
    for name in ("elsewhere", "served"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    scene = Scene(tmp_path / "served", (tmp_path / "served/destination").as_uri())
    scene.data.mkdir()
    with HeedWriter.start(heed_writer, scene.data, paused=True, nodes=6000, map_size=MAP_SIZE) as server:
        server.stop()
    configure(scene)
    return scene


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


def limit(scene: Scene, **limits: int) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in limits.items())
    scene.config.write_text(f"{scene.config.read_text()}\n[pin]\n{lines}")


def back_up(scene: Scene) -> Done:
    return archiver("backup", "--config", str(scene.config), "--json")


def methods(done: Done) -> dict[str, str]:
    return {item["name"]: item["method"] for item in done.document["environments"]}


def check_restored_is_whole(scene: Scene, heed_writer: Path) -> None:
    target = scene.root / "restored"
    done = scene.restore("--to", str(target))
    assert done.code == 0, done.errors
    assert not list(target.rglob("lock.mdb"))
    result = heed.check(heed_writer, target)
    assert result.problem is None
    assert None not in (result.vector, result.graph)


def stall(monkeypatch: pytest.MonkeyPatch, *stalls: Callable[[], object]) -> list[str]:
    """Call one of ``stalls`` in the middle of each of the first environments, before more of it is read, as where there
    is no processor to compress it; one text for each."""
    write = Uploads.write
    waiting = list(stalls)
    stalled: list[str] = []

    def slow(plaintext: Iterable[Buffer], wait: Callable[[], object]) -> Iterator[Buffer]:
        for number, buffer in enumerate(plaintext):
            yield buffer
            if number == 0:
                wait()

    def stalling(uploads: Uploads, kind: ObjectKind, plaintext: Iterable[Buffer], *, pinned: bool) -> ObjectRecord:
        if waiting:
            stalled.append(kind)
            plaintext = slow(plaintext, waiting.pop(0))
        return write(uploads, kind, plaintext, pinned=pinned)

    monkeypatch.setattr(Uploads, "write", stalling)
    return stalled


def test_a_server_at_full_speed_is_backed_up_and_whole(served: Scene, heed_writer: Path) -> None:
    with HeedWriter.start(heed_writer, served.data) as server:
        server.stats()
        done = finish(spawn("backup", "--config", str(served.config), "--json"))
        stats = server.stats()
        assert (stats.errors, stats.map_full) == (0, 0)
        assert [pins(served.data / name) for name in ENVIRONMENTS] == [[], []]
        lock = (served.data / "vector/lock.mdb").read_bytes()
        assert server.clear_stale() == {"vector": 0, "graph": 0}
    assert (done.code, done.errors) == (0, "")
    document = done.document
    assert document["consistency"] == "locked"
    assert 0 <= document["skew_seconds"] < PATIENCE
    for item in document["environments"]:
        assert set(item) == {"name", "method", "pinned", "txnid", "bytes"}
        assert item["method"] == "locked"
        assert document["started"] <= item["pinned"] <= document["finished"]
        assert item["txnid"] > 2
    assert (served.data / "vector/lock.mdb").read_bytes()[:8] == lock[:8]
    check_restored_is_whole(served, heed_writer)


def test_without_headroom_no_byte_is_copied(served: Scene, heed_writer: Path) -> None:
    limit(served, headroom=90, pause=0)
    with HeedWriter.start(heed_writer, served.data, map_size=24 * MIB, paused=True):
        done = back_up(served)
    assert done.code == 6
    error = done.document["error"]
    assert error["message"].startswith(f"cannot pin {served.data}/vector: only ")
    assert "max_db_size" in error["hint"]
    assert not list(served.destination.rglob("*.mdb.*"))
    assert served.backups() == []


def test_a_pin_that_was_given_up_is_taken_again(
    served: Scene, heed_writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(served, attempts=2, pause=0)
    with HeedWriter.start(heed_writer, served.data, sync=False, map_size=MAP_SIZE, index_size=MIB) as server:

        def until_given_up() -> None:
            wait_until(lambda: not pins(served.data / "vector"))
            server.set_rate(5)

        stalled = stall(monkeypatch, until_given_up)
        done = back_up(served)
        assert server.stop().map_full == 0
    assert len(stalled) == 1
    assert done.code == 3, done.errors
    (warning,) = done.errors.splitlines()
    assert warning.startswith(f"warning: beginning anew: gave up the pin on {served.data}/")
    assert methods(done) == {"vector": "locked", "graph": "locked"}
    check_restored_is_whole(served, heed_writer)


def test_a_pin_that_is_given_up_every_time_is_busy(
    served: Scene, heed_writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(served, attempts=2, pause=0)
    with HeedWriter.start(heed_writer, served.data, sync=False, map_size=MAP_SIZE, index_size=MIB) as server:

        def until_given_up() -> None:
            wait_until(lambda: not pins(served.data / "vector"))

        stalled = stall(monkeypatch, until_given_up, until_given_up)
        done = back_up(served)
        server.wait_for_commits(20)
        assert server.stop().map_full == 0
    assert done.code == 6, done.errors
    # The second time there may be too little room from the start.
    assert len(stalled) in (1, 2)
    assert done.errors.count("warning: beginning anew") == 1
    assert served.backups() == []


def test_a_server_that_starts_while_it_is_copied_cold(
    served: Scene, heed_writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as resources:

        def start_server() -> None:
            server = resources.enter_context(HeedWriter.start(heed_writer, served.data, map_size=MAP_SIZE))
            server.wait_for_commits(5)
            # At full speed on a busy machine it would need the room before it is copied, and the pin be given up.
            server.set_rate(5)

        stalled = stall(monkeypatch, start_server)
        done = back_up(served)
    assert len(stalled) == 1
    assert done.code == 3, done.errors
    assert methods(done) == {"vector": "locked", "graph": "locked"}
    (warning,) = done.errors.splitlines()
    assert warning.startswith(f"warning: beginning anew: {served.data}/")
    assert "was opened by another process" in warning
    check_restored_is_whole(served, heed_writer)


_STALLED = """
import time
from archiver.stores.local import LocalStore
create = LocalStore.create
def slow(body):
    for buffer in body:
        yield buffer
        time.sleep(3600)
LocalStore.create = lambda store, key, body: create(store, key, slow(body) if ".mdb." in key else body)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_ended_leaves_no_pin_and_no_helper(
    served: Scene, heed_writer: Path, number: signal.Signals, code: int
) -> None:
    with HeedWriter.start(heed_writer, served.data, paused=True, map_size=MAP_SIZE) as server:
        process = spawn("backup", "--config", str(served.config), before=_STALLED)
        wait_until(lambda: all(pins(served.data / name) for name in ENVIRONMENTS) and served.partial_files())
        helpers = children(process.pid)
        assert len(helpers) == 2
        process.send_signal(number)
        done = finish(process)
        assert done.code == code, done.errors
        wait_until(lambda: not any(map(alive, helpers)))
        assert [pins(served.data / name) for name in ENVIRONMENTS] == [[], []]
        assert server.clear_stale() == {"vector": 0, "graph": 0}
    assert "Traceback" not in done.errors
    served.backup()


def test_damage_that_kills_lmdb_is_one_line_and_no_backup(scene: Scene) -> None:
    crash_lmdb(scene.data / "vector/data.mdb")
    done = finish(spawn("backup", "--config", str(scene.config), "--quiet"))
    assert done.code == 4
    message, hint = done.errors.splitlines()
    assert message.startswith(f"archiver: {scene.data}/vector is corrupt, or its disk cannot be read: LMDB was ended")
    assert hint.startswith("hint: ")
    assert not list(scene.destination.rglob("manifest.json*"))
    assert scene.partial_files() == []


def configure_source(scene: Scene, lines: str) -> None:
    table = f"[source.{SOURCE}]\n"
    text = scene.config.read_text()
    assert table in text
    scene.config.write_text(text.replace(table, table + lines))


def test_a_command_copies_an_environment(scene: Scene, tmp_path: Path) -> None:
    # Where no environment is on this host, the command knows of one.
    content = read_content(scene.data / "graph/data.mdb")
    (scene.data / "graph").rename(tmp_path / "other")
    command = ["sh", "-c", f"cat {shlex.quote(str(tmp_path / 'other/data.mdb'))}"]
    configure_source(scene, f"external.graph = {json.dumps(command)}\n")
    done = back_up(scene)
    assert done.code == 0, done.errors
    assert methods(done) == {"vector": "cold", "graph": "external"}
    assert done.document["consistency"] == "external"
    assert not list((scene.state / SOURCE).glob("external-*"))
    assert scene.restore("--to", str(tmp_path / "out")).code == 0
    assert read_content(tmp_path / "out/graph/data.mdb") == content


def test_a_command_that_fails_is_one_error(scene: Scene) -> None:
    configure_source(scene, 'external.graph = ["sh", "-c", "echo no such volume >&2; exit 3"]\n')
    done = archiver("backup", "--config", str(scene.config), "--quiet")
    assert done.code == 1
    assert "expected exit status 0, got 3: no such volume" in done.errors
    assert scene.backups() == []


def test_what_a_killed_run_left_of_an_external_copy_is_removed(scene: Scene) -> None:
    left = scene.state / SOURCE / "external-x"
    left.mkdir(parents=True)
    (left / "data.mdb").write_bytes(b"in the clear")
    scene.backup()
    assert not left.exists()


def test_a_frozen_source_says_so(scene: Scene) -> None:
    configure_source(scene, "frozen = true\n")
    done = back_up(scene)
    assert done.code == 0, done.errors
    assert methods(done) == {"vector": "frozen", "graph": "frozen"}
    assert done.document["consistency"] == "frozen"
    shown = archiver("show", *scene.identity, "--json").document
    assert shown["consistency"] == "frozen"


def test_a_frozen_source_that_is_live_is_refused(served: Scene, heed_writer: Path) -> None:
    configure_source(served, "frozen = true\n")
    with HeedWriter.start(heed_writer, served.data, paused=True) as server:
        done = back_up(served)
    assert done.code == 6
    assert f"it is declared frozen, but a live process (pid {server.pid})" in done.document["error"]["message"]
    assert os.listdir(served.root / "destination") != []
    assert served.backups() == []
