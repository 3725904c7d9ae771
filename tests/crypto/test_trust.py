"""Which of several keys signed, and what is said when none of them did."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey, check_signature
from archiver.errors import AuthenticityError

OLD, NEW, FOREIGN = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
REVOKED = datetime(2026, 11, 20, 14, tzinfo=UTC)
TRUSTED = [TrustedKey(OLD.verify_key, REVOKED), TrustedKey(NEW.verify_key)]
MESSAGE = b"a manifest"


def signature(key: SigningKey, message: bytes = MESSAGE) -> str:
    return key.sign(message, "a comment")


def test_the_key_that_signed_is_returned_revoked_or_not() -> None:
    assert check_signature(MESSAGE, signature(OLD), TRUSTED) is TRUSTED[0]
    assert check_signature(MESSAGE, signature(NEW), TRUSTED) is TRUSTED[1]
    assert check_signature(MESSAGE, signature(NEW), TRUSTED[::-1]) is TRUSTED[1]


def test_a_key_in_words() -> None:
    assert str(TRUSTED[0]) == f"{OLD.verify_key} revoked 2026-11-20T14:00:00+00:00"
    assert str(TRUSTED[1]) == str(NEW.verify_key)


def test_a_key_that_is_not_trusted_is_named_with_those_that_are() -> None:
    with pytest.raises(AuthenticityError) as caught:
        check_signature(MESSAGE, signature(FOREIGN), TRUSTED)
    assert caught.value.message == (
        f"signed by key {FOREIGN.verify_key.key_id}, expected key {OLD.verify_key.key_id} or {NEW.verify_key.key_id}"
    )
    assert "archiver keys card" in str(caught.value.hint)


@pytest.mark.parametrize("key", [OLD, NEW], ids=["old", "new"])
def test_a_signature_of_other_bytes_is_said_to_be_that(key: SigningKey) -> None:
    with pytest.raises(AuthenticityError, match=f"the signature by key {key.verify_key.key_id} is not of these bytes"):
        check_signature(MESSAGE, signature(key, b"another manifest"), TRUSTED)


def test_of_two_keys_with_one_number_either_may_have_signed() -> None:
    twin = SigningKey(NEW.verify_key.number, bytes(range(32)))
    both = [TrustedKey(twin.verify_key), TrustedKey(NEW.verify_key)]
    for trusted in (both, both[::-1]):
        assert check_signature(MESSAGE, signature(NEW), trusted).key == NEW.verify_key
        assert check_signature(MESSAGE, signature(twin), trusted).key == twin.verify_key
        with pytest.raises(AuthenticityError, match="is not of these bytes"):
            check_signature(b"other", signature(NEW), trusted)
    with pytest.raises(AuthenticityError, match="is not of these bytes"):
        check_signature(MESSAGE, signature(twin), [TrustedKey(NEW.verify_key)])


def test_a_signature_that_claims_another_key_s_number_is_refused() -> None:
    lines = signature(FOREIGN).splitlines(keepends=True)
    with pytest.raises(AuthenticityError, match="is not of these bytes"):
        impostor = SigningKey(NEW.verify_key.number, bytes(32))
        check_signature(MESSAGE, signature(impostor), TRUSTED)
    # The body of one, the trusted comment of another.
    mixed = "".join([*lines[:2], *signature(NEW).splitlines(keepends=True)[2:]])
    with pytest.raises(AuthenticityError, match="trusted comment"):
        check_signature(MESSAGE, mixed, [*TRUSTED, TrustedKey(FOREIGN.verify_key)])


@pytest.mark.parametrize("text", ["", "\n\n\n\n", "untrusted comment: x\n", "\x00" * 1000, "x" * 1_000_000])
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(AuthenticityError, match="malformed signature"):
        check_signature(MESSAGE, text, TRUSTED)


def test_without_a_key_nothing_is_trusted() -> None:
    with pytest.raises(AuthenticityError, match="no key to verify with"):
        check_signature(MESSAGE, signature(NEW), [])


def test_the_stock_tool_s_signatures_are_told_apart(tmp_path: Path) -> None:
    """Several keys of its making, and one of ours: whoever rotates keys may do so with either tool."""

    def minisign(*arguments: str) -> None:
        subprocess.run(["minisign", *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "m").write_bytes(MESSAGE)
    keys = {}
    for name in ("a", "b"):
        minisign("-G", "-W", "-s", name, "-p", f"{name}.pub")
        minisign("-S", "-s", name, "-m", "m", "-x", f"{name}.minisig")
        keys[name] = SigningKey.parse((tmp_path / name).read_text()).verify_key
    trusted = [TrustedKey(keys["a"], REVOKED), TrustedKey(keys["b"]), TrustedKey(NEW.verify_key)]
    for name, expected in zip(("a", "b"), trusted, strict=False):
        assert check_signature(MESSAGE, (tmp_path / f"{name}.minisig").read_text(), trusted) is expected
    (tmp_path / "m.minisig").write_text(signature(NEW))
    for key, code in ((NEW.verify_key, 0), (keys["a"], 1), (keys["b"], 1)):
        told = subprocess.run(["minisign", "-V", "-P", str(key), "-m", "m"], cwd=tmp_path, capture_output=True)
        assert told.returncode == code
