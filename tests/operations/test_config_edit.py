"""Changes to archiver.toml: what was asked for and nothing else, whole or not at all, whatever the file looks like."""

import os
import stat
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
level = 3
"""
WITHOUT_OPERATORS = """\
[destination]
url = "file:///mnt/backups"
[source.prod]
vault = "age1old"

[source.prod.environments]
graph = "/srv/graph"
[tuning]
level = 3
"""


def rotated(text: str) -> str:
    return with_vault(text, "prod", OLD, NEW)


def test_a_vault_is_changed_in_its_place() -> None:
    assert with_vault(TEXT, "prod", OLD, NEW) == TEXT.replace('"age1old" # from', '"age1new" # from')


def test_a_vault_that_changed_meanwhile_stays() -> None:
    with pytest.raises(BusyError, match="the vault of source 'prod' was changed"):
        with_vault(TEXT, "prod", "age1older", NEW)


def test_an_operator_is_added_below_the_others() -> None:
    aws = 'aws   = "arn:aws:kms:eu-central-1:123456789012:key/1"\n'
    assert with_operator(TEXT, "prod", "bob", "age1bob") == TEXT.replace(aws, f'{aws}bob = "age1bob"\n')


def test_an_operator_who_is_there_stays_as_he_is() -> None:
    assert with_operator(TEXT, "prod", "alice", "age1alice") == TEXT
    with pytest.raises(AlreadyExistsError, match="an operator 'alice' of source 'prod' with another key"):
        with_operator(TEXT, "prod", "alice", "age1other")


def test_the_first_operator_gets_a_table() -> None:
    added = with_operator(WITHOUT_OPERATORS, "prod", "bob", "passphrase")
    table = '\n[source.prod.operators]\nbob = "passphrase"\n\n'
    assert added == WITHOUT_OPERATORS.replace('"/srv/graph"\n', f'"/srv/graph"\n{table}')


def test_an_operator_is_removed_with_his_line() -> None:
    line = 'alice = "age1alice"   # Alice, of the night shift\n'
    assert without_operator(TEXT, "prod", "alice") == TEXT.replace(line, "")
    assert without_operator(TEXT, "prod", "nobody") == TEXT
    assert without_operator(WITHOUT_OPERATORS, "prod", "nobody") == WITHOUT_OPERATORS
    alone = with_operator(WITHOUT_OPERATORS, "prod", "bob", "age1bob")
    assert tomllib.loads(without_operator(alone, "prod", "bob"))["source"]["prod"]["operators"] == {}
    again = with_operator(without_operator(alone, "prod", "bob"), "prod", "carol", "age1carol")
    assert tomllib.loads(again)["source"]["prod"]["operators"] == {"carol": "age1carol"}


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        WITHOUT_OPERATORS,
        TEXT.replace("\n", "\r\n"),
        TEXT.rstrip("\n"),
        '[source]\nprod = {vault = "age1old", media = "/x"}\n',
        '[source.prod.environments]\ngraph = "/g"\n\n[class.daily]\nkeep = 1\n\n[source.prod]\nvault = "age1old"\n',
        'source.prod.vault = "age1old"\nsource.prod.media = "/x"\n',
        '[source.prod]\nvault = "age1old"\noperators = { alice = "age1alice" } # one line\nmedia = "/x"\n',
        '[source.prod]\nvault = "age1old"\noperators.alice = "age1alice"\nmedia = "/x"\n[tuning]\nlevel = 3\n',
        '[source."prod"]\n"vault" = \'age1old\'\nmedia = """\nx"""\n',
    ],
    ids=[
        "usual",
        "no operators",
        "crlf",
        "no end",
        "inline",
        "scattered",
        "dotted",
        "one line",
        "dotted too",
        "quoted",
    ],
)
def test_nothing_else_changes_or_nothing_at_all(text: str) -> None:
    """A layout that cannot be edited is refused, with advice, rather than edited into something else."""
    before = tomllib.loads(text)
    changes: list[Change] = [
        rotated,
        lambda old: with_operator(old, "prod", "bob", "age1bob"),
        lambda old: without_operator(old, "prod", "alice"),
    ]
    for change in changes:
        try:
            changed = change(text)
        except ConfigError as error:
            assert "[source.prod.operators]" in str(error.hint)  # noqa: PT017 - most layouts are edited
            continue
        after = tomllib.loads(changed)
        assert after["source"]["prod"].pop("vault") in (OLD, NEW)
        assert after["source"]["prod"].pop("operators", {}).keys() - {"alice", "aws"} <= {"bob"}
        for key in ("vault", "operators"):
            tomllib.loads(text)["source"]["prod"].pop(key, None)
        rest = {key: value for key, value in before["source"]["prod"].items() if key not in ("vault", "operators")}
        assert after["source"]["prod"] == rest
        assert {**after, "source": 0} == {**before, "source": 0}
        assert ("\r\n" in changed) == ("\r\n" in text)
        assert changed.count("\n") == changed.count("\r\n") or "\r\n" not in text


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
        change_config(config, lambda text: with_operator(text, "prod", name, f"age1{name.replace('-', '')}"))

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


@pytest.mark.parametrize("text", ["not toml", TEXT.replace("source.prod", "source.gone")])
def test_a_file_that_is_no_longer_the_same(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError):
        change_config(config, rotated)
    assert config.read_text() == text


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        change_config(tmp_path / "archiver.toml", rotated)
