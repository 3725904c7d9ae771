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
from archiver.errors import ArchiverError, BusyError, PinGivenUpError, SourceError

_PIPE_SIZE = 1 << 20
_PAUSE = 0.02
"""Seconds between two looks at the room of a live server: at 120 MB a second it takes 2.4 MB meanwhile."""
_COLD_PAUSE = 0.25
"""Seconds between two looks at an environment that nobody has open."""
_FAREWELL = 2.0
"""Seconds from the end of the server until the pin no longer waits for it to start anew (reader.py, rule 8)."""
_ROOM_HINT = (
    "Raise the server's map size (max_db_size) or free disk space, or back up when it writes less; "
    "pin.headroom in archiver.toml sets the bound."
)


class _Watch:
    """Looks after a pin in a thread, from its taking to its release, and ends the process when it must not be held.

    The process ends by ``os._exit``: the other thread may be inside LMDB, blocked on a pipe that nobody empties.
    """

    def __init__(self, environment: PinnedEnvironment, request: PinRequest, wake_up: int) -> None:
        self._environment = environment
        self._request = request
        self._wake_up = wake_up
        self._deciding = threading.Lock()
        self._finished = False
        self._began = self._attended = time.monotonic()
        self._gauge: Gauge | None = None
        if environment.protected_from is not None:
            self._gauge = Gauge(
                environment.directory / DATA_FILE,
                lambda: environment.oldest_reader,
                request.headroom,
                request.max_size,
            )

    def refuse_without_headroom(self) -> None:
        """Raise ``BusyError`` when there is too little room to begin."""
        if self._gauge is not None and (reason := self._gauge.refusal()):
            raise BusyError(f"cannot pin {self._environment.directory}: {reason}", hint=_ROOM_HINT)

    def start(self) -> None:
        threading.Thread(target=self._run, name="archiver-watch", daemon=True).start()

    def finish(self) -> None:
        """Confirm the copy and release the pin, unless the watch has just given it up."""
        with self._deciding:
            self._environment.confirm()
            self._environment.release()
            self._finished = True
            _say(Copied())

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
                self._give_up(Failed.of(error))
            except Exception as error:  # noqa: BLE001 - a pin that nobody watches must not be held, whatever the reason
                self._give_up(Failed.of(SourceError(f"cannot watch the pin on {self._environment.directory}: {error}")))
        told = any(descriptor == self._wake_up for descriptor, _ in events)
        reason = f"the process that reads {self._environment.directory} was told to end"
        self._give_up(Failed.of(SourceError(reason, hint="Run the backup again.")) if told else None)

    def _look(self) -> float:
        """Raise when the pin must be given up; else the seconds until the next look."""
        self._environment.confirm()
        if self._gauge is None:
            return _COLD_PAUSE
        now = time.monotonic()
        if not self._environment.alone:
            self._attended = now
        elif now - self._attended > _FAREWELL:
            with self._deciding:
                self._environment.leave()
            self._gauge = None
            return _COLD_PAUSE
        directory, held = self._environment.directory, now - self._began
        if held > self._request.seconds:
            raise PinGivenUpError(
                f"gave up the pin on {directory}: it was held for {held:.0f} s, expected at most "
                f"{self._request.seconds:.0f} s",
                hint="Use a faster destination, or raise pin.seconds in archiver.toml.",
            )
        if reason := self._gauge.shortage():
            raise PinGivenUpError(f"gave up the pin on {directory}: {reason}", hint=_ROOM_HINT)
        return _PAUSE

    def _give_up(self, last_word: Failed | None) -> None:
        with self._deciding:
            self._environment.release()
            if last_word is not None and not self._finished:
                _say(last_word)
            os._exit(0)


def main() -> None:
    """Serve one pin, from the request to the end of the standard input."""
    data = int(sys.argv[1])
    wake_up = _catch_signals()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    try:
        _serve(decode_request(line), data, wake_up)
    except ArchiverError as error:
        _say(Failed.of(error))


def _serve(request: PinRequest, data: int, wake_up: int) -> None:
    with pinned(Path(os.fsdecode(request.directory)), request.declared) as environment:
        watch = _Watch(environment, request, wake_up)
        watch.refuse_without_headroom()
        watch.start()
        databases, used_pages = environment.list_databases()
        _say(Pinned(environment.method, environment.pinned, environment.meta, databases, used_pages))
        if sys.stdin.buffer.readline() != COPY:
            return
        _copy(environment, data)
        watch.finish()
        sys.stdin.buffer.read()


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
