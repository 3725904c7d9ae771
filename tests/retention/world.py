"""A store with a clock that is moved by hand, and everything that touches it: runs, promotion, holds, rules.

Carried out with the pure decisions of ``archiver.retention``, as ``archiver.operations`` does it; what must hold is
checked without them. A check that fails raises ``AssertionError``.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

from archiver.catalog.names import BackupPlace, object_key, parse_object_key
from archiver.config import ARCHIVE_CLASSES, HELD, RetentionClass
from archiver.retention.attributes import attribution
from archiver.retention.checking import broken_by
from archiver.retention.expiry import Need, expired, released, threatened
from archiver.retention.policy import Term, in_force, wanted_rules
from archiver.retention.promotion import Known, beginning, promotions, rescue
from archiver.retention.references import choose
from archiver.retention.rules import Rule, sure_until

Expiry = Literal["exact", "midnight", "late", "command"]
"""When keys go: the moment they are due, as some stores do; at the midnight after it, as S3 does; up to a day after
that; or when somebody runs ``archiver expire``."""
DAY = timedelta(days=1)
REFUSED = 0.2
START = datetime(2026, 1, 5, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Item:
    key: str
    size: int
    modified: datetime
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A backup that was committed."""

    backup: str
    source: str
    started: datetime
    finished: datetime
    promised: datetime
    """What its manifest says."""
    objects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that was committed, whatever became of it."""

    run: Run
    place: BackupPlace
    promise: datetime | None
    keys: tuple[str, ...]
    sure: datetime | None
    """The promise, or what the rules left of its keys when it was made, where that is less: rules that are shorter than
    the configuration are an error in every run."""

    def live(self, now: datetime) -> bool:
        return self.sure is None or self.sure > now


@dataclass
class World:
    classes: Mapping[str, RetentionClass]
    expiry: Expiry
    random: Random
    now: datetime = START
    items: dict[str, Item] = field(default_factory=dict)
    copies: dict[BackupPlace, Copy] = field(default_factory=dict)
    rules: Sequence[Rule] | None = None
    serial: int = 0
    lags: dict[str, float] = field(default_factory=dict)
    """By key how much of a day after it is due it goes, in a store that is late."""
    objects: dict[str, list[str]] = field(default_factory=dict)
    """By object id every key that it ever had."""
    over: set[BackupPlace] = field(default_factory=set)
    """The copies whose promise was over once: a clock that is set back renews none."""

    def __post_init__(self) -> None:
        self.configure(self.classes)

    @property
    def terms(self) -> dict[str, Term]:
        """What a backup's own manifest goes by."""
        return in_force(self.classes, self.rules)

    @property
    def configured(self) -> dict[str, Term]:
        """What copies go by."""
        return in_force(self.classes, None)

    # Time, and what the store does by itself.

    def advance(self, span: timedelta) -> None:
        """Let time pass; what is due goes in its order, each key at its moment."""
        self.now += span
        due = [
            (self._due(item, rule.expires_days), item.key)
            for rule in self.rules or ()
            if rule.expires_days is not None
            for item in self.created_before(self.now - rule.expires_days * DAY)
            if item.key.startswith(rule.prefix)
        ]
        for moment, key in sorted(pair for pair in due if pair[0] <= self.now):
            for copy in self.copies.values():
                needs = key in copy.keys and copy.place not in self.over
                assert not needs or not copy.live(moment), f"{key} went on {moment}, promised until {copy.promise}"
            self.items.pop(key, None)
        self.check()

    def _due(self, item: Item, days: int) -> datetime:
        due = item.modified + days * DAY
        if self.expiry == "exact":
            return due
        midnight = datetime(due.year, due.month, due.day, tzinfo=UTC)
        rounded = due if midnight == due else midnight + DAY
        return rounded + (self.lags[item.key] * DAY if self.expiry == "late" else timedelta(0))

    # What administrators do.

    def configure(self, classes: Mapping[str, RetentionClass]) -> None:
        """Change the policy. In a bucket its rules follow at once, unless that would break a promise."""
        self.classes = classes
        if self.expiry != "command":
            rules = wanted_rules(classes, versioned=False)
            if not broken_by(rules, self.needs(), self.now):
                self.rules = rules
        self.check()

    def expire(self) -> None:
        """``archiver expire``: all or nothing."""
        gone = expired(self.items.values(), self.terms, self.now)
        if self.expiry == "command" and not threatened(gone, self.needs(), self.now):
            for deletion in gone:
                del self.items[deletion.key]
        self.check()

    def hold(self, run: Run) -> None:
        self.copy(run, HELD)

    def release(self, run: Run) -> None:
        place = BackupPlace(HELD, run.source, run.backup)
        for deletion in released(run.backup, list(self.items.values()), self.needs(run.source)):
            assert deletion.key.startswith("held/")
            del self.items[deletion.key]
        del self.copies[place]
        self.check()
        self.check_held()

    # What the host does.

    def run(
        self, source: str, retention_class: str, span: timedelta, borrow: float, *, fails: bool = False
    ) -> Run | None:
        """A night's run: half of its objects are new, and of the last run's it borrows a part."""
        before = self.known_runs(source)
        if before and self.now < before[-1].started:
            self._failed(source)
            return None
        self.serial += 1
        started, term = self.now, self.terms[retention_class]
        if not term.keep:
            self._failed(source)
            return None
        promise = started + term.keep * DAY
        place = BackupPlace(retention_class, source, f"{started:%Y%m%dT%H%M%SZ}-{self.serial:06x}")
        self._create(place.started, started)
        keys: dict[str, str] = {}
        for identity in before[-1].objects if before else ():
            if self.random.random() < borrow and (key := self._borrow(identity, source, term, promise)):
                keys[identity] = key
        self.advance(span / 2)
        for number in range(3):
            identity = f"{self.serial:030x}{number:02x}"
            keys[identity] = self._create(object_key(retention_class, source, identity, "tar"), self.now)
        self.advance(span / 2)
        if fails:
            self._failed(source)
            return None
        run = Run(place.backup, source, started, self.now, promise, tuple(keys))
        self._commit(run, place, promise, keys)
        return run

    def _failed(self, source: str) -> None:
        """Save the newest backup that can be copied, into the first class that takes it."""
        broken: set[str] = set()
        saved: str | None = None
        while saved is None and (tries := rescue(self.known(source, broken), self.configured, self.now)):
            for item in tries:
                # A class that refuses now and then, for no reason of the backup's.
                if item is not tries[-1] and self.random.random() < REFUSED:
                    continue
                if self.copy(self.by_name(item.backup), item.target):
                    saved = item.target
                    break
            else:
                broken.add(tries[0].backup)
        past = [item for item in self.known(source, broken) if item.started <= self.now and item.lasting]
        if past:
            promises = max(past, key=lambda item: item.started).promises
            assert any(end is None or end > self.now + 2 * DAY for end in promises.values())
            assert saved is None or saved in promises

    def promote(self, source: str) -> None:
        """Do what is due; afterwards nothing is. Where a backup cannot be copied, another takes its place."""
        broken: set[str] = set()
        while due := promotions(self.known(source, broken), self.configured, self.now):
            failed = [item.backup for item in due if not self.copy(self.by_name(item.backup), item.target)]
            if not failed:
                break
            broken.update(failed)
        assert promotions(self.known(source, broken), self.configured, self.now) == []
        self.check_calendar(source)

    def copy(self, run: Run, target: str) -> bool:
        """False where that cannot be: objects are lost, or a copy that has lapsed is in the way."""
        term = self.configured[target]
        promise = None if term.keep is None else run.started + term.keep * DAY
        place = BackupPlace(target, run.source, run.backup)
        if place in self.copies or not all(self.candidates(identity, run.source) for identity in run.objects):
            lapsed = [copy for copy in self.copies.values() if copy.run == run and copy.place in self.over]
            assert len(lapsed) == len([copy for copy in self.copies.values() if copy.run == run])
            return False
        keys = {item: self._refer(item, run.source, term, promise, self.configured) for item in run.objects}
        self._commit(run, place, promise, keys)
        return True

    def interrupted_copy(self, run: Run, target: str) -> None:
        """Some of the objects are copied, and no more."""
        term = self.configured[target]
        promise = None if term.keep is None else run.started + term.keep * DAY
        for identity in run.objects[::2]:
            self._refer(identity, run.source, term, promise, self.configured)

    def _borrow(self, identity: str, source: str, term: Term, promise: datetime) -> str | None:
        """The key of an object for a run that need not store it again; None: it must."""
        candidates = self.candidates(identity, source)
        if not candidates or choose(candidates, term, promise, self.terms).action == "thaw":
            return None
        return self._refer(identity, source, term, promise, self.terms)

    def _refer(
        self, identity: str, source: str, term: Term, promise: datetime | None, terms: Mapping[str, Term]
    ) -> str:
        found = choose(self.candidates(identity, source), term, promise, terms)
        item = self.items[found.key]
        if found.action != "use":
            # What must be thawed is thawed by somebody.
            assert (item.storage_class in ARCHIVE_CLASSES) == (found.action == "thaw")
            plain = object_key(term.name, source, identity, "tar")
            self.serial += 1
            copy = f"{self.serial:08x}" if plain in self.items else ""
            return self._create(object_key(term.name, source, identity, "tar", copy), self.now)
        lender = found.key.split("/")[0]
        keeps, wanted = terms[lender].keep, term.keep
        assert lender == term.name or (lender != HELD and keeps is not None and wanted is not None and keeps >= wanted)
        assert item.storage_class not in ARCHIVE_CLASSES or (lender == term.name and term.archived)
        return found.key

    def _commit(self, run: Run, place: BackupPlace, promise: datetime | None, keys: Mapping[str, str]) -> None:
        assert place not in self.copies
        assert promise is None or promise >= run.promised, f"{place} is promised for less than its manifest says"
        own = [place.contents, place.objects, place.placement, place.signature, place.manifest]
        for key in own:
            self._create(key, self.now)
        first = not any(copy.run == run for copy in self.copies.values())
        sure = promise
        for key in (*own, *keys.values()):
            end = sure_until(self.items[key], self.rules or ())
            if end is not None and (sure is None or end < sure):
                assert not first, f"{key} goes before {promise}"
                assert self.terms[place.retention_class] != self.configured[place.retention_class] or any(
                    self.terms[name] != self.configured[name] for name in {key.split("/")[0] for key in keys.values()}
                ), f"{key} goes before {promise}, and no rule is shorter than the configuration"
                sure = end
        self.copies[place] = Copy(run, place, promise, (*own, *keys.values()), sure)
        self.check()

    def _create(self, key: str, now: datetime) -> str:
        """An interrupted copy may have left lists; nothing else is there already."""
        if key in self.items:
            assert "/data/" in key
            assert ".jsonl." in key
            return key
        storage_class = None if self.expiry == "command" else attribution(self.classes)(key).storage_class
        if (place := parse_object_key(key)) is not None:
            self.objects.setdefault(place.object_id, []).append(key)
        self.lags[key] = self.random.random()
        self.items[key] = Item(key, 100, now, storage_class)
        return key

    # What is there.

    def created_before(self, moment: datetime) -> list[Item]:
        return [item for item in self.items.values() if item.modified <= moment]

    def candidates(self, identity: str, source: str) -> list[tuple[Item, str]]:
        found = [self.items[key] for key in self.objects.get(identity, ()) if key in self.items]
        return [(item, item.key.split("/")[0]) for item in found if f"/data/{source}/" in item.key]

    def whole(self) -> Iterator[Copy]:
        """The copies that can be restored, promised or not."""
        return (copy for copy in self.copies.values() if all(key in self.items for key in copy.keys))

    def known(self, source: str, broken: Collection[str] = ()) -> list[Known]:
        """What has its manifest: whether the objects are there is seen when they are copied."""
        runs: dict[Run, dict[str, datetime | None]] = {}
        for copy in self.copies.values():
            if copy.run.source == source:
                runs.setdefault(copy.run, {})[copy.place.retention_class] = copy.promise
        return [
            Known(run.backup, run.started, run.finished, run.promised, promises, run.backup not in broken)
            for run, promises in runs.items()
        ]

    def known_runs(self, source: str) -> list[Run]:
        """Oldest first."""
        return sorted({copy.run for copy in self.whole() if copy.run.source == source}, key=lambda run: run.started)

    def by_name(self, backup: str) -> Run:
        return next(copy.run for copy in self.copies.values() if copy.run.backup == backup)

    def needs(self, source: str | None = None) -> list[Need]:
        return [
            Need(
                copy.run.backup,
                copy.run.source,
                copy.place.retention_class,
                copy.promise,
                {key: self.items.get(key) for key in copy.keys},
            )
            for copy in self.copies.values()
            if source in (None, copy.run.source) and copy.place.manifest in self.items
        ]

    def promised(self) -> set[tuple[str, str]]:
        """Class and backup of every copy that is promised now."""
        return {(copy.place.retention_class, copy.run.backup) for copy in self.copies.values() if copy.live(self.now)}

    # What must hold.

    def check(self) -> None:
        """Nothing that a live promise needs is gone; a lapsed copy that is gone is forgotten."""
        self.over.update(place for place, copy in self.copies.items() if not copy.live(self.now))
        for place, copy in list(self.copies.items()):
            missing = [key for key in copy.keys if key not in self.items]
            assert not missing or place in self.over, f"{missing[0]} is gone, promised until {copy.promise}"
            if place.manifest not in self.items:
                del self.copies[place]

    def check_room(self) -> None:
        """Nothing outlives keep + lease and a day; only what is held, or in a class that is no more."""
        for item in self.items.values():
            name, area = item.key.split("/")[:2]
            if name in self.classes:
                retention = self.classes[name]
                days = retention.keep + (0 if area == "backups" else retention.lease)
                assert item.modified + days * DAY + DAY > self.now, f"{item.key} is still there"

    def check_held(self) -> None:
        """What nobody holds any more does not stay."""
        needed = {key for copy in self.copies.values() for key in copy.keys}
        left = [key for key in self.items if key.startswith("held/") and key not in needed]
        assert left == []

    def check_calendar(self, source: str) -> None:
        """Every period of which a backup is there has one in the class, for as long as the class promises it."""
        length = {"week": "%G-%V", "month": "%Y-%m", "year": "%Y"}
        for name, retention in self.classes.items():
            if retention.every is None:
                continue
            form, keep = length[retention.every], retention.keep
            runs: dict[Run, list[Copy]] = {}
            for copy in self.copies.values():
                if copy.run.source == source and copy.run.started <= self.now:
                    runs.setdefault(copy.run, []).append(copy)
            represented = {
                run.started.strftime(form)
                for run, copies in runs.items()
                # What is promised for longer where it is stands for its period there.
                if any(copy.place.retention_class == name for copy in copies) or self._stays(run, runs, form, keep)
            }
            for run in runs:
                end = beginning(run.started, retention.every) + keep * DAY
                lost = not all(self.candidates(identity, source) for identity in run.objects)
                assert end <= self.now or lost or run.started.strftime(form) in represented

    def _stays(self, run: Run, runs: Collection[Run], form: str, keep: int) -> bool:
        """Whether a class that keeps so many days takes no copy of it, the first of its period, because its manifest
        promises more."""
        period = [other for other in runs if other.started.strftime(form) == run.started.strftime(form)]
        promise = run.started + keep * DAY
        first = min(period, key=lambda other: (other.finished, other.backup))
        return run == first and self.now < promise < run.promised
