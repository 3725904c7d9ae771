"""Secrets that a person types: asked for on a real terminal, never shown, never taken from anywhere else; and not
repeated where they were typed in the wrong place."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archiver.cli.main import archiver as command_group
from archiver.cli.output import Output
from archiver.crypto.hybrid import HybridIdentity
from archiver.crypto.minisign import SigningKey
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.crypto.x25519 import X25519Identity
from archiver.operations.access import AccessOptions
from tests.cli.checking import check
from tests.cli.terminal import ARCHIVER, Terminal, terminal, typed
from tests.operations.scene import SOURCE, Done, Scene, archiver
from tests.servers.process import REPOSITORY

PASSPHRASE = "fünf zufällige wörter und mehr"
ASK = """
import sys
from archiver.cli.secrets import ask_passphrase, ask_new_passphrase
from archiver.errors import UsageError
try:
    print({"once": ask_passphrase, "twice": ask_new_passphrase}[sys.argv[1]]("Say: "))
except UsageError as error:
    sys.exit(error.message)
"""


def ask(person: Terminal, how: str, *answers: str) -> Done:
    """What a process says that asks in this terminal."""
    person.start(ASK, how)
    for prompt, answer in zip(["Say: ", "The same again: "], answers, strict=False):
        person.answer(prompt, answer)
    return person.finish()


def test_what_is_typed_is_not_shown() -> None:
    with terminal() as person:
        # Else the checks below could not fail.
        assert person.shows_what_is_typed
        done = ask(person, "once", PASSPHRASE)
        assert (done.code, done.output, done.errors) == (0, PASSPHRASE + "\n", "")
        assert person.seen == b"Say: \r\n"
        assert person.shows_what_is_typed


def test_a_new_one_is_asked_for_twice() -> None:
    with terminal() as person:
        done = ask(person, "twice", PASSPHRASE, PASSPHRASE)
        assert (done.code, done.output) == (0, PASSPHRASE + "\n")
        assert person.seen == b"Say: \r\nThe same again: \r\n"


def test_two_different_answers() -> None:
    with terminal() as person:
        done = ask(person, "twice", PASSPHRASE, PASSPHRASE + " ")
        assert (done.code, done.output, done.errors) == (1, "", "the two passphrases differ\n")


def test_one_that_is_too_short_is_not_asked_for_again() -> None:
    with terminal() as person:
        done = ask(person, "twice", "elf zeichen")
        assert (done.code, done.errors) == (1, "expected a passphrase of at least 12 characters, got 11\n")
        assert person.seen == b"Say: \r\n"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (b"\n", "no passphrase was given\n"),
        (b"\x04", "no passphrase was given\n"),
        (b"\xff\xfe\n", "the passphrase is not utf-8 text\n"),
    ],
    ids=["nothing", "end of input", "not text"],
)
def test_answers_that_are_none(keys: bytes, message: str) -> None:
    with terminal() as person:
        person.start(ASK, "once")
        person.expect("Say: ")
        person.type(keys)
        done = person.finish()
        assert (done.code, done.output, done.errors) == (1, "", message)
        assert person.shows_what_is_typed


def test_what_was_typed_before_the_question_is_no_answer() -> None:
    with terminal() as person:
        person.type(b"yes\n")
        done = ask(person, "once", PASSPHRASE)
        assert done.output == PASSPHRASE + "\n"


def test_an_interrupt_leaves_a_terminal_that_shows_what_is_typed(scene: Scene) -> None:
    with terminal() as person:
        person.start(ARCHIVER, "list", *scene.identity, "--passphrase")
        person.expect("Passphrase: ")
        assert not person.shows_what_is_typed
        person.type(b"\x03")
        done = person.finish()
        assert (done.code, done.errors) == (130, "archiver: interrupted\n")
        assert person.shows_what_is_typed


@pytest.mark.parametrize("command", ["restore", "verify", "list", "show", "ls", "cat"])
def test_without_a_terminal_nothing_is_read_from_standard_input(scene: Scene, command: str) -> None:
    arguments = {"show": ["latest"], "ls": ["latest"], "cat": ["latest", "album/3.png"]}.get(command, [])
    ours, theirs = os.pipe()
    os.write(theirs, PASSPHRASE.encode() + b"\n")
    os.close(theirs)
    done = subprocess.run(
        [sys.executable, "-c", ARCHIVER, command, *arguments, *scene.identity, "--passphrase"],
        stdin=ours, capture_output=True, start_new_session=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    check(Done(done.returncode, done.stdout, done.stderr.decode()), 2, "there is no terminal", "hint: Run archiver in")
    with os.fdopen(ours, "rb") as untouched:
        assert untouched.read() == PASSPHRASE.encode() + b"\n"


def test_it_is_asked_before_anything_else(tmp_path: Path) -> None:
    done = typed(["list", "--config", str(tmp_path / "missing.toml"), "--passphrase"], ("Passphrase: ", PASSPHRASE))
    check(done, 2, "no configuration at")


def test_no_text_of_it_shows_a_passphrase() -> None:
    options = AccessOptions(passphrase=PassphraseIdentity(PASSPHRASE))
    assert PASSPHRASE not in repr(options) + str(options)


# Typed where none belongs.


def commands(group: click.Group = command_group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name)


def options_of(words: tuple[str, ...]) -> list[str]:
    command: click.Command = command_group
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    return [option for parameter in command.params for option in parameter.opts if option.startswith("--")]


COMMANDS = list(commands())
IDENTITY = X25519Identity.generate().encode()
WRITTEN = {
    "x25519": IDENTITY,
    "post-quantum": HybridIdentity.generate().encode(),
    "lower case": IDENTITY.lower(),
    "a space before it": f" {IDENTITY}",
    "a space inside": f"{IDENTITY[:40]} {IDENTITY[40:]}",
    "two lines": f"{IDENTITY[:40]}\n{IDENTITY[40:]}",
    "cut": IDENTITY[:30],
    "quoted": f"'{IDENTITY}'",
    "signing": SigningKey.generate().encode().splitlines()[1],
}


def check_silence(done: Done, secret: str) -> None:
    """Not even a part of it is repeated, and it says what to do with a stolen key."""
    check(done, 2, "treat it as stolen", "--identity FILE.")
    pieces = [piece for piece in secret.replace("'", "").removeprefix("AGE-SECRET-KEY-").split() if piece]
    for piece in (*pieces, *(piece[-20:] for piece in pieces)):
        assert piece not in (done.output + done.errors).upper()
        assert piece not in done.output + done.errors


def test_every_command_is_known() -> None:
    """Else the tests below prove little."""
    assert {("restore",), ("init",), ("keys", "add"), ("keys", "generate")} <= set(COMMANDS)
    assert {"--identity", "--to", "--at", "--only"} <= set(options_of(("restore",)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_repeats_a_secret_key(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for secret in WRITTEN.values():
        for arguments in ([secret], ["one", secret], [secret, "--verbose"], ["--passphrase", secret]):
            check_silence(archiver(*words, *arguments), secret)
    for option in options_of(words):
        if option == "--json":
            continue
        check_silence(archiver(*words, option, IDENTITY), IDENTITY)
        check_silence(archiver(*words, f"{option}={IDENTITY}"), IDENTITY)
    done = archiver(*words, IDENTITY, "--json")
    assert (done.code, done.errors) == (2, "")
    assert "treat it as stolen" in done.document["error"]["hint"]
    assert IDENTITY[-20:] not in done.output
    # Nothing began, so that no file is called by a secret either.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("secret", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_key_in_place_of_a_command(secret: str) -> None:
    for arguments in ([secret], ["keys", secret], [f"--{secret}"]):
        check_silence(archiver(*arguments), secret)


def test_a_key_that_the_shell_split_is_not_repeated_in_part() -> None:
    for cut in range(len("AGE-SECRET-KEY-"), len(IDENTITY), 7):
        check_silence(archiver("list", "--identity", IDENTITY[:cut], IDENTITY[cut:]), IDENTITY[cut:])


def test_the_secret_half_in_place_of_the_public_one() -> None:
    for arguments in (["--recipient", IDENTITY], [f"--recipient={IDENTITY}"]):
        check(archiver("keys", "add", "bob", *arguments), 2, "--recipient takes the public half of a key, age1…")


@pytest.mark.parametrize("secret", WRITTEN.values(), ids=WRITTEN)
def test_what_is_said_of_a_file_repeats_no_secret_key(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever a command got it from: this is the last place before a terminal or a log."""
    text = f"it holds {secret}, expected none"
    output = Output(verbose=True)
    output.warn(text)
    output.note(text)
    output.event("found", text=text)
    output.trace(ValueError(text))
    output.error(text, f"Take {secret} out.", 2)
    as_json = Output(json=True, verbose=True)
    as_json.event("found", text=text)
    as_json.error(text, None, 2)
    said = capsys.readouterr()
    for piece in secret.replace("'", "").split():
        assert piece not in said.out + said.err
    assert said.err.count("[a secret key]") >= 5
    assert said.err.count("expected none") == 6
    assert said.err.count("treat it as stolen") == said.out.count("treat it as stolen") == 1


def test_our_own_words_are_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("append the AGE-SECRET-KEY-1… line", "an AGE-SECRET-KEY-… file", "AGE-SECRET-KEY-PQ-1…", "RW… keys"):
        Output().error(words, words, 2)
        assert capsys.readouterr().err == f"archiver: {words}\nhint: {words}\n"


TYPED = "hunter2hunter2"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["restore", "latest", "--passphrase", TYPED], "--passphrase"),
        (["restore", f"--passphrase={TYPED}"], "--passphrase"),
        (["restore", "--passphrase", "correct", TYPED, "staple"], "--passphrase"),
        (["list", "--passphrase", TYPED], "--passphrase"),
        (["keys", "check", "--passphrase", TYPED], "--passphrase"),
        (["keys", "add", "bob", "--new-passphrase", TYPED], "--new-passphrase"),
        (["init", "--to", "file:///x", "--source", "x", "--new-passphrase", TYPED], "--new-passphrase"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[:3]),
)
def test_a_passphrase_as_an_argument_is_not_repeated(arguments: list[str], option: str) -> None:
    done = archiver(*arguments)
    check(done, 2, f"{option} takes no value: archiver asks for it")
    assert TYPED not in done.output + done.errors


def test_nor_where_it_is_taken_for_a_backup(scene: Scene) -> None:
    scene.backup()
    done = typed(["show", "--passphrase", TYPED, *scene.identity], ("Passphrase: ", PASSPHRASE))
    check(done, 5, f"has no backup '[not shown]' of source '{SOURCE}'")
    assert TYPED not in done.output + done.errors
    done = typed(["show", "--passphrase", "20200101", *scene.identity], ("Passphrase: ", PASSPHRASE))
    check(done, 5, "has no backup '20200101'")
