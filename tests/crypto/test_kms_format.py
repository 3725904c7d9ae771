"""What may stand for a key of AWS KMS, and in a ``.kms`` file, which anybody may have written."""

import base64
import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.crypto import kms
from archiver.crypto.kms import MAX_CIPHERTEXT, KmsFile, KmsKey, encryption_context, kms_open, parse_kms
from archiver.errors import FormatError, StorageError
from tests.servers.answering import Answer, answering
from tests.servers.process import REPOSITORY

KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VALID: dict[str, Any] = {
    "version": 1,
    "key": KEY,
    "context": encryption_context("prod", "0011223344556677"),
    "ciphertext": "AQID",
}


def edited(**changes: Any) -> bytes:
    """A valid file with other fields."""
    return json.dumps(VALID | changes).encode()


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        (KEY, "kms.eu-central-1.amazonaws.com"),
        ("arn:aws:kms:us-east-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab", "kms.us-east-1.amazonaws.com"),
        ("arn:aws:kms:ap-southeast-2:123456789012:alias/team/backups_2", "kms.ap-southeast-2.amazonaws.com"),
        (KEY.replace("aws:kms:eu-central-1", "aws-cn:kms:cn-north-1"), "kms.cn-north-1.amazonaws.com.cn"),
        (KEY.replace("aws:kms:eu-central-1", "aws-us-gov:kms:us-gov-west-1"), "kms.us-gov-west-1.amazonaws.com"),
        # botocore has such names of old.
        (KEY.replace("eu-central-1", "fips-us-east-1"), "kms-fips.us-east-1.amazonaws.com"),
        (KEY.replace("eu-central-1", "eu-nowhere-9"), "kms.eu-nowhere-9.amazonaws.com"),
    ],
)
def test_a_key_names_its_service(monkeypatch: pytest.MonkeyPatch, arn: str, host: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    key = KmsKey.parse(arn)
    assert str(key) == arn
    client = kms._connect(key)
    assert client.meta.endpoint_url == f"https://{host}"
    client.close()


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"])
def test_the_environment_may_name_the_service(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    monkeypatch.setenv(name, "https://vpce-1234.kms.example")
    client = kms._connect(KmsKey.parse(KEY))
    assert client.meta.endpoint_url == "https://vpce-1234.kms.example"
    client.close()


BAD_ARNS = [
    "",
    "alias/archiver-test",
    "1234abcd-12ab-34cd-56ef-1234567890ab",
    *(
        KEY.replace("eu-central-1", region)
        for region in (
            "", "-", "x", "eu-central", "eu-central-1.example.com", "eu-central-1@example.com", "eu-central-1/",
            "eu-central-1#", "eu-central-1%2f", "EU-central-1", "eu-central-1\n", "example.com", "localhost-1",
            "aws-global", "us-east-1-fips", "a-b-c-d-1", "é-central-1",
        )
    ),
    KEY.replace("arn:aws:", "arn:evil:"),
    KEY.replace("kms", "s3"),
    KEY.replace("123456789012", "12345678901"),
    KEY.replace("123456789012", "12345678901\u0661"),
    KEY.replace("key/", "key/../"),
    KEY.replace("key/", "grant/"),
    KEY + "\n",
    KEY + "?",
    " " + KEY,
    KEY + "0" * 2048,
]  # fmt: skip


@pytest.mark.parametrize("arn", BAD_ARNS)
def test_refuses_what_is_no_key(arn: str) -> None:
    with pytest.raises(FormatError, match="not the ARN of a KMS key"):
        KmsKey.parse(arn)
    with pytest.raises(FormatError, match="malformed kms file"):
        parse_kms(edited(key=arn))


def test_an_alias_is_no_key_in_a_file() -> None:
    alias = "arn:aws:kms:eu-central-1:123456789012:alias/archiver-test"
    KmsKey.parse(alias)
    with pytest.raises(FormatError, match="malformed kms file"):
        parse_kms(edited(key=alias))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2}, {"version": "1"}, {"version": None}, {"context": {"archiver:source": 1}}, {"context": []},
        {"ciphertext": ""}, {"ciphertext": "AQI"}, {"ciphertext": "AQ-_"}, {"ciphertext": "AQID\n"}, {"ciphertext": 1},
        {"ciphertext": base64.b64encode(bytes(MAX_CIPHERTEXT + 1)).decode()}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_refuses_a_malformed_file(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="malformed kms file"):
        parse_kms(edited(**changes))


@pytest.mark.parametrize("field", VALID)
def test_refuses_a_file_that_lacks_a_field(field: str) -> None:
    with pytest.raises(FormatError, match=field):
        parse_kms(json.dumps({name: value for name, value in VALID.items() if name != field}).encode())


def test_the_largest_ciphertext() -> None:
    largest = base64.b64encode(bytes(MAX_CIPHERTEXT)).decode()
    assert parse_kms(edited(ciphertext=largest)).ciphertext == bytes(MAX_CIPHERTEXT)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def parses_or_refuses(data: bytes) -> None:
    """``parse_kms`` raises nothing but ``FormatError``, and what it takes is within the limits."""
    try:
        parsed = parse_kms(data)
    except FormatError:
        return
    assert KmsKey.parse(parsed.key).region
    assert 1 <= len(parsed.ciphertext) <= MAX_CIPHERTEXT


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_there_is_parses_or_is_refused(data: bytes) -> None:
    parses_or_refuses(data)


@given(st.dictionaries(st.sampled_from([*VALID, "more"]), JSON, max_size=3))
def test_any_other_field_parses_or_is_refused(changes: dict[str, Any]) -> None:
    parses_or_refuses(edited(**changes))


@given(st.data())
def test_any_other_byte_parses_or_is_refused(data: st.DataObject) -> None:
    valid = json.dumps(VALID).encode()
    start = data.draw(st.integers(0, len(valid)))
    end = data.draw(st.integers(start, len(valid)))
    parses_or_refuses(valid[:start] + data.draw(st.binary(max_size=8)) + valid[end:])


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(FormatError, match="malformed kms file"):
        parse_kms(b'{"context":' + b"[" * 60_000)


VECTORS = json.loads((REPOSITORY / "tests" / "vectors" / "kms.json").read_text("utf-8"))


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["comment"])
def test_a_vector_is_refused_before_anything_is_sent_or_asked_for(
    monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    with answering(lambda _: Answer(b'{"__type": "AccessDeniedException"}', 400)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", server.endpoint)
        with pytest.raises(StorageError if case["asks"] else FormatError):
            kms_open(case["file"].encode(), encryption_context(VECTORS["source"], VECTORS["vault"]))
    assert len(server.questions) == case["asks"]


def test_the_document_names_every_field_and_limit() -> None:
    text = (REPOSITORY / "docs" / "FORMAT.md").read_text("utf-8")
    section = text.split("\n**A `.kms` file** ")[1].split("\n**")[0].split("\nThe **")[0]
    fields = {field.encode_name for field in msgspec.structs.fields(KmsFile)}
    assert fields | set(VALID["context"]) <= set(re.findall(r"`([\w:]+)`", section))
    assert f"1 to {MAX_CIPHERTEXT:,} bytes" in section
    (command,) = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert ",".join(f"{name}=" for name in VALID["context"]) in re.sub(r"=[\w-]+", "=", command)
