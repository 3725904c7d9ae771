"""minisign: the stock tool and ours read each other's keys and signatures, and every alteration is refused."""

import base64
import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.crypto.minisign import MAX_TRUSTED_COMMENT, SigningKey, VerifyKey, is_secret_key, key_id, signer_of
from archiver.errors import AuthenticityError, FormatError, UsageError

KEY = SigningKey.generate()
MESSAGE = b'{"backup":"20261122T020000Z-3f9c2a"}'
COMMENT = "archiver backup 20261122T020000Z-3f9c2a"


def minisign(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["minisign", *arguments], cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def lines_of(signature: str) -> list[str]:
    return signature.splitlines(keepends=True)


def flipped(text: str, bit: int) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[bit // 8] ^= 1 << bit % 8
    return base64.b64encode(raw).decode()


@given(st.binary(max_size=300), st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=50))
def test_verify_accepts_what_sign_made(message: bytes, comment: str) -> None:
    if not comment.isprintable():
        with pytest.raises(UsageError):
            KEY.sign(message, comment)
        return
    assert KEY.verify_key.verify(message, KEY.sign(message, comment)) == comment


@pytest.mark.parametrize("message", [b"", MESSAGE, bytes(100_000)])
def test_the_stock_tool_verifies_ours(message: bytes, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(message)
    (tmp_path / "m.minisig").write_text(KEY.sign(message, COMMENT))
    (tmp_path / "key.pub").write_text(KEY.verify_key.encode())
    for how in (["-p", "key.pub"], ["-P", str(KEY.verify_key)]):
        told = minisign(tmp_path, "-V", *how, "-H", "-m", "m", "-Q")
        assert (told.returncode, told.stdout) == (0, COMMENT + "\n")
    (tmp_path / "m").write_bytes(message + b"!")
    assert minisign(tmp_path, "-V", "-p", "key.pub", "-m", "m").returncode != 0


def test_the_stock_tool_takes_the_longest_comment(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "m.minisig").write_text(KEY.sign(MESSAGE, "x" * MAX_TRUSTED_COMMENT))
    assert minisign(tmp_path, "-V", "-P", str(KEY.verify_key), "-m", "m").returncode == 0


def test_the_stock_tool_signs_with_our_key(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "key").write_text(KEY.encode())
    assert minisign(tmp_path, "-S", "-s", "key", "-m", "m", "-t", COMMENT).returncode == 0
    assert KEY.verify_key.verify(MESSAGE, (tmp_path / "m.minisig").read_text()) == COMMENT
    assert minisign(tmp_path, "-R", "-s", "key", "-p", "key.pub").returncode == 0
    assert VerifyKey.parse((tmp_path / "key.pub").read_text()) == KEY.verify_key
    assert (tmp_path / "key.pub").read_text() == KEY.verify_key.encode()


def test_ours_signs_with_the_stock_tool_s_key(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    assert minisign(tmp_path, "-G", "-W", "-s", "key", "-p", "key.pub").returncode == 0
    key = SigningKey.parse((tmp_path / "key").read_text())
    assert key.verify_key == VerifyKey.parse((tmp_path / "key.pub").read_text())
    (tmp_path / "m.minisig").write_text(key.sign(MESSAGE, COMMENT))
    assert minisign(tmp_path, "-V", "-p", "key.pub", "-m", "m").returncode == 0


@pytest.mark.parametrize("number", [bytes(8), b"\x01" + bytes(7), bytes(range(1, 9)), b"\xff" * 8])
def test_key_ids_are_printed_as_the_stock_tool_does(number: bytes, tmp_path: Path) -> None:
    key = SigningKey(number, bytes(32))
    (tmp_path / "key").write_text(key.encode())
    assert minisign(tmp_path, "-R", "-s", "key", "-p", "key.pub").returncode == 0
    assert (tmp_path / "key.pub").read_text() == key.verify_key.encode()


def test_keys_survive_their_text() -> None:
    assert SigningKey.parse(KEY.encode()).encode() == KEY.encode()
    # The public half is needed again, and stands nowhere else on its host; the stock tool reads such a file (above).
    assert KEY.encode().splitlines()[0] == (
        f"untrusted comment: minisign secret key {KEY.verify_key.key_id}, public key {KEY.verify_key}"
    )
    assert is_secret_key(KEY.encode().splitlines()[1])
    assert not is_secret_key(str(KEY.verify_key))
    assert VerifyKey.parse(str(KEY.verify_key)) == VerifyKey.parse(KEY.verify_key.encode()) == KEY.verify_key
    assert str(KEY.verify_key).startswith("RW")


def test_no_rendering_shows_the_secret() -> None:
    secret = KEY.encode().splitlines()[1]
    for shown in (repr(KEY), str(KEY), f"{[KEY]}"):
        assert KEY.verify_key.key_id in shown
        assert secret[80:120] not in shown


def test_every_flipped_bit_of_a_signature_is_refused() -> None:
    lines = lines_of(KEY.sign(MESSAGE, COMMENT))
    for number, size in ((1, 74), (3, 64)):
        for bit in range(size * 8):
            altered = [*lines]
            altered[number] = flipped(lines[number], bit) + "\n"
            with pytest.raises(AuthenticityError):
                KEY.verify_key.verify(MESSAGE, "".join(altered))


def test_every_flipped_bit_of_the_message_and_trusted_comment_is_refused() -> None:
    signature = KEY.sign(MESSAGE, COMMENT)
    for bit in range(len(MESSAGE) * 8):
        altered = bytearray(MESSAGE)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AuthenticityError, match="not of these bytes"):
            KEY.verify_key.verify(bytes(altered), signature)
    for position, bit in itertools.product(range(len(COMMENT)), range(7)):
        changed = COMMENT[:position] + chr(ord(COMMENT[position]) ^ 1 << bit) + COMMENT[position + 1 :]
        with pytest.raises(AuthenticityError):
            KEY.verify_key.verify(MESSAGE, signature.replace(COMMENT, changed))


def test_a_trusted_comment_of_another_signature_is_refused() -> None:
    first, second = lines_of(KEY.sign(MESSAGE, COMMENT)), lines_of(KEY.sign(b"other", "other"))
    with pytest.raises(AuthenticityError, match=r"trusted comment .* was altered"):
        KEY.verify_key.verify(MESSAGE, "".join([*first[:2], *second[2:]]))


def test_another_key_is_named() -> None:
    other = SigningKey.generate()
    with pytest.raises(
        AuthenticityError, match=f"signed by key {other.verify_key.key_id}, expected key {KEY.verify_key.key_id}"
    ):
        KEY.verify_key.verify(MESSAGE, other.sign(MESSAGE, COMMENT))


def test_another_key_with_our_number_is_refused() -> None:
    impostor = SigningKey(KEY.verify_key.number, bytes(32))
    with pytest.raises(AuthenticityError, match="not of these bytes"):
        KEY.verify_key.verify(MESSAGE, impostor.sign(MESSAGE, COMMENT))


def test_the_legacy_algorithm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(MESSAGE)
    (tmp_path / "key").write_text(KEY.encode())
    assert minisign(tmp_path, "-S", "-l", "-s", "key", "-m", "m").returncode == 0
    with pytest.raises(AuthenticityError, match="unsupported signature algorithm b'Ed'"):
        KEY.verify_key.verify(MESSAGE, (tmp_path / "m.minisig").read_text())


def malformed_signatures() -> list[str]:
    good = KEY.sign(MESSAGE, COMMENT)
    lines = lines_of(good)
    return [
        "",
        "\n\n\n\n",
        good[:-1],
        good + "\n",
        good + "x\n",
        good.replace("\n", "\r\n"),
        "".join(lines[1:]),
        "".join(lines[:3]),
        "".join([lines[2], *lines[1:]]),
        "".join([*lines[:2], lines[0], lines[3]]),
        "".join([lines[0], lines[1].replace("=", ""), *lines[2:]]),
        "".join([lines[0], lines[1][4:], *lines[2:]]),
        "".join([lines[0], "AAAA" + lines[1], *lines[2:]]),
        "".join([*lines[:3], lines[3][4:]]),
        "".join([*lines[:3], " " + lines[3]]),
        "".join([*lines[:3], lines[3].replace("==", "=!")]),
        "".join([lines[0], "ä" + lines[1], *lines[2:]]),
        good.replace(COMMENT, COMMENT + "\ud800"),
        good.replace(COMMENT, COMMENT + "\x1b[2J"),
        good.replace(COMMENT, "x" * (MAX_TRUSTED_COMMENT + 1)),
    ]


@pytest.mark.parametrize("text", malformed_signatures())
def test_malformed_signatures_are_refused(text: str) -> None:
    with pytest.raises(AuthenticityError):
        KEY.verify_key.verify(MESSAGE, text)


def test_the_spare_bits_of_base64_are_no_room_for_another_text() -> None:
    lines = lines_of(KEY.sign(MESSAGE, COMMENT))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    neighbour = alphabet[alphabet.index(lines[3][-4]) ^ 1]
    altered = lines[3][:-4] + neighbour + "==\n"
    assert base64.b64decode(altered) == base64.b64decode(lines[3])
    with pytest.raises(AuthenticityError, match="not canonical"):
        KEY.verify_key.verify(MESSAGE, "".join([*lines[:3], altered]))


ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group that Ed25519 computes in."""


@pytest.mark.parametrize("line", [1, 3])
def test_a_signature_cannot_be_written_in_another_way(line: int) -> None:
    """RFC 8032, 5.1.7: a verifier must refuse the same signature with the group's order added to its second half."""
    lines = lines_of(KEY.sign(MESSAGE, COMMENT))
    raw = base64.b64decode(lines[line])
    scalar = int.from_bytes(raw[-32:], "little") + ORDER
    lines[line] = base64.b64encode(raw[:-32] + scalar.to_bytes(32, "little")).decode() + "\n"
    with pytest.raises(AuthenticityError):
        KEY.verify_key.verify(MESSAGE, "".join(lines))


def test_the_untrusted_comment_alone_is_free() -> None:
    """As in the stock tool: nothing of it is used."""
    lines = lines_of(KEY.sign(MESSAGE, COMMENT))
    lines[0] = "untrusted comment: anything\n"
    assert KEY.verify_key.verify(MESSAGE, "".join(lines)) == COMMENT


def test_the_signer_is_what_the_signature_says() -> None:
    assert signer_of(KEY.sign(MESSAGE, COMMENT)) == KEY.verify_key.number
    assert key_id(KEY.verify_key.number) == KEY.verify_key.key_id
    with pytest.raises(AuthenticityError, match="malformed signature"):
        signer_of("")


@pytest.mark.parametrize("comment", ["a\nb", "a\rb", "\x00", "\x1b[2J", "x" * (MAX_TRUSTED_COMMENT + 1), "\ud800"])
def test_refuses_to_sign_a_comment_that_is_not_one_short_line(comment: str) -> None:
    with pytest.raises(UsageError, match="trusted comment"):
        KEY.sign(MESSAGE, comment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RW",
        "RWÄ",
        str(KEY.verify_key)[:-1],
        str(KEY.verify_key) + "AAAA",
        "RU" + str(KEY.verify_key)[2:],
        f"{KEY.verify_key}\n{KEY.verify_key}",
        f"comment\n{KEY.verify_key}",
        KEY.encode(),
    ],
    # Keys are random: they must not be part of a test's name, which all workers have to agree on.
    ids=map(str, range(9)),
)
def test_malformed_public_keys_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="minisign public key"):
        VerifyKey.parse(text)


def test_a_damaged_secret_key_is_refused_wherever_the_damage_is() -> None:
    comment, line = KEY.encode().splitlines()
    checked = [*range(2), *range(4, 6), *range(62, 158)]
    for position in checked:
        with pytest.raises(FormatError, match="secret key") as caught:
            SigningKey.parse(f"{comment}\n{flipped(line, position * 8)}\n")
        assert line[80:100] not in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "untrusted comment: x\n", "untrusted comment: x\nnonsense!\n", str(KEY.verify_key)],
    ids=["empty", "comment", "nonsense", "public"],
)
def test_malformed_secret_keys_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="secret key"):
        SigningKey.parse(text)


def test_a_secret_key_with_a_password_is_refused_with_the_way_out() -> None:
    comment, line = KEY.encode().splitlines()
    raw = base64.b64decode(line)
    locked = base64.b64encode(raw[:2] + b"Sc" + raw[4:]).decode()
    with pytest.raises(UsageError, match="has a password") as caught:
        SigningKey.parse(f"{comment}\n{locked}\n")
    assert "minisign -C -W -s FILE" in str(caught.value.hint)


@pytest.mark.slow
def test_the_way_out_of_a_password_works(tmp_path: Path) -> None:
    def with_password(*arguments: str) -> None:
        subprocess.run(["minisign", *arguments], cwd=tmp_path, input=b"pw\npw\n", capture_output=True, check=True)

    with_password("-G", "-s", "key", "-p", "key.pub")
    with pytest.raises(UsageError, match="has a password"):
        SigningKey.parse((tmp_path / "key").read_text())
    with_password("-C", "-W", "-s", "key")
    key = SigningKey.parse((tmp_path / "key").read_text())
    assert key.verify_key == VerifyKey.parse((tmp_path / "key.pub").read_text())
