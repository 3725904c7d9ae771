"""Which backups of a source a store has, and what is to be thought of each: chain.py applied to what is stored."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Literal

import msgspec
from msgspec.structs import replace

from archiver.catalog.manifest import Manifest
from archiver.catalog.names import BackupPlace
from archiver.config import HELD
from archiver.crypto.trust import TrustedKey
from archiver.errors import (
    ArchiverError,
    AuthenticityError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    StorageError,
    UnsignedError,
)
from archiver.operations.chain import DATINGS, Chain, Dating, Removed, Statement, Verdict, is_long, undated
from archiver.operations.places import Listed, check_lists, latest, list_places, promise_of
from archiver.parallel import ordered_map
from archiver.stores.base import Store

_READERS = 8
"""Manifests fetched at a time."""


class Backup(msgspec.Struct, frozen=True):
    """One committed backup, its manifest authenticated as far as the given keys allow."""

    place: BackupPlace
    manifest: Manifest
    blake3: str
    """Of the manifest's bytes."""
    signer: TrustedKey | None
    """Whose signature it has; None because the operator said to trust unsigned backups."""
    dated: Dating = "unproven"
    """What vouches for its time, as far as later backups and the store were asked."""
    undated: str | None = None
    """In words, why nothing vouches for its time; None where something does."""
    irregular: tuple[str, ...] = ()
    """In words, what else is not as in an untouched destination."""
    places: tuple[BackupPlace, ...] = ()
    """Where complete copies of it lie: these very bytes, with all lists. ``place`` comes first."""
    promises: Mapping[str, datetime | None] = msgspec.field(default_factory=dict)
    """By the class of each of ``places``: until when the copy there is promised; None: for ever."""

    @property
    def promised_until(self) -> datetime | None:
        """The end of the longest promise; None: for ever."""
        return latest(self.promises.values())

    def is_promised(self, now: datetime) -> bool:
        until = self.promised_until
        return until is None or until > now

    @property
    def signature(self) -> Literal["verified", "unchecked"]:
        return "unchecked" if self.signer is None else "verified"

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know of it before he relies on it."""
        return self.irregular if self.undated is None else (self.undated, *self.irregular)

    @property
    def key_id(self) -> str:
        """Number of the key that signed it, or that it says to be signed by where nobody checked."""
        return self.manifest.signer if self.signer is None else self.signer.key.key_id


class Unreadable(msgspec.Struct, frozen=True):
    """What looks like a backup, and why it cannot be read or believed."""

    place: BackupPlace
    error: ArchiverError
    expired: datetime | None = None
    """Until when it says itself to be promised, where nothing but its signatures is missing: a signature is older than
    its manifest, and the rules of a store remove it first. None where that does not explain what is wrong."""

    def is_promised(self, now: datetime) -> bool:
        """Whether it is worth an alarm still."""
        return self.expired is None or self.expired > now


class Survey(msgspec.Struct, frozen=True):
    """All that a destination has of a source, newest first, and what is missing of it."""

    backups: Sequence[Backup | Unreadable]
    removed: Sequence[Removed]
    """Named by one of the backups, promised, and not there."""


class _Copy(msgspec.Struct, frozen=True):
    """A manifest at one place."""

    backup: Backup
    listed: Listed


class _Candidate(msgspec.Struct, frozen=True):
    """One of the manifests that lie under one id, from the first place where it is whole."""

    backup: Backup
    statement: Statement


class History:
    """The backups of ``source`` in ``store``; ``load`` reads the manifest at one place and authenticates it, ``claim``
    only reads it."""

    def __init__(
        self,
        store: Store,
        source: str,
        load: Callable[[BackupPlace], Backup],
        claim: Callable[[BackupPlace], Manifest],
    ) -> None:
        self._store = store
        self._source = source
        self._load = load
        self._claim = claim

    def listed(self) -> list[Listed]:
        """Where complete backups lie and since when, newest first, the longest list of their classes included."""
        return list_places(self._store, self._source)

    def find(self, backup: str, listed: Sequence[Listed], retention_class: str = "") -> Backup:
        """The one called ``backup``, judged by all that are later: only they can speak against it, or for it.

        With a ``retention_class`` it is the copy that lies there. That its number does not fit theirs is for a list of
        all to say: it is no reason to hesitate over this one.
        """
        chain = Chain(self._store.clock())
        compared: tuple[str, ...] = ()
        try:
            for _ in self.judged([item for item in listed if item.place.backup > backup], chain):
                pass
        except StorageError as error:
            # Whatever is wrong with other backups, this one is wanted.
            compared = (f"{backup} was not compared with all later backups: {error.message}",)
        chain.forget_order()
        wanted = [item for item in listed if item.place.backup == backup]
        if retention_class:
            wanted = [item for item in wanted if item.place.retention_class == retention_class]
        candidates, errors = self._candidates(wanted)
        if not candidates:
            raise errors[0]
        found = self._choose(candidates, chain)
        return replace(found, irregular=found.irregular + compared)

    def judged(self, listed: Sequence[Listed], chain: Chain, *, lazily: bool = False) -> Iterator[Backup | Unreadable]:
        """The backups at ``listed``, newest first, judged by those before them, with which ``chain`` is filled.

        ``lazily`` reads none before it is asked for.
        """
        by_id = [list(items) for _, items in groupby(listed, key=lambda item: item.place.backup)]

        def load(items: list[Listed]) -> list[_Candidate] | Unreadable:
            candidates, errors = self._candidates(items)
            if candidates:
                return candidates
            if not isinstance(errors[0], IntegrityError | NotFoundError | RefusedError):
                raise errors[0]
            return Unreadable(items[0].place, _as_damage(errors[0]), self._expired(items, errors))

        for candidates in map(load, by_id) if lazily else ordered_map(load, by_id, workers=_READERS):
            if isinstance(candidates, Unreadable):
                yield candidates
                continue
            try:
                yield self._choose(candidates, chain)
            except AuthenticityError as error:
                yield Unreadable(candidates[0].backup.place, error)

    def _choose(self, candidates: Sequence[_Candidate], chain: Chain) -> Backup:
        """Of the manifests under one id, the one that counts, added to ``chain``; raises its refusal.

        Whoever may create keys can put a manifest of a stolen key into another class. What the store itself dates comes
        first, then what a later backup names, then what has been there longest.
        """
        judged = [(candidate, chain.judge(candidate.statement)) for candidate in candidates]
        chosen, verdict = min(judged, key=_rank)
        chain.add(chosen.statement, verdict)
        if verdict.refusal is not None:
            place = chosen.backup.place
            raise AuthenticityError(f"{place.manifest}: {verdict.refusal.message}", hint=verdict.refusal.hint)
        ignored = [
            f"{other.backup.place.manifest} is another manifest of {chosen.backup.manifest.backup}, and is ignored"
            for other in candidates
            if other is not chosen
        ]
        return replace(
            chosen.backup,
            dated=verdict.dated,
            undated=undated(chosen.statement) if verdict.dated == "unproven" else None,
            irregular=(*chosen.backup.irregular, *verdict.doubts, *ignored),
        )

    def _candidates(self, items: Sequence[Listed]) -> tuple[list[_Candidate], list[ArchiverError]]:
        """The manifests under one id, which may lie in several classes, each once, from the first place that is whole:
        anybody who may create keys can plant a copy of a manifest in another class. Beside them what is wrong with the
        other places, in their order: at least one thing where there is no candidate."""
        found: dict[str, list[_Copy]] = {}
        errors: list[ArchiverError] = []
        lost: list[Listed] = []
        for item in items:
            try:
                backup = self._load(item.place)
            except (IntegrityError, NotFoundError, StorageError) as error:
                errors.append(error)
                lost.append(item)
            else:
                found.setdefault(backup.blake3, []).append(_Copy(backup, item))
        candidates = []
        for copies in found.values():
            modified = min(copy.listed.modified for copy in copies)
            whole = []
            for copy in self._oldest_first(copies):
                try:
                    if len(items) > 1:
                        check_lists(self._store, copy.listed.place, copy.backup.manifest)
                except (IntegrityError, NotFoundError, StorageError) as error:
                    errors.append(error)
                    lost.append(copy.listed)
                else:
                    whole.append(copy)
            if whole:
                backup = self._with_places(whole)
                candidates.append(_Candidate(backup, self._statement(backup, modified, items)))
        candidates = [replace(item, backup=self._with_lost(item.backup, lost)) for item in candidates]
        return candidates, errors

    def _oldest_first(self, copies: Sequence[_Copy]) -> list[_Copy]:
        """Whoever plants a copy with lists of his own in another class cannot make it older.

        But S3 tells whole seconds. Within one, that copy is the original whose run is known to have begun, the
        earliest first: its first key was there before anybody knew the id. What has terms was copied.
        """
        manifests = Counter(copy.listed.modified for copy in copies)

        def age(copy: _Copy) -> tuple[datetime, bool, datetime, bool]:
            modified = copy.listed.modified
            began = self._began([copy.listed.place]) if manifests[modified] > 1 else None
            return modified, began is None, began or modified, copy.listed.terms is not None

        return sorted(copies, key=age)

    def _began(self, places: Iterable[BackupPlace]) -> datetime | None:
        """Since when the store has the first key of a run at one of ``places``; None where it does not have any.

        Listed and not asked for: the right to list is one that every role has.
        """
        with suppress(NotFoundError):
            keys = dict.fromkeys(place.started for place in places)
            found = (item for key in keys for item in self._store.list(key) if item.key == key)
            return min((item.modified for item in found), default=None)
        return None

    def _with_places(self, copies: Sequence[_Copy]) -> Backup:
        """The first of ``copies``, with the places of all and what is promised of each."""
        promises: dict[str, datetime | None] = {}
        doubts: list[str] = []
        for copy in copies:
            promise, doubt = promise_of(self._store, copy.listed, copy.backup.manifest)
            promises[copy.listed.place.retention_class] = promise
            doubts += [doubt] if doubt else []
        places = tuple(copy.listed.place for copy in copies)
        return replace(copies[0].backup, places=places, promises=promises, irregular=tuple(doubts))

    def _with_lost(self, backup: Backup, lost: Sequence[Listed]) -> Backup:
        """``backup``, with a word on each place that is promised still and holds no whole copy."""
        if not lost:
            return backup
        now = self._store.clock()
        told = []
        for item in lost:
            end, _ = promise_of(self._store, item, backup.manifest)
            if end is None or end > now:
                name = item.place.retention_class
                again = f"archiver hold {item.place.backup}" if name == HELD else "archiver promote"
                told.append(f"the copy in {name} is not whole, and is ignored: {again} makes it anew, where it can")
        return replace(backup, irregular=(*backup.irregular, *told))

    def _expired(self, items: Sequence[Listed], errors: Sequence[ArchiverError]) -> datetime | None:
        """Until when a backup that cannot be read says to have been promised: ``Unreadable.expired``."""
        if not all(isinstance(error, UnsignedError) for error in errors):
            return None
        try:
            return latest(promise_of(self._store, item, self._claim(item.place))[0] for item in items)
        except (IntegrityError, NotFoundError, RefusedError):
            return None

    def _statement(self, backup: Backup, modified: datetime, items: Iterable[Listed]) -> Statement:
        began = self._began(item.place for item in items) if is_long(backup.manifest) else None
        return Statement(backup.manifest, backup.blake3, backup.signer, modified, began)


def _as_damage(error: ArchiverError) -> ArchiverError:
    """What is missing of something that is listed is damage, and not that there is none."""
    return IntegrityError(error.message, hint=error.hint) if isinstance(error, NotFoundError) else error


def _rank(judged: tuple[_Candidate, Verdict]) -> tuple[bool, int, datetime]:
    candidate, verdict = judged
    return verdict.refusal is not None, DATINGS.index(verdict.dated), candidate.statement.modified
