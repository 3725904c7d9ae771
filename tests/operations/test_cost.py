"""archiver cost: the sums of a price file, of what is stored and of what a policy comes to."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace

from archiver.config import RetentionClass
from archiver.errors import ConfigError
from archiver.operations.cost import Habit, Measured, Pile
from archiver.operations.estimate import MONTH, Estimate, Storage, estimate
from archiver.operations.prices import Prices, StoragePrices, load_prices
from tests.operations.archives import SOURCE
from tests.operations.scene import Scene, archiver
from tests.servers.process import REPOSITORY

PAGE = REPOSITORY / "docs" / "prices" / "README.md"
EXAMPLE = REPOSITORY / "docs" / "prices" / "example.toml"
GIB = 2**30
PLAIN = StoragePrices(gib_month=1.0, put=1.0, get=1.0, retrieval_gib=0.0, thaw=0.0, minimum_days=0, minimum_bytes=0)
COLD = StoragePrices(
    gib_month=0.1, put=10.0, get=2.0, retrieval_gib=3.0, thaw=50.0, minimum_days=180, minimum_bytes=1000
)
PRICES = Prices(Path("prices.toml"), "EUR", "made up", 5.0, {"STANDARD": PLAIN, "DEEP_ARCHIVE": COLD})
DAILY = RetentionClass(keep=35, lease=7)
NIGHTLY = Habit(
    SOURCE, "daily", per_day=1.0, nights=30, objects=100.0, size=10.0 * GIB, lists=0.0, shortfalls={1000: 0.0}
)


def estimated(
    *habits: Habit,
    piles: dict[tuple[str, str], Pile] | None = None,
    default: str = "STANDARD",
    **classes: RetentionClass,
) -> Estimate:
    return estimate(Measured(piles or {}, habits), classes, PRICES, default, 16 * 2**20)


def row(rows: Sequence[Storage], name: str, storage: str = "STANDARD") -> Storage:
    (found,) = [item for item in rows if (item.retention_class, item.storage_class) == (name, storage)]
    return found


def test_a_nightly_class_holds_keep_and_lease_days_of_nights() -> None:
    daily = row(estimated(NIGHTLY, daily=DAILY).steady, "daily")

    assert daily.size == pytest.approx(42 * 10 * GIB)
    assert daily.cost == pytest.approx(420.0)
    assert daily.keys == pytest.approx(42 * (100 + 6))


@pytest.mark.parametrize(("every", "copies"), [("week", 435 / 7), ("month", 435 / MONTH), ("year", 435 / 365.25)])
def test_a_calendars_class_holds_a_copy_of_each_period(every: str, copies: float) -> None:
    long = RetentionClass(keep=400, lease=35, every=every)  # type: ignore[arg-type]

    found = row(estimated(NIGHTLY, daily=DAILY, long=long).steady, "long")

    assert found.size == pytest.approx(copies * 10 * GIB)


def test_a_source_that_backs_up_seldom_is_promoted_as_seldom() -> None:
    seldom = replace(NIGHTLY, per_day=0.01)
    long = RetentionClass(keep=400, lease=35, every="week")

    assert row(estimated(seldom, daily=DAILY, long=long).steady, "long").size == pytest.approx(4.35 * 10 * GIB)


def test_backups_made_directly_into_a_calendars_class_are_not_counted_twice() -> None:
    direct = replace(NIGHTLY, retention_class="long", per_day=0.03)
    long = RetentionClass(keep=400, lease=35, every="month")

    found = estimated(NIGHTLY, direct, daily=DAILY, long=long)

    assert row(found.steady, "long").size == pytest.approx(435 * 0.03 * 10 * GIB)


def test_the_least_that_a_storage_class_charges_is_charged() -> None:
    cold = RetentionClass(keep=31, lease=9, every="month", storage_class="DEEP_ARCHIVE")
    found = estimated(NIGHTLY, daily=DAILY, cold=cold)

    assert row(found.steady, "cold", "DEEP_ARCHIVE").cost == pytest.approx(180 / MONTH * 10 * 0.1)
    assert any("DEEP_ARCHIVE charges at least 180 days, and cold keeps its data for 40" in note for note in found.notes)

    small = replace(NIGHTLY, objects=1_000_000.0, size=1_000_000.0, shortfalls={1000: 999.0})
    found = estimated(small, daily=DAILY, cold=replace(cold, keep=391))
    assert row(found.steady, "cold", "DEEP_ARCHIVE").size == pytest.approx(400 / MONTH * 1_000_000 * 1000)
    assert any("at least 1000 bytes for an object" in note for note in found.notes)


def charged(*sizes: int, known: bool = True) -> float:
    """Bytes that a monthly copy in DEEP_ARCHIVE of a backup with objects of these sizes is charged for."""
    short = sum(max(0, 1000 - size) for size in sizes) / len(sizes)
    habit = replace(
        NIGHTLY, objects=float(len(sizes)), size=float(sum(sizes)), shortfalls={1000: short} if known else {}
    )
    cold = RetentionClass(keep=400, lease=35, every="month", storage_class="DEEP_ARCHIVE")
    return row(estimated(habit, daily=DAILY, cold=cold).steady, "cold", "DEEP_ARCHIVE").size / (435 / MONTH)


def test_many_tiny_objects_beside_a_large_one_are_charged_one_by_one() -> None:
    assert charged(10_000_000, *[1] * 5000) == pytest.approx(10_000_000 + 5000 * 1000)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
def test_no_object_is_charged_for_less_than_the_least(sizes: list[int]) -> None:
    truth = sum(max(1000, size) for size in sizes)

    assert charged(*sizes) == pytest.approx(truth)
    assert charged(*sizes, known=False) >= truth * (1 - 1e-9)


def test_requests_of_a_month() -> None:
    cold = RetentionClass(keep=400, lease=35, every="month", storage_class="DEEP_ARCHIVE")
    requests = {item.what: item for item in estimated(NIGHTLY, daily=DAILY, cold=cold).requests}

    # 10 GiB in parts of 16 MiB are 640 parts.
    assert requests["uploads"].count == pytest.approx(MONTH * (100 + 640 + 6))
    assert requests["uploads"].cost == pytest.approx(MONTH * 746 / 1000)
    assert requests["copies"].count == pytest.approx(106)
    assert requests["copies"].cost == pytest.approx(100 / 1000 * 10 + 6 / 1000)
    keys = 42 * 106 + 435 / MONTH * 106
    assert requests["listings"].count == pytest.approx(MONTH * 3 * -(-keys // 1000))


def test_a_full_restore_from_each_class() -> None:
    cold = RetentionClass(keep=400, lease=35, every="month", storage_class="DEEP_ARCHIVE")
    restores = {item.retention_class: item for item in estimated(NIGHTLY, daily=DAILY, cold=cold).restores}

    # Ranges of 8 MiB: 1,280 of them.
    assert restores["daily"].cost == pytest.approx(10 * 5 + (100 + 1280) / 1000)
    assert restores["cold"].cost == pytest.approx(10 * (5 + 3) + (100 + 1280) / 1000 * 2 + 100 / 1000 * 50)
    assert (restores["daily"].must_thaw, restores["cold"].must_thaw) == (False, True)


def test_what_nobody_adds_to_stays_as_it_is() -> None:
    piles = {
        ("held", "STANDARD"): Pile(keys=7, size=3 * GIB),
        ("daily", "STANDARD"): Pile(keys=1, size=GIB),
        ("vault", "STANDARD"): Pile(keys=2, size=400),
        ("odd", "DEEP_ARCHIVE"): Pile(keys=2, size=10, small=1990),
    }
    found = estimated(NIGHTLY, piles=piles, daily=DAILY)

    assert row(found.steady, "held") == row(found.now, "held")
    assert row(found.now, "held").cost == 3.0
    assert row(found.now, "odd", "DEEP_ARCHIVE").size == 2000
    assert row(found.now, "daily").cost == 1.0
    assert row(found.steady, "daily").cost == pytest.approx(420.0)
    assert found.monthly_steady - found.monthly_now == pytest.approx(419.0)
    assert [note.split(" is ")[0] for note in found.notes] == ["held", "odd"]


def test_the_destinations_storage_class_counts_where_a_class_names_none() -> None:
    found = estimated(NIGHTLY, daily=DAILY, default="DEEP_ARCHIVE")

    assert row(found.steady, "daily", "DEEP_ARCHIVE").size == pytest.approx(180 * 10 * GIB)
    assert row(found.steady, "daily").keys == pytest.approx(42 * 6)


def test_a_storage_class_without_a_price_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no prices of storage class GLACIER_IR") as caught:
        estimated(NIGHTLY, daily=replace(DAILY, storage_class="GLACIER_IR"))
    assert "[storage.GLACIER_IR]" in str(caught.value.hint)


@given(st.floats(1, 1000), st.floats(0.01, 10), st.integers(1, 1000), st.integers(1, 100))
def test_twice_the_data_costs_twice_as_much_to_keep(size: float, per_day: float, keep: int, lease: int) -> None:
    habit = replace(NIGHTLY, size=size * GIB, per_day=per_day)
    daily = RetentionClass(keep=keep, lease=lease)
    once, twice = (estimated(item, daily=daily) for item in (habit, replace(habit, size=2 * habit.size)))
    apart = estimated(habit, replace(habit, source="another"), daily=daily)

    costs = [sum(item.cost for item in found.steady) for found in (once, twice, apart)]
    assert costs[1] == pytest.approx(2 * costs[0])
    assert costs[2] == pytest.approx(2 * costs[0])


GOOD = 'currency = "EUR"\nnote = "n"\negress_gib = 0\n[storage.STANDARD]\ngib_month = 1\nput = 0.5\nget = 0\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD.replace("gib_month = 1\n", ""), "line 4: storage.STANDARD.gib_month: expected a number"),
        (GOOD.replace("0.5", "-1"), "line 6: storage.STANDARD.put: expected a number from 0"),
        (GOOD.replace("0.5", "nan"), "line 6: storage.STANDARD.put: expected a number"),
        (GOOD.replace("0.5", "true"), "line 6: storage.STANDARD.put: expected a number"),
        (GOOD.replace("0.5", '"1"'), "line 6: storage.STANDARD.put: expected a number"),
        (GOOD + "puts = 1\n", "line 8: storage.STANDARD.puts: unknown key"),
        (GOOD + "minimum_days = 1.5\n", "line 8: storage.STANDARD.minimum_days: expected a whole number"),
        (GOOD.replace("egress_gib", "egress"), "egress_gib: expected a number"),
        (GOOD.partition("[")[0], "storage: missing"),
        ("currency = ", "Invalid value"),
    ],
)
def test_mistakes_in_a_price_file_are_told_with_their_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        load_prices(path)
    assert str(path) in caught.value.message


def test_a_price_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_prices(tmp_path / "prices.toml")


def test_the_page_and_the_example_have_every_key() -> None:
    top, _, storage = PAGE.read_text().partition("[storage.NAME]")
    named = [re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in (top, storage)]

    assert named == [["currency", "note", "egress_gib"], [item.name for item in fields(StoragePrices)]]
    example = load_prices(EXAMPLE)
    assert {"STANDARD", "STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"} == set(example.storage)
    assert "example" in example.note
    text = EXAMPLE.read_text()
    assert "CHECK YOUR PROVIDER'S PAGE" in text
    assert all(name in text for names in named for name in names)


def test_the_command(scene: Scene) -> None:
    text = re.sub(r"\[class\.monthly\][^\[]*", "", scene.config.read_text())
    scene.config.write_text(text + '\n[class.weekly]\nkeep = 70\nevery = "week"\n')
    scene.backup()
    arguments = ("cost", "--prices", str(EXAMPLE), "--config", str(scene.config))

    done = archiver(*arguments)
    document = archiver(*arguments, "--json").document

    assert done.code == 0, done.errors
    assert "prices: example" in done.output
    for name in ("daily", "weekly", "vault"):
        assert re.search(rf"^{name} +STANDARD +[\d,]+ +[\d.]+ [KM]?i?B +[\d.]+$", done.output, re.MULTILINE), name
    assert "a full restore from weekly (STANDARD)" in done.output
    stored = sum(path.stat().st_size for path in scene.destination.rglob("*") if path.is_file())
    assert sum(item["bytes"] for item in document["now"]) == stored
    assert document["nights"][0]["per_day"] == 1.0
    assert document["monthly_steady"] > document["monthly_now"] > 0


def test_the_command_where_only_the_promoted_copy_of_today_is_left(scene: Scene) -> None:
    scene.config.write_text(scene.config.read_text().replace('every = "never"\n', 'every = "month"\n'))
    assert archiver("backup", "--config", str(scene.config)).code == 0
    for path in scene.destination.glob("daily/backups/*/*/*"):
        path.unlink()
    assert list(scene.destination.glob("monthly/backups/*/*/manifest.json"))

    done = archiver("cost", "--prices", str(EXAMPLE), "--config", str(scene.config))

    assert done.code == 0, done.errors
    assert "1.00 backups a day into daily" in done.output


def test_the_command_needs_a_price_file(scene: Scene) -> None:
    assert archiver("cost", "--config", str(scene.config)).code == 2
