"""``archiver lifecycle export``."""

import json
from pathlib import Path

import click

from archiver.cli.options import PathArgument, command, config_option
from archiver.cli.output import Output


@command("export", example="archiver lifecycle export --format terraform --output terraform/archiver.auto.tfvars.json")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terraform", "json"]),
    required=True,
    help="terraform: the variables of the module in terraform/. json: what aws s3api "
    "put-bucket-lifecycle-configuration takes.",
)
@click.option("--output", "path", type=PathArgument(dir_okay=False), help="Write it there; default: print it.")
@config_option
def export(*, output: Output, config: Path | None, form: str, path: Path | None) -> None:
    """Write the rules down for another tool. Needs no network.

    That tool replaces all rules of the bucket: what others have in it must be in its own configuration. So must what
    is left of a class: keep its table in archiver.toml, with every = "never", until archiver list --all shows nothing
    in it, and then for its lease and ten days more.
    """
    from archiver.config import find_config, load_config
    from archiver.operations.lifecycle_export import lifecycle_configuration, terraform_variables

    loaded = load_config(find_config(config))
    value = terraform_variables(loaded) if form == "terraform" else lifecycle_configuration(loaded)
    text = json.dumps(value, indent=2)
    if path is not None:
        path.write_text(f"{text}\n")
        output.document({"file": str(path)})
        output.line(f"wrote {path}")
    else:
        output.document(value)
        output.line(text)
