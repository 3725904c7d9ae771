"""The process that pins and copies one environment: ``python -m archiver.environment.helper DESCRIPTOR``.

A process of its own for three reasons. liblmdb can be killed by a damaged file, which then costs one backup and not the
explanation why. A pin must be given up within milliseconds when the server runs out of room, also while whoever takes
the copy is stalled: here a second thread watches, and ends the process. And when the backup itself is killed outright,
this process lives on just long enough to free its slot in the server's reader table.

DESCRIPTOR is the pipe for the copy; messages.py has the protocol. SIGTERM and the end of the standard input end it.
"""

import fcntl
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from archiver.environment.headroom import Gauge
from archiver.environment.messages import COPY, Copied, Failed, Pinned, PinRequest, Reply, decode_request, encode
from archiver.environment.meta import DATA_FILE
from archiver.environment.pinning import PinnedEnvironment, pinned
from archiver.environment.reader import ReaderSlot
from archiver.errors import ArchiverError, BusyError, PinGivenUpError, SourceError

_PIPE_SIZE = 1 << 20
_PAUSE = 0.02
"""Seconds between two looks at the room of a live server: at 120 MB a second it takes 2.4 MB meanwhile."""
_COLD_PAUSE = 0.25
"""Seconds between two looks at an environment that nobody has open."""
_FAREWELL = 1.0
"""Seconds from the end of the server until the pin no longer waits for it to start anew (reader.py, rule 8)."""
_LAST_WORD = 1.0
"""Seconds that the last word may wait for one that is being said, to a parent that perhaps does not listen."""
_NO_ROOM_HINT = (
    "Raise the server's map size (max_db_size) and let it commit, make its file small, or free disk space "
    "(docs/HOT-BACKUP.md); waiting does not help."
)
_GIVEN_UP_HINT = (
    "Back up when the server writes less, use a faster destination, or raise the server's map size (max_db_size) "
    "(docs/HOT-BACKUP.md)."
)


class _Watch:
    """Looks after a pin in a thread, from before its taking to its release, and ends the process when it must end.

    The process ends by ``os._exit``: the other thread may be inside LMDB, blocked on a pipe that nobody empties.
    """

    def __init__(self, request: PinRequest, wake_up: int) -> None:
        self._directory = Path(os.fsdecode(request.directory))
        self._request = request
        self._wake_up = wake_up
        self._slot: ReaderSlot | None = None
        self._environment: PinnedEnvironment | None = None
        self._gauge: Gauge | None = None
        self._speaking = threading.Lock()
        self._finished = self._ending = False
        self._began = self._attended = time.monotonic()

    def start(self) -> None:
        threading.Thread(target=self._run, name="archiver-watch", daemon=True).start()

    def protect(self, slot: ReaderSlot) -> None:
        """Release ``slot`` whatever happens from now on."""
        self._slot = slot

    def attend(self, environment: PinnedEnvironment) -> None:
        """Look after ``environment`` from now on."""
        if environment.protected_from is not None:
            request, data = self._request, self._directory / DATA_FILE
            self._gauge = Gauge(data, lambda: environment.oldest_reader, request.headroom, request.max_size)
        self._environment = environment

    def refuse_without_headroom(self, longest: int) -> None:
        """Raise ``BusyError`` when there is too little room to begin; the longest value has ``longest`` bytes."""
        if self._gauge is None:
            return
        self._gauge.longest = longest
        if reason := self._gauge.refusal():
            raise BusyError(f"cannot pin {self._directory}: {reason}", hint=_NO_ROOM_HINT)

    def say(self, reply: Reply) -> None:
        """Say it whole, and nothing after the last word."""
        with self._speaking:
            if not self._finished and not self._ending:
                _say(reply)

    def finish(self) -> None:
        """Confirm the copy and release the pin, unless the watch has just given it up."""
        with self._speaking:
            if self._environment is not None and not self._ending:
                self._environment.confirm()
                self._environment.release()
                self._finished = True
                _say(Copied())

    def fail(self, error: ArchiverError) -> None:
        """Let ``error`` be the last word."""
        with self._speaking:
            if not self._finished and not self._ending:
                self._finished = True
                _say(Failed.of(error))

    def _run(self) -> None:
        poller = select.poll()
        # Asked for nothing, poll still tells that the other end of the pipe is closed.
        poller.register(sys.stdin.fileno(), 0)
        poller.register(self._wake_up, select.POLLIN)
        pause = 0.0
        while not (events := poller.poll(None if self._finished else pause * 1000)):
            try:
                pause = self._look()
            except ArchiverError as error:
                self._end(error)
            except Exception as error:  # noqa: BLE001 - a pin that nobody watches must not be held, whatever the reason
                self._end(SourceError(f"cannot watch the pin on {self._directory}: {error}"))
        told = any(descriptor == self._wake_up for descriptor, _ in events)
        reason = f"the process that reads {self._directory} was told to end"
        self._end(SourceError(reason, hint="Run the backup again.") if told else None)

    def _look(self) -> float:
        """Raise when the pin must be given up; else the seconds until the next look."""
        environment = self._environment
        if environment is None or self._finished:
            return _PAUSE
        environment.confirm()
        if self._gauge is None:
            return _COLD_PAUSE
        now = time.monotonic()
        if not environment.alone:
            self._attended = now
        elif now - self._attended > _FAREWELL:
            self._leave(environment)
            return _COLD_PAUSE
        if now - self._began > self._request.seconds:
            raise PinGivenUpError(
                f"gave up the pin on {self._directory}: it was held for longer than {self._request.seconds:.0f} s",
                hint="Use a faster destination, or raise pin.seconds in archiver.toml.",
            )
        if reason := self._gauge.shortage():
            raise PinGivenUpError(f"gave up the pin on {self._directory}: {reason}", hint=_GIVEN_UP_HINT)
        return _PAUSE

    def _leave(self, environment: PinnedEnvironment) -> None:
        with self._speaking:
            if not self._finished:
                environment.leave()
        self._gauge = None

    def _end(self, error: ArchiverError | None) -> None:
        """Release the pin at once; then say why, if anything is to be said and the other thread is not in the way."""
        self._ending = True
        if self._slot is not None:
            self._slot.release()
        if self._speaking.acquire(timeout=_LAST_WORD) and error is not None and not self._finished:
            _say(Failed.of(error))
        os._exit(0)


def main() -> None:
    """Serve one pin, from the request to the end of the standard input."""
    data = int(sys.argv[1])
    # There is nothing to clean up yet.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    line = sys.stdin.buffer.readline()
    if not line:
        return
    request = decode_request(line)
    watch = _Watch(request, _catch_signals())
    watch.start()
    try:
        _serve(request, data, watch)
    except ArchiverError as error:
        watch.fail(error)
    # Whoever speaks last, the parent has heard it once it closes this.
    sys.stdin.buffer.read()


def _serve(request: PinRequest, data: int, watch: _Watch) -> None:
    with pinned(Path(os.fsdecode(request.directory)), request.declared, watch.protect) as environment:
        watch.attend(environment)
        try:
            databases, used_pages, longest = environment.list_databases()
            watch.refuse_without_headroom(longest)
            watch.say(Pinned(environment.method, environment.pinned, environment.meta, databases, used_pages))
            if sys.stdin.buffer.readline() == COPY:
                _copy(environment, data)
                watch.finish()
        except ArchiverError as error:
            # Here and not by the caller: when the pin is gone, the watch finds that and takes it for the reason.
            watch.fail(error)


def _copy(environment: PinnedEnvironment, data: int) -> None:
    """Fill the pipe ``data`` with the copy, and close it."""
    # Fails when the user's allowance of pipe buffers is used up: the default size is slower, not wrong.
    with suppress(OSError):
        fcntl.fcntl(data, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    try:
        environment.copy_to(data)
    except ArchiverError:
        # A writer beside a cold copy may have made it fail: that is the better reason then.
        environment.confirm()
        raise
    finally:
        os.close(data)


def _catch_signals() -> int:
    """A descriptor that becomes readable on a signal to end, even while the main thread is inside LMDB."""
    wake_up, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return wake_up


def _say(reply: Reply) -> None:
    line = memoryview(encode(reply))
    # The parent may be gone: then there is nobody to tell.
    with suppress(BrokenPipeError):
        while line:
            line = line[os.write(sys.stdout.fileno(), line) :]


if __name__ == "__main__":
    main()
