"""What the tests of S3 connections share: how a request was signed, and what a command says when it fails."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from archiver.cli.output import Output, report
from archiver.errors import ArchiverError
from archiver.stores.s3 import S3Store
from tests.stores.s3_help import fetch


def signers(store: S3Store) -> list[str]:
    """The access key of every request to S3 from now on."""
    keys: list[str] = []

    def note(request: Any, **_: object) -> None:
        authorization = request.headers["Authorization"]
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        keys.append(text.partition("Credential=")[2].partition("/")[0])

    store._connection.client.meta.events.register("before-send.s3", note)
    return keys


def prove(store: S3Store) -> str:
    """Write and read with ``store``; the access key that signed all of it."""
    keys = signers(store)
    key = f"daily/data/{secrets.token_hex(8)}"
    store.create(key, [b"proof"])
    assert fetch(store, key) == b"proof"
    assert len(set(keys)) == 1
    return keys[0]


def refused(attempt: Callable[[], object], capsys: pytest.CaptureFixture[str], code: int = 7) -> str:
    """What an operator reads when ``attempt`` fails with exit code ``code``: one line, and one of advice."""
    with pytest.raises(ArchiverError) as caught:
        attempt()
    capsys.readouterr()
    assert report(Output(), caught.value) == code
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["archiver", "hint"]
    return "\n".join(lines)
