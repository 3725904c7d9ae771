"""Which backups of a source a store has, and what is to be thought of each: chain.py applied to what is stored."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Literal

from archiver.catalog.manifest import Manifest
from archiver.catalog.names import BackupPlace, backups_prefix, is_class, parse_manifest_key
from archiver.crypto.trust import TrustedKey
from archiver.errors import ArchiverError, AuthenticityError, IntegrityError, NotFoundError, RefusedError, StorageError
from archiver.operations.chain import DATINGS, Chain, Dating, Removed, Statement, Verdict, is_long, undated
from archiver.parallel import ordered_map
from archiver.stores.base import Store

_READERS = 8
"""Manifests fetched at a time."""


@dataclass(frozen=True, slots=True)
class Backup:
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


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What looks like a backup, and why it cannot be read or believed."""

    place: BackupPlace
    error: ArchiverError


@dataclass(frozen=True, slots=True)
class Survey:
    """All that a destination has of a source, newest first, and what is missing of it."""

    backups: Sequence[Backup | Unreadable]
    removed: Sequence[Removed]
    """Named by one of the backups, promised, and not there."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A place with a manifest, and since when the store has it."""

    place: BackupPlace
    modified: datetime


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One of the manifests that lie under one id, from the first place where it is whole."""

    backup: Backup
    statement: Statement


class History:
    """The backups of ``source`` in ``store``; ``load`` reads the manifest at one place and authenticates it."""

    def __init__(self, store: Store, source: str, load: Callable[[BackupPlace], Backup]) -> None:
        self._store = store
        self._source = source
        self._load = load

    def listed(self) -> list[Listed]:
        """Where complete backups lie and since when, newest first, the longest list of their classes included."""
        found: list[Listed] = []
        for retention_class in self._store.list_names():
            if is_class(retention_class):
                for item in self._store.list(backups_prefix(retention_class, self._source)):
                    place = parse_manifest_key(item.key)
                    if place is not None:
                        found.append(Listed(place, item.modified))
        return sorted(found, key=lambda item: (item.place.backup, item.place.retention_class), reverse=True)

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
        found = self._choose(self._candidates(wanted), chain)
        return replace(found, irregular=found.irregular + compared)

    def judged(self, listed: Sequence[Listed], chain: Chain, *, lazily: bool = False) -> Iterator[Backup | Unreadable]:
        """The backups at ``listed``, newest first, judged by those before them, with which ``chain`` is filled.

        ``lazily`` reads none before it is asked for.
        """
        by_id = [list(items) for _, items in groupby(listed, key=lambda item: item.place.backup)]

        def load(items: list[Listed]) -> list[_Candidate] | Unreadable:
            try:
                return self._candidates(items)
            except (IntegrityError, NotFoundError, RefusedError) as error:
                return Unreadable(items[0].place, error)

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
            irregular=(*verdict.doubts, *ignored),
        )

    def _candidates(self, items: Sequence[Listed]) -> list[_Candidate]:
        """The manifests under one id, which may lie in several classes, each once, from the first place that is whole:
        anybody who may create keys can plant a copy of a manifest in another class. Raises the first place's error when
        there is none."""
        found: dict[str, list[tuple[Backup, Listed]]] = {}
        errors: list[ArchiverError] = []
        for item in items:
            try:
                backup = self._load(item.place)
            except (IntegrityError, NotFoundError, StorageError) as error:
                errors.append(error)
            else:
                found.setdefault(backup.blake3, []).append((backup, item))
        candidates = []
        for copies in found.values():
            # The oldest first: whoever plants a copy with lists of his own in another class cannot make it older.
            for backup, item in sorted(copies, key=lambda copy: copy[1].modified):
                try:
                    if len(items) > 1:
                        self._check_lists(item.place)
                except (NotFoundError, StorageError) as error:
                    errors.append(error)
                else:
                    modified = min(listed.modified for _, listed in copies)
                    candidates.append(_Candidate(backup, self._statement(backup, modified, items)))
                    break
        if not candidates:
            raise errors[0]
        return candidates

    def _check_lists(self, place: BackupPlace) -> None:
        for key in (place.objects, place.contents, place.placement):
            self._store.stat(key)

    def _statement(self, backup: Backup, modified: datetime, items: Iterable[Listed]) -> Statement:
        began = None
        if is_long(backup.manifest):
            # Listed and not asked for: the right to list is one that every role has.
            keys = {item.place.started for item in items}
            with suppress(NotFoundError):
                found = (item for key in keys for item in self._store.list(key) if item.key == key)
                began = min((item.modified for item in found), default=None)
        return Statement(backup.manifest, backup.blake3, backup.signer, modified, began)


def _rank(judged: tuple[_Candidate, Verdict]) -> tuple[bool, int, datetime]:
    candidate, verdict = judged
    return verdict.refusal is not None, DATINGS.index(verdict.dated), candidate.statement.modified
