"""Changes to archiver.toml: what was asked for and nothing else, whole or not at all, whatever the file looks like."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import AlreadyExistsError, ArchiverError, BusyError, ConfigError
from archiver.operations import config_edit
from archiver.operations.config_edit import Change, change_config, with_operator, with_vault, without_operator

OLD, NEW = "age1old", "age1new"
TEXT = """\
# what somebody wrote
state_directory = "state"   # and why

[destination]
url = "file:///mnt/backups"

[source.prod]
# the vault
vault = "age1old" # from the first day
media = "/srv/media"

[source.prod.operators]
# who may restore
alice = "age1alice"   # Alice, of the night shift
aws   = "arn:aws:kms:eu-central-1:123456789012:key/1"

[source.other]
vault = "age1old"
media = "/srv/other"

[tuning]
workers = 3
"""
WITHOUT_OPERATORS = """\
[destination]
url = "file:///mnt/backups"
[source.prod]
vault = "age1old"

[source.prod.environments]
graph = "/srv/graph"
[tuning]
workers = 3
"""


def rotated(text: str) -> str:
    return with_vault(text, "prod", OLD, NEW, tomllib.loads(text)["source"].get("prod", {}).get("operators", {}))


def added(text: str, name: str = "bob", key: str = "age1bob") -> str:
    return with_operator(text, "prod", name, key, OLD)


def removed(text: str, name: str = "alice") -> str:
    return without_operator(text, "prod", name, OLD)


def test_a_vault_is_changed_in_its_place() -> None:
    assert rotated(TEXT) == TEXT.replace('"age1old" # from', '"age1new" # from')


@pytest.mark.parametrize("change", [rotated, added, removed])
def test_a_vault_that_changed_meanwhile_stays(change: Change) -> None:
    with pytest.raises(BusyError, match="the vault of source 'prod' was changed"):
        change(TEXT.replace('"age1old"', '"age1other"'))


@pytest.mark.parametrize("change", [added, removed])
def test_a_vault_that_is_sealed_to_others_is_not_named(change: Change) -> None:
    operators = tomllib.loads(TEXT)["source"]["prod"]["operators"]
    with pytest.raises(BusyError, match="the operators of source 'prod' were changed"):
        with_vault(change(TEXT), "prod", OLD, NEW, operators)
    with pytest.raises(BusyError, match="the operators of source 'prod' were changed"):
        with_vault(TEXT, "prod", OLD, NEW, operators | {"aws": "age1another"})
    assert with_vault(TEXT, "prod", OLD, NEW, dict(reversed(operators.items()))) == rotated(TEXT)


def test_an_operator_is_added_below_the_others() -> None:
    aws = 'aws   = "arn:aws:kms:eu-central-1:123456789012:key/1"\n'
    assert added(TEXT) == TEXT.replace(aws, f'{aws}bob = "age1bob"\n')


def test_an_operator_who_is_there_stays_as_he_is() -> None:
    assert added(TEXT, "alice", "age1alice") == TEXT
    with pytest.raises(AlreadyExistsError, match="an operator 'alice' of source 'prod' with another key"):
        added(TEXT, "alice", "age1other")


def test_the_first_operator_gets_a_table() -> None:
    table = '\n[source.prod.operators]\nbob = "passphrase"\n\n'
    assert added(WITHOUT_OPERATORS, "bob", "passphrase") == WITHOUT_OPERATORS.replace(
        '"/srv/graph"\n', f'"/srv/graph"\n{table}'
    )


def test_an_operator_is_removed_with_his_line() -> None:
    line = 'alice = "age1alice"   # Alice, of the night shift\n'
    assert removed(TEXT) == TEXT.replace(line, "")
    assert removed(TEXT, "nobody") == TEXT
    assert removed(WITHOUT_OPERATORS, "nobody") == WITHOUT_OPERATORS
    alone = added(WITHOUT_OPERATORS)
    assert tomllib.loads(removed(alone, "bob"))["source"]["prod"]["operators"] == {}
    again = added(removed(alone, "bob"), "carol", "age1carol")
    assert tomllib.loads(again)["source"]["prod"]["operators"] == {"carol": "age1carol"}


LAYOUTS = {
    "usual": TEXT,
    "no operators": WITHOUT_OPERATORS,
    "no entries": TEXT.replace("alice =", "# alice =").replace("aws   =", "# aws   ="),
    "no entries at the end": '[source.prod]\nvault = "age1old"\n[source.prod.operators] # nobody\n# so far\n\n# end',
    "no entries inline": '[source.prod]\nvault = "age1old"\noperators = {} # nobody\n# so far\nmedia = "/x" # rest\n',
    "crlf": TEXT.replace("\n", "\r\n"),
    "no end": TEXT.rstrip("\n"),
    "inline": '[source] # all\nprod = {vault = "age1old", media = "/x"} # the only one\n',
    "scattered": """\
# graphs
[source.prod.environments] # of graphs
graph = "/g" # one

[class.daily] # not twice
keep = 1

# the vault
[source.prod] # at last
vault = "age1old" # from the first day
# the end
""",
    "scattered operators": """\
[source.prod.operators] # first
alice = "age1alice" # Alice
# who may restore

[tuning] # in between
workers = 3
# and then
[source.prod] # at last
vault = "age1old" # from the first day
""",
    "dotted": 'source.prod.vault = "age1old" # a\n# b\nsource.prod.media = "/x" # c\n',
    "one line": """\
[source.prod] # a
vault = "age1old" # b
operators = { alice = "age1alice" } # one line
# c
media = "/x" # d
""",
    "dotted operators": """\
[source.prod] # a
vault = "age1old" # b
# c
operators.alice = "age1alice" # Alice
# d
media = "/x" # e
[tuning]
workers = 3
""",
    "quoted": '[source."prod"] # a\n"vault" = \'age1old\' # b\nmedia = """\nx""" # c\n',
}


def comments(text: str, *, without: str = "") -> list[str]:
    """All comments in their order, except that of the operator ``without``; no value above has the sign in it."""
    lines = [
        line
        for line in text.splitlines()
        if not (without and line.startswith((f"{without} ", f"operators.{without} ")))
    ]
    return [line[line.index("#") :].strip() for line in lines if "#" in line]


@pytest.mark.parametrize("change", [rotated, added, removed])
@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_nothing_else_changes_or_nothing_at_all(text: str, change: Change) -> None:
    """A layout that cannot be edited is refused, with advice, rather than edited into something else."""
    expected = tomllib.loads(text)
    source = expected["source"]["prod"]
    if change is rotated:
        source["vault"] = NEW
    elif change is added:
        source.setdefault("operators", {})["bob"] = "age1bob"
    else:
        source.get("operators", {}).pop("alice", None)
    try:
        changed = change(text)
    except ConfigError as error:
        assert "[source.prod.operators]" in str(error.hint)  # noqa: PT017 - most layouts are edited
        return
    assert tomllib.loads(changed) == expected
    assert comments(changed) == comments(text, without="alice" if change is removed else "")
    assert ("\r\n" in changed) == ("\r\n" in text)
    assert changed.count("\n") == changed.count("\r\n") or "\r\n" not in text


@pytest.mark.parametrize("change", [rotated, added, removed])
@pytest.mark.parametrize("layout", ["usual", "no entries", "no entries at the end", "crlf", "no end"])
def test_the_documented_layout_is_edited(layout: str, change: Change) -> None:
    change(LAYOUTS[layout])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "archiver.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def files(path: Path) -> set[str]:
    return set(os.listdir(path.parent))


def test_mode_and_owner_are_kept(config: Path) -> None:
    if os.geteuid() == 0:
        os.chown(config, 1234, 4321)
    before = config.stat()
    change_config(config, rotated)
    after = config.stat()
    assert config.read_text() == rotated(TEXT)
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert files(config) == {"archiver.toml"}


def test_a_link_stays_a_link(config: Path) -> None:
    link = config.parent / "elsewhere" / "archiver.toml"
    link.parent.mkdir()
    link.symlink_to("../archiver.toml")
    change_config(link, rotated)
    assert os.readlink(link) == "../archiver.toml"
    assert config.read_text() == rotated(TEXT)


def test_a_rehearsal_changes_nothing(config: Path) -> None:
    before = config.stat()
    change_config(config, rotated, rehearse=True)
    assert config.stat() == before
    assert files(config) == {"archiver.toml"}


def test_what_would_not_be_valid_is_not_written(config: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        change_config(config, lambda text: f"unknown = 1\n{text}")
    assert config.read_text() == TEXT


def test_a_change_by_somebody_else_is_noticed(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = config_edit._written_beside

    @contextmanager
    def meanwhile(path: Path, data: bytes) -> Iterator[Path]:
        with written(path, data) as temporary:
            config.write_text(TEXT + "# an editor's\n")
            yield temporary

    monkeypatch.setattr(config_edit, "_written_beside", meanwhile)
    with pytest.raises(BusyError, match="changed by somebody else meanwhile"):
        change_config(config, rotated)
    assert config.read_text() == TEXT + "# an editor's\n"
    assert files(config) == {"archiver.toml"}


def test_changes_at_the_same_time_are_all_made(config: Path) -> None:
    barrier = threading.Barrier(8)
    names = [f"operator-{number}" for number in range(8)]

    def add(name: str) -> None:
        barrier.wait()
        change_config(config, lambda text: added(text, name, f"age1{name.replace('-', '')}"))

    threads = [threading.Thread(target=add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    operators = tomllib.loads(config.read_text())["source"]["prod"]["operators"]
    assert set(operators) == {"alice", "aws", *names}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(config: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if call == "replace" else os, call, fail)
    with pytest.raises(ConfigError, match=r"cannot change .*archiver.toml: no space left on device"):
        change_config(config, rotated)
    assert config.read_text() == TEXT
    assert files(config) == {"archiver.toml"}


@pytest.mark.parametrize("call", ["tempfile.mkstemp", "os.fchown"])
def test_a_file_that_may_not_be_changed(config: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if call == "os.fchown":
        if os.geteuid() != 0:
            pytest.skip("only root can have a file of somebody else here")
        os.chown(config, 1234, 4321)
    monkeypatch.setattr(call, fail)
    with pytest.raises(ArchiverError, match=r"not permitted|its owner or group would change"):
        change_config(config, rotated, rehearse=True)
    assert files(config) == {"archiver.toml"}


def test_a_file_that_is_mounted_by_itself(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's ``-v`` with a file and a subPath of Kubernetes: the kernel refuses to rename something over it."""
    own = tmp_path / "a place\t\\ of its own"
    own.mkdir()
    config = config.rename(own / config.name)
    mounts = tmp_path / "mountinfo"
    line = "36 35 98:0 / {} rw,noatime master:1 - ext4 /dev/root rw\n"
    monkeypatch.setattr(config_edit, "_MOUNTS", mounts)
    escaped = str(config).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    mounts.write_text(line.format("/") + line.format(escaped))
    for rehearse in (True, False):
        with pytest.raises(ConfigError, match="mounted as a single file"):
            change_config(config, rotated, rehearse=rehearse)
    assert config.read_text() == TEXT
    mounts.write_text(line.format("/") + line.format(escaped.removesuffix("/archiver.toml")) + "nonsense\n")
    change_config(config, rotated)
    mounts.unlink()
    change_config(config, lambda text: with_operator(text, "prod", "bob", "age1bob", NEW))


def test_the_kernels_own_list_of_mounts_is_read(config: Path) -> None:
    """In a mount namespace of its own, where this user may make one."""
    script = (
        "from pathlib import Path\n"
        "from archiver.errors import ConfigError\n"
        "from archiver.operations.config_edit import change_config\n"
        "try:\n"
        f"    change_config(Path({str(config)!r}), lambda text: text, rehearse=True)\n"
        "except ConfigError as error:\n"
        "    print(error.message)\n"
    )
    mount = f'mount --bind "{config}" "{config}" && exec "{sys.executable}" -c "$1"'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("this user may make no mount namespace")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", script], capture_output=True, text=True, check=True
    )
    assert "it is mounted as a single file" in done.stdout


@pytest.mark.parametrize(("number", "is_refused"), [(errno.EPERM, True), (errno.EACCES, False)])
def test_a_file_that_is_marked_as_immutable(
    config: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_refused: bool
) -> None:
    """For such a file the kernel answers EPERM; one that may only be read can be replaced."""
    real = os.open

    def refuse(path: Path, flags: int, *arguments: Any, **more: Any) -> int:
        if path == config and flags & os.O_WRONLY:
            raise PermissionError(number, os.strerror(number))
        return real(path, flags, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    if is_refused:
        with pytest.raises(ConfigError, match="marked as immutable or append-only"):
            change_config(config, rotated, rehearse=True)
    else:
        change_config(config, rotated)
        assert config.read_text() == rotated(TEXT)


@pytest.mark.parametrize("text", ["not toml", TEXT.replace("source.prod", "source.gone")])
def test_a_file_that_is_no_longer_the_same(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError):
        change_config(config, rotated)
    assert config.read_text() == text


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        change_config(tmp_path / "archiver.toml", rotated)
