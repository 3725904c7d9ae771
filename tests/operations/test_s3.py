"""The same over S3: nothing but the destination's URL differs."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.operations.scene import MIB, Done, Scene, archiver, check_restored, finish, make_scene, spawn, tree
from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.servers.fault_schedules import Fault, Kind, every, no_faults
from tests.servers.localstack import REGION
from tests.servers.process import S3Server, free_ports
from tests.stores.conftest import open_uploads
from tests.stores.s3_help import endpoint_of
from tests.waiting import wait_until

PART = 5 * MIB


@pytest.fixture(params=["localstack", "localstack_eu", "seaweed"])
def s3_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Scene:
    """A source whose destination is in each server in turn, in small parts, with a file of many of them."""
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, f"{request.getfixturevalue(f'{request.param}_url')}&part_size={PART}")
    (scene.media / "film.mp4").write_bytes(random.Random(1).randbytes(8 * PART))
    return scene


def test_there_and_back_with_the_card_alone(s3_scene: Scene, tmp_path: Path) -> None:
    names = [s3_scene.backup(), s3_scene.backup()]
    assert s3_scene.backups() == names[::-1]
    original = tree(s3_scene.media)
    s3_scene.config.unlink()
    shutil.rmtree(s3_scene.state)
    for level in ("storage", "data", "restore"):
        done = archiver("verify", "--all", "--level", level, *s3_scene.identity)
        assert done.code == 0, done.errors
    assert s3_scene.restore("--to", str(tmp_path / "out")).code == 0
    check_restored(s3_scene, tmp_path / "out", media=original)
    small = archiver("cat", "latest", "media/album/1.png", *s3_scene.identity)
    assert small.raw == (s3_scene.media / "album/1.png").read_bytes()
    assert open_uploads(s3_scene.url) == []


@pytest.fixture
def slow_link(s3_scene: Scene) -> Iterator[FaultProxy]:
    """A link between the scene's configuration and its destination, over which an upload takes seconds."""
    endpoint = endpoint_of(s3_scene.url)
    with fault_proxy(endpoint, every(1, Fault(Kind.SLOW, rate=2 * MIB))) as proxy:
        s3_scene.config.write_text(s3_scene.config.read_text().replace(endpoint, proxy.endpoint))
        yield proxy


def begin_upload(scene: Scene) -> "subprocess.Popen[bytes]":
    """A backup that is in the middle of an upload."""
    process = spawn("backup", "--config", str(scene.config))
    wait_until(lambda: open_uploads(scene.url) or process.poll() is not None)
    assert process.poll() is None
    return process


def test_the_next_run_aborts_the_uploads_of_a_killed_one(s3_scene: Scene, slow_link: FaultProxy) -> None:
    complete = s3_scene.backup()
    # What has not changed would not be sent again.
    (s3_scene.media / "film.mp4").write_bytes(random.Random(2).randbytes(8 * PART))
    process = begin_upload(s3_scene)
    process.kill()
    finish(process)
    assert open_uploads(s3_scene.url) != []
    assert s3_scene.backups() == [complete]
    s3_scene.verify(complete)
    slow_link.follow(no_faults)
    s3_scene.backup()
    assert open_uploads(s3_scene.url) == []
    assert s3_scene.journal() == ""


@pytest.mark.usefixtures("slow_link")
def test_sigterm_aborts_the_upload_at_once(s3_scene: Scene) -> None:
    process = begin_upload(s3_scene)
    process.terminate()
    done = finish(process)
    assert done.code == 143, done.errors
    assert open_uploads(s3_scene.url) == []
    assert s3_scene.backups() == []


@pytest.mark.parametrize("server", ["localstack", "seaweed"])
def test_ten_thousand_small_files_take_less_than_a_hundred_requests(
    request: pytest.FixtureRequest, tmp_path: Path, server: str
) -> None:
    root = tmp_path / "scene"
    root.mkdir()
    scene = make_scene(root, str(request.getfixturevalue(f"{server}_url")))
    for number in range(10_000):
        (scene.media / f"{number}.jpg").write_bytes(b"%d" % number * 100)
    done = archiver("backup", "--config", str(scene.config), "--json")
    assert done.code == 0, done.errors
    assert done.document["files"] > 10_000
    requests = done.document["requests"]
    assert requests["PutObject"] > 5
    assert sum(requests.values()) < 100, requests


def init_at(root: Path, url: str) -> Done:
    return archiver(
        "init", "--to", url, "--source", "prod", "--media", str(root), "--config", str(root / "archiver.toml"),
        "--card", str(root / "card.txt"),
    )  # fmt: skip


def one_line(done: Done, code: int) -> str:
    """The message, after it was found to be one line and at most one hint."""
    message, *hints = done.errors.splitlines()
    assert done.code == code, done.errors
    assert message.startswith("archiver: ")
    assert [hint[:6] for hint in hints] in ([], ["hint: "])
    return message


def test_a_missing_bucket(tmp_path: Path, localstack_url: str) -> None:
    done = init_at(tmp_path, localstack_url.replace("archiver-test", "no-such-bucket"))
    assert "the bucket does not exist" in one_line(done, 7)


@pytest.mark.parametrize(
    ("key", "secret", "reason"),
    [("nobody", "nothing", "access key is not known"), ("admin", "wrong", "the signature is wrong")],
)
def test_bad_credentials(
    tmp_path: Path, seaweed_url: str, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, reason: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    done = init_at(tmp_path, seaweed_url)
    message = one_line(done, 7)
    assert reason in message
    assert "AWS_ACCESS_KEY_ID" in done.errors


def test_no_credentials(tmp_path: Path, localstack_server: S3Server) -> None:
    url = f"s3://bucket/prefix?endpoint={localstack_server.endpoint}&region={REGION}"
    assert "no usable credentials" in one_line(init_at(tmp_path, url), 7)


def test_an_endpoint_that_nobody_listens_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{free_ports(1)}&region={REGION}&attempts=2"
    assert "cannot reach http://127.0.0.1" in one_line(init_at(tmp_path, url), 7)
