"""A source with one backup, a network between it and the store that can be made faulty, and what must hold after that.

Commands under trial go through the proxy. Who judges them, with the recovery card, asks the server itself.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import boto3

from archiver.stores.destination import S3Destination, parse_destination
from tests.environment.live import make_environment
from tests.operations.scene import ENVIRONMENTS, MIB, SOURCE, Done, Scene, archiver, check_restored, make_scene, tree
from tests.servers.fault_proxy import FaultProxy
from tests.servers.fault_schedules import Kind
from tests.stores.conftest import open_uploads
from tests.stores.s3_help import PART, endpoint_of

IMPATIENT = "&attempts=3&read_timeout=0.5&connect_timeout=1"
"""Options under which a command notices stalls soon, and gives up soon."""
CALM = "&attempts=3"
"""Options under which it gives up as soon, but where nothing stalls: a busy machine may take long for any answer."""
WARNED = 3
DONE = (0, WARNED)
Objects = Mapping[str, tuple[str, int, object]]


@dataclass(frozen=True, slots=True)
class Trial:
    """The scene's card leads straight to the server, its configuration through the proxy."""

    scene: Scene
    proxy: FaultProxy
    old: str
    """The backup that was made before anything went wrong."""
    objects: Objects
    """What was in the store then."""
    options: str = IMPATIENT
    """Those of the destination under trial."""

    @property
    def url(self) -> str:
        """The destination as commands under trial reach it."""
        return self.scene.url.replace(endpoint_of(self.scene.url), self.proxy.endpoint) + self.options

    @property
    def target(self) -> Path:
        """Where restores under trial go."""
        return self.scene.root / "target"

    def backup(self) -> Done:
        """Of the same destination by the same journal as the scene's own backups, with less patience, and by a host
        that does not know what is in the store: it sends everything anew."""
        forget(self.scene)
        config = self.scene.root / "impatient.toml"
        config.write_text(self.scene.config.read_text().replace("&part_size", f"{self.options}&part_size"))
        assert self.options in config.read_text()
        return archiver("backup", "--config", str(config))

    def verify(self) -> Done:
        return archiver("verify", self.old, "--level", "data", *self.scene.identity, "--from", self.url)

    def restore(self) -> Done:
        return self.scene.restore("--from", self.url, "--to", str(self.target), "--force", backup=self.old)


def forget(scene: Scene) -> None:
    """Let the next backup read and send everything, as the first one on a new host does."""
    for memory in (scene.state / SOURCE).glob("media-*"):
        shutil.rmtree(memory)


def make_trial(root: Path, url: str, proxy: FaultProxy) -> Trial:
    """A small source with one file of several parts, backed up to ``url``, which leads straight to the server."""
    root.mkdir()
    scene = make_scene(root, f"{url}&part_size={PART}", entries=20)
    (scene.media / "film.mp4").write_bytes(Random(1).randbytes(2 * PART + MIB))
    scene.config.write_text(scene.config.read_text().replace(endpoint_of(url), proxy.endpoint))
    trial = Trial(scene, proxy, scene.backup(), stored(url))
    assert proxy.requests > 0
    for name in ENVIRONMENTS:
        make_environment(trial.target / name, 5)
    (trial.target / "media/album").mkdir(parents=True)
    (trial.target / "media/album/1.png").write_bytes(b"older")
    return trial


def stored(url: str) -> Objects:
    """ETag, size and time of every object of a destination, by its key."""
    destination = parse_destination(url)
    assert isinstance(destination, S3Destination)
    # Not boto3's default session: it keeps the first credentials that it finds.
    client = boto3.session.Session().client(
        "s3", endpoint_url=destination.options.endpoint, region_name=destination.options.region
    )
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=destination.bucket, Prefix=destination.prefix)
    found = {
        item["Key"]: (item["ETag"], item["Size"], item["LastModified"])
        for page in pages
        for item in page.get("Contents", [])
    }
    client.close()
    return found


def check_backup(trial: Trial, done: Done, known: Collection[str]) -> list[str]:
    """The run made a backup that can be restored, or failed in one line; what there was before, ``known`` backups among
    it, is as it was. Returns what is listed now."""
    listed = numbers(trial)
    new = [name for name in listed if name not in known]
    if done.code in DONE:
        assert len(new) == 1, done
        # A warning tells of a backup that it could not continue from.
        assert done.code == WARNED or listed[new[0]] == 1 + max(listed[name] for name in known), done
        out = trial.scene.root / new[0]
        assert trial.scene.restore("--to", str(out), backup=new[0]).code == 0
        check_restored(trial.scene, out)
    else:
        check_message(trial, done)
        # The one exception of Store.create: it fails, and the key exists, where every answer to it was lost.
        assert not new or trial.proxy.hits[Kind.LOST_REPLY], done
    assert set(known) <= set(listed)
    for name in (trial.old, *new):
        trial.scene.verify(name)
    assert trial.objects.items() <= stored(trial.scene.url).items()
    return list(listed)


def check_restore(trial: Trial, done: Done, before: object) -> None:
    """The target holds the backup, or the run failed in one line and the target is ``before``, its tree."""
    if done.code in DONE:
        check_restored(trial.scene, trial.target)
    else:
        check_message(trial, done)
        assert tree(trial.target) == before


def check_verify(trial: Trial, done: Done) -> None:
    """Altered bytes were noticed; other faults may be survived, or told of in one line."""
    if trial.proxy.hits[Kind.CORRUPTED]:
        assert done.code not in DONE, done
    if done.code != 0:
        check_message(trial, done)


def check_cleaned_up(trial: Trial) -> None:
    """The next run succeeds, and ends every multipart upload that earlier ones left open."""
    listed = list(numbers(trial))
    made = trial.scene.backup()
    assert list(numbers(trial)) == [made, *listed]
    assert open_uploads(trial.scene.url) == []
    assert trial.scene.journal() == ""


def check_message(trial: Trial, done: Done) -> None:
    """The error is one line and at most one hint, and calls nothing damaged that is not."""
    assert done.code == 7 or (done.code == 4 and trial.proxy.hits[Kind.CORRUPTED]), done
    lines = done.errors.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("archiver: ")), len(lines))
    assert [line.partition(": ")[0] for line in lines[start:]] in (["archiver"], ["archiver", "hint"]), done.errors
    assert not any("internal error" in line for line in lines[start:]), done.errors
    assert "Traceback" not in done.errors


def numbers(trial: Trial) -> dict[str, int]:
    """The backups that ``archiver list`` shows, each with its number in the chain."""
    done = archiver("list", *trial.scene.identity, "--json")
    # A run that could not read the one before begins to count anew, which list tells of.
    assert done.code in DONE, done
    return {backup["backup"]: backup["sequence"] for backup in done.document}
