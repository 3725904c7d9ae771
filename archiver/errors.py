"""The exception tree. Every error an operator can meet is one of these; the exit code is on the class.

::

    ArchiverError                1  failed
    ├── UsageError               2  bad arguments
    │   └── ConfigError             bad archiver.toml or a file that it names
    ├── SourceError              1  a source cannot be read
    │   └── SnapshotChangedError    a copy is not that of its snapshot: pin and copy again
    ├── TargetError              1  a restore target cannot be written
    ├── IntegrityError           4  bytes are not what they must be
    │   ├── FormatError             malformed or truncated data
    │   ├── AuthenticityError       a missing or wrong signature
    │   │   └── UnsignedError           it is missing
    │   └── DecryptionError         encrypted bytes were altered
    │       └── NoIdentityError     none of the given identities opens this
    ├── NotFoundError            5  no such backup, object, file or environment
    ├── BusyError                6  a live process or another run is in the way
    │   ├── PinGivenUpError         a pin was given up for the sake of the live server
    │   └── AlreadyExistsError      a create-only key exists
    └── StorageError             7  the store cannot be reached or refuses
        └── RefusedError            it answered, and will not give out or take this one key

Messages are lower case, without a full stop, name the object and say what was expected and what was found.
A hint is one sentence that says what to do next.
"""


class ArchiverError(Exception):
    """Base of every error that archiver reports in one line."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ArchiverError):
    """The command was given something that it cannot work with."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration, or a file that it names, is missing or malformed."""


class SourceError(ArchiverError):
    """A source cannot be read as it must be."""


class SnapshotChangedError(SourceError):
    """An environment was written to or its pin was lost while it was copied: pin again and copy again."""


class TargetError(ArchiverError):
    """A restore target cannot be written as it must be."""


class IntegrityError(ArchiverError):
    """Bytes are not what the catalog, a checksum or a format says they must be."""

    exit_code = 4


class FormatError(IntegrityError):
    """Data are malformed, truncated or beyond a stated limit."""


class AuthenticityError(IntegrityError):
    """A signature is missing, wrong, or by a key that is not trusted."""


class UnsignedError(AuthenticityError):
    """A signature is missing."""


class DecryptionError(IntegrityError):
    """An encrypted file does not open, or its bytes were altered."""


class NoIdentityError(DecryptionError):
    """None of the given identities is one that an encrypted file was made for."""


class NotFoundError(ArchiverError):
    """A backup, object, file or environment does not exist."""

    exit_code = 5


class BusyError(ArchiverError):
    """A live process or another run holds what is needed."""

    exit_code = 6


class PinGivenUpError(BusyError):
    """A pin was given up for the sake of the live server; trying later may work."""


class AlreadyExistsError(BusyError):
    """A key that may only be created exists already."""


class StorageError(ArchiverError):
    """The store cannot be reached, or refuses the request."""

    exit_code = 7


class RefusedError(StorageError):
    """The store answered, and refuses what was asked of one key; others may be had."""


def is_unreachable(error: ArchiverError) -> bool:
    """Whether the store itself fails, so that it will fail at anything else too."""
    return isinstance(error, StorageError) and not isinstance(error, RefusedError)
