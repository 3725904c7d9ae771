"""``archiver cost``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiver.cli import human
from archiver.cli.options import PathArgument, command, config_option
from archiver.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from archiver.operations.cost import Habit
    from archiver.operations.estimate import Estimate, Storage
    from archiver.operations.prices import Prices


@command("cost", example="archiver cost --prices prices.toml")
@click.option(
    "--prices",
    "price_file",
    type=PathArgument(dir_okay=False),
    required=True,
    metavar="FILE",
    help="What the provider charges: docs/prices/example.toml is one to copy.",
)
@config_option
def cost(*, output: Output, config: Path | None, price_file: Path) -> int:
    """Estimate what a month costs, now and in the steady state of the configured classes, and what a restore costs.

    Lists the whole destination, once, and reads the manifests. It knows no taxes, no free tier and no versions that a
    bucket keeps of what was deleted.
    """
    from contextlib import closing

    from archiver.config import find_config, load_config
    from archiver.operations.cost import STANDARD, measure
    from archiver.operations.estimate import estimate
    from archiver.operations.prices import load_prices
    from archiver.stores.destination import S3Destination, open_store, parse_destination
    from archiver.stores.s3_options import S3Options

    prices = load_prices(price_file)
    loaded = load_config(find_config(config))
    destination = parse_destination(loaded.destination, loaded.destination_options)
    options = destination.options if isinstance(destination, S3Destination) else S3Options()
    with closing(open_store(destination)) as store:
        measured = measure(store, loaded, prices)
    found = estimate(measured, loaded.classes, prices, options.storage_class or STANDARD, options.part_size)
    _document(output, found, measured.habits, prices)
    _show(output, found, measured.habits, prices)
    return output.exit_code()


def _document(output: Output, found: "Estimate", habits: "Sequence[Habit]", prices: "Prices") -> None:
    output.document(
        {
            "currency": prices.currency,
            "prices": prices.note,
            "nights": [
                {
                    "source": habit.source,
                    "class": habit.retention_class,
                    "per_day": round(habit.per_day, 3),
                    "backups": habit.nights,
                    "objects": round(habit.objects),
                    "bytes": round(habit.size + habit.lists),
                }
                for habit in habits
            ],
            "now": [_row(item) for item in found.now],
            "steady": [_row(item) for item in found.steady],
            "requests": [
                {"what": item.what, "count": round(item.count), "cost": round(item.cost, 4)} for item in found.requests
            ],
            "monthly_now": round(found.monthly_now, 4),
            "monthly_steady": round(found.monthly_steady, 4),
            "restores": [
                {
                    "class": item.retention_class,
                    "storage_class": item.storage_class,
                    "bytes": round(item.size),
                    "cost": round(item.cost, 4),
                    "must_thaw": item.must_thaw,
                }
                for item in found.restores
            ],
            "notes": list(found.notes),
        }
    )


def _row(item: "Storage") -> dict[str, object]:
    return {
        "class": item.retention_class,
        "storage_class": item.storage_class,
        "keys": round(item.keys),
        "bytes": round(item.size),
        "cost": round(item.cost, 4),
    }


def _show(output: Output, found: "Estimate", habits: "Sequence[Habit]", prices: "Prices") -> None:
    output.line(f"prices: {prices.note}, in {prices.currency}")
    for habit in habits:
        output.line(
            f"{habit.source}: {habit.per_day:.2f} backups a day into {habit.retention_class}, of "
            f"{human.number(round(habit.objects))} objects and {human.size(round(habit.size + habit.lists))} "
            f"(mean of {human.plural(habit.nights, 'backup')})"
        )
    for title, rows, total in (
        ("stored now", found.now, found.monthly_now),
        ("steady state", found.steady, found.monthly_steady),
    ):
        output.line()
        lines = [
            (
                item.retention_class,
                item.storage_class,
                human.number(round(item.keys)),
                human.size(round(item.size)),
                _money(item.cost),
            )
            for item in rows
        ]
        lines += [(item.what, "", human.number(round(item.count)), "", _money(item.cost)) for item in found.requests]
        lines.append(("a month", "", "", "", _money(total)))
        output.table((title.upper(), "STORAGE CLASS", "NUMBER", "CHARGED", prices.currency), lines, right=(2, 3, 4))
    output.line()
    for item in found.restores:
        thaw = ", after some hours of thawing" if item.must_thaw else ""
        output.line(
            f"a full restore from {item.retention_class} ({item.storage_class}): {human.size(round(item.size))}, "
            f"{_money(item.cost)} {prices.currency}{thaw}"
        )
    for note in found.notes:
        output.line(f"note: {note}")


def _money(amount: float) -> str:
    return f"{amount:,.2f}"
