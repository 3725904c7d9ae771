"""Bodies on their way to S3."""

from archiver.buffers import Buffer, BufferFile
from archiver.stores.abandonment import Abandonment
from archiver.stores.limits import Limiter


class PacedBody(BufferFile):
    """The body of one attempt of a request, which the connection reads in stretches and sends one after the other.

    A bytearray would be sent with one time limit for all of it, in which a slow link cannot carry a part: the limit
    holds for each stretch, and so means no progress. They are those of botocore (128 KiB), or as long as ``limiter``
    has them, which is asked before each. Reading fails once it was given up, so that a part on a slow link need not be
    sent to its end.
    """

    def __init__(self, data: Buffer, limiter: Limiter | None, abandonment: Abandonment, name: str) -> None:
        super().__init__(data)
        self._limiter = limiter
        self._abandonment = abandonment
        self._name = name
        self._begun = False

    def begin(self) -> None:
        """From now on what is read is sent; before that it may have been read for a signature."""
        self._begun = True

    def read(self, size: int = -1) -> memoryview:
        self._abandonment.check(self._name)
        if self._limiter is None or not self._begun:
            return super().read(size)
        piece = super().read(min(size, self._limiter.stretch) if size >= 0 else self._limiter.stretch)
        self._limiter.take(len(piece))
        return piece
