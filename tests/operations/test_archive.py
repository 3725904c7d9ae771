"""The reading side: only what a trusted key has signed, only where it belongs, and the right one of many."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import MAX_MANIFEST, MAX_SIGNATURE, Digest, Vault, decode_manifest, encode_manifest
from archiver.catalog.names import BackupPlace, backup_time, vault_key
from archiver.catalog.records import CONTENTS, PLACEMENT, HeaderRecord, PlacementRecord, WarningRecord
from archiver.crypto.minisign import SigningKey
from archiver.crypto.vault import seal_vault
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import (
    AuthenticityError,
    DecryptionError,
    FormatError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from archiver.operations.archive import parse_time
from archiver.operations.history import Backup, Unreadable
from archiver.operations.vaults import put_back
from archiver.operations.writing import write_object
from tests.operations.archives import SOURCE, STARTED, TUNING, Site

FIRST, SECOND, THIRD = "20261120T020000Z-0000aa", "20261121T020000Z-0000bb", "20261121T020000Z-0000cc"


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_backup_is_read_back(site: Site) -> None:
    record = site.put_object(b"text")
    warning = WarningRecord(path="a", reason="because")
    place = site.commit(objects=[record], contents=[warning])
    archive = site.archive()
    backup = archive.find()
    assert (backup.place, backup.signature) == (place, "verified")
    assert archive.objects(backup) == {record.id: record}
    assert archive.placement(backup) == {record.id: site.key_of(record.id)}
    assert list(archive.contents(backup)) == [
        HeaderRecord(backup=place.backup, source=SOURCE, label="by hand"),
        warning,
    ]
    reader = archive.reader(backup, record, archive.placement(backup))
    assert [data for _, data in reader.read(None, record.blake3)] == [b"text"]


def test_an_unsigned_backup_is_refused_unless_it_is_asked_for(site: Site) -> None:
    place = site.commit()
    site.store.remove(place.signature)
    with pytest.raises(AuthenticityError, match="has no signature") as caught:
        site.archive().load(place)
    assert "--trust-unsigned" in str(caught.value.hint)
    assert site.archive(trusted=None).load(place).signature == "unchecked"


def test_without_a_key_nothing_is_trusted(site: Site) -> None:
    place = site.commit()
    with pytest.raises(AuthenticityError, match="no key to verify"):
        site.archive(trusted=[]).load(place)


def test_a_signature_by_another_key_is_refused(site: Site) -> None:
    place = site.commit()
    other = SigningKey.generate().verify_key
    with pytest.raises(AuthenticityError, match=f"signed by key {site.signing_key.verify_key.key_id}"):
        site.archive(trusted=[other]).load(place)
    both = site.archive(trusted=[other, site.signing_key.verify_key])
    assert both.load(place).signature == "verified"


def test_whoever_signed_is_named(site: Site) -> None:
    other = SigningKey.generate()
    first = site.commit(FIRST)
    second = site.follow(first, SECOND, signing_key=other)
    believed = [other.verify_key, site.signing_key.verify_key]
    archive = site.archive(trusted=believed)
    assert [(item.place, item.key_id) for item in archive.backups() if isinstance(item, Backup)] == [
        (second, other.verify_key.key_id),
        (first, site.signing_key.verify_key.key_id),
    ]
    unchecked = site.archive(trusted=None).find()
    assert (unchecked.signer, unchecked.key_id, unchecked.signature) == (None, other.verify_key.key_id, "unchecked")


def test_a_key_of_the_same_number_is_not_the_key(site: Site) -> None:
    place = site.commit()
    impostor = SigningKey(site.signing_key.verify_key.number, bytes(range(32))).verify_key
    with pytest.raises(AuthenticityError, match="is not of these bytes"):
        site.archive(trusted=[impostor]).load(place)


def test_the_signature_of_another_backup_is_refused(site: Site) -> None:
    first, second = site.commit(FIRST), site.commit(SECOND)
    site.store.overwrite(first.signature, site.store.bytes_of(second.signature))
    with pytest.raises(AuthenticityError, match="is not of these bytes"):
        site.archive().load(first)


@pytest.mark.parametrize("position", [10, 100, -3])
def test_an_altered_manifest_is_refused(site: Site, position: int) -> None:
    place = site.commit()
    damaged = bytearray(site.store.bytes_of(place.manifest))
    damaged[position] ^= 1
    site.store.overwrite(place.manifest, bytes(damaged))
    with pytest.raises(AuthenticityError):
        site.archive().load(place)


@pytest.mark.parametrize("moved", [BackupPlace("daily", SOURCE, SECOND), BackupPlace("daily", "other", FIRST)])
def test_a_manifest_that_was_moved_is_refused(site: Site, moved: BackupPlace) -> None:
    """A replay: an old backup, with its good signature, under a newer name or another source's."""
    place = site.commit(FIRST)
    site.store.create(moved.manifest, [site.store.bytes_of(place.manifest)])
    site.store.create(moved.signature, [site.store.bytes_of(place.signature)])
    for trusted in ([site.signing_key.verify_key], None):
        with pytest.raises(AuthenticityError, match="it was moved or replayed"):
            site.archive(trusted=trusted).load(moved)


def test_a_manifest_that_gives_a_vault_the_id_of_another_is_refused(site: Site) -> None:
    """Rightly signed, by whoever stole the key: his own vault would count as the operators' one."""
    thief = str(X25519Identity.generate().recipient)
    place = site.commit(FIRST, vaults=[Vault(id=site.vault_id, recipient=thief)])
    for trusted in ([site.signing_key.verify_key], None):
        with pytest.raises(FormatError, match="is not that of the recipient that it names"):
            site.archive(trusted=trusted).load(place)


def test_a_manifest_whose_time_is_not_that_of_its_id_is_refused(site: Site) -> None:
    """Rightly signed, by whoever stole the key: it would be chosen by the one and judged by the other."""
    for number, started in enumerate((STARTED, STARTED - timedelta(seconds=1), STARTED + timedelta(seconds=1))):
        place = site.commit(f"20261122T020000Z-00000{number}", started=started)
        if started == STARTED:
            assert site.archive().load(place).manifest.started == STARTED
        else:
            with pytest.raises(AuthenticityError, match="not as its id says"):
                site.archive().load(place)


@pytest.mark.parametrize("text", ["", "RW", "\n\n\n\n", "untrusted comment: x\n"])
def test_a_truncated_signature_is_refused(site: Site, text: str) -> None:
    place = site.commit()
    whole = site.store.bytes_of(place.signature)
    for damaged in (text.encode(), whole[:-1], whole[:100], whole * 2, b"\xff" + whole):
        site.store.overwrite(place.signature, damaged)
        with pytest.raises(AuthenticityError, match="malformed signature"):
            site.archive().load(place)


@pytest.mark.parametrize(("key", "limit"), [("manifest", MAX_MANIFEST), ("signature", MAX_SIGNATURE)])
def test_what_is_too_large_is_refused(site: Site, key: str, limit: int) -> None:
    place = site.commit()
    site.store.overwrite(getattr(place, key), bytes(limit + 1))
    with pytest.raises(FormatError, match=f"has more than {limit} bytes"):
        site.archive().load(place)


@pytest.mark.parametrize("name", ["objects", "contents"])
@pytest.mark.parametrize("change", ["flip", "cut", "extend", "other"])
def test_a_list_that_is_not_the_signed_one_is_refused(site: Site, name: str, change: str) -> None:
    record = site.put_object(b"text")
    place, other = site.commit(FIRST, objects=[record]), site.commit(SECOND)
    key = getattr(place, name)
    data = site.store.bytes_of(key)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    changed: dict[str, bytes] = {
        "flip": bytes(flipped),
        "cut": data[:-1],
        "extend": data + bytes.fromhex("502a4d18 00000000"),  # an empty skippable frame, which zstd does not mind
        "other": site.store.bytes_of(getattr(other, name)),
    }
    site.store.overwrite(key, changed[change])
    archive = site.archive()
    backup = archive.load(place)
    read: Callable[[Any], Any] = getattr(archive, name)
    with pytest.raises(IntegrityError, match=re.escape(key)):
        list(read(backup))


def test_an_endless_list_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place = site.commit()
    archive = site.archive()
    backup = archive.load(place)
    taken = 0

    def endless(key: str, start: int = 0, length: int | None = None) -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield bytes.fromhex("502a4d18 f8ff0000") + bytes(0xFFF8)

    monkeypatch.setattr(site.store, "read", endless)
    with pytest.raises(IntegrityError, match="expected"):
        archive.objects(backup)
    assert taken < 5


def test_contents_of_another_backup_are_refused_even_if_signed(site: Site) -> None:
    """A manifest that names the right hash of the wrong list: a bug of a writer, not an attack."""
    place = site.commit(FIRST)
    site.store.remove(place.contents)
    wrong = encode_lines([HeaderRecord(backup=SECOND, source=SOURCE)], CONTENTS)
    written = write_object(site.store, place.contents, wrong, [site.vault.recipient], TUNING)
    manifest = decode_manifest(site.store.bytes_of(place.manifest), "it")
    digest = Digest(stored_size=written.stored.size, blake3=written.stored.blake3)
    site.store.overwrite(place.manifest, encode_manifest(msgspec.structs.replace(manifest, contents=digest)))
    archive = site.archive(trusted=None)
    with pytest.raises(FormatError, match="does not begin with the header of its backup"):
        list(archive.contents(archive.load(place)))


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "vault/prod/x.age", "daily/data/prod/" + "f" * 32 + ".tar.zst.age"]
)
def test_a_placement_that_points_elsewhere_is_refused(site: Site, key: str) -> None:
    record = site.put_object(b"text")
    place = site.commit(objects=[record])
    site.store.remove(place.placement)
    lines = encode_lines([PlacementRecord(id=record.id, key=key)], PLACEMENT)
    write_object(site.store, place.placement, lines, [], TUNING)
    archive = site.archive()
    with pytest.raises(FormatError, match="placement names"):
        archive.placement(archive.load(place))


def test_an_object_without_a_place_is_named(site: Site) -> None:
    record = site.put_object(b"text")
    archive = site.archive()
    backup = archive.load(site.commit(objects=[record]))
    with pytest.raises(IntegrityError, match=f"does not say where object {record.id} lies"):
        archive.reader(backup, record, {})


def test_an_object_of_a_vault_that_the_manifest_does_not_name_is_refused(site: Site) -> None:
    record = site.put_object(b"text")
    archive = site.archive()
    backup = archive.load(site.commit(objects=[record]))
    foreign = msgspec.structs.replace(record, vault="0011223344556677")
    with pytest.raises(IntegrityError, match="sealed to vault 0011223344556677, which its manifest does not name"):
        archive.reader(backup, foreign, archive.placement(backup))


def test_the_newest_is_the_latest_and_time_decides(site: Site) -> None:
    for backup in (SECOND, FIRST, THIRD):
        site.commit(backup)
    archive = site.archive()
    assert [place.backup for place in archive.places()] == [THIRD, SECOND, FIRST]
    assert archive.find().place.backup == THIRD
    assert archive.find(at=datetime(2026, 11, 21, 1, 59, 59, tzinfo=UTC)).place.backup == FIRST
    assert archive.find(at=datetime(2026, 11, 21, 2, tzinfo=UTC)).place.backup == THIRD
    assert archive.find(at=datetime(2026, 11, 21, 4, tzinfo=timezone(timedelta(hours=3)))).place.backup == FIRST
    with pytest.raises(NotFoundError, match="no backup from 2026-11-20T01:59:59Z or before of source 'prod'"):
        archive.find(at=datetime(2026, 11, 20, 1, 59, 59, tzinfo=UTC))


def test_a_latest_from_a_clock_that_was_ahead_is_told(site: Site) -> None:
    site.commit(FIRST)
    ahead = site.commit("20310101T020000Z-0000aa")
    site.store.now = STARTED
    found = site.archive().find()
    assert (found.place, found.dated) == (ahead, "store")
    (doubt,) = found.doubts
    assert "there may be newer backups with earlier ids" in doubt
    assert site.archive().find("daily/latest").doubts == (doubt,)
    assert site.archive().find(ahead.backup).doubts == ()


def test_by_id_or_its_beginning(site: Site) -> None:
    for backup in (FIRST, SECOND, THIRD):
        site.commit(backup)
    site.store.create(BackupPlace("weekly", SOURCE, THIRD).manifest, [b"a copy"])
    archive = site.archive()
    assert archive.find(SECOND).place.backup == SECOND
    assert archive.find("20261120").place.backup == FIRST
    with pytest.raises(NotFoundError, match="'20261121' is the beginning of 2 backup ids"):
        archive.find("20261121")
    for reference in ("2027", "x", "../", SECOND + "0", "."):
        with pytest.raises(NotFoundError, match=re.escape(f"no backup {reference!r}")):
            archive.find(reference)


def test_a_planted_copy_with_lists_of_its_own_hides_nothing(site: Site) -> None:
    """Whoever may create keys cannot make the copy older. Where the times are gone, its class can be left out."""
    place = site.commit(FIRST)
    copy = BackupPlace("zzz", SOURCE, FIRST)
    site.store.now += timedelta(seconds=1)
    for name in ("signature", "manifest", "objects", "contents", "placement"):
        data = site.store.bytes_of(getattr(place, name))
        key = getattr(copy, name)
        if name in ("objects", "contents", "placement"):
            data = bytes(len(data))
        site.store.create(key, [data])
    found = site.archive().find()
    assert (found.place, found.places) == (place, (place, copy))
    site.store._objects = {key: (data, STARTED) for key, (data, _) in site.store._objects.items()}
    assert site.archive().find(FIRST).place == copy
    assert site.archive().find(f"daily/{FIRST}").place == place
    assert site.archive().find("daily/latest").place == place
    with pytest.raises(NotFoundError, match="no backup 'weekly/"):
        site.archive().find(f"weekly/{FIRST}")


def test_what_the_store_will_not_give_out_hides_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest in an archive class, under a key of somebody else's, or on a bad sector."""
    first, second = site.commit(FIRST), site.commit(SECOND)
    read = site.store.read

    def refusing(key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        if key == second.manifest:
            raise RefusedError("the object lies in an archive class")
        return read(key, start, length)

    monkeypatch.setattr(site.store, "read", refusing)
    newest, older = site.archive().backups()
    assert isinstance(newest, Unreadable)
    assert isinstance(newest.error, RefusedError)
    assert older.place == first
    assert site.archive().find(FIRST).place == first
    with pytest.raises(RefusedError) as caught:
        site.archive().find()
    assert "give the id of one" in str(caught.value.hint)


@pytest.mark.parametrize("planted", ["copy", "garbage"])
def test_a_manifest_planted_in_another_class_hides_nothing(site: Site, planted: str) -> None:
    place = site.commit(FIRST)
    copy = BackupPlace("zzz", SOURCE, FIRST)
    site.store.create(copy.signature, [site.store.bytes_of(place.signature)])
    site.store.create(copy.manifest, [site.store.bytes_of(place.manifest) if planted == "copy" else b"garbage"])
    archive = site.archive()
    assert archive.find().place == place
    assert archive.find(FIRST).place == place
    assert [backup.place for backup in archive.backups()] == [place]


def test_a_backup_without_a_manifest_does_not_exist(site: Site) -> None:
    place = site.commit()
    site.store.remove(place.manifest)
    assert site.archive().places() == []
    with pytest.raises(NotFoundError, match="has no backup of source 'prod'"):
        site.archive().find()


@pytest.mark.parametrize("backup", ["99999999T999999Z-ffffff", "20269999T020000Z-ffffff", "junk"])
def test_a_planted_name_that_is_no_time_hides_nothing(site: Site, backup: str) -> None:
    site.commit(FIRST)
    site.store.create(f"daily/backups/{SOURCE}/{backup}/manifest.json", [b"{}"])
    site.store.create("README", [b"left by somebody"])
    assert site.archive().find().place.backup == FIRST
    assert site.archive().find(at=datetime(2027, 1, 1, tzinfo=UTC)).place.backup == FIRST


def test_backups_of_other_sources_are_not_seen(site: Site) -> None:
    site.commit(FIRST)
    other = BackupPlace("daily", "prod-2", SECOND)
    site.store.create(other.manifest, [b"{}"])
    assert [place.backup for place in site.archive().places()] == [FIRST]


@pytest.mark.parametrize(("age", "shown"), [(timedelta(days=35), []), (timedelta(days=35, seconds=-1), [FIRST])])
def test_what_is_past_its_promise_is_hidden_from_lists_but_can_be_named(
    site: Site, age: timedelta, shown: list[str]
) -> None:
    site.commit(FIRST)
    now = site.store.now = backup_time(FIRST) + age
    archive = site.archive()
    assert [backup.place.backup for backup in archive.backups(now)] == shown
    assert archive.find(FIRST).manifest.backup == FIRST


@pytest.mark.parametrize("planted", [b"not json", b""])
def test_what_cannot_be_read_is_listed_as_such_and_hides_nothing(site: Site, planted: bytes) -> None:
    site.commit(FIRST)
    place = BackupPlace("daily", SOURCE, SECOND)
    site.store.create(place.manifest, [planted])
    unreadable, backup = site.archive().backups(STARTED)
    assert isinstance(unreadable, Unreadable)
    assert unreadable.place == place
    assert isinstance(unreadable.error, AuthenticityError)
    assert isinstance(backup, Backup)
    assert backup.place.backup == FIRST
    with pytest.raises(AuthenticityError) as caught:
        site.archive().find()
    assert str(caught.value.hint).endswith("archiver list shows which backups can be had: give the id of one.")


def opened(site: Site, **changes: Any) -> X25519Identity:
    identity = site.archive(**changes).unlock(site.manifest_vault)
    assert isinstance(identity, X25519Identity)
    return identity


def test_the_vault_opens_with_any_operators_identity(site: Site) -> None:
    grace = X25519Identity.generate()
    site.put_vault("grace", grace.recipient)
    for identities in ([grace], [site.operator], [X25519Identity.generate(), grace]):
        assert opened(site, identities=identities).encode() == site.vault.encode()


def test_the_vault_is_opened_once(site: Site) -> None:
    archive = site.archive()
    site.store.reads.clear()
    assert archive.unlock(site.manifest_vault) is archive.unlock(site.manifest_vault)
    assert len(site.store.reads) == 1


def test_a_wrong_identity_learns_whose_would_be_right(site: Site) -> None:
    with pytest.raises(DecryptionError, match=r"none of the given identities .* \(it is sealed to: ada\.age\)"):
        site.archive(identities=[X25519Identity.generate()]).unlock(site.manifest_vault)
    with pytest.raises(UsageError, match="needs an operator's identity"):
        site.archive(identities=[]).unlock(site.manifest_vault)


def test_a_missing_vault_is_named(site: Site) -> None:
    with pytest.raises(NotFoundError, match="holds no key file of vault 0011223344556677") as caught:
        site.archive().unlock(Vault(id="0011223344556677", recipient="age1other"))
    assert caught.value.hint == put_back(SOURCE, "0011223344556677")


def attackers_vault(site: Site) -> bytes:
    """Anybody can seal a vault of his own to the operator: the recipient is public."""
    return seal_vault(X25519Identity.generate(), site.operator.recipient, SOURCE)


def test_a_vault_that_was_swapped_for_an_attackers_is_refused(site: Site) -> None:
    site.store.overwrite(vault_key(SOURCE, site.vault_id, "ada", "age"), attackers_vault(site))
    with pytest.raises(IntegrityError, match=r"ada\.age holds the identity of another vault"):
        site.archive().unlock(site.manifest_vault)


@pytest.mark.parametrize("planted", ["attacker", "garbage", "empty", "huge"])
def test_a_bad_file_beside_a_good_one_does_not_lock_the_vault(site: Site, planted: str) -> None:
    files = {"attacker": attackers_vault(site), "garbage": b"garbage", "empty": b"", "huge": bytes(100_000)}
    site.store.create(vault_key(SOURCE, site.vault_id, "aaa", "age"), [files[planted]])
    assert opened(site).encode() == site.vault.encode()
    with pytest.raises(IntegrityError, match=r"aaa\.age"):
        site.store.remove(vault_key(SOURCE, site.vault_id, "ada", "age"))
        site.archive().unlock(site.manifest_vault)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22T02:00:00Z", STARTED),
        ("2026-11-22T02:00:00", STARTED),
        ("2026-11-22 03:00+01:00", STARTED),
        ("2026-11-22", datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_of_the_command_line(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-11-22T25:00", "0001-01-01T00:00:00+14:00"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_time(text)
