"""archiver demo: the whole story, and its own proof."""

from pathlib import Path

import pytest

from archiver.errors import IntegrityError
from archiver.operations.demo import Demonstration
from archiver.progress import Silent
from tests.operations.scene import archiver


def test_it_proves_equality_and_keeps_everything_on_request(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    done = archiver("demo", "--directory", str(directory), "--json")
    assert done.code == 0, done.errors
    assert len(done.document["backups"]) == 2
    equal = done.document["equal"]
    media = sum(path.is_file() for path in (directory / "data/media").rglob("*"))
    assert media > 300
    assert (equal["databases"], equal["files"]) == (11, media)
    assert (directory / "restored/vector/data.mdb").exists()
    listed = archiver("list", "--identity", str(directory / "recovery-card.txt"), "--json")
    assert [item["backup"] for item in listed.document] == [item["backup"] for item in done.document["backups"]]
    again = archiver("demo", "--directory", str(directory))
    assert again.code == 2
    assert "exists already" in again.errors


@pytest.mark.parametrize("how", ["content", "mode", "missing", "database"])
def test_its_comparison_can_fail(tmp_path: Path, how: str) -> None:
    story = Demonstration(tmp_path, Silent())
    story.create()
    story.initialise()
    story.backup("only")
    story.restore()
    story.compare()
    victim = story.restored / "media/3.pdf"
    if how == "content":
        victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    elif how == "mode":
        victim.chmod(0o600 if victim.stat().st_mode & 0o777 != 0o600 else 0o644)
    elif how == "missing":
        victim.unlink()
    else:
        story.change()
    with pytest.raises(IntegrityError):
        story.compare()
