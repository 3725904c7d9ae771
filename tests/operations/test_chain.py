"""Which backups are believed: rules one by one, and random histories with a thief in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.catalog.manifest import Digest, Manifest, Previous, Totals, Vault
from archiver.crypto.minisign import VerifyKey
from archiver.crypto.trust import TrustedKey
from archiver.errors import AuthenticityError
from archiver.operations.chain import TOLERANCE, Chain, Statement, Verdict, judge, undated

START = datetime(2026, 11, 1, 2, 0, 0, tzinfo=UTC)
HOUR, DAY, SECOND = timedelta(hours=1), timedelta(days=1), timedelta(seconds=1)
KEYS = [VerifyKey(bytes([number] * 8), bytes([number] * 32)) for number in range(1, 100)]
"""More than a history ever uses: what is signed after a theft and a change of keys is not the thief's."""
NUMBER = iter(range(1, 1 << 24))


def statement(
    started: datetime = START,
    *,
    after: Statement | None = None,
    key: VerifyKey | None = KEYS[0],
    revoked: datetime | None = None,
    modified: datetime | None = None,
    began: datetime | None = None,
    backup: str | None = None,
    **changes: Any,
) -> Statement:
    """A backup that took three minutes and is stored as it should be, unless it is said otherwise."""
    number = next(NUMBER)
    fields: dict[str, Any] = {
        "version": 1,
        "backup": backup or f"{started:%Y%m%dT%H%M%SZ}-{number:06x}",
        "source": "prod",
        "started": started,
        "finished": started + timedelta(minutes=3),
        "keep_days": 35,
        "lease_days": 7,
        "consistency": "none",
        "totals": Totals(environments=0, files=0, plaintext_bytes=0, objects=0, stored_bytes=0, warnings=0),
        "sequence": 1 if after is None else after.manifest.sequence + 1,
        "previous": None if after is None else link_to(after),
        "signer": "1",
        "contents": Digest(stored_size=0, blake3="0" * 64),
        "objects": Digest(stored_size=0, blake3="0" * 64),
        "vaults": [Vault(id="0" * 16, recipient="age1")],
    }
    manifest = Manifest(**fields | changes)
    return Statement(
        manifest,
        f"{number:064x}",
        None if key is None else TrustedKey(key, revoked),
        modified or manifest.finished,
        began,
    )


def link_to(before: Statement, **changes: Any) -> Previous:
    manifest = before.manifest
    fields: dict[str, Any] = {"backup": manifest.backup, "blake3": before.blake3}
    return Previous(**{**fields, "promised_until": manifest.promised_until, **changes})


def three(**changes: Any) -> tuple[Statement, Statement, Statement]:
    """An untouched history, the oldest first; ``changes`` are the oldest one's."""
    first = statement(**changes)
    second = statement(START + DAY, after=first)
    return first, second, statement(START + 2 * DAY, after=second)


def judged(statements: Sequence[Statement], now: datetime | None = None) -> list[Verdict]:
    """The verdicts when the store got the last of them, or at ``now``."""
    return judge(statements, now or max(item.modified for item in statements))


def verdict_on(wanted: Statement, *later: Statement) -> Verdict:
    """``later`` newest first."""
    return judged([*later, wanted])[-1]


def refusal_of(wanted: Statement, *later: Statement) -> AuthenticityError:
    refusal = verdict_on(wanted, *later).refusal
    assert refusal is not None
    assert refusal.hint
    return refusal


def test_an_untouched_history_is_dated_by_the_store() -> None:
    first, second, third = three()
    assert judged([third, second, first]) == [Verdict("store")] * 3


@pytest.mark.parametrize(
    ("late", "dated"), [(timedelta(0), "store"), (TOLERANCE, "store"), (TOLERANCE + SECOND, "unproven")]
)
def test_the_store_vouches_for_what_it_got_right_after_its_end(late: timedelta, dated: str) -> None:
    first = statement()
    moved = statement(modified=first.manifest.finished + late)
    assert verdict_on(moved).dated == dated
    assert verdict_on(moved).refusal is None


@pytest.mark.parametrize(
    ("began", "dated"),
    [
        (START, "store"),
        (START - SECOND, "store"),
        (START + TOLERANCE, "store"),
        (START + TOLERANCE + SECOND, "unproven"),
        (START + 5 * HOUR, "unproven"),
        (None, "unproven"),
    ],
)
def test_the_start_of_a_long_run_needs_its_first_key(began: datetime | None, dated: str) -> None:
    """Else a thief could make a backup that started weeks ago and ends now."""
    assert verdict_on(statement(finished=START + 5 * HOUR, began=began)).dated == dated


def test_a_later_backup_vouches_for_what_it_names_in_a_copied_destination() -> None:
    copied = START + 10 * DAY
    first = statement(modified=copied)
    second = statement(START + DAY, after=first, modified=copied)
    third = statement(START + 2 * DAY, after=second, modified=copied)
    verdicts = judged([third, second, first])
    assert [verdict.dated for verdict in verdicts] == ["unproven", "chain", "chain"]
    assert all(verdict.refusal is None and verdict.doubts == () for verdict in verdicts)
    assert "nothing vouches for the time of" in undated(third)
    assert "2026-11-11T02:00:00Z" in undated(third)


def test_only_the_very_bytes_are_vouched_for() -> None:
    first, second, third = three()
    other = statement(modified=START + 10 * DAY, backup=first.manifest.backup)
    assert "is not the backup that" in refusal_of(other, third, second).message
    assert verdict_on(first, third, second) == Verdict("store")


def test_a_false_claim_does_not_move_what_the_store_dates() -> None:
    first = statement()
    liar = statement(START + DAY, previous=link_to(first, blake3="f" * 64), sequence=2)
    assert verdict_on(first, liar) == Verdict("store")
    copied = statement(modified=START + 5 * DAY, backup=first.manifest.backup)
    assert verdict_on(copied, liar).refusal is not None


def test_one_true_claim_is_enough() -> None:
    moved = statement(modified=START + 9 * DAY)
    liar = statement(START + DAY, previous=link_to(moved, blake3="f" * 64), modified=START + 9 * DAY, sequence=2)
    voucher = statement(START + 2 * DAY, after=moved, sequence=3)
    for later in ([voucher, liar], [statement(START + 3 * DAY, after=moved, sequence=4), liar]):
        assert verdict_on(moved, *later) == Verdict("chain")


def test_a_claim_without_a_date_of_its_own_speaks_against_nobody() -> None:
    first = statement(modified=START + 5 * DAY)
    liar = statement(START + DAY, previous=link_to(first, blake3="f" * 64), modified=START + 5 * DAY, sequence=2)
    assert verdict_on(first, liar) == Verdict("unproven")


@pytest.mark.parametrize(
    "changes",
    [
        {"modified": START - TOLERANCE - SECOND},
        {"finished": START + 9 * HOUR, "began": START, "modified": START + 8 * HOUR - SECOND},
        {"finished": START - HOUR, "modified": START - TOLERANCE - SECOND},
    ],
)
def test_what_is_dated_in_the_future_is_refused(changes: dict[str, Any]) -> None:
    error = refusal_of(statement(**changes))
    assert "is dated in the future" in error.message
    assert "--trust-unsigned" in str(error.hint)


def test_what_was_dated_in_the_future_and_is_past_by_now_may_be_a_copy_with_other_times() -> None:
    """In the worst hour: a zip, a file system with local times. Refusing it would leave --trust-unsigned alone."""
    early = statement(modified=START - 9 * DAY)
    assert "is dated in the future" in refusal_of(early).message
    assert judged([early], START + HOUR) == [Verdict("unproven")]
    # The clock of the machine that restores may be at its beginning.
    assert judged([statement()], datetime(1970, 1, 1, tzinfo=UTC)) == [Verdict("store")]


@pytest.mark.parametrize("year", [1, 9999])
def test_no_time_is_too_far_away_to_be_judged(year: int) -> None:
    """Whoever stole a key must not make ``list`` fail for all backups."""
    far = datetime(year, 1, 1, tzinfo=UTC) if year == 1 else datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    for item in (statement(finished=far, modified=START), statement(finished=far, modified=START, revoked=far)):
        assert (verdict_on(item).refusal is None) is (year == 1 and item.signer == TrustedKey(KEYS[0]))
        assert str(far.year) in undated(item)


def test_a_clock_may_be_wrong_by_the_tolerance() -> None:
    moved = statement(finished=START + TOLERANCE, modified=START)
    assert verdict_on(moved).refusal is None


@pytest.mark.parametrize("late", [timedelta(0), SECOND, 10 * DAY])
def test_a_revoked_key_counts_only_before(late: timedelta) -> None:
    finished = START + timedelta(minutes=3)
    assert verdict_on(statement(revoked=finished + SECOND)) == Verdict("store")
    error = refusal_of(statement(revoked=finished, modified=finished + late))
    assert f"signed by key {KEYS[0].key_id}, which is revoked since 2026-11-01T02:03:00Z" in error.message


def test_in_a_copied_destination_a_good_key_vouches_for_what_a_revoked_one_signed() -> None:
    copied, revoked = START + 10 * DAY, START + DAY + 5 * HOUR
    first = statement(revoked=revoked, modified=copied)
    second = statement(START + DAY, after=first, revoked=revoked, modified=copied)
    third = statement(START + 2 * DAY, after=second, key=KEYS[1], modified=copied)
    assert [item.refusal for item in judged([third, second, first])] == [None] * 3
    assert [item.dated for item in judged([third, second, first])] == ["unproven", "chain", "chain"]
    # Without the good one nobody knows when they were made.
    assert all(item.refusal for item in judged([second, first]))


@pytest.mark.parametrize(("gap", "believed"), [(TOLERANCE, False), (TOLERANCE + SECOND, True)])
def test_what_may_have_been_made_after_the_theft_needs_the_store(gap: timedelta, believed: bool) -> None:
    first = statement(modified=START + 5 * DAY, revoked=START + timedelta(minutes=3) + gap)
    second = statement(START + DAY, after=first, key=KEYS[1])
    assert (verdict_on(first, second).refusal is None) is believed


def test_what_is_refused_vouches_for_nobody() -> None:
    forged = statement(START - 20 * DAY, modified=START + 5 * DAY, revoked=START + 4 * DAY)
    voucher = statement(START + 5 * DAY, after=forged, revoked=START + 4 * DAY)
    assert verdict_on(forged, voucher).refusal is not None
    assert verdict_on(forged, voucher).dated == "unproven"


def test_without_signatures_nothing_is_refused_and_nothing_vouched_for() -> None:
    first = statement(modified=START + 5 * DAY, key=None)
    second = statement(START + DAY, after=first, key=None)
    future = statement(START + 9 * DAY, modified=START, key=None)
    assert judged([future, second, first], START) == [Verdict("unproven"), Verdict("store"), Verdict("unproven")]


@pytest.mark.parametrize("sequence", [2, 3, 100])
def test_a_number_that_does_not_rise_is_doubted(sequence: int) -> None:
    first, second, third = three()
    odd = statement(START + DAY / 2, sequence=sequence)
    verdicts = judged([third, second, odd, first])
    assert [bool(verdict.doubts) for verdict in verdicts] == [False, False, True, False]
    (doubt,) = verdicts[2].doubts
    assert f"has sequence number {sequence}, the later {second.manifest.backup} has 2" in doubt


def removed(history: Sequence[Statement], present: Sequence[Statement], now: datetime) -> list[tuple[str, str]]:
    """What is missing of ``present``, and who says so."""
    chain = Chain(now)
    for item in history:
        chain.add(item, chain.judge(item))
    found = chain.removed({item.manifest.backup for item in present}, now)
    return [(item.previous.backup, item.named_by) for item in found]


def test_what_was_removed_within_its_promise_is_missed() -> None:
    first, second, third = three()
    until = first.manifest.promised_until
    left = [third, second]
    assert removed(left, left, until - SECOND) == [(first.manifest.backup, second.manifest.backup)]
    assert removed(left, left, until) == []
    assert removed([third, second, first], [third, second, first], START + 3 * DAY) == []
    # What is there but cannot be read is not missing.
    assert removed([third], [third, second], START + 3 * DAY) == []


def test_what_is_refused_misses_nobody() -> None:
    first, second, _ = three()
    liar = statement(START + 9 * DAY, after=first, modified=START)
    assert removed([liar], [liar], START + 2 * DAY) == []
    unchecked = statement(START + DAY, after=first, key=None)
    assert removed([unchecked], [unchecked], START + 2 * DAY) == []
    assert removed([second], [second], START + 2 * DAY) != []


# Random histories.


@dataclass
class Item:
    """One manifest in the store, and who put it there."""

    statement: Statement
    forged: bool
    created: datetime
    """When the first key of its run was created."""


@dataclass
class World:
    """A destination, a host that backs up to it, and perhaps a thief. Nobody overwrites; what expired may go."""

    now: datetime = START
    items: list[Item] = field(default_factory=list)
    own: int = 0
    """Which of KEYS the host signs with."""
    last: Statement | None = None
    """What the host remembers."""
    stolen: set[int] = field(default_factory=set)
    stolen_at: datetime | None = None
    revoked: datetime | None = None
    """Of the stolen keys, once the theft was noticed."""

    def visible(self) -> list[Statement]:
        """One manifest for each id, newest first, as ``History`` chooses them."""
        chain = Chain(self.now)
        chosen = []
        for backup in sorted({item.statement.manifest.backup for item in self.items}, reverse=True):
            candidates = [self.seen(item) for item in self.items if item.statement.manifest.backup == backup]
            ranked = [(chain.judge(candidate), candidate) for candidate in candidates]
            verdict, best = min(
                ranked,
                key=lambda pair: (
                    pair[0].refusal is not None,
                    ("store", "chain", "unproven").index(pair[0].dated),
                    pair[1].modified,
                ),
            )
            chain.add(best, verdict)
            chosen.append(best)
        return chosen

    def seen(self, item: Item) -> Statement:
        """With the revocations that are known now."""
        signer = item.statement.signer
        assert signer is not None
        revoked = self.revoked if KEYS.index(signer.key) in self.stolen else None
        found = item.statement
        return Statement(found.manifest, found.blake3, TrustedKey(signer.key, revoked), found.modified, found.began)

    def verdicts(self) -> dict[str, Verdict]:
        """By hash."""
        visible = self.visible()
        return {item.blake3: verdict for item, verdict in zip(visible, judged(visible, self.now), strict=True)}

    def back_up(self, hours: float, keep: int) -> None:
        """As operations/predecessor.py does."""
        visible = self.visible()
        verdicts = self.verdicts()
        believed = [item for item in visible if verdicts[item.blake3].refusal is None]
        found = next(
            (
                item
                for item in believed
                if verdicts[item.blake3].dated == "store" or (self.last is not None and item.blake3 == self.last.blake3)
            ),
            None,
        )
        fallback = found or (believed[0] if believed else None)
        if self.last is not None and (fallback is None or fallback.manifest.sequence <= self.last.manifest.sequence):
            found = fallback = self.last
        started, self.now = self.now, self.now + timedelta(hours=hours)
        made = statement(
            started,
            key=KEYS[self.own],
            modified=self.now,
            began=started,
            finished=self.now,
            keep_days=keep,
            previous=None if found is None else link_to(found),
            sequence=1 if fallback is None else fallback.manifest.sequence + 1,
        )
        self.last = made
        self.items.append(Item(made, False, started))

    def expire(self) -> None:
        """A lifecycle rule: what is past its promise goes."""
        self.items = [item for item in self.items if item.statement.manifest.promised_until > self.now]

    def forge(self, back: float, hours: float, target: int, disguise: str) -> None:
        """With a stolen key: any times, any predecessor, any number, also under the id of another backup."""
        started = max(self.now - timedelta(hours=back), datetime(2000, 1, 1, tzinfo=UTC))
        named = self.items[target % len(self.items)].statement if self.items else None
        backup = None
        if named is not None and disguise == "same id":
            started, backup = named.manifest.started, named.manifest.backup
        previous = None if named is None else link_to(named)
        if previous is not None and disguise == "false link":
            previous = Previous(backup=previous.backup, blake3="f" * 64, promised_until=previous.promised_until)
        # Half an hour is within what clocks may differ by, and what a careful thief would use.
        finished = self.now - timedelta(minutes=30) if disguise == "just before" else started + timedelta(hours=hours)
        made = statement(
            started,
            key=KEYS[min(self.stolen)],
            modified=self.now,
            began=self.now,
            finished=finished,
            backup=backup,
            previous=previous,
            sequence=1 + target,
        )
        self.items.append(Item(made, True, self.now))


HOURS = st.floats(0.01, 80)
STEPS = st.one_of(
    st.tuples(st.just("back up"), st.sampled_from([0.05, 0.9, 1.1, 30]), st.sampled_from([1, 7, 35, 400])),
    st.tuples(st.just("wait"), HOURS),
    st.tuples(st.just("expire")),
    st.tuples(st.just("new key")),
)
THEFTS = st.one_of(
    st.tuples(
        st.just("forge"),
        st.sampled_from([-50.0, -0.9, 0.0, 0.5, 1.5, 26.0, 200.0]),
        st.sampled_from([0.05, 0.9, 3.0, 26.0, 200.0]),
        st.integers(0, 20),
        st.sampled_from(["none", "same id", "false link", "just before"]),
    ),
    st.tuples(st.just("forget")),
)


def carry_out(world: World, steps: Sequence[tuple[Any, ...]]) -> None:
    for name, *values in steps:
        # A second between any two things, so that no two backups have one second.
        world.now += SECOND
        match name:
            case "back up":
                world.back_up(*values)
            case "wait":
                world.now += timedelta(hours=values[0])
            case "expire":
                world.expire()
            case "new key":
                world.own += 1
            case "forge":
                world.forge(*values)
            case "forget":
                world.last = None


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_an_untouched_history_is_neither_refused_nor_doubted_whatever_expired(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    carry_out(world, steps)
    assert all(verdict == Verdict("store") for verdict in world.verdicts().values())
    visible = world.visible()
    assert removed(visible, visible, world.now) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=15), st.lists(STEPS, max_size=10), st.booleans())
def test_a_copied_history_is_never_refused_nor_doubted(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], other_host: bool
) -> None:
    world = World()
    carry_out(world, before)
    for item in world.items:
        found = item.statement
        item.statement = Statement(found.manifest, found.blake3, found.signer, world.now, world.now)
    if other_host:
        world.last = None
    carry_out(world, after)
    verdicts = world.verdicts().values()
    assert [verdict for verdict in verdicts if verdict.refusal is not None or verdict.doubts] == []
    visible = world.visible()
    assert removed(visible, visible, world.now) == []


def stolen_world(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> World:
    """The thief has the key in use, and all that came before, from the end of ``before`` on."""
    world = World()
    carry_out(world, before)
    world.now += SECOND
    world.stolen, world.stolen_at = set(range(world.own + 1)), world.now
    carry_out(world, after)
    return world


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=10), st.lists(STEPS | THEFTS, max_size=15))
def test_a_forged_backup_never_makes_an_honest_one_refused(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    world = stolen_world(before, after)
    verdicts = world.verdicts()
    for item in world.items:
        if not item.forged:
            assert verdicts[item.statement.blake3].refusal is None
            assert verdicts[item.statement.blake3].dated == "store"


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=10), st.lists(STEPS | THEFTS, max_size=15))
def test_the_store_never_vouches_for_a_time_before_the_theft(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]
) -> None:
    world = stolen_world(before, after)
    verdicts = world.verdicts()
    assert world.stolen_at is not None
    for item in world.items:
        verdict = verdicts.get(item.statement.blake3)
        if item.forged and verdict is not None and verdict.dated == "store":
            assert item.statement.manifest.started >= item.created - 2 * TOLERANCE


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, max_size=8), st.lists(STEPS | THEFTS, max_size=15), st.lists(STEPS, max_size=5), st.booleans())
def test_after_the_revocation_no_forged_backup_is_believed_and_every_earlier_one_is(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], later: list[tuple[Any, ...]], copied: bool
) -> None:
    world = stolen_world(before, [*after, ("new key",), *later])
    world.revoked = world.stolen_at
    if copied:
        for item in world.items:
            found = item.statement
            item.statement = Statement(found.manifest, found.blake3, found.signer, world.now, world.now)
    verdicts = world.verdicts()
    assert world.revoked is not None
    for item in world.items:
        signer = item.statement.signer
        assert signer is not None
        verdict = verdicts.get(item.statement.blake3)
        good = KEYS.index(signer.key) not in world.stolen or item.statement.modified < world.revoked
        if item.forged:
            assert verdict is None or verdict.refusal is not None
        elif good and not copied:
            assert verdict is not None
            assert verdict.refusal is None


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=20), st.data())
def test_whatever_is_removed_within_its_promise_is_missed_once_another_follows(
    steps: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    world = World()
    carry_out(world, [*steps, ("back up", 0.05, 35), ("back up", 0.05, 35)])
    named = {item.statement.manifest.previous for item in world.items}
    # A weekly one is missed only as long as the daily one after it is there.
    missed = [
        item
        for item in world.items
        if link_to(item.statement) in named and item.statement.manifest.promised_until > world.now
    ]
    victim = data.draw(st.sampled_from(missed))
    world.items.remove(victim)
    visible = world.visible()
    assert victim.statement.manifest.backup in dict(removed(visible, visible, world.now))


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=8), st.lists(STEPS | THEFTS, min_size=1, max_size=15), st.integers(0, 30))
def test_only_later_backups_judge_an_earlier_one(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], count: int
) -> None:
    """So the latest is judged by nothing but itself."""
    world = stolen_world(before, after)
    visible = world.visible()

    def told(verdicts: Sequence[Verdict]) -> list[tuple[object, ...]]:
        return [(verdict.dated, str(verdict.refusal), verdict.doubts) for verdict in verdicts]

    assert told(judged(visible, world.now)[:count]) == told(judged(visible[:count], world.now))
