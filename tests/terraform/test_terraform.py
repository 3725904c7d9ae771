"""With Terraform itself, where it is installed: it comes from none of the registries that the scripts install from.

``ARCHIVER_TERRAFORM_PLUGINS`` names a directory with the AWS provider, as ``terraform providers mirror`` makes it.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from archiver.config import DEFAULT_CLASSES
from archiver.operations.lifecycle_export import lifecycle_configuration
from tests.servers.process import REPOSITORY, S3Server
from tests.terraform.hcl import MODULES, TERRAFORM
from tests.terraform.lifecycle import BUCKET, backups_module, lifecycle_rules
from tests.terraform.test_lifecycle import by_name, configured, exported

PREFIX = "prod/a"
ROOT = """
provider "aws" {
  region                 = "eu-central-1"
  s3_use_path_style      = true
  skip_region_validation = true
}
provider "aws" {
  alias                  = "replica"
  region                 = "eu-west-1"
  s3_use_path_style      = true
  skip_region_validation = true
}
variable "classes" {}
variable "prefix" {}
module "backups" {
  source         = "./terraform"
  bucket         = "terraform-backups"
  classes        = var.classes
  prefix         = var.prefix
  object_lock    = "governance"
  create_kms_key = true
}
module "replication" {
  source                   = "./terraform/replication"
  providers                = { aws = aws, aws.replica = aws.replica }
  bucket                   = module.backups.bucket
  replica_bucket           = "terraform-replica"
  classes                  = var.classes
  prefix                   = var.prefix
  object_lock              = "governance"
  kms                      = { key_arn = module.backups.kms_key_arn }
  replication_time_control = true
}
"""
OWN = {"Sid": "Own", "Effect": "Deny", "Principal": "*", "Action": "s3:PutObjectTagging", "Resource": "*"}
Terraform = Callable[..., str]


@pytest.fixture
def terraform(monkeypatch: pytest.MonkeyPatch) -> Terraform:
    """Runs Terraform in a directory and gives its output; a failure fails the test."""
    binary = shutil.which("terraform")
    if binary is None:
        pytest.skip("terraform is not installed")
    monkeypatch.setenv("CHECKPOINT_DISABLE", "1")
    monkeypatch.setenv("TF_CLI_CONFIG_FILE", os.devnull)

    def run(directory: Path, *arguments: str, given: str = "") -> str:
        done = subprocess.run([binary, *arguments], cwd=directory, input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def plugins() -> str:
    """For terraform init -plugin-dir."""
    found = os.environ.get("ARCHIVER_TERRAFORM_PLUGINS")
    if not found:
        pytest.skip("ARCHIVER_TERRAFORM_PLUGINS names no directory with the AWS provider")
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """terraform/ and what it reads, for whichever version of the provider there is."""
    shutil.copytree(TERRAFORM, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*", "*.tfvars*"))
    shutil.copytree(REPOSITORY / "docs" / "iam", tmp_path / "docs" / "iam")
    for versions in tmp_path.rglob("versions.tf"):
        versions.write_text(versions.read_text().replace('"~> 6.0"', '">= 5.100"'))
    return tmp_path


def test_all_files_are_formatted(terraform: Terraform) -> None:
    terraform(TERRAFORM, "fmt", "-check", "-diff", "-recursive")


def test_terraform_evaluates_the_rules_as_the_evaluator_here_does(terraform: Terraform, tmp_path: Path) -> None:
    """The module without its resources, which need no provider then."""
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    rules, _ = (TERRAFORM / "lifecycle.tf").read_text().split("\nresource ")
    (tmp_path / "lifecycle.tf").write_text(rules)
    variables = exported(configured(DEFAULT_CLASSES, PREFIX))
    (tmp_path / "archiver.auto.tfvars.json").write_text(json.dumps(variables))
    (tmp_path / "bucket.auto.tfvars").write_text('bucket = "b"\n')

    answer = terraform(tmp_path, "console", given="jsonencode([local.rule_prefix, local.expiring, local.tidying])\n")

    begin, expiring, tidying = json.loads(json.loads(answer))
    theirs = {f"{begin}-{name}": (rule["prefix"], rule["days"]) for name, rule in expiring.items()}
    theirs |= {f"{begin}-{name}": (prefix, None) for name, prefix in tidying.items()}
    ours = {
        rule["ID"]: (rule["Filter"]["Prefix"], rule["Expiration"].get("Days")) for rule in lifecycle_rules(variables)
    }
    assert theirs == ours


@pytest.mark.parametrize("object_lock", [None, "governance"])
@pytest.mark.parametrize("further", [[], [OWN, {**OWN, "Sid": "Other", "Condition": {"Bool": {"a:b": "true"}}}]])
def test_terraform_evaluates_the_bucket_s_policy_as_the_evaluator_here_does(
    terraform: Terraform, tmp_path: Path, object_lock: str | None, further: list[dict[str, Any]]
) -> None:
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    locals_, resource = (TERRAFORM / "bucket.tf").read_text().split('\nresource "aws_s3_bucket_policy" "this" {')
    begin = locals_.index("locals {")
    policy = resource.partition("policy = ")[2].partition("\n\n")[0].replace("aws_s3_bucket.this.arn", "local.arn")
    (tmp_path / "policy.tf").write_text(
        f'{locals_[begin:]}\nlocals {{\n  arn = "arn:aws:s3:::{BUCKET}"\n  policy = {policy}\n}}\n'
    )
    variables = exported(configured(DEFAULT_CLASSES, PREFIX)) | {
        "bucket": BUCKET, "object_lock": object_lock, "policy_statements": further,
    }  # fmt: skip
    (tmp_path / "archiver.auto.tfvars.json").write_text(json.dumps(variables))

    answer = terraform(tmp_path, "console", given="local.policy\n")

    ours = backups_module(variables).resource("aws_s3_bucket_policy", "this")["policy"]
    assert json.loads(json.loads(answer)) == json.loads(ours)


@pytest.mark.parametrize("wrong", [["x"], [{"Sid": "OnlyThat"}], "x", {"a": OWN, "b": "x"}])
def test_terraform_refuses_what_is_no_statement(terraform: Terraform, tmp_path: Path, wrong: Any) -> None:
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    variables = exported(configured(DEFAULT_CLASSES, PREFIX)) | {"bucket": BUCKET, "policy_statements": wrong}
    (tmp_path / "archiver.auto.tfvars.json").write_text(json.dumps(variables))

    with pytest.raises(AssertionError, match=r"policy_statements|Iteration over non-iterable"):
        terraform(tmp_path, "plan", "-input=false")


@pytest.mark.slow
def test_the_examples_are_valid(terraform: Terraform, plugins: str, copy: Path) -> None:
    examples = [path for path in MODULES if "examples" in path.parts]
    assert examples
    for path in examples:
        directory = copy / path.relative_to(REPOSITORY)
        terraform(directory, "init", "-input=false", f"-plugin-dir={plugins}")
        terraform(directory, "validate")


@pytest.mark.slow
def test_localstack_has_the_rules_of_lifecycle_apply(
    terraform: Terraform,
    plugins: str,
    copy: Path,
    localstack_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two buckets with Object Lock, KMS and replication, applied; and a second apply has nothing to do."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", localstack_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", localstack_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", localstack_server.secret_key)
    config = configured(DEFAULT_CLASSES, PREFIX)
    (copy / "main.tf").write_text(ROOT)
    (copy / "archiver.auto.tfvars.json").write_text(json.dumps(exported(config)))

    terraform(copy, "init", "-input=false", f"-plugin-dir={plugins}")
    terraform(copy, "apply", "-auto-approve", "-input=false")
    terraform(copy, "plan", "-input=false", "-detailed-exitcode")

    client = boto3.client("s3", region_name="eu-central-1")
    wanted: Any = lifecycle_configuration(config)["Rules"]
    for bucket in ("terraform-backups", "terraform-replica"):
        found: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert by_name(found) == by_name(wanted)
        lock = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
        assert lock == {"ObjectLockEnabled": "Enabled"}
    (rule,) = client.get_bucket_replication(Bucket="terraform-backups")["ReplicationConfiguration"]["Rules"]
    assert rule["Filter"] == {"Prefix": f"{PREFIX}/"}
    assert rule["DeleteMarkerReplication"] == {"Status": "Disabled"}
