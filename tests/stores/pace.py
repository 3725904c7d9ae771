"""Time that passes only by sleeping, for several threads."""

import threading


class Clock:
    """All threads have one time: whoever sleeps is on his own."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds
