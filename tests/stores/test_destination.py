"""Destination URLs, read and written."""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import ConfigError
from archiver.stores.destination import FileDestination, S3Destination, open_store, parse_destination
from archiver.stores.limits import Limits
from archiver.stores.s3_options import S3Options


def s3(url: str, **options: object) -> S3Destination:
    destination = parse_destination(url, options)
    assert isinstance(destination, S3Destination)
    return destination


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///var/backups", "/var/backups"),
        ("file:///var/backups/", "/var/backups"),
        ("file:////var//backups", "/var/backups"),
        ("file:///with%20space", "/with space"),
        ("FILE:///x", "/x"),
    ],
)
def test_file_urls(url: str, root: str) -> None:
    assert parse_destination(url) == FileDestination(Path(root))


def test_s3_url_with_everything() -> None:
    destination = s3(
        "s3://bucket/some/prefix/?region=eu-central-1&endpoint=https://s3.example:9000&profile=backup&path_style=true"
        "&storage_class=STANDARD_IA&checksum=none&conditional_writes=false&connect_timeout=3&read_timeout=7.5"
        "&attempts=2&part_size=8388608&uploads=2&ca_bundle=/etc/ca.pem"
    )
    assert (destination.bucket, destination.prefix) == ("bucket", "some/prefix")
    assert destination.options == S3Options(
        endpoint="https://s3.example:9000",
        region="eu-central-1",
        profile="backup",
        path_style=True,
        storage_class="STANDARD_IA",
        checksum="none",
        conditional_writes=False,
        connect_timeout=3.0,
        read_timeout=7.5,
        attempts=2,
        part_size=8 << 20,
        uploads=2,
        ca_bundle="/etc/ca.pem",
    )


def test_a_table_has_the_same_options() -> None:
    options: dict[str, object] = {"path_style": False, "connect_timeout": 3, "uploads": 2, "region": "eu-west-1"}
    assert s3("s3://bucket", **options) == s3(
        "s3://bucket?path_style=false&connect_timeout=3&uploads=2&region=eu-west-1"
    )


def test_display_is_what_was_asked_for() -> None:
    assert parse_destination("file:///var/backups").display == "file:///var/backups"
    assert s3("s3://bucket").display == "s3://bucket"
    shown = s3("s3://bucket/p?endpoint=http://127.0.0.1:9000", region="eu-west-1").display
    assert shown == "s3://bucket/p?endpoint=http://127.0.0.1:9000&region=eu-west-1"


printable = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=20).filter(
    str.isprintable
)


@given(
    st.builds(
        S3Options,
        region=st.none() | printable,
        profile=st.none() | printable,
        path_style=st.none() | st.booleans(),
        checksum=st.sampled_from(["crc32", "none"]),
        conditional_writes=st.booleans(),
        connect_timeout=st.floats(0.1, 3600),
        attempts=st.integers(1, 100),
        part_size=st.integers(5 << 20, 1 << 30),
    )
)
def test_what_is_displayed_can_be_read_back(options: S3Options) -> None:
    destination = S3Destination("bucket", "a/b", options)
    assert parse_destination(destination.display) == destination


@given(st.lists(printable.filter(lambda name: "/" not in name and name not in (".", "..")), max_size=4))
def test_displayed_paths_can_be_read_back(names: list[str]) -> None:
    destination = FileDestination(Path("/", *names))
    assert parse_destination(destination.display) == destination


def test_identity_is_of_the_place_not_of_the_way_there() -> None:
    assert s3("s3://bucket/p?attempts=2").identity == s3("s3://bucket/p/?profile=other").identity
    assert s3("s3://bucket/p").identity != s3("s3://bucket/q").identity
    assert s3("s3://bucket/p").identity != s3("s3://bucket/p?endpoint=http://127.0.0.1:9000").identity


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "unknown scheme ''"),
        ("/var/backups", "unknown scheme ''"),
        ("gs://bucket", "unknown scheme 'gs'"),
        ("s3://[", "malformed destination URL"),
        ("file://relative/path", "absolute path"),
        ("file:relative", "absolute path"),
        ("file:///a/../b", "unsafe path"),
        ("file:///a/%2e%2e/b", "unsafe path"),
        ("file:///a%00b", "unsafe path"),
        ("file:///a?region=x", "no options"),
        ("file:///a#b", "fragment"),
        ("s3:///prefix", "malformed bucket name"),
        ("s3://ab", "malformed bucket name"),
        ("s3://bucket:80/x", "malformed bucket name"),
        ("s3://bucket/a//b", "malformed prefix"),
        ("s3://bucket/../b", "malformed prefix"),
        ("s3://bucket/a%20b", "malformed prefix"),
        ("s3://bucket?colour=red", "unknown destination option 'colour'"),
        ("s3://bucket?region=", "region: expected a text"),
        ("s3://bucket?region=a&region=b", "given twice"),
        ("s3://bucket?path_style=yes", "path_style: expected true or false, got 'yes'"),
        ("s3://bucket?endpoint=example.com", "endpoint: expected http"),
        ("s3://bucket?endpoint=http://h:99999", "endpoint: expected http"),
        ("s3://bucket?checksum=md5", "checksum: expected crc32 or none"),
        ("s3://bucket?storage_class=DEEP_ARCHIVE", "cannot be read without hours"),
        ("s3://bucket?attempts=0", "attempts: expected a whole number from 1 to 100"),
        ("s3://bucket?part_size=1e9", "part_size: expected a whole number"),
        ("s3://bucket?connect_timeout=nan", "connect_timeout: expected seconds"),
        ("s3://bucket?read_timeout=x", "read_timeout: expected seconds"),
        ("s3://bucket?ca_bundle=ca.pem", "ca_bundle: expected an absolute path"),
    ],
)
def test_malformed_urls(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_destination(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hunter2@bucket/prefix",
        "s3://hunter2@bucket",
        "file://user:hunter2@host/path",
        "http://user:hunter2@host",
        "s3://bucket?endpoint=http://user:hunter2@host:9000",
        "s3://bucket?secret_key=hunter2",
    ],
)
def test_secrets_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_destination(url)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("value", [True, 2.0, None, [2], "2 ", "²"])
def test_values_of_a_wrong_type(value: object) -> None:
    with pytest.raises(ConfigError, match="uploads: expected a whole number"):
        parse_destination("s3://bucket", {"uploads": value})


def test_a_file_destination_takes_no_table() -> None:
    with pytest.raises(ConfigError, match="no options"):
        parse_destination("file:///a", {"region": "x"})


def test_journals_of_two_destinations_are_apart(tmp_path: Path) -> None:
    journal = tmp_path / "state" / "uploads"
    for name in ("one", "two"):
        store = open_store(parse_destination((tmp_path / name).as_uri()), journal)
        store.create("key", [b""])
        store.close()
    assert len(list(journal.parent.iterdir())) == 2


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_limits_reach_the_store(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    url = tmp_path.as_uri() if kind == "directory" else str(request.getfixturevalue("seaweed_url"))
    with closing(open_store(parse_destination(url), limits=Limits(upload=100_000, download=200_000))) as store:
        for transfer, least in (
            (lambda: store.create("key", [bytes(50_000)]), 0.37),
            (lambda: [*store.read("key")], 0.12),
        ):
            started = time.monotonic()
            transfer()
            assert time.monotonic() - started >= least


def test_reading_a_url_does_not_import_boto3() -> None:
    script = (
        "import sys; from archiver.stores.destination import parse_destination as p; p('s3://bucket');"
        "sys.exit('boto3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2]).returncode == 0
