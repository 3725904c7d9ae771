"""Secrets that a person types: asked for on a real terminal, never shown, never taken from anywhere else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.crypto.passphrase import PassphraseIdentity
from archiver.operations.access import AccessOptions
from tests.cli.checking import check
from tests.cli.terminal import ARCHIVER, Terminal, terminal, typed
from tests.operations.scene import Done, Scene
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
