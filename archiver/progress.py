"""How long work reports on itself: operations speak to a Reporter, the command line implements it."""

from typing import Protocol

UPLOAD = "upload"
"""The phase in which everything has been read, and what waits is sent; ``total`` is how much that is."""


class Reporter(Protocol):
    """Hears what an operation is doing. Methods may be called from any thread."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A new phase begins; ``total`` is its size in bytes where that is known."""

    def advance(self, count: int) -> None:
        """``count`` more bytes of the current phase are done."""

    def event(self, name: str, **details: object) -> None:
        """Something worth a line happened, such as a committed backup; ``details`` are JSON values."""

    def warn(self, message: str) -> None:
        """Something was skipped or is not as it should be; the run goes on."""


class Silent:
    """A Reporter that hears everything and says nothing."""

    def phase(self, name: str, total: int | None = None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def event(self, name: str, **details: object) -> None:
        pass

    def warn(self, message: str) -> None:
        pass
