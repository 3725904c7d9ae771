"""Which key of an object a copy may refer to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from archiver.retention.policy import Term
from archiver.retention.references import Reference, choose
from tests.retention.world import DAY, Item

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TERMS = {
    "daily": Term("daily", 35, 42),
    "other": Term("other", 35, 50),
    "monthly": Term("monthly", 400, 435, "month"),
    "yearly": Term("yearly", 800, 860, "year", "DEEP_ARCHIVE"),
    "held": Term("held", None, None),
}
DAILY = Item("daily/data/prod/o", 1, NOW)
OTHER = Item("other/data/prod/o", 1, NOW)
MONTHLY = Item("monthly/data/prod/o", 1, NOW)
YEARLY = Item("yearly/data/prod/o", 1, NOW, "DEEP_ARCHIVE")
HELD = Item("held/data/prod/o", 1, NOW)
STRANGE = Item("strange/data/prod/o", 1, NOW)


def found(target: str, promise: datetime | None, *items: Item) -> Reference:
    return choose([(item, item.key.split("/")[0]) for item in items], TERMS[target], promise, TERMS)


def until(days: int) -> datetime:
    return NOW + days * DAY


@pytest.mark.parametrize(
    ("target", "promise", "items", "action", "key"),
    [
        # The longest class lends, in whatever order they are listed; of equal ones the class itself.
        ("daily", until(35), (DAILY, MONTHLY), "use", MONTHLY),
        ("daily", until(35), (MONTHLY, DAILY), "use", MONTHLY),
        ("daily", until(35), (OTHER, DAILY), "use", DAILY),
        ("other", until(35), (OTHER, DAILY), "use", OTHER),
        ("daily", until(35), (OTHER,), "use", OTHER),
        # Up to the promise, to the day.
        ("daily", until(42), (DAILY,), "use", DAILY),
        ("daily", until(42) + timedelta(seconds=1), (DAILY,), "copy", DAILY),
        # A shorter class never lends, whatever its lease; a longer one that is too old gives way to the class itself.
        ("monthly", until(10), (DAILY,), "copy", DAILY),
        ("daily", until(35), (replace(MONTHLY, modified=until(-401)), DAILY), "use", DAILY),
        # What is held is for what is held.
        ("daily", until(35), (HELD,), "copy", HELD),
        ("daily", until(35), (HELD, DAILY), "use", DAILY),
        ("held", None, (HELD, MONTHLY), "use", HELD),
        ("held", None, (DAILY, MONTHLY), "copy", MONTHLY),
        # Nothing archived is lent, neither by what the store says nor by what the class is to be.
        ("monthly", until(400), (YEARLY, MONTHLY), "use", MONTHLY),
        ("monthly", until(400), (replace(YEARLY, storage_class=None),), "copy", YEARLY),
        ("monthly", until(400), (replace(MONTHLY, storage_class="GLACIER"), DAILY), "copy", DAILY),
        ("monthly", until(400), (YEARLY,), "thaw", YEARLY),
        ("daily", until(35), (replace(DAILY, storage_class="GLACIER"),), "thaw", DAILY),
        ("daily", until(35), (replace(DAILY, storage_class="GLACIER_IR"),), "use", DAILY),
        # But an archive class may refer to its own.
        ("yearly", until(800), (YEARLY, DAILY), "use", YEARLY),
        ("yearly", until(861), (YEARLY, DAILY), "copy", DAILY),
        ("held", None, (replace(HELD, storage_class="GLACIER"), DAILY), "copy", DAILY),
        # What nobody knows lends nothing, but can be copied.
        ("daily", until(35), (STRANGE, DAILY), "use", DAILY),
        ("daily", until(35), (STRANGE,), "copy", STRANGE),
        # A copy is made from what lasts longest.
        ("monthly", until(500), (replace(DAILY, modified=until(-30)), MONTHLY, STRANGE), "copy", MONTHLY),
        # Of what is held only where there is nothing else: on some stores the copy is under a legal hold too.
        ("monthly", until(400), (replace(DAILY, modified=until(-60)), HELD), "copy", DAILY),
        ("monthly", until(400), (STRANGE, HELD), "copy", STRANGE),
        ("monthly", until(400), (replace(DAILY, storage_class="GLACIER"), HELD), "copy", HELD),
    ],
)
def test_where_a_copy_finds_an_object(
    target: str, promise: datetime | None, items: tuple[Item, ...], action: str, key: Item
) -> None:
    reference = found(target, promise, *items)
    assert (reference.action, reference.key) == (action, key.key)
    assert reference.reason


def test_of_several_keys_in_a_class_the_one_that_lasts_longest() -> None:
    older, newer = replace(DAILY, modified=until(-3)), Item("daily/data/prod/o.copy", 1, until(-1))
    assert found("daily", until(35), older, newer).key == newer.key
    assert found("daily", until(35), newer, older).key == newer.key


def test_why_not_another() -> None:
    assert found("daily", until(43), DAILY).reason == (
        "lies in daily until 2027-01-03 00:00, and is promised until 2027-01-04 00:00"
    )
    assert found("monthly", until(9), DAILY).reason == "lies in daily, which is kept for less long than monthly"
    assert found("daily", until(9), HELD).reason == "lies in held, where it ends when somebody releases it"
    assert found("daily", until(9), YEARLY).reason == "lies in yearly, where it must be thawed before it can be read"
    assert found("daily", until(9), STRANGE).reason == "lies in strange, a class that the configuration does not have"
