"""Which requests the schedules choose."""

from tests.servers.fault_schedules import Fault, Kind, Request, Schedule, at_random, can_hit, every, in_order


def requests(*targets: str, method: str = "GET") -> list[Request]:
    return [Request(number, method, target) for number, target in enumerate(targets, 1)]


def hit(schedule: Schedule, given: list[Request]) -> list[int]:
    return [request.number for request in given if schedule(request)]


def test_every_nth_of_those_that_can_be_hit() -> None:
    given = requests("/b?list-type=2", "/b/k", "/b/k?x-id=GetObject", "/b/k?uploadId=1", "/b/k", "/b/", "/b/k")
    assert hit(every(2, Fault(Kind.CORRUPTED)), given) == [3, 7]
    assert hit(every(2, Fault(Kind.RESET)), given) == [2, 4, 6]
    assert hit(every(1, Fault(Kind.CORRUPTED_REQUEST)), given) == []


def test_in_order() -> None:
    faults = (Fault(Kind.RESET), None, Fault(Kind.STALL))
    assert hit(in_order(*faults), requests(*["/b/k"] * 5)) == [1, 3]
    assert hit(in_order(*faults, where=lambda request: request.number > 2), requests(*["/b/k"] * 5)) == [3, 5]


def test_at_random() -> None:
    given = requests(*["/b/k"] * 1000)
    faults = [Fault(kind) for kind in Kind]
    chosen = hit(at_random(1, 0.2, faults), given)
    assert chosen == hit(at_random(1, 0.2, faults), given)
    assert chosen != hit(at_random(2, 0.2, faults), given)
    assert 130 < len(chosen) < 230
    assert hit(at_random(1, 0.2, faults, limit=3), given) == chosen[:3]
    assert hit(at_random(1, 0, [Fault(Kind.RESET)], latest=7), given) == [7]
    assert {fault.kind for request in given if (fault := at_random(request.number, 1, faults)(request))} == {
        fault.kind for fault in faults if can_hit(fault, given[0])
    }
