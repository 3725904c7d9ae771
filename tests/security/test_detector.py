"""The detector of planted secrets finds each of them, in every form, wherever the other tests look for them."""

import base64
import logging
import os
import signal
import sys
from urllib.parse import quote

import pytest
import zstandard

from archiver.cli.output import Output
from archiver.errors import ArchiverError, UsageError
from tests.operations.scene import spawn
from tests.security.detector import Secret
from tests.security.planting import Planted, plant
from tests.security.processes import descendants, watched


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"))


def leaks(secret: Secret) -> list[bytes]:
    """``secret`` as somebody might write it down, in the middle of other text."""
    found = [secret.raw, repr(secret.raw).encode(), secret.raw.hex().encode(), secret.raw.hex().upper().encode()]
    found += [base64.b64encode(b"x" * offset + secret.raw + b"yy") for offset in range(3)]
    found += [base64.urlsafe_b64encode(b"x" * offset + secret.raw + b"yy") for offset in range(3)]
    for text in secret.texts:
        found += [text.encode(), quote(text, safe="").encode(), base64.b64encode(text.encode())]
        # Half of it.
        found += [text[:20].encode(), text[-32:].encode()] if len(text) > 50 else []
    return [b"before " + leak + b" after" for leak in found]


def test_it_finds_each_secret_in_every_form(planted: Planted) -> None:
    assert len(planted.secrets) >= 13
    for secret in planted.secrets:
        for leak in leaks(secret):
            assert secret.name in planted.detector.find(leak, secret.kind), (secret.name, leak)


def test_it_finds_nothing_where_there_is_nothing(planted: Planted) -> None:
    for kind in ("key", "content", "name"):
        assert planted.detector.find(base64.b64encode(bytes(range(256)) * 400), kind) == set()


def test_it_looks_into_compressed_lists(planted: Planted) -> None:
    name = next(secret for secret in planted.secrets if secret.name == "file")
    two_frames = zstandard.compress(b"a line\n") + zstandard.compress(name.raw)
    assert planted.detector.find_stored("daily/data/prod/x.zst", two_frames, "name") == {"file"}
    assert planted.detector.find_stored(f"daily/{name.texts[0]}", b"", "name") == {"file"}


@pytest.mark.parametrize("way", ["message", "hint", "argument", "note", "context", "stdout", "stderr", "log", "bug"])
def test_it_sees_all_that_a_command_says(planted: Planted, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    secret = next(secret for secret in planted.secrets if secret.name == "vault's identity")
    leak = secret.texts[0]

    def leaking(*_: object, **__: object) -> None:
        if way == "stdout":
            sys.stdout.write(leak)
        elif way == "stderr":
            Output().warn(leak)
        elif way == "log":
            logging.getLogger("archiver.crypto").debug("opened with %s", leak)
        error: Exception = ArchiverError("no")
        if way == "message":
            error = UsageError(f"cannot parse {leak}")
        elif way == "hint":
            error = UsageError("no", hint=f"Use {leak}.")
        elif way == "argument":
            error = KeyError(secret.raw)
        elif way == "note":
            error.add_note(leak)
        elif way == "bug":
            error = TypeError(f"unexpected {leak}")
        if way != "context":
            raise error
        try:
            (secret.raw + b"\xff").decode("ascii")
        except UnicodeDecodeError:
            raise error from None

    monkeypatch.setattr("archiver.operations.archive.Archive.find", leaking)
    said = planted.run(monkeypatch, "show", "--identity", str(planted.scene.card))
    assert planted.detector.find(said.everything, "key") == {"vault's identity"}


def test_it_sees_the_command_lines_of_all_processes(planted: Planted) -> None:
    """Also of one that archiver starts."""
    secret = next(secret for secret in planted.secrets if secret.name == "passphrase")
    before = f"import subprocess; subprocess.run(['sh', '-c', 'sleep 600; :', {secret.texts[0]!r}])"
    process = spawn("list", prefix=("sh", "-c", '"$@"; :', "sh"), before=before)
    with watched(process) as watch:
        watch.wait_for("sleep 600")
        for pid in reversed(list(descendants(process.pid))):
            os.kill(pid, signal.SIGKILL)
    assert planted.detector.find(watch.seen, "key") == {"passphrase"}
