"""docs/iam/README.md shows what the tests try."""

import json
import re
import subprocess

import pytest

from archiver.config import DEFAULT_CLASSES
from archiver.crypto.kms import encryption_context
from tests.iam.cases import CASES
from tests.iam.policies import (
    BUCKET,
    DIRECTORY,
    PREFIX,
    ROLES,
    Authorization,
    Policy,
    allows,
    fill_in,
    load_policy,
    with_contents,
)

TEXT = (DIRECTORY / "README.md").read_text("utf-8")


def test_the_line_for_the_auditor_is_the_one_that_is_tried() -> None:
    (line,) = re.findall(r'`("arn:aws:s3:::\S+contents\S+")`', TEXT)
    given = load_policy("auditor")["Statement"]
    changed = with_contents(load_policy("auditor"))["Statement"]
    (old, new) = next((old, new) for old, new in zip(given, changed, strict=True) if old != new)
    assert old["Sid"] == "ReadPublicFiles"
    assert new["Resource"] == [*old["Resource"], json.loads(line)]


STATEMENTS = {
    statement["Sid"]: statement
    for statement in map(json.loads, re.findall(r"^```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
}
KEY = "arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"


def with_statement(role: str, name: str) -> Policy:
    policy = load_policy(role)
    policy["Statement"].append(STATEMENTS[name])
    return policy


def test_every_statement_is_tried() -> None:
    assert STATEMENTS.keys() == {"UseKey", "OpenVaults", "SealVaults", "DenyLongLocks"}


def test_the_statement_for_an_encrypted_bucket() -> None:
    # The bucket's deny for all else must not take it away again.
    for role in ("backup-host", "administrator"):
        for action in ("kms:GenerateDataKey", "kms:Decrypt"):
            assert allows(with_statement(role, "UseKey"), Authorization(action, KEY))


@pytest.mark.parametrize("role", ROLES)
def test_who_creates_needs_data_keys(role: str) -> None:
    """S3 asks for kms:GenerateDataKey for each object that is created in a bucket with SSE-KMS."""
    creates = any(role in case.roles for case in CASES if case.call.operation in ("PutObject", "CopyObject"))
    (sentence,) = re.findall(r"Add this statement to the policies of the ([a-z ]+)\.", " ".join(TEXT.split()))

    assert creates == (role.replace("-", " ") in sentence.split(" and the "))


def test_the_limit_on_locks() -> None:
    policy = load_policy("backup-host")
    limit = {name: value for name, value in STATEMENTS["DenyLongLocks"].items() if name != "Principal"}
    longest = int(limit["Condition"]["NumericGreaterThan"]["s3:object-lock-remaining-retention-days"])
    # That of the default classes, with a day for the rounding and for the hour that archiver adds.
    assert longest == max(term.keep + term.lease for term in DEFAULT_CLASSES.values()) + 1
    policy["Statement"].append(limit)

    def locked(days: int | None) -> bool:
        context = {} if days is None else {"s3:object-lock-remaining-retention-days": str(days)}
        key = f"arn:aws:s3:::{BUCKET}/{PREFIX}/daily/data/prod/00.tar.zst.age"
        return allows(policy, Authorization("s3:PutObjectRetention", key, context))

    assert [locked(days) for days in (None, longest, longest + 1, 36500)] == [True, True, False, False]


def context(source: str) -> dict[str, str]:
    """How AWS describes a request about a vault of ``source``: by its encryption context, as archiver makes it."""
    made = encryption_context(source, "0011223344556677")
    return {f"kms:EncryptionContext:{name}": value for name, value in made.items()}


@pytest.mark.parametrize(
    ("role", "name", "action"),
    [("restore-host", "OpenVaults", "kms:Decrypt"), ("administrator", "SealVaults", "kms:Encrypt")],
)
def test_the_statements_for_an_operator_in_kms(role: str, name: str, action: str) -> None:
    policy = with_statement(role, name)
    assert allows(policy, Authorization(action, KEY, context("SOURCE")))
    for denied in (
        Authorization(action, KEY, context("other")),
        Authorization(action, KEY),
        Authorization(action, KEY.replace("KEY-ID", "OTHER"), context("SOURCE")),
        Authorization({"kms:Decrypt": "kms:Encrypt", "kms:Encrypt": "kms:Decrypt"}[action], KEY, context("SOURCE")),
        Authorization("kms:ScheduleKeyDeletion", KEY, context("SOURCE")),
    ):
        assert not allows(policy, denied)


def test_filling_in() -> None:
    command = next(line for line in TEXT.splitlines() if line.startswith("sed "))
    done = subprocess.run(
        ["bash", "-c", command.removesuffix("> policy.json")], cwd=DIRECTORY, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == fill_in(load_policy("backup-host"), "my-bucket", "prod")
