"""What can go wrong with a request to S3, and which requests it happens to. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from urllib.parse import parse_qs, urlsplit


class Kind(Enum):
    """What goes wrong."""

    RESET = "the connection is reset before the server has the request"
    LOST_REPLY = "the server does what it is asked to, and the connection ends before its answer"
    STALL = "the server never gets the request, and the connection stays open"
    STALLED_BODY = "the answer's body stops on its way"
    INTERNAL_ERROR = "the answer is 500"
    SLOW_DOWN = "the answer is 503 SlowDown"
    TRUNCATED = "the connection ends within the answer's body"
    # Bytes of objects alone, both ways: the XML of listings and requests has no checksum; TLS protects it, and here is
    # none.
    CORRUPTED = "one byte of an object is another when it is read"
    CORRUPTED_REQUEST = "one byte of an object or part is another when it is sent"
    SLOW = "both bodies come slowly"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to one request."""

    kind: Kind
    after: int | None = None
    """Bytes before it happens: of the body, or for LOST_REPLY of the answer's head. None: none of the head; the middle
    of a body, or its first byte where its length is not known in advance."""
    rate: int = 1 << 20
    """Of SLOW: bytes per second."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a schedule knows of a request."""

    number: int
    """From 1 on, in the order in which they came."""
    method: str
    target: str
    """Path and query; the bucket is in the path."""

    @property
    def reads_object(self) -> bool:
        """Whether it is a GetObject."""
        query = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return self.method == "GET" and self._names_key and query.keys() <= {"x-id"}

    @property
    def writes_object(self) -> bool:
        """Whether it is a PutObject or an UploadPart."""
        return self.method == "PUT" and self._names_key

    @property
    def _names_key(self) -> bool:
        return urlsplit(self.target).path.strip("/").count("/") > 0


Schedule = Callable[[Request], Fault | None]
"""Called once for each request, in order and by one thread."""


def no_faults(_: Request) -> None:
    """Every request passes."""


def every(step: int, fault: Fault) -> Schedule:
    """Every ``step``-th of the requests that ``fault`` can take effect on."""
    seen = 0

    def schedule(request: Request) -> Fault | None:
        nonlocal seen
        seen += can_hit(fault, request)
        return fault if can_hit(fault, request) and seen % step == 0 else None

    return schedule


def in_order(*faults: Fault | None, where: Callable[[Request], bool] = lambda _: True) -> Schedule:
    """One of ``faults`` for each of the first requests that fulfil ``where``; None lets one pass."""
    left = list(faults)

    def schedule(request: Request) -> Fault | None:
        return left.pop(0) if left and where(request) else None

    return schedule


def at_random(
    seed: int, probability: float, faults: Sequence[Fault], *, limit: int | None = None, latest: int | None = None
) -> Schedule:
    """With ``probability`` one of ``faults``, if it can take effect on the request; ``limit`` times at most.

    The first comes with request number ``latest`` at the latest, or with the first after it that can be hit.
    """
    random = Random(seed)
    given = 0

    def schedule(request: Request) -> Fault | None:
        nonlocal given
        # Both are drawn for each request, so that what becomes of one does not change what becomes of the next.
        chosen, fault = random.random() < probability, random.choice(faults)
        overdue = latest is not None and given == 0 and request.number >= latest
        if given == limit or not (chosen or overdue) or not can_hit(fault, request):
            return None
        given += 1
        return fault

    return schedule


def can_hit(fault: Fault, request: Request) -> bool:
    """Whether ``fault`` can take effect on ``request``, as far as its first line tells."""
    match fault.kind:
        case Kind.CORRUPTED:
            return request.reads_object
        case Kind.CORRUPTED_REQUEST:
            return request.writes_object
        case Kind.TRUNCATED | Kind.STALLED_BODY:
            return request.method in ("GET", "POST")
        case Kind.SLOW:
            return request.method in ("GET", "POST", "PUT")
        case _:
            return True
