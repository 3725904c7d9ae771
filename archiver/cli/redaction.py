"""Secrets that were typed where none belongs: they are not repeated, because a log or a helper may keep what we say."""

import re
from collections.abc import Sequence
from itertools import pairwise

from archiver.errors import UsageError

HINT = (
    "This looks like a secret key. Other users can see arguments, and the shell's history keeps them: treat it as "
    "stolen. Give it in a file with --identity FILE."
)
MISPLACED = (
    "A secret key stands where none belongs, and is not repeated here: take it out, and treat it as stolen if others "
    "could read it."
)
_REPLACEMENT = "[a secret key]"
_MARK = re.compile(r"AGE-SECRET-KEY-|RW(?:QAAEIy|RTY0Iy)", re.IGNORECASE)
"""How age's secret keys begin, and those of minisign, without and with a password."""
# Upper-case pieces after white space, which JSON may write as \n, can be the rest of an age key that was pasted in
# parts. Our own texts write AGE-SECRET-KEY-1…, and stay as they are.
_SECRET = re.compile(
    r"(?i:AGE-SECRET-KEY-(?:PQ-)?(?:1\s*)?[0-9A-Z]{4,})(?:(?:\s|\\n)+[0-9A-Z]{4,}(?![0-9A-Za-z]))*"
    r"|RW(?:QAAEIy|RTY0Iy)[0-9A-Za-z+/=]+"
)
_PASSPHRASE_OPTIONS = ("--passphrase", "--new-passphrase")
_SHORTEST = 8
"""Characters of a word that may be a passphrase: a shorter one occurs in our own texts, and opens nothing for long."""
_REFERENCE = re.compile(r"latest|\d{4}[\dTZ-]*")


def redacted(text: str) -> str:
    """``text`` without the secret keys in it."""
    return _SECRET.sub(_REPLACEMENT, text)


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Raise ``UsageError`` if one of ``arguments`` holds a secret key, before it is used, sent or written anywhere."""
    for before, argument in pairwise(("", *arguments)):
        if not _MARK.search(argument):
            continue
        if before == "--recipient" or argument.startswith("--recipient="):
            raise UsageError("--recipient takes the public half of a key, age1…: this is the secret half", hint=HINT)
        raise UsageError("an argument is a secret key, which is not repeated here", hint=HINT)


def passphrase_option(arguments: Sequence[str]) -> str | None:
    """The option among ``arguments`` after which somebody may have written a passphrase."""
    names = (argument.partition("=")[0] for argument in arguments)
    return next((name for name in names if name in _PASSPHRASE_OPTIONS), None)


def withheld(arguments: Sequence[str]) -> "re.Pattern[str] | None":
    """What matches words that follow such an option, and that may be a passphrase instead of a backup or a name."""
    words = [
        word
        for option, word in pairwise(arguments)
        if option in _PASSPHRASE_OPTIONS
        and len(word) >= _SHORTEST
        and not word.startswith("-")
        and not _REFERENCE.fullmatch(word)
    ]
    return re.compile("|".join(map(re.escape, words))) if words else None
