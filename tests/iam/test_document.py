"""docs/iam/README.md shows what the tests try."""

import json
import re
import subprocess

from tests.iam.policies import DIRECTORY, Authorization, allows, fill_in, load_policy, with_contents

TEXT = (DIRECTORY / "README.md").read_text("utf-8")


def test_the_line_for_the_auditor_is_the_one_that_is_tried() -> None:
    (line,) = re.findall(r'`("arn:aws:s3:::\S+contents\S+")`', TEXT)
    given = load_policy("auditor")["Statement"]
    changed = with_contents(load_policy("auditor"))["Statement"]
    (old, new) = next((old, new) for old, new in zip(given, changed, strict=True) if old != new)
    assert old["Sid"] == "ReadPublicFiles"
    assert new["Resource"] == [*old["Resource"], json.loads(line)]


def test_the_statement_for_kms() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    policy = load_policy("backup-host")
    policy["Statement"].append(json.loads(block))
    # The bucket's deny for all else must not take it away again.
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        assert allows(policy, Authorization(action, "arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"))


def test_filling_in() -> None:
    command = next(line for line in TEXT.splitlines() if line.startswith("sed "))
    done = subprocess.run(
        ["bash", "-c", command.removesuffix("> policy.json")], cwd=DIRECTORY, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == fill_in(load_policy("backup-host"), "my-bucket", "prod")
