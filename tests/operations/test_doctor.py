"""archiver doctor: finds what would stop a backup or a restore, and changes no data."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from archiver.cli.doctor import describe
from archiver.config import PinLimits, load_config
from archiver.crypto.keys import generate_identity
from archiver.crypto.recipients import vault_id
from archiver.environment.headroom import Room
from archiver.operations.doctor_environment import examine_environment
from archiver.operations.findings import Finding
from archiver.sources.environments import EnvironmentSpec
from tests.environment.live import make_environment, writer
from tests.environment.states import PINNING, READING, leak_a_page, make_plain_environment, reader_process
from tests.heed import HeedWriter
from tests.operations.scene import Done, Scene, archiver, finish, spawn, tree

ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """With a second operator: a single one is worth a warning."""
    add_file(scene, "second.age")
    add_operator(scene, "second", str(generate_identity(post_quantum=False).recipient))
    return scene


def add_file(scene: Scene, name: str) -> None:
    """Of an operator; only names are looked at."""
    (directory,) = (scene.destination / "vault/prod").iterdir()
    (directory / name).write_text("doctor may not read this")


def add_operator(scene: Scene, name: str, key: str) -> None:
    """Write it into the configuration."""
    table = "[source.prod.operators]\n"
    scene.config.write_text(scene.config.read_text().replace(table, f'{table}{name} = "{key}"\n'))


def examine(scene: Scene) -> Done:
    return archiver("doctor", "--config", str(scene.config), "--json")


def problems(done: Done) -> list[tuple[str, str]]:
    return [(item["severity"], item["subject"]) for item in done.document if item["severity"] != "ok"]


def of_environment(directory: Path, **details: Any) -> list[Finding]:
    """The findings on one environment."""
    spec = EnvironmentSpec("vector", directory, **({"max_size": None} | details))
    return list(examine_environment("prod", spec, PinLimits(), directory.parent / "state"))


def the_warning(findings: list[Finding]) -> Finding:
    (warning,) = [finding for finding in findings if finding.severity == "warning"]
    assert warning.hint is not None
    assert warning.hint[0].isupper()
    assert warning.hint.endswith(".")
    return warning


def the_error(findings: list[Finding]) -> Finding:
    (error,) = findings
    assert error.severity == "error"
    return error


def test_all_is_well_and_nothing_is_changed(scene: Scene) -> None:
    before = tree(scene.root)
    done = examine(scene)
    assert (done.code, problems(done)) == (0, [])
    subjects = {item["subject"].split()[0] for item in done.document}
    assert subjects == {"signing", "destination", "vault", "environment", "media"}
    assert tree(scene.root) == before


def lose_environment(scene: Scene) -> None:
    (scene.data / "vector/data.mdb").unlink()


def corrupt_environment(scene: Scene) -> None:
    (scene.data / "vector/data.mdb").write_bytes(bytes(8192))


def lose_media(scene: Scene) -> None:
    scene.media.rename(scene.data / "elsewhere")


def lose_vault(scene: Scene) -> None:
    shutil.rmtree(scene.destination / "vault")


def lose_destination(scene: Scene) -> None:
    shutil.rmtree(scene.destination)


def lose_signing_key(scene: Scene) -> None:
    (scene.root / "archiver-signing.key").unlink()


def distrust_own_key(scene: Scene) -> None:
    lines = scene.config.read_text().splitlines(keepends=True)
    scene.config.write_text("".join("trusted = []\n" if line.startswith("trusted") else line for line in lines))


def open_signing_key(scene: Scene) -> None:
    (scene.root / "archiver-signing.key").chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "severity", "subject", "code"),
    [
        (lose_environment, "error", "environment vector of prod", 1),
        (corrupt_environment, "error", "environment vector of prod", 1),
        (lose_media, "error", "media of prod", 1),
        (lose_vault, "error", "vault of prod", 1),
        (lose_destination, "error", "destination", 1),
        (lose_signing_key, "error", "signing key", 1),
        (distrust_own_key, "error", "signing key", 1),
        (open_signing_key, "warning", "signing key", 3),
    ],
)
def test_what_it_finds(scene: Scene, spoil: Callable[[Scene], None], severity: str, subject: str, code: int) -> None:
    spoil(scene)
    done = examine(scene)
    assert done.code == code
    ((found_severity, found_subject),) = problems(done)
    assert found_severity == severity
    assert found_subject.startswith(subject)


def test_what_expire_should_have_deleted(scene: Scene) -> None:
    manifest = scene.destination / "daily/backups/prod/20260101T020000Z-3f9c2a/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    old = datetime(2026, 1, 1, 2, tzinfo=UTC).timestamp()
    os.utime(manifest, (old, old))
    done = examine(scene)
    assert done.code == 3
    (warning,) = [item for item in done.document if item["severity"] == "warning"]
    assert warning["message"].startswith("1 backup of daily should have been deleted more than 2 days ago")


def of_vault(scene: Scene) -> list[tuple[str, str]]:
    """Severity and message of what is said of the vault, each problem with a sentence of advice."""
    found = [item for item in examine(scene).document if item["subject"] == "vault of prod"]
    assert all(item["hint"][0].isupper() and item["hint"].endswith(".") for item in found if item["severity"] != "ok")
    return [(item["severity"], item["message"]) for item in found]


def remove_operator(scene: Scene, name: str) -> None:
    """Take it out of the configuration."""
    lines = scene.config.read_text().splitlines(keepends=True)
    scene.config.write_text("".join(line for line in lines if not line.startswith(f"{name} = ")))


def test_the_operators_of_a_vault_are_listed(scene: Scene) -> None:
    source = load_config(scene.config).source("prod")
    for name, key, file in [("aws", ARN, "aws.kms"), ("typed", "passphrase", "typed.age")]:
        add_operator(scene, name, key)
        add_file(scene, file)
    vault = vault_id(source.vault)
    assert of_vault(scene) == [("ok", f"{vault}, opened by aws.kms, second.age, test.age, typed.age")]
    (facts,) = [item["facts"] for item in examine(scene).document if item["subject"] == "vault of prod"]
    assert facts == {
        "vault": vault,
        "files": ["aws.kms", "second.age", "test.age", "typed.age"],
        "operators": {**source.operators, "aws": ARN, "typed": "passphrase"},
    }


def test_a_single_operator(scene: Scene) -> None:
    next(scene.destination.rglob("second.age")).unlink()
    remove_operator(scene, "second")
    expected = ("warning", "'test' is the only operator: if that key is lost, so are the backups")
    assert of_vault(scene)[1:] == [expected]
    assert archiver("doctor", "--config", str(scene.config)).code == 3
    # One operator with two files is still one who can lose a key.
    add_file(scene, "test.kms")
    assert of_vault(scene)[1:] == [expected, ("warning", "test.kms belongs to no operator of the configuration")]


def test_operators_that_differ_from_the_configuration(scene: Scene) -> None:
    add_file(scene, "planted.age")
    add_operator(scene, "missing", "passphrase")
    assert of_vault(scene)[1:] == [
        ("warning", "an operator of the configuration cannot open it: there is no missing.age"),
        ("warning", "planted.age belongs to no operator of the configuration"),
    ]
    # A file of the other kind is not this operator's.
    remove_operator(scene, "second")
    add_operator(scene, "second", ARN)
    assert of_vault(scene)[1:] == [
        ("warning", "an operator of the configuration cannot open it: there is no second.kms"),
        ("warning", "an operator of the configuration cannot open it: there is no missing.age"),
        ("warning", "planted.age belongs to no operator of the configuration"),
        ("warning", "second.age belongs to no operator of the configuration"),
    ]


def test_an_operator_without_a_file_may_have_been_removed(scene: Scene) -> None:
    """To let him in again must not be the first advice."""
    add_operator(scene, "missing", "passphrase")
    (hint,) = (item["hint"] for item in examine(scene).document if "missing.age" in item["message"])
    assert hint.index("take the name out of the configuration") < hint.index("only if not, run archiver keys add")


def set_key(scene: Scene, name: str, key: str) -> None:
    """Of an operator of the configuration."""
    remove_operator(scene, name)
    add_operator(scene, name, key)


def test_two_operators_with_the_same_key_are_one_to_lose(scene: Scene) -> None:
    set_key(scene, "second", load_config(scene.config).source("prod").operators["test"])
    expected = "'second' and 'test' have the same key, and nobody has another: if that key is lost, so are the backups"
    assert of_vault(scene)[1:] == [("warning", expected)]
    # Two passphrases are two, whatever they are.
    for name in ("second", "test"):
        set_key(scene, name, "passphrase")
    assert of_vault(scene)[1:] == []


def test_the_vaults_own_recipient_is_no_operators_key(scene: Scene) -> None:
    set_key(scene, "second", load_config(scene.config).source("prod").vault)
    assert of_vault(scene)[1:] == [
        ("warning", "'test' is the only operator: if that key is lost, so are the backups"),
        ("error", "operator 'second' has the vault's own recipient as a key: it opens nothing"),
    ]


def test_the_advice_on_a_planted_file_keeps_the_good_one_of_that_operator(scene: Scene) -> None:
    for file in ("second.kms", "mallory.age"):
        add_file(scene, file)
    hints = {
        item["message"].partition(" ")[0]: item["hint"]
        for item in examine(scene).document
        if "belongs to no operator" in item["message"]
    }
    assert hints.keys() == {"second.kms", "mallory.age"}
    assert "the good one too, so let 'second' in again afterwards" in hints["second.kms"]
    assert "again" not in hints["mallory.age"]


def of_cards(scene: Scene) -> list[tuple[str, str, str]]:
    done = examine(scene)
    return [
        (item["severity"], item["subject"].removeprefix(f"recovery card {scene.root}/"), item["message"])
        for item in done.document
        if item["subject"].startswith("recovery card")
    ]


def test_a_recovery_card_that_was_left_beside_the_configuration(scene: Scene) -> None:
    text = scene.card.read_text()
    (scene.root / "recovery-card-prod.txt").write_text(text)
    vault = vault_id(load_config(scene.config).source("prod").vault)
    message = f"beside archiver.toml, with a secret key that opens vault {vault}"
    assert of_cards(scene) == [("warning", "recovery-card-prod.txt", message)]
    done = archiver("doctor", "--config", str(scene.config))
    assert (done.code, "AGE-SECRET-KEY" in done.output + done.errors) == (3, False)
    # Written on Windows, and with the key of somebody whose card says nothing.
    (scene.root / "recovery-card-prod.txt").write_text(text.replace("\n", "\r\n"))
    (scene.root / "recovery-card-2.txt").write_text(text.splitlines()[-1])
    assert of_cards(scene) == [
        ("warning", "recovery-card-2.txt", "beside archiver.toml, with a secret key that opens backups"),
        ("warning", "recovery-card-prod.txt", message),
    ]


def test_recovery_cards_without_a_secret_and_what_is_none_may_lie_there(scene: Scene) -> None:
    lines = scene.card.read_text().splitlines(keepends=True)
    (scene.root / "recovery-card-prod.txt").write_text("".join(lines[:-1]) + "# append the AGE-SECRET-KEY-... line\n")
    (scene.root / "recovery-card-2.txt").write_bytes(b"\xff\xfe")
    (scene.root / "recovery-card-3.txt").mkdir()
    (scene.root / "recovery-card-4.txt").symlink_to("nowhere")
    assert of_cards(scene) == []
    assert problems(examine(scene)) == []


def test_a_configuration_that_does_not_name_operators(scene: Scene) -> None:
    for name in ("second", "test"):
        remove_operator(scene, name)
    assert of_vault(scene)[1:] == [
        ("warning", "the configuration does not say who its operators are, so nothing can be compared")
    ]


def test_a_post_quantum_vault_is_as_strong_as_its_weakest_operator(scene: Scene) -> None:
    vault = str(generate_identity(post_quantum=True).recipient)
    old = load_config(scene.config).source("prod").vault
    scene.config.write_text(scene.config.read_text().replace(f'vault = "{old}"', f'vault = "{vault}"'))
    directory = scene.destination / "vault/prod"
    (directory / vault_id(old)).rename(directory / vault_id(vault))
    strong = str(generate_identity(post_quantum=True).recipient)
    for name, key in [("aws", ARN), ("typed", "passphrase"), ("pq", strong)]:
        add_operator(scene, name, key)
        add_file(scene, f"{name}.{'kms' if key == ARN else 'age'}")
    weak = "operator {!r} has an X25519 key, so the post-quantum vault is only as strong as X25519"
    assert of_vault(scene)[1:] == [("warning", weak.format("second")), ("warning", weak.format("test"))]


def test_an_operators_key_that_is_none(scene: Scene) -> None:
    remove_operator(scene, "second")
    add_operator(scene, "second", "age1nonsense")
    ((severity, message),) = of_vault(scene)[1:]
    assert (severity, message) == ("error", "operator 'second': invalid bech32: unexpected character")


def serve(scene: Scene, live: Path) -> None:
    """Let the configuration name the environments in ``live``."""
    text = scene.config.read_text()
    for name in ("vector", "graph"):
        text = text.replace(str(scene.data / name), str(live / name))
    scene.config.write_text(text)


def facts(done: Done, environment: str) -> dict[str, Any]:
    subject = f"environment {environment} of prod"
    (found,) = [item["facts"] for item in done.document if item["subject"] == subject and item["facts"]]
    return dict(found)


def test_the_facts_on_a_live_server(scene: Scene, heed_writer: Path) -> None:
    with HeedWriter.start(heed_writer, scene.data / "live") as live:
        serve(scene, scene.data / "live")
        with reader_process(PINNING, scene.data / "live/vector"):
            done = examine(scene)
            text = archiver("doctor", "--config", str(scene.config)).output
        assert live.stats().errors == 0
    assert (done.code, problems(done)) == (0, [])
    found = facts(done, "vector")
    assert (found["method"], found["live"], found["lock_version"]) == ("locked", True, 2)
    (process,) = found["processes"]
    assert (process["pid"], process["name"]) == (live.pid, "heed_writer")
    (reader,) = found["readers"]
    assert (reader["state"], reader["process"]) == ("archiver", None)
    assert reader["transactions_behind"] >= 0
    assert found["map_bytes"] == 1 << 30
    assert 0 < found["used_pages"] < found["pages"]
    assert f"live: pid {live.pid} (heed_writer)" in text
    assert "lock: format 2 (mdb.master, as heed uses it), 1 of 126 reader slots taken" in text
    assert "reader: an archiver's pin, " in text
    assert "a backup would be locked: a process has it open" in text


def test_the_facts_on_a_server_in_another_pid_namespace(scene: Scene) -> None:
    with writer(scene.data / "live") as live, reader_process(READING, scene.data / "live") as reading:
        scene.config.write_text(scene.config.read_text().replace(str(scene.data / "vector"), str(scene.data / "live")))
        done = finish(
            spawn("doctor", "--config", str(scene.config), "--json", prefix=["unshare", "--pid", "--fork", "--"])
        )
    if done.code == 1 and "unshare" in done.errors and not os.environ.get("CI"):
        pytest.skip("unshare is not permitted")
    assert done.code == 0, done.errors
    found = facts(done, "vector")
    assert (found["method"], found["processes"]) == ("locked", [])
    assert found["pids_elsewhere"] == sorted([live.pid, reading.pid])


def test_every_process_is_named_that_has_not_read_yet(tmp_path: Path, heed_writer: Path) -> None:
    with (
        HeedWriter.start(heed_writer, tmp_path / "live", only="vector", paused=True) as one,
        HeedWriter.start(heed_writer, tmp_path / "live", only="vector", paused=True) as two,
    ):
        (found, *_) = of_environment(tmp_path / "live/vector")
    assert found.environment is not None
    assert [process.pid for process in found.environment.processes] == sorted([one.pid, two.pid])


def test_every_process_of_another_lmdb_is_named(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with reader_process(READING, tmp_path) as one, reader_process(READING, tmp_path) as two:
        (found, *_) = of_environment(tmp_path)
    assert found.environment is not None
    assert [process.pid for process in found.environment.processes] == sorted([one.pid, two.pid])


def test_readers_are_named_with_their_age(scene: Scene) -> None:
    with writer(scene.data / "live") as live, reader_process(READING, scene.data / "live") as reading:
        live.ask("commit")
        scene.config.write_text(scene.config.read_text().replace(str(scene.data / "vector"), str(scene.data / "live")))
        text = archiver("doctor", "--config", str(scene.config)).output
    (line,) = [line for line in text.splitlines() if "reader:" in line]
    assert line.strip().startswith(f"reader: pid {reading.pid} (")
    assert "1 transaction behind, for at most " in line


def test_a_dead_reader(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory) as live, reader_process(READING, directory) as reading:
        live.ask("commit")
        reading.kill()
        reading.wait()
        warning = the_warning(of_environment(directory))
    assert f"dead ({reading.pid}), up to 1 transaction behind" in warning.message
    assert f"mdb_stat -rr {directory}" in (warning.hint or "")


def test_a_dead_archiver(tmp_path: Path, heed_writer: Path) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, map_size=64 << 20) as live:
        with reader_process(PINNING, directory):
            pass
        for _ in range(45):
            live.commit()
        warning = the_warning(of_environment(directory))
        assert "looking has cleared them" in (warning.hint or "")
        assert live.readers() == {"vector": []}, "this look was the next pin"


def test_a_reader_that_keeps_much_of_the_map(tmp_path: Path, heed_writer: Path) -> None:
    directory = tmp_path / "vector"
    with (
        HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, map_size=64 << 20) as live,
        reader_process(PINNING, directory),
    ):
        assert all(finding.severity == "ok" for finding in of_environment(directory))
        for _ in range(45):
            live.commit()
        warning = the_warning(of_environment(directory))
    assert "45 transactions behind, keeps 1" in warning.message


def test_a_server_with_too_little_room(tmp_path: Path, heed_writer: Path) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, map_size=1 << 30):
        spec = EnvironmentSpec("vector", directory, 9 << 20)
        refused, *_ = examine_environment("prod", spec, PinLimits(headroom=90), tmp_path)
    assert refused.severity == "error"
    assert "can still be written to" in refused.message
    assert refused.environment is not None


def test_little_room_of_a_stopped_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_environment(tmp_path)
    assert all(finding.severity == "ok" for finding in of_environment(tmp_path))
    room = Room(map_size=100, beyond=3, reusable=5, disk_size=100, disk_free=100, growth=3)
    monkeypatch.setattr("archiver.environment.headroom.Gauge.measure", lambda *_: room)
    warning = the_warning(of_environment(tmp_path))
    assert "only 8 % of its map" in warning.message
    assert "MDB_MAP_FULL" in (warning.hint or "")
    assert all(finding.severity == "ok" for finding in of_environment(tmp_path, frozen=True))


def test_larger_than_the_servers_map(tmp_path: Path) -> None:
    make_environment(tmp_path, 5000)
    warnings = [finding for finding in of_environment(tmp_path, max_size=1 << 20) if finding.severity == "warning"]
    assert "first write fails with MDB_MAP_FULL" in warnings[0].message
    assert "max_db_size" in (warnings[0].hint or "")


def test_leaked_pages(tmp_path: Path) -> None:
    make_plain_environment(tmp_path)
    leak_a_page(tmp_path)
    error = the_error(of_environment(tmp_path))
    assert "1 leaked page, neither in use nor free" in error.message
    assert "mdb_dump" in (error.hint or "")


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 1), (0o666, 0)])
def test_a_lock_file_that_the_server_cannot_write(tmp_path: Path, mode: int, expected: int) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    make_environment(tmp_path)
    os.chown(tmp_path / "data.mdb", 1000, 1000)
    (tmp_path / "lock.mdb").chmod(mode)
    findings = [finding for finding in of_environment(tmp_path) if finding.severity == "warning"]
    assert len(findings) == expected
    (found,) = [finding for finding in of_environment(tmp_path) if finding.environment is not None]
    assert found.environment is not None
    text = "\n".join(describe(found.environment, datetime.now(UTC)))
    assert ("harmless" in text) == (expected == 0)
    for finding in findings:
        assert "is of user 0 with mode 0600, so that user 1000" in finding.message
        assert f"chown 1000:1000 {tmp_path}/lock.mdb" in (finding.hint or "")


def test_a_volume_that_is_not_mounted(tmp_path: Path) -> None:
    for directory in (tmp_path / "none", tmp_path):
        error = the_error(of_environment(directory))
        assert "does not exist" in error.message
        assert "its volume is mounted" in (error.hint or "")


@pytest.mark.parametrize(("content", "hint"), [(b"", "A full disk"), (bytes(8192), "MDB_INVALID")])
def test_a_file_that_is_no_environment(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    assert hint in (the_error(of_environment(tmp_path)).hint or "")


def test_a_lock_file_left_behind_is_no_problem(scene: Scene) -> None:
    assert (scene.data / "vector/lock.mdb").exists()
    done = archiver("doctor", "--config", str(scene.config))
    assert done.code == 0
    assert "of no live process: harmless" in done.output


def test_a_command_of_its_own(tmp_path: Path) -> None:
    make_environment(tmp_path / "environment")
    command = ("cat", "secret")
    (found,) = of_environment(tmp_path / "environment", command=command)
    assert (found.severity, "external: the configured command 'cat' makes the copy" in found.message) == ("ok", True)
    (found,) = of_environment(tmp_path / "elsewhere", command=command)
    assert (found.severity, "cannot be seen from here" in found.message) == ("ok", True)
    found, _ = of_environment(tmp_path / "environment", command=("no-such-program", "secret"))
    assert (found.severity, "'no-such-program' is no program" in found.message) == ("error", True)
    assert "secret" not in found.message


def test_no_room_for_the_copy_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_environment(tmp_path / "environment")
    usage = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    warning = the_warning(of_environment(tmp_path / "environment", command=("cat",)))
    assert f"{tmp_path} has 0.0 MiB free" in warning.message


def test_a_snapshot_of_a_file_system(tmp_path: Path) -> None:
    make_environment(tmp_path)
    (found,) = of_environment(tmp_path, frozen=True)
    assert "frozen: it is declared a snapshot" in found.message
