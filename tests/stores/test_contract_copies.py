"""The contract of archiver/stores/base.py on copies and on keys to be thawed, held against every store."""

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from archiver.errors import AlreadyExistsError, NotFoundError, UsageError
from archiver.stores.destination import open_store, parse_destination
from tests.stores.test_contract import KEY, body, fetch, pattern
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.stores.conftest import Subject

COPY = "monthly/data/prod/0123.mdb.zst.age"
MALFORMED = ["", "/a", "a/", "a//b", "../a", "a/./b", "a b"]


@pytest.mark.parametrize(("parts", "extra"), [(0, 0), (0, 5), (2, 1)])
def test_a_copy_has_the_bytes_of_its_source(subject: "Subject", parts: int, extra: int) -> None:
    data = pattern(parts * subject.part + extra)
    subject.store.create(KEY, body(data, subject.part))
    copied = subject.store.copy(KEY, COPY)
    assert (copied.key, copied.size) == (COPY, len(data))
    assert fetch(subject.store, COPY) == fetch(subject.store, KEY) == data
    assert subject.store.stat(COPY) == copied
    assert [item for item in subject.store.list() if item.key == COPY] == [copied]
    assert subject.leftovers() == []


def test_the_age_of_a_copy_is_its_own(subject: "Subject") -> None:
    created = subject.store.create(KEY, [b"old"])
    # S3 gives whole seconds.
    time.sleep(2.1)
    copied = subject.store.copy(KEY, COPY)
    assert timedelta(seconds=1) <= copied.modified - created.modified < timedelta(seconds=PATIENCE)
    assert abs(subject.store.clock() - copied.modified) < timedelta(seconds=PATIENCE)
    assert subject.store.stat(KEY).modified - created.modified < timedelta(seconds=1)


def test_a_copy_outlives_its_source(subject: "Subject") -> None:
    subject.store.create(KEY, [b"kept"])
    subject.store.copy(KEY, COPY)
    subject.store.delete(KEY)
    assert fetch(subject.store, COPY) == b"kept"
    subject.store.copy(COPY, KEY)
    subject.store.delete(COPY)
    assert fetch(subject.store, KEY) == b"kept"


def test_a_copy_overwrites_nothing(subject: "Subject") -> None:
    subject.store.create(KEY, [b"source"])
    subject.store.create(COPY, [b"theirs"])
    for source in (KEY, COPY):
        with pytest.raises(AlreadyExistsError, match=f"{COPY} exists already"):
            subject.store.copy(source, COPY)
    assert fetch(subject.store, COPY) == b"theirs"
    assert fetch(subject.store, KEY) == b"source"
    assert subject.leftovers() == []


def test_a_copy_of_nothing_is_nothing(subject: "Subject") -> None:
    subject.store.create(f"{KEY}.more", [b"x"])
    with pytest.raises(NotFoundError, match=f"{KEY} does not exist"):
        subject.store.copy(KEY, COPY)
    assert [item.key for item in subject.store.list()] == [f"{KEY}.more"]


@pytest.mark.parametrize("key", MALFORMED)
def test_malformed_keys_are_not_copied(subject: "Subject", key: str) -> None:
    subject.store.create(KEY, [b"x"])
    for source, target in ((key, COPY), (KEY, key)):
        with pytest.raises(UsageError):
            subject.store.copy(source, target)
    assert [item.key for item in subject.store.list()] == [KEY]


@pytest.mark.parametrize("subject", ["local", "localstack", "seaweed"], indirect=True)
def test_a_key_of_another_destination_is_not_found(subject: "Subject") -> None:
    assert subject.url is not None
    place, _, options = subject.url.partition("?")
    other = open_store(parse_destination(f"{place}/other?{options}" if options else f"{place}/other"))
    subject.store.create(KEY, [b"x"])
    with pytest.raises(NotFoundError):
        other.copy(KEY, COPY)
    other.close()


@pytest.mark.parametrize("subject", ["memory", "local", "seaweed"], indirect=True)
def test_of_many_copies_exactly_one_wins(subject: "Subject") -> None:
    """LocalStack ignores the condition of a copy: tests/stores/test_s3_copies.py has what is left there."""
    sources = [f"daily/data/prod/{number}" for number in range(4)]
    for source in sources:
        subject.store.create(source, [source.encode() * 1000])
    barrier = threading.Barrier(len(sources))
    winners: list[str] = []
    losers: list[str] = []

    def copy(source: str) -> None:
        barrier.wait()
        try:
            subject.store.copy(source, COPY)
            winners.append(source)
        except AlreadyExistsError:
            losers.append(source)

    threads = [threading.Thread(target=copy, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(losers)) == (1, 3)
    assert fetch(subject.store, COPY) == winners[0].encode() * 1000
    assert subject.leftovers() == []


def test_what_is_in_no_archive_is_ready(subject: "Subject") -> None:
    subject.store.create(KEY, [b"x"])
    assert subject.store.availability(KEY) == "ready"
    subject.store.thaw(KEY, 3)
    subject.store.unlock(KEY)
    assert subject.store.availability(KEY) == "ready"
    assert fetch(subject.store, KEY) == b"x"


def test_a_missing_key_is_neither_ready_nor_locked(subject: "Subject") -> None:
    with pytest.raises(NotFoundError):
        subject.store.availability(KEY)
    with pytest.raises(NotFoundError):
        subject.store.unlock(KEY)
    with pytest.raises(NotFoundError):
        subject.store.thaw(KEY, 3)


@pytest.mark.parametrize("key", MALFORMED)
def test_malformed_keys_are_not_asked_for(subject: "Subject", key: str) -> None:
    with pytest.raises(UsageError):
        subject.store.availability(key)
    with pytest.raises(UsageError):
        subject.store.thaw(key, 1)
    with pytest.raises(UsageError):
        subject.store.unlock(key)


def test_full_keys_begin_with_the_prefix(subject: "Subject") -> None:
    full = subject.store.full_key(KEY)
    assert full.endswith(KEY)
    assert full == subject.store.full_key("") + KEY
    if subject.name in ("memory", "local"):
        assert full == KEY
    else:
        assert subject.url is not None
        assert full == f"{subject.url.split('/')[3].partition('?')[0]}/{KEY}"
