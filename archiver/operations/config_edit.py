"""Changes to an ``archiver.toml`` that people wrote: comments and layout stay, and so does everything else.

The functions on texts are pure. ``change_config`` puts one of them to work on a file.
"""

import errno
import fcntl
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from archiver.config import parse_config
from archiver.errors import AlreadyExistsError, ArchiverError, BusyError, ConfigError
from archiver.filesystem import DIRECTORY, sync_directory

Change = Callable[[str], str]
"""The text of a configuration to the text that is to take its place."""
_MOUNTS = Path("/proc/self/mountinfo")


def with_vault(text: str, source: str, old: str, new: str, operators: Mapping[str, str]) -> str:
    """``text`` with ``new``, which is sealed to ``operators``, as the vault of ``source``; raises ``BusyError`` when it
    is not ``old`` any more, or when the operators are others."""

    def change(table: Any) -> None:
        _check_vault(table, source, old)
        if dict(table.get("operators", {})) != dict(operators):
            raise BusyError(
                f"the operators of source {source!r} were changed in the configuration meanwhile",
                hint="Run the command again: the new vault must be sealed to those who are operators now.",
            )
        table["vault"] = new

    return _changed(text, source, change)


def with_operator(text: str, source: str, name: str, key: str, vault: str) -> str:
    """``text`` with the operator ``name``, who was let into ``vault``; raises ``BusyError`` when that is not the vault
    of ``source`` any more, and ``AlreadyExistsError`` when the name is there with another key."""

    def change(table: Any) -> None:
        _check_vault(table, source, vault)
        operators = table.get("operators", {})
        if operators.get(name, key) != key:
            raise AlreadyExistsError(
                f"the configuration has an operator {name!r} of source {source!r} with another key",
                hint="Choose another name, or remove that operator first.",
            )
        # A table without entries may hold comments.
        if "operators" in table:
            operators[name] = key
        else:
            table["operators"] = _new_table(table, {name: key})

    return _changed(text, source, change)


def without_operator(text: str, source: str, name: str, vault: str) -> str:
    """``text`` without the operator ``name``, who need not be there and was taken out of ``vault``; raises
    ``BusyError`` when that is not the vault of ``source`` any more."""

    def change(table: Any) -> None:
        _check_vault(table, source, vault)
        operators = table.get("operators", {})
        if name in operators:
            del operators[name]

    return _changed(text, source, change)


def change_config(path: Path, change: Change, *, rehearse: bool = False) -> None:
    """Let ``change`` make the new text of the configuration at ``path``, and put it in the old one's place.

    Nobody ever sees half of it, it keeps mode and owner, and a symbolic link goes on pointing to the file. With
    ``rehearse`` all is done but for the replacement, to prove before something else is changed that it will be
    possible. Raises ``ConfigError`` when the file cannot be changed, or would not be valid afterwards, and
    ``BusyError`` when somebody else writes to it at the same time; it then stays as it is.
    """
    try:
        real = path.resolve(strict=True)
        with _locked(real.parent):
            before = real.read_bytes()
            _refuse_fixed(real, path)
            old = before.decode("utf-8")
            parse_config(old, path)
            text = change(old)
            parse_config(text, path)
            with _written_beside(real, text.encode("utf-8")) as temporary:
                # An editor does not know of the lock.
                if real.read_bytes() != before:
                    raise BusyError(f"{path} was changed by somebody else meanwhile", hint="Run the command again.")
                if not rehearse:
                    temporary.replace(real)
                    sync_directory(real.parent)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="Save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(
            f"cannot change {path}: {(error.strerror or str(error)).lower()}",
            hint="Run the command as a user who may write the file and its directory.",
        ) from error


def _check_vault(table: Any, source: str, vault: str) -> None:
    """Two administrators may be at work: what one has done to a vault counts only while the other has not made a new
    one."""
    if table["vault"] != vault:
        raise BusyError(
            f"the vault of source {source!r} was changed in the configuration meanwhile",
            hint="Run the command again if it is still needed: it goes on with the vault that is in use now.",
        )


def _refuse_fixed(real: Path, path: Path) -> None:
    """Raise ``ConfigError`` for a file that nobody can replace, whatever may be written beside it."""
    escaped = str(real)
    for character in "\\ \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    with suppress(OSError):
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        if any(line.split(" ")[4:5] == [escaped] for line in mounts):
            raise ConfigError(
                f"cannot change {path}: it is mounted as a single file, which cannot be replaced",
                hint="Mount the directory that it lies in, or run the command where that directory is.",
            )
    try:
        os.close(os.open(real, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        # A file that may only be read can be replaced: that is another error.
        if error.errno == errno.EPERM:
            raise ConfigError(
                f"cannot change {path}: it is marked as immutable or append-only",
                hint="Take the mark away for the time of the command: lsattr shows it, chattr -ia takes it away.",
            ) from None


def _changed(text: str, source: str, change: Callable[[Any], None]) -> str:
    """``text`` after ``change`` on the table of ``source``, made twice: on plain values as well, so that whatever the
    layout, nothing else can have changed."""
    plain = text.replace("\r\n", "\n")
    expected = tomllib.loads(plain)
    if source not in expected.get("source", {}):
        raise ConfigError(f"cannot change the configuration: it has no source {source!r}")
    change(expected["source"][source])
    try:
        document: Any = tomlkit.parse(plain)
        change(document["source"][source])
        changed = str(document.as_string()).rstrip("\n") + "\n"
        if tomllib.loads(changed) == expected:
            return changed.replace("\n", "\r\n") if "\r\n" in text else changed
    except (TOMLKitError, ValueError, KeyError, TypeError, AttributeError):
        # There are layouts that tomlkit can read and not change.
        pass
    raise ConfigError(
        f"cannot change the configuration: the table of source {source!r} is written in a way that is not edited",
        hint=f"Write it as [source.{source}], with [source.{source}.operators] below it.",
    )


def _new_table(parent: Any, values: dict[str, str]) -> Any:
    """``values`` as a table that suits ``parent``: of plain values, or of tomlkit's."""
    if type(parent) is dict:
        return dict(values)
    inline = isinstance(parent, tomlkit.items.InlineTable)
    table: Any = tomlkit.inline_table() if inline else tomlkit.table()
    table.update(values)
    if not inline:
        table.add(tomlkit.nl())
    return table


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One change at a time: a second one waits, and then begins with what the first one has made.

    File systems that lock no directories, such as NFS, have only the comparison before the replacement.
    """
    descriptor = os.open(directory, DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A file with ``data`` and the rights of ``path``, durable; removed after the block, if it is still there."""
    status = path.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            _keep_owner(file.fileno(), status, path)
            shutil.copystat(path, temporary)
            os.utime(temporary)
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _keep_owner(descriptor: int, status: os.stat_result, path: Path) -> None:
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except PermissionError:
        raise ArchiverError(
            f"cannot change {path}: its owner or group would change",
            hint="Run the command as root, or as the owner of the file.",
        ) from None
