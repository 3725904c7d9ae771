"""Bad input: one clear line, at most one hint, the documented exit code, no traceback; the same as JSON."""

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from archiver.cli.output import Terminated
from archiver.stores.retry import Retry
from tests.cli.checking import backup, check
from tests.operations.privileges import OBEYING_MODES
from tests.operations.scene import SOURCE, Scene, archiver, finish, spawn
from tests.servers.process import REPOSITORY

PRICES = REPOSITORY / "docs" / "prices" / "example.toml"


def edit(scene: Scene, old: str, new: str) -> None:
    text = scene.config.read_text()
    assert old in text
    scene.config.write_text(text.replace(old, new, 1))


def line_of(scene: Scene, text: str) -> int:
    return next(number for number, line in enumerate(scene.config.read_text().splitlines(), 1) if text in line)


# Configuration.


@pytest.mark.parametrize(
    ("old", "new", "key", "problem"),
    [
        ("workers = 99", "workers = 99", "tuning.workers", "expected a whole number from 1 to 64, got 99"),
        ("keep = 35", 'keep = "long"', "class.daily.keep", "expected a whole number"),
        ("lease = 7", "lease = 0", "class.daily.lease", "expected a whole number from 1"),
        ("vault = ", "vaultt = ", "source.prod.vault", "missing"),
        ("media = ", "medium = ", "source.prod.medium", "unknown key"),
        ('state_directory = "state"', "state_directory = 1", "state_directory", "expected a text, got 1"),
    ],
)
def test_a_malformed_configuration_names_line_and_key(scene: Scene, old: str, new: str, key: str, problem: str) -> None:
    if old == new:
        scene.config.write_text(scene.config.read_text() + "workers = 99\n")
    else:
        edit(scene, old, new)
    line = line_of(scene, new) if "vault" not in new else line_of(scene, "[source.prod]")
    check(backup(scene), 2, f"{scene.config}, line {line}: {key}: ", problem)


def test_configuration_that_is_no_toml(scene: Scene) -> None:
    edit(scene, "keep = 35", "keep = = 35")
    check(backup(scene), 2, str(scene.config), f"line {line_of(scene, 'keep = = 35')}")


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        ("file://", "ftp://", ["unknown scheme 'ftp'", "s3"]),
        ("file:///", "file://host/", ["absolute path"]),
        ("file:///", "s3://user:pass@bucket/", ["holds credentials"]),
        ("file:///", "s3://b/", ["malformed bucket name 'b'"]),
    ],
)
def test_a_destination_that_is_none(scene: Scene, old: str, new: str, texts: list[str]) -> None:
    edit(scene, f'url = "{old}', f'url = "{new}')
    if "bucket name" in texts[0]:
        texts = ["malformed bucket name"]
    check(backup(scene), 2, *texts)
    assert "pass@" not in backup(scene).errors


def test_no_configuration(scene: Scene) -> None:
    check(archiver("backup"), 2, "no configuration at archiver.toml or /etc/archiver/archiver.toml", "archiver init")
    check(archiver("backup", "--config", "/none.toml"), 2, "no configuration at /none.toml")
    check(archiver("list"), 2, "no configuration", "--from")
    for command in (
        ["doctor"], ["backup"], ["promote"], ["hold", "latest"], ["release", "latest"], ["expire"],
        ["cost", "--prices", str(PRICES)], ["lifecycle", "check"], ["lifecycle", "export", "--format", "json"],
    ):  # fmt: skip
        done = archiver(*command)
        check(done, 2, "no configuration", "--config", "archiver.toml")
        # They take none.
        assert "--from" not in done.errors, command


def test_a_missing_option_with_choices_is_told_in_one_line(scene: Scene) -> None:
    done = archiver("lifecycle", "export", "--config", str(scene.config))
    check(done, 2, "missing option '--format'. Choose from: terraform, json", "archiver lifecycle export --help")
    assert "\\" not in done.errors


def test_unknown_source_class_and_backup(scene: Scene) -> None:
    check(backup(scene, "staging"), 2, "has no source 'staging'", "Name one of: prod")
    check(backup(scene, "--class", "hourly"), 2, "has no class 'hourly'", "daily")
    check(backup(scene, "--class", "vault"), 2, "'vault' cannot be the name of a class")
    check(archiver("show", "20200101", *scene.identity), 5, "has no backup '20200101' of source 'prod'")
    check(archiver("restore", "--to", "out", *scene.identity), 5, "has no backup of source 'prod'")
    check(archiver("restore", "--at", "yesterday", "--to", "out", *scene.identity), 2, "not a time: 'yesterday'")


def test_a_missing_or_foreign_signing_key(scene: Scene) -> None:
    key = scene.root / "archiver-signing.key"
    key.write_text("no key\n")
    check(backup(scene), 2, str(scene.config), "minisign secret key")
    key.unlink()
    check(backup(scene), 2, f"signing.key: cannot read {key}", "archiver keys generate --signing")


def test_a_vault_that_nobody_could_open(scene: Scene) -> None:
    next(scene.destination.rglob("*.age")).unlink()
    done = backup(scene)
    check(
        done, 2, "holds no key file of vault", "nobody could restore", "below vault/prod/", "from a copy", "old version"
    )
    assert "archiver init" not in done.errors
    found = archiver("doctor", "--config", str(scene.config))
    assert "hint: Put what was below vault/prod/" in found.output


def test_a_destination_that_is_gone(scene: Scene) -> None:
    shutil.rmtree(scene.destination)
    check(backup(scene), 5, f"destination directory {scene.destination} does not exist", "mounted")
    check(archiver("list", *scene.identity), 5, str(scene.destination))


def test_a_destination_that_may_not_be_read(scene: Scene) -> None:
    scene.destination.chmod(0)
    try:
        done = finish(spawn("list", *scene.identity, prefix=OBEYING_MODES))
    finally:
        scene.destination.chmod(0o700)
    check(done, 7, str(scene.destination), "ermission denied")


def test_a_state_directory_that_cannot_be_used(scene: Scene) -> None:
    scene.state.write_text("a file")
    check(backup(scene), 1, "state", "state_directory")


# Keys.


def test_identity_files_that_are_none(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    for name, content, texts in (
        ("missing", None, ["cannot read"]),
        ("text", b"hello\n", ["not an age identity", "line 1"]),
        ("empty", b"", ["holds no identity"]),
        ("binary", b"\xff\xfe\0", ["not utf-8 text"]),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        done = archiver("restore", "--identity", str(path), "--config", str(scene.config), "--to", "out")
        check(done, 2, str(path), *texts)
        assert "hello" not in done.errors
    assert not Path("out").exists()


def test_a_wrong_identity(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    key = tmp_path / "other.txt"
    assert archiver("keys", "generate", "--output", str(key)).code == 0
    done = archiver("restore", "--identity", str(key), "--config", str(scene.config), "--to", "out")
    check(done, 4, "none of the given identities opens vault", "test.age", "--identity")
    assert not Path("out").exists()


def test_a_blank_machine_needs_a_key_to_verify_with(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    key = tmp_path / "key.txt"
    key.write_text(scene.card.read_text().splitlines()[-1] + "\n")
    options = ("--from", scene.url, "--source", SOURCE, "--identity", str(key))
    check(archiver("restore", *options, "--to", "out"), 2, "no key to verify backups with", "--verify-key")
    check(archiver("restore", *options, "--to", "out", "--verify-key", "RWnonsense"), 2, "invalid verification key")
    check(archiver("list", "--from", scene.url, "--trust-unsigned"), 2, "no source named", "--source")
    verify_key = next(line.split(": ")[1] for line in scene.card.read_text().splitlines() if "verify-key:" in line)
    done = archiver("restore", *options, "--to", "out", "--verify-key", verify_key)
    assert done.code == 0, done.errors


# Restores.


def test_a_missing_object(scene: Scene) -> None:
    scene.backup()
    victim = next(scene.destination.rglob("*.tar.zst.age"))
    victim.unlink()
    done = archiver("restore", *scene.identity, "--to", "out")
    assert done.code in (4, 5)
    check(done, done.code, victim.name)
    assert not Path("out").exists()


def test_targets_that_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    scene.backup()
    (tmp_path / "file").write_text("a file")
    check(archiver("restore", *scene.identity, "--to", str(tmp_path / "file")), 1, "file is not a directory")
    check(archiver("restore", *scene.identity, "--to", str(tmp_path / "file/below")), 1, "file is not a directory")
    closed = tmp_path / "closed"
    closed.mkdir(0o500)
    done = finish(spawn("restore", *scene.identity, "--to", str(closed / "out"), prefix=OBEYING_MODES))
    check(done, 1, f"cannot create {closed}/out", "permission denied")
    closed.chmod(0o700)


def test_where_to_must_be_said(scene: Scene) -> None:
    check(archiver("restore", *scene.identity), 2, "--to DIR", "--in-place")
    check(archiver("restore", *scene.identity, "--to", "a", "--in-place"), 2, "--to DIR")
    check(archiver("restore", *scene.identity, "--in-place"), 2, "no configuration at archiver.toml")
    check(archiver("restore", *scene.identity, "--to", ""), 2, "expected a path, got an empty text")
    check(archiver("restore", "20261122", "--at", "2026-11-22", *scene.identity, "--to", "a"), 2, "both a backup")
    check(archiver("restore", *scene.identity, "--to", "a", "--owner", "no-such-user"), 2, "no-such-user")


# The command line itself.


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["backup", "--nonsense"], ["ls"], ["cat", "latest"], ["verify", "--level", "all"], ["init"], []],
)
def test_usage(arguments: list[str]) -> None:
    done = archiver(*arguments)
    assert (done.code, done.output) == (2, "")
    if arguments:
        check(done, 2, "Run archiver", "--help.")


def test_errors_as_json(scene: Scene) -> None:
    done = archiver("show", "20200101", *scene.identity, "--json")
    assert (done.code, done.errors) == (5, "")
    error = done.document["error"]
    assert set(error) == {"message", "hint", "exit_code"}
    assert error["exit_code"] == 5


def test_quiet_says_only_what_went_wrong(scene: Scene) -> None:
    assert backup(scene, "--quiet").errors == ""
    done = archiver("restore", "20200101", "--to", "out", *scene.identity, "--quiet")
    assert len(done.errors.splitlines()) == 2


def test_a_reader_that_goes_away_is_no_bug(scene: Scene) -> None:
    scene.backup()
    process = spawn("ls", "latest", *scene.identity, "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == ""


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
@pytest.mark.parametrize(("terminal", "before"), [(False, ""), (True, "\n")], ids=["log", "terminal"])
def test_an_interrupt_ends_the_line_of_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException], code: int, terminal: bool, before: str
) -> None:
    class Stream(io.TextIOWrapper):
        def isatty(self) -> bool:
            return terminal

    def interrupted(_: object) -> None:
        raise error

    monkeypatch.setattr("archiver.config.find_config", interrupted)
    monkeypatch.setattr(io, "TextIOWrapper", Stream)
    done = archiver("doctor")
    assert done.code == code
    assert re.fullmatch(f"{before}archiver: (interrupted|terminated)\n", done.errors)


def test_names_that_a_terminal_cannot_show_do_not_end_a_command(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.backup()
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = finish(spawn("ls", "latest", *scene.identity))
    assert done.code == 0, done.errors
    assert "caf\\udce9" in done.output
    as_json = finish(spawn("ls", "latest", *scene.identity, "--json"))
    names = [json.loads(line)["path"] for line in as_json.output.splitlines()]
    assert os.fsencode("media/caf\udce9 \udcff.bin") in [os.fsencode(name) for name in names]
    assert sys.getfilesystemencoding() == "utf-8"


def test_a_request_that_fails_again_and_again_is_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody who waits at a terminal would think that it hangs."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(Retry, "delay", lambda *_: 0.0)
    url = "s3://bucket/prefix?endpoint=http://127.0.0.1:1&region=us-east-1&attempts=4"
    command = ("list", "--from", url, "--source", "prod", "--trust-unsigned")
    done = archiver(*command)
    assert done.code == 7
    told = [line for line in done.errors.splitlines() if not line.startswith(("archiver: ", "hint: "))]
    assert [line.partition("(failed ")[2] for line in told] == ["2 of 4 times)", "3 of 4 times)"]
    assert all(line.startswith("cannot reach http://127.0.0.1:1: ") for line in told)
    assert archiver(*command, "--quiet").errors.startswith("archiver: ")
