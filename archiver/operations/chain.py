"""Which backups are believed: what the store and later backups say of each one; pure.

A signature tells who wrote a manifest, and nothing of when. Two things do. The store knows since when it has had a key,
and nobody who may only create keys can change that. And every backup names the one before it by its hash, so that it
cannot have been made later. Whoever stole a signing key can sign what he likes, but not put it where time has passed.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from archiver.catalog.manifest import Manifest, Previous
from archiver.crypto.trust import TrustedKey
from archiver.errors import AuthenticityError

TOLERANCE = timedelta(hours=1)
"""By which the times that a run reads off the store's clock may differ from those that the store gives to keys, and how
long a run may take to commit."""

Dating = Literal["store", "chain", "unproven"]
"""What vouches for the time that a backup claims, the strongest first: the store's own times, or a later backup that
names this one's hash; or nothing, as for a copied destination and for what was dated back with a stolen key."""
DATINGS: tuple[Dating, ...] = ("store", "chain", "unproven")


class Statement(msgspec.Struct, frozen=True):
    """A manifest that is where it belongs, and what the store says of it."""

    manifest: Manifest
    blake3: str
    """Of the manifest's bytes."""
    signer: TrustedKey | None
    """Whose valid signature it has; None where none was asked for: then it is evidence of nothing."""
    modified: datetime
    """Since when the store has had these very bytes under this id: the earliest of several places."""
    began: datetime | None = None
    """Since when the store has had the run's first key; None where it has none, or was not asked."""


class Verdict(msgspec.Struct, frozen=True):
    """What is to be thought of one backup."""

    dated: Dating
    refusal: AuthenticityError | None = None
    """Why it must not be restored; None for one that is believed."""
    doubts: tuple[str, ...] = ()
    """What an operator should know of one that is believed all the same."""


class Removed(msgspec.Struct, frozen=True):
    """A backup that is not there although it is still promised, and the one that names it."""

    previous: Previous
    named_by: str


def is_long(manifest: Manifest) -> bool:
    """Whether the run took so long that only the age of its first key can vouch for its start."""
    return manifest.finished - manifest.started > TOLERANCE


class Chain:
    """Judges the backups of one source, newest first: only later ones can tell of an earlier one.

    ``judge`` a backup, then ``add`` it, if it is the one that counts under its id, before the next older one. ``now``
    is the store's time.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._named: dict[str, list[tuple[Previous, str, bool]]] = {}
        self._later: Manifest | None = None

    def judge(self, statement: Statement) -> Verdict:
        """What the store and the backups that were added so far say of ``statement``."""
        manifest, signer = statement.manifest, statement.signer
        dated = self._date(statement)
        if signer is None:
            # Nobody is believed here, so nothing is refused either: the operator asked for that.
            return Verdict(dated)
        refusal = (
            _in_the_future(statement, self._now)
            or _revoked(statement, signer, dated)
            or self._contradicted(statement, dated)
        )
        doubts = []
        if self._later is not None and self._later.sequence <= manifest.sequence:
            doubts.append(
                f"{manifest.backup} has sequence number {manifest.sequence}, the later {self._later.backup} has "
                f"{self._later.sequence}: expected a greater one"
            )
        return Verdict(dated, refusal, tuple(doubts))

    def add(self, statement: Statement, verdict: Verdict) -> None:
        """Let ``statement`` count as a later backup from now on, if it is believed."""
        manifest = statement.manifest
        if verdict.refusal is not None or statement.signer is None:
            return
        self._later = manifest
        if manifest.previous is not None:
            claim = manifest.previous, manifest.backup, verdict.dated != "unproven"
            self._named.setdefault(manifest.previous.backup, []).append(claim)

    def forget_order(self) -> None:
        """Compare no number with those of the backups that were added so far."""
        self._later = None

    def removed(self, present: Collection[str], now: datetime) -> list[Removed]:
        """Which backups those that were added name, that are promised beyond ``now`` and not among the ids ``present``;
        newest first."""
        found = {}
        for backup in sorted(self._named.keys() - set(present), reverse=True):
            for previous, named_by, _ in self._named[backup]:
                if previous.promised_until > now:
                    found[backup] = Removed(previous, named_by)
        return list(found.values())

    def _date(self, statement: Statement) -> Dating:
        manifest = statement.manifest
        began = statement.began if is_long(manifest) else manifest.started
        in_time = abs(statement.modified - manifest.finished) <= TOLERANCE
        if in_time and began is not None and began - manifest.started <= TOLERANCE:
            return "store"
        if statement.signer is not None:
            for previous, _, _ in self._named.get(manifest.backup, ()):
                if previous.blake3 == statement.blake3:
                    return "chain"
        return "unproven"

    def _contradicted(self, statement: Statement, dated: Dating) -> AuthenticityError | None:
        """What the store itself dates stands against any claim: a thief can sign a false one."""
        backup = statement.manifest.backup
        for previous, named_by, proven in self._named.get(backup, ()):
            if proven and previous.blake3 != statement.blake3 and dated != "store":
                return AuthenticityError(
                    f"{backup} is not the backup that {named_by} names: expected a manifest with BLAKE3 "
                    f"{previous.blake3}, got {statement.blake3}",
                    hint="Restore another backup, or this one from another copy of the destination. If the key that "
                    f"signed {named_by} was stolen, name it in signing.revoked.",
                )
        return None


def judge(statements: Iterable[Statement], now: datetime) -> list[Verdict]:
    """The verdicts at ``now`` on all backups of a source, each of them once, given newest first."""
    chain = Chain(now)
    verdicts = []
    for statement in statements:
        verdicts.append(chain.judge(statement))
        chain.add(statement, verdicts[-1])
    return verdicts


def undated(statement: Statement) -> str:
    """What ``unproven`` means for one backup."""
    manifest = statement.manifest
    return (
        f"nothing vouches for the time of {manifest.backup}: it says that it was made between "
        f"{_time(manifest.started)} and {_time(manifest.finished)}, the store has had it since "
        f"{_time(statement.modified)}; a copied destination looks like this, so does a late copy in another class "
        "whose original is gone, and so does a backup that was dated back with a stolen signing key"
    )


def _in_the_future(statement: Statement, now: datetime) -> AuthenticityError | None:
    """What is later than now would be the latest for ever. Where the clock that tells ``now`` stands still or was set
    back, the store's own time of the key is the later one."""
    manifest = statement.manifest
    claimed, known = max(manifest.started, manifest.finished), max(now, statement.modified)
    if claimed - known <= TOLERANCE:
        return None
    return AuthenticityError(
        f"{manifest.backup} is dated in the future: it says that it was made at {_time(claimed)}, and it is "
        f"{_time(known)}",
        hint="Restore another backup. If the clock is wrong, set it, or give the backup's id and --trust-unsigned.",
    )


def _revoked(statement: Statement, signer: TrustedKey, dated: Dating) -> AuthenticityError | None:
    """A thief has the key from the revocation on. What the store had before is not his. Where the destination was
    copied, the store cannot tell, but a later backup can, whose key is good."""
    manifest = statement.manifest
    if signer.revoked is None or statement.modified < signer.revoked:
        return None
    # The tolerance, because what he made right after the theft may be dated that much before it.
    if dated == "chain" and signer.revoked - max(manifest.started, manifest.finished) > TOLERANCE:
        return None
    return AuthenticityError(
        f"{manifest.backup} is signed by key {signer.key.key_id}, which is revoked since {_time(signer.revoked)}; the "
        f"store has had it since {_time(statement.modified)}",
        hint="Restore a backup from before the revocation, or one that another key signed. If this is a copy of the "
        "destination, make it with its times: cp -a, rsync -a. If you know that this backup is yours, give its id and "
        "--trust-unsigned.",
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
