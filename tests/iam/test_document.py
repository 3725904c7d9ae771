"""docs/iam/README.md shows what the tests try."""

import json
import re
import subprocess

import pytest

from archiver.crypto.kms import encryption_context
from tests.iam.policies import DIRECTORY, Authorization, Policy, allows, fill_in, load_policy, with_contents

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
    assert STATEMENTS.keys() == {"UseKey", "OpenVaults", "SealVaults"}


def test_the_statement_for_an_encrypted_bucket() -> None:
    # The bucket's deny for all else must not take it away again.
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        assert allows(with_statement("backup-host", "UseKey"), Authorization(action, KEY))


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
