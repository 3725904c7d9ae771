"""Identity files: read leniently in form, strictly in content, never shown, and written for their owner only."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from archiver.crypto.identities import MAX_IDENTITY_FILE, parse_identities, read_identity_file, write_secret_file
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import AlreadyExistsError, ArchiverError, FormatError, UsageError

FIRST, SECOND = X25519Identity.generate(), X25519Identity.generate()


def test_reads_identities_between_comments_and_blank_lines() -> None:
    text = f"# created: today\n\n{FIRST.encode()}\n#{SECOND.encode()}\n   \n{SECOND.encode()}"
    assert [repr(identity) for identity in parse_identities(text, "key.txt")] == [repr(FIRST), repr(SECOND)]


def test_line_ends_and_marks_of_other_systems_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    path.write_bytes(f"\ufeff# from Windows\r\n  {FIRST.encode()} \r\n".encode())
    assert [repr(identity) for identity in read_identity_file(path)] == [repr(FIRST)]


def test_reads_what_age_keygen_writes(tmp_path: Path) -> None:
    told = subprocess.run(["age-keygen", "-o", tmp_path / "key.txt"], capture_output=True, text=True, check=True)
    [identity] = read_identity_file(tmp_path / "key.txt")
    assert isinstance(identity, X25519Identity)
    assert str(identity.recipient) in told.stderr


@pytest.mark.parametrize(
    "line",
    [
        FIRST.encode()[:-1],
        FIRST.encode().lower(),
        FIRST.encode() + " " + SECOND.encode(),
        str(FIRST.recipient),
        "hunter2",
        "AGE-PLUGIN-YUBIKEY-1Q0GFPYY",
        "\x00",
    ],
    # Keys are random: they must not be part of a test's name, which all workers have to agree on.
    ids=map(str, range(7)),
)
def test_a_bad_line_is_named_by_number_and_never_shown(line: str) -> None:
    with pytest.raises(FormatError, match=r"^line 3 of my/key\.txt is not an age identity") as caught:
        parse_identities(f"# a\n{SECOND.encode()}\n{line}\n", "my/key.txt")
    assert line not in caught.value.message + str(caught.value.hint)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["", "\n", "# AGE-SECRET-KEY-1\n"])
def test_a_file_without_identities_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"key\.txt holds no identity"):
        parse_identities(text, "key.txt")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no identity"),
        (b"nonsense\n", "line 1 of .* is not an age identity"),
        (b"\xff\xfe\x00", "not utf-8"),
        (b"#" * (MAX_IDENTITY_FILE + 1), "more than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_identity_file_is_a_usage_error(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_bytes(data)
    with pytest.raises(UsageError, match=reason) as caught:
        read_identity_file(tmp_path / "key.txt")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_file_that_cannot_be_read_is_a_usage_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_identity_file(tmp_path / name)


def test_secrets_are_written_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key.txt"
    previous = os.umask(0)
    try:
        write_secret_file(path, f"{FIRST.encode()}\n")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == f"{FIRST.encode()}\n"


def test_an_existing_secret_is_never_replaced(tmp_path: Path) -> None:
    path, link = tmp_path / "key.txt", tmp_path / "link.txt"
    path.write_text("precious")
    link.symlink_to(tmp_path / "nowhere")
    for taken in (path, link):
        with pytest.raises(AlreadyExistsError, match="exists already"):
            write_secret_file(taken, "new")
    assert path.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ArchiverError, match=r"cannot create .*No such file"):
        write_secret_file(tmp_path / "missing" / "key.txt", "text")


def test_a_secret_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_secret_file(tmp_path / "key.txt", "\ud800")
    assert list(tmp_path.iterdir()) == []
