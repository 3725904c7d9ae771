"""Backup, verify and restore over a faulty network: each succeeds, or fails and leaves the old state as it was."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest

from archiver.stores import s3_connection
from archiver.stores.retry import Retry
from tests.operations.faults import (
    CALM,
    DONE,
    Trial,
    check_backup,
    check_cleaned_up,
    check_restore,
    check_verify,
    make_trial,
)
from tests.operations.scene import MIB, tree
from tests.servers.fault_proxy import fault_proxy
from tests.servers.fault_schedules import Fault, Kind, Request, Schedule, at_random, every, in_order, no_faults
from tests.stores.conftest import open_uploads
from tests.stores.s3_help import endpoint_of

SLOW = pytest.mark.slow
FAULTS = {
    "reset": Fault(Kind.RESET),
    "lost-reply": Fault(Kind.LOST_REPLY),
    "cut-in-head": Fault(Kind.LOST_REPLY, after=60),
    "cut-after-head": Fault(Kind.TRUNCATED, after=0),
    "truncated": Fault(Kind.TRUNCATED),
    "stall": Fault(Kind.STALL),
    "stalled-body": Fault(Kind.STALLED_BODY),
    "internal-error": Fault(Kind.INTERNAL_ERROR),
    "slow-down": Fault(Kind.SLOW_DOWN),
    # The first byte: of two ranges of a large object the rest is not looked at, because it is read once more.
    "corrupted": Fault(Kind.CORRUPTED, after=0),
    "corrupted-request": Fault(Kind.CORRUPTED_REQUEST),
    "slow": Fault(Kind.SLOW, rate=8 * MIB),
}
STEPS = {"stall": 10, "stalled-body": 7}
"""Every how manieth request is hit: the second, unless each costs as much as the read timeout."""
OUTAGES = ("reset", "lost-reply", "internal-error", "slow-down", "stall")
FOR_EVER = 10_000
ON_SEAWEED = [("seaweed", name) for name in FAULTS]
ON_LOCALSTACK = [pytest.param("localstack", name, marks=SLOW) for name in FAULTS]
SEEDS = [*range(6), *(pytest.param(seed, marks=SLOW) for seed in range(6, 206))]


PATIENCE = 4.0
"""Seconds for which a backup's uploads go on trying, instead of five minutes."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait as always, but for milliseconds: how long they wait is for tests/stores/test_retry.py."""
    monkeypatch.setattr(s3_connection, "Retry", partial(Retry, base=0.01, cap=0.1, budget=PATIENCE))


@pytest.fixture
def calm_trial(trial: Trial) -> Trial:
    """For faults that need no patience to be noticed."""
    return replace(trial, options=CALM)


@pytest.fixture
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Trial]:
    """In SeaweedFS, or in the server that the test names."""
    url = str(request.getfixturevalue(f"{getattr(request, 'param', 'seaweed')}_url"))
    with fault_proxy(endpoint_of(url)) as proxy:
        yield make_trial(tmp_path / "trial", url, proxy)


def back_up(trial: Trial, schedule: Schedule) -> None:
    trial.proxy.follow(schedule)
    check_backup(trial, trial.backup(), [trial.old])


def verify(trial: Trial, schedule: Schedule) -> None:
    def spares_other_backups(request: Request) -> Fault | None:
        """The manifest of a later one is read to judge by; damaged, it says nothing of the one that is verified."""
        of_another = "/backups/" in request.target and trial.old not in request.target
        return None if of_another else schedule(request)

    trial.proxy.follow(spares_other_backups)
    check_verify(trial, trial.verify())


def restore(trial: Trial, schedule: Schedule) -> None:
    before = tree(trial.target)
    trial.proxy.follow(schedule)
    check_restore(trial, trial.restore(), before)


def clean_up(trial: Trial) -> None:
    trial.proxy.follow(no_faults)
    check_cleaned_up(trial)


@pytest.mark.parametrize(("trial", "name"), [*ON_SEAWEED, *ON_LOCALSTACK], indirect=["trial"])
def test_every_nth_request_is_faulty(trial: Trial, name: str) -> None:
    fault = FAULTS[name]
    if fault.kind not in (Kind.STALL, Kind.STALLED_BODY):
        trial = replace(trial, options=CALM)
    for command in (back_up, verify, restore):
        if fault.kind is Kind.CORRUPTED_REQUEST and command is not back_up:
            continue
        command(trial, every(STEPS.get(name, 2), fault))
        assert trial.proxy.hits[fault.kind], command.__name__
    clean_up(trial)


@pytest.mark.parametrize(
    ("command", "step"), [(verify, 4), pytest.param(verify, 1, marks=SLOW), pytest.param(restore, 1, marks=SLOW)]
)
def test_an_altered_byte_of_any_object_is_noticed(
    calm_trial: Trial, command: Callable[[Trial, Schedule], None], step: int
) -> None:
    trial = calm_trial
    before = tree(trial.target)
    for passed in range(0, FOR_EVER, step):
        faults = (*[None] * passed, FAULTS["corrupted"])
        command(trial, in_order(*faults, where=lambda request: request.reads_object))
        if not trial.proxy.hits:
            # A manifest, its signature, the vault's key, three lists, two environments and a film are the least.
            assert passed >= 9
            break
        assert tree(trial.target) == before


@pytest.mark.parametrize("trial", ["seaweed", "localstack"], indirect=True)
def test_the_next_run_ends_what_an_outage_left_open(calm_trial: Trial) -> None:
    trial = calm_trial
    faults = [FAULTS["reset"]] * FOR_EVER
    # Parts, the completion, and the request that would abort the upload.
    trial.proxy.follow(in_order(*faults, where=lambda request: "uploadId=" in request.target))
    check_backup(trial, trial.backup(), [trial.old])
    assert trial.proxy.hits
    assert open_uploads(trial.scene.url) != []
    clean_up(trial)


def test_an_outage_in_the_middle_of_a_backup_does_not_fail_it(
    calm_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than the attempts that a request gets when somebody waits for it."""
    trial = calm_trial
    monkeypatch.setattr(s3_connection, "Retry", partial(Retry, base=0.01, cap=0.1))
    # Four parts are sent at a time.
    outage = [FAULTS["reset"]] * (4 * 3 + 1)

    def sends_part(request: Request) -> bool:
        return request.writes_object and "uploadId=" in request.target

    trial.proxy.follow(in_order(*outage, where=sends_part))
    done = trial.backup()
    assert done.code in DONE, done
    assert trial.proxy.hits[Kind.RESET] == len(outage)
    check_backup(trial, done, [trial.old])
    clean_up(trial)


@SLOW
@pytest.mark.parametrize("name", ["reset", "lost-reply", "cut-in-head", "cut-after-head", "internal-error"])
def test_the_network_goes_at_any_request_of_a_backup(trial: Trial, name: str) -> None:
    listed = [trial.old]
    for begin in range(FOR_EVER):
        trial.proxy.follow(in_order(*[None] * begin, *[FAULTS[name]] * FOR_EVER))
        done = trial.backup()
        listed = check_backup(trial, done, listed)
        if not trial.proxy.hits:
            assert done.code == 0, done
            break
    clean_up(trial)


def schedule(chance: Random) -> Schedule:
    """Faults here and there, or an outage that begins at some request, for a while or for good."""
    if chance.random() < 0.25:
        length = chance.choice([3, 10, FOR_EVER])
        return in_order(*[None] * chance.randrange(15), *[FAULTS[chance.choice(OUTAGES)]] * length)
    probability, limit = chance.choice([0.05, 0.15, 0.4]), chance.choice([None, 3])
    return at_random(chance.getrandbits(32), probability, list(FAULTS.values()), limit=limit, latest=10)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_at_random(trial: Trial, seed: int) -> None:
    chance = Random(seed)
    hits: Counter[Kind] = Counter()
    for command in (back_up, verify, restore):
        command(trial, schedule(chance))
        hits += trial.proxy.hits
    assert hits
    clean_up(trial)
