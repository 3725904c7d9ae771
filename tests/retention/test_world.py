"""Years of nights in a store: nothing promised is ever gone, and nothing stays that nobody needs."""

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import get_args

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from archiver.catalog.names import BackupPlace, backup_time, parse_manifest_key
from archiver.config import DEFAULT_CLASSES, HELD, RetentionClass
from tests.retention.world import DAY, Expiry, World

POLICIES = (
    DEFAULT_CLASSES,
    {
        "daily": RetentionClass(14, 3),
        "weekly": RetentionClass(60, 7, "week"),
        "monthly": RetentionClass(200, 20, "month"),
        "yearly": RetentionClass(800, 60, "year"),
    },
    {"daily": RetentionClass(7, 1), "weekly": RetentionClass(7, 1, "week"), "monthly": RetentionClass(31, 1, "month")},
    {
        "daily": RetentionClass(20, 30),
        "monthly": RetentionClass(100, 2, "month", "DEEP_ARCHIVE"),
        "yearly": RetentionClass(400, 9, "year", "GLACIER_IR"),
    },
    {"daily": RetentionClass(90, 7), "weekly": RetentionClass(30, 60, "week"), "special": RetentionClass(90, 1)},
    {"daily": RetentionClass(3, 9), "yearly": RetentionClass(366, 1, "year", "GLACIER")},
)
NIGHTS_OF_A_POLICY = 450
EXPIRY = st.sampled_from(get_args(Expiry))


@dataclass(frozen=True, slots=True)
class Night:
    wait: timedelta
    source: str
    retention_class: str
    span: timedelta
    borrow: float
    outcome: str


NIGHTS = st.builds(
    Night,
    wait=st.one_of(
        st.just(DAY),
        st.timedeltas(timedelta(minutes=1), 3 * DAY),
        st.sampled_from([7 * DAY, 33 * DAY, 34 * DAY, 50 * DAY, 400 * DAY]),
    ),
    source=st.sampled_from(["prod", "notes"]),
    retention_class=st.sampled_from(["daily", "daily", "daily", "monthly", "special"]),
    span=st.sampled_from([timedelta(minutes=2), timedelta(hours=5), timedelta(hours=30)]),
    borrow=st.sampled_from([0.0, 0.6, 1.0]),
    outcome=st.sampled_from(["done"] * 6 + ["fails", "hold", "release", "policy", "back", "interrupted", "expire"]),
)


def live(world: World, night: Night) -> None:
    """One night, from the end of the one before it."""
    world.advance(night.wait)
    runs = world.known_runs(night.source)
    if night.outcome == "policy":
        world.configure(world.random.choice(POLICIES))
    elif night.outcome == "back":
        # Whoever sets a clock back delays what is due; runs refuse until it has caught up.
        world.now -= timedelta(days=world.random.randrange(1, 4))
    elif night.outcome == "expire":
        world.expire()
    elif night.outcome in ("hold", "interrupted") and runs:
        run = world.random.choice(runs)
        names = {copy.place.retention_class for copy in world.copies.values() if copy.run == run}
        if night.outcome == "hold" and HELD not in names:
            world.hold(run)
        elif night.outcome == "interrupted":
            world.interrupted_copy(run, world.random.choice(sorted(set(world.classes) - names) or ["daily"]))
    elif night.outcome == "release":
        for copy in [copy for copy in world.copies.values() if copy.place.retention_class == HELD]:
            world.release(copy.run)
    else:
        name = night.retention_class if night.retention_class in world.classes else "daily"
        fails = night.outcome == "fails"
        if world.run(night.source, name, night.span, night.borrow, fails=fails):
            world.promote(night.source)


# A failure is not made smaller: each step depends on all before it, so that takes minutes and finds little.
@settings(
    deadline=None,
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    nights=st.lists(NIGHTS, min_size=20, max_size=60),
    policy=st.sampled_from(POLICIES),
    expiry=EXPIRY,
    seed=st.integers(0, 1 << 16),
)
def test_whatever_happens_nothing_promised_is_gone(
    nights: list[Night], policy: dict[str, RetentionClass], expiry: Expiry, seed: int
) -> None:
    world = World(policy, expiry, Random(seed))
    for night in nights:
        live(world, night)


# Each policy with one way of expiry; the rest is for the second tier.
@pytest.mark.parametrize(
    ("policy", "expiry"),
    [
        pytest.param(policy, expiry, marks=[pytest.mark.slow] if (policy + number) % 4 else [])
        for policy in range(len(POLICIES))
        for number, expiry in enumerate(get_args(Expiry))
    ],
)
def test_a_long_time_under_one_policy(policy: int, expiry: Expiry) -> None:
    """So it is also known what must be gone."""
    random = Random(policy)
    world = World(POLICIES[policy], expiry, random)
    for _ in range(NIGHTS_OF_A_POLICY):
        missed = random.random() < 0.02
        world.advance(DAY * random.choice([2, 9, 40]) if missed else DAY - timedelta(minutes=40))
        if random.random() < 0.02 and (runs := world.known_runs("prod")):
            run = random.choice(runs)
            place = BackupPlace(HELD, run.source, run.backup)
            world.release(run) if place in world.copies else world.hold(run)
        for source in ("prod", "notes"):
            if world.run(source, "daily", timedelta(minutes=20), 0.7, fails=random.random() < 0.1):
                world.promote(source)
        world.expire()
        if expiry != "late":
            world.check_room()


@pytest.mark.parametrize("expiry", ["midnight", "command"])
def test_a_year_leaves_exactly_what_was_promised(expiry: Expiry) -> None:
    """365 nights at 02:00, without a mishap. 2026-01-05 is a Monday."""
    classes = {
        "daily": RetentionClass(35, 7),
        "weekly": RetentionClass(90, 7, "week"),
        "monthly": RetentionClass(400, 35, "month"),
        "yearly": RetentionClass(1000, 60, "year"),
    }
    world = World(classes, expiry, Random(0))
    world.now -= timedelta(minutes=30)
    for _ in range(365):
        world.advance(timedelta(minutes=30))
        world.run("prod", "daily", timedelta(minutes=20), 0.7)
        world.promote("prod")
        world.advance(timedelta(hours=23, minutes=10))
        world.expire()
        world.check_room()

    there: dict[str, list[str]] = {name: [] for name in (*classes, HELD)}
    for key in sorted(world.items):
        if (place := parse_manifest_key(key)) is not None:
            there[place.retention_class].append(f"{backup_time(place.backup):%m-%d}")
    december = [f"12-{day:02}" for day in range(1, 32)]
    assert there == {
        "daily": [*december, "01-01", "01-02", "01-03", "01-04"],
        "weekly": [f"{date(2026, 10, 12) + weeks * 7 * DAY:%m-%d}" for weeks in range(13)],
        "monthly": ["01-05", *(f"{month:02}-01" for month in range(2, 13)), "01-01"],
        "yearly": ["01-05", "01-01"],
        "held": [],
    }
    assert len(world.promised()) == sum(map(len, there.values()))
