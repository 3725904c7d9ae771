"""checkov has nothing to say about terraform/, but for what .checkov.yaml skips, with reasons."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.servers.process import ServerError
from tests.terraform import checkov
from tests.terraform.hcl import TERRAFORM


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    try:
        checkov.install()
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def failed(directory: Path) -> set[str]:
    return {str(check["check_id"]) for check in checkov.scan(directory)}


def test_nothing_fails() -> None:
    assert failed(TERRAFORM) == set()


def test_what_is_skipped_would_fail_and_a_mistake_does(tmp_path: Path) -> None:
    copy = tmp_path / "terraform"
    shutil.copytree(TERRAFORM, copy, ignore=shutil.ignore_patterns(".terraform*"))
    config = copy / ".checkov.yaml"
    skipped = set(re.findall(r"^ {2}- (CKV\S+)", config.read_text(), re.MULTILINE))
    config.write_text("framework:\n  - terraform\n")
    bucket = copy / "bucket.tf"
    bucket.write_text(bucket.read_text().replace("block_public_acls       = true", "block_public_acls       = false"))

    assert skipped
    assert failed(copy) == skipped | {"CKV_AWS_53", "CKV2_AWS_6"}
