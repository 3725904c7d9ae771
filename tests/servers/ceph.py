"""Ceph's S3 gateway on one node, with days that last seconds: it runs all lifecycle rules by itself, all the time.

It needs Debian's ``PACKAGES``. Its daemons trust each other, listen on 127.0.0.1 only, and keep all data in memory.
"""

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.servers.process import START_SECONDS, S3Server, ServerError, answers, free_ports, running

PACKAGES = ("ceph-common", "ceph-mon", "ceph-osd", "radosgw")
LIMITED = ("limited", "limited-secret")
"""Access key and secret of a second user, who may do nothing until a policy of a bucket lets him."""
ADMIN_ARN = "arn:aws:iam:::user/admin"
LIMITED_ARN = "arn:aws:iam:::user/limited"
_PROGRAMS = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_NOT_YET = "problem getting command descriptions"
_COMMAND_SECONDS = 60


@dataclass(frozen=True)
class CephServer(S3Server):
    """A running gateway, and what only its operator can do."""

    directory: Path
    day_seconds: int
    """How long a day of a lifecycle rule lasts."""

    def run_rules(self, bucket: str) -> None:
        """Let the rules of ``bucket`` act on all keys that are due now; that is done on return. The gateway does it by
        itself too, up to half a minute late, unless ``stop_rules`` was called, after which alone this may be."""
        # While the gateway is at the bucket, for the last time and with its own long days, this would leave it out
        # without a word.
        deadline = time.monotonic() + START_SECONDS
        while "PROCESSING" in _run(self.directory, "radosgw-admin", "lc", "list"):
            if time.monotonic() > deadline:
                raise ServerError(f"the lifecycle rules of bucket {bucket} did not come to an end")
            time.sleep(0.5)
        # Without a bucket it would leave out what the gateway has been at a moment ago.
        _run(self.directory, "radosgw-admin", "lc", "process", f"--bucket={bucket}")

    def stop_rules(self) -> None:
        """From now on the gateway's own days last 24 hours, so it lets nothing expire any more; those of ``run_rules``
        stay short."""
        socket = self.directory / "run" / "client.rgw.asok"
        _run(self.directory, "ceph", "daemon", str(socket), "config", "set", "rgw_lc_debug_interval", "-1")


@contextmanager
def ceph(day_seconds: int) -> Iterator[CephServer]:
    """A Ceph of its own on free ports of 127.0.0.1, empty; gone, with its data, at the end of the block."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise ServerError(f"not installed: {', '.join(missing)}; Debian's packages are {', '.join(PACKAGES)}")
    # Its sockets' paths must stay under 108 bytes: not below pytest's deep directories.
    with tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        port = free_ports(2)
        cluster = str(uuid.uuid4())
        _configure(directory, cluster, gateway=port, monitor=port + 1, day_seconds=day_seconds)
        with _monitor(directory, cluster, port + 1), _storage(directory), _gateway(directory, port):
            _add_user(directory, "admin", "admin", "admin-secret")
            _add_user(directory, "limited", *LIMITED)
            yield CephServer(f"http://127.0.0.1:{port}", "admin", "admin-secret", directory, day_seconds)


def _configure(directory: Path, cluster: str, *, gateway: int, monitor: int, day_seconds: int) -> None:
    for part in ("run", "mon", "osd", "rgw", "mon.out", "osd.out", "rgw.out"):
        (directory / part).mkdir()
    (directory / "keyring").touch()
    settings = {
        "global": {
            "fsid": cluster,
            "mon host": f"v1:127.0.0.1:{monitor}",
            "mon initial members": "a",
            "auth cluster required": "none",
            "auth service required": "none",
            "auth client required": "none",
            "keyring": directory / "keyring",
            "run dir": directory / "run",
            "crash dir": directory / "run",
            "admin socket": directory / "run" / "$name.asok",
            "pid file": directory / "run" / "$name.pid",
            "log file": directory / "run" / "$name.log",
            "ms bind msgr2": "false",
            "ms bind ipv6": "false",
            # One daemon holds the only copy.
            "osd crush chooseleaf type": "0",
            "osd pool default size": "1",
            "osd pool default min size": "1",
            "osd pool default pg num": "2",
            "osd pool default pgp num": "2",
            "osd pool default pg autoscale mode": "off",
            "mon allow pool size one": "true",
            "mon max pg per osd": "1000",
        },
        "mon": {"mon data": directory / "mon", "mon data avail warn": "1", "mon data avail crit": "1"},
        "osd": {
            "public addr": "127.0.0.1",
            "cluster addr": "127.0.0.1",
            "osd data": directory / "osd",
            "osd objectstore": "memstore",
            "memstore device bytes": "2G",
            "osd class load list": "*",
            "osd class default list": "*",
            "osd crush update on start": "false",
            "osd class update on start": "false",
        },
        "client": {
            "rgw frontends": f"beast endpoint=127.0.0.1:{gateway}",
            "rgw data": directory / "rgw",
            "rgw lc debug interval": str(day_seconds),
            "rgw lifecycle work time": "00:00-23:59",
            "rgw dynamic resharding": "false",
            "rgw run sync thread": "false",
        },
    }
    text = "".join(
        f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
        for section, values in settings.items()
    )
    (directory / "ceph.conf").write_text(text)


@contextmanager
def _monitor(directory: Path, cluster: str, port: int) -> Iterator[None]:
    monitors = str(directory / "monmap")
    _run(directory, "monmaptool", "--create", "--fsid", cluster, "--addv", "a", f"[v1:127.0.0.1:{port}]", monitors)
    _run(directory, "ceph-mon", "-i", "a", "--mkfs", "--monmap", monitors)
    with _daemon(directory, "mon", ready="mon stat"):
        yield


@contextmanager
def _storage(directory: Path) -> Iterator[None]:
    name = str(uuid.uuid4())
    _run(directory, "ceph", "osd", "new", name)
    _run(directory, "ceph", "osd", "crush", "add-bucket", "here", "host")
    _run(directory, "ceph", "osd", "crush", "move", "here", "root=default")
    _run(directory, "ceph", "osd", "crush", "add", "osd.0", "1.0", "host=here")
    _run(directory, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", name)
    with _daemon(directory, "osd", ready="osd stat"):
        deadline = time.monotonic() + START_SECONDS
        while "1 up" not in _run(directory, "ceph", "osd", "stat"):
            if time.monotonic() > deadline:
                raise ServerError("ceph-osd did not come up")
            time.sleep(0.2)
        yield


@contextmanager
def _gateway(directory: Path, port: int) -> Iterator[None]:
    # Makes the default zone.
    _run(directory, "radosgw-admin", "user", "list")
    with running(
        ["radosgw", "-n", "client.rgw", "-f"],
        environment=_environment(directory),
        directory=directory / "rgw.out",
        ready=lambda: answers(f"http://127.0.0.1:{port}/"),
    ):
        yield


@contextmanager
def _daemon(directory: Path, kind: Literal["mon", "osd"], *, ready: str) -> Iterator[None]:
    """``ready`` is a command of ceph that succeeds when it is."""

    def is_ready() -> bool:
        try:
            _run(directory, "ceph", "--connect-timeout", "3", *ready.split())
        except ServerError:
            return False
        return True

    with running(
        [f"ceph-{kind}", "-i", "a" if kind == "mon" else "0", "-f"],
        environment=_environment(directory),
        directory=directory / f"{kind}.out",
        ready=is_ready,
    ):
        yield


def _add_user(directory: Path, name: str, access_key: str, secret_key: str) -> None:
    keys = (f"--access-key={access_key}", f"--secret={secret_key}")
    _run(directory, "radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", *keys)


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "CEPH_CONF": str(directory / "ceph.conf")}


def _run(directory: Path, *command: str) -> str:
    """What ``command`` writes to its standard output."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            done = subprocess.run(
                command, env=_environment(directory), capture_output=True, text=True, timeout=_COMMAND_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise ServerError(f"{' '.join(command)} took longer than {_COMMAND_SECONDS} s") from None
        if done.returncode == 0:
            return done.stdout
        # What the monitor says now and then in its first seconds, before it has looked at the command.
        if _NOT_YET not in done.stderr or time.monotonic() > deadline:
            raise ServerError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        time.sleep(0.5)
