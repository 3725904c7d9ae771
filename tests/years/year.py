"""Live through a script at a real store, with archiver's commands, and compare what is there with the oracle."""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from archiver.catalog.names import parse_manifest_key
from archiver.operations.init import InitRequest, init
from archiver.stores.base import StoredObject
from archiver.stores.destination import open_store, parse_destination
from tests.operations.scene import Done, archiver
from tests.years import data
from tests.years.oracle import History, Made, promised, saved_at_start
from tests.years.script import DAY, Script
from tests.years.times import YearTime

SOURCE = "prod"
_SLOW = "warning: nothing vouches for the time of "
_SAVED = "warning: no newer backup was made: "


@dataclass
class Year:
    """A source below ``root``, its destination ``url``, and what has happened to them."""

    root: Path
    url: str
    script: Script
    time: YearTime
    history: History = field(default_factory=History)
    administrator: Callable[[], AbstractContextManager[None]] = nullcontext
    """Gives those who release what is held the right to delete it."""
    late: list[int] = field(default_factory=list)
    """Nights whose time was over when their turn came."""
    _held: str | None = None

    def set_up(self) -> None:
        """The source, and a configuration with the script's classes."""
        data.write(self._data, 0)
        init(
            InitRequest(
                config=self.config,
                destination=self.url,
                source=SOURCE,
                operator="test",
                card=self.card,
                environments={data.ENVIRONMENT: self._data / data.ENVIRONMENT},
                media=self._data / "media",
            )
        )
        text = re.sub(r"(?m)^\[class\.[^\[]*", "", self.config.read_text())
        self.config.write_text(f'state_directory = "state"\n\n{text}\n{self.script.configuration()}')

    def live(self, after: Callable[[int], None] = lambda _: None) -> None:
        """Night by night; ``after`` each is called with its number."""
        for night, event in enumerate(self.script.events):
            if not self.time.night(night):
                self.late.append(night)
                continue
            if self._held and night >= self.script.released:
                self._release()
            match event:
                case "backup":
                    self._back_up(night)
                case "failed":
                    self._fail()
            if not self._held and self.script.held <= night < self.script.released:
                self._hold()
            after(night)

    def check(self, now: datetime) -> None:
        """``archiver list`` shows exactly what is promised now."""
        expected = promised(self.script, self.history, now)
        listed = self.run("list", "--json").document
        _check_equal({item["backup"]: item for item in listed if item["backup"] not in expected}, {})
        _check_equal({backup: expected[backup] for backup in expected.keys() - {item["backup"] for item in listed}}, {})
        for item in listed:
            # A copy may be there for some hours after its promise.
            assert set(item["classes"]) >= expected[item["backup"]], item

    def check_store(self, now: datetime) -> None:
        """In the store are exactly the promised backups, and nothing that is older than its class allows."""
        found: dict[str, set[str]] = {}
        for item in self.stored():
            place = parse_manifest_key(item.key)
            if place is not None:
                found.setdefault(place.backup, set()).add(place.retention_class)
            self._check_age(item, now)
        _check_equal(found, promised(self.script, self.history, now))

    def _check_age(self, item: StoredObject, now: datetime) -> None:
        name, kind, *_ = item.key.split("/")
        if name in ("vault", "held"):
            return
        days = self.script.classes[name].keep + (self.script.classes[name].lease if kind == "data" else 0)
        assert now - item.modified < timedelta(days=days) + DAY, item

    def restore(self, backups: set[str], target: Path) -> None:
        """Each of ``backups`` is restored, and is what its night's data were."""
        for made in self.history.made:
            if made.backup in backups:
                directory = target / made.backup
                self.run("restore", made.backup, "--to", str(directory), "--identity", str(self.card))
                data.check(directory, made.night)

    def stored(self) -> list[StoredObject]:
        """All that lies in the destination."""
        with closing(open_store(parse_destination(self.url))) as store:
            return list(store.list())

    def now(self) -> datetime:
        """The time at the store."""
        with closing(open_store(parse_destination(self.url))) as store:
            return store.clock()

    def run(self, *arguments: str) -> Done:
        """A command with the configuration, which succeeds. It may warn of what is true where nights last seconds: that
        a slow one's backup took hours; and that a backup was saved from lapsing."""
        done = archiver(*arguments, "--config", str(self.config))
        warnings = [line for line in done.errors.splitlines() if line.startswith("warning: ")]
        assert done.code == (3 if warnings else 0), (arguments, done)
        assert all(line.startswith((_SLOW, _SAVED)) for line in warnings), (arguments, done)
        return done

    @property
    def config(self) -> Path:
        return self.root / "archiver.toml"

    @property
    def card(self) -> Path:
        return self.root / "card.txt"

    @property
    def _data(self) -> Path:
        return self.root / "data"

    def _back_up(self, night: int) -> None:
        data.write(self._data, night)
        done = self.run("backup", "--json")
        document = done.document
        started = datetime.fromisoformat(document["started"])
        self.history.made.append(Made(night, document["backup"], started))
        assert (_SAVED in done.errors) == saved_at_start(self.script, self.history), done

    def _fail(self) -> None:
        """The volume with the media files is not there."""
        media = self._data / "media"
        media.rename(self._data / "elsewhere")
        try:
            done = archiver("backup", "--config", str(self.config))
        finally:
            (self._data / "elsewhere").rename(media)
        assert done.code not in (0, 3), done
        self.history.failed.append(self.now())

    def _hold(self) -> None:
        self._held = self.history.made[-1].backup
        self.run("hold", self._held)
        self.history.held[self._held] = (self.now(), None)

    def _release(self) -> None:
        assert self._held is not None
        with self.administrator():
            self.run("release", self._held)
        since, _ = self.history.held[self._held]
        self.history.held[self._held] = (since, self.now())
        self._held = None


def _check_equal(found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    differences = {
        name: {"found": found.get(name, "missing"), "expected": expected.get(name, "missing")}
        for name in sorted({*found, *expected})
        if found.get(name, "missing") != expected.get(name, "missing")
    }
    assert not differences, differences
