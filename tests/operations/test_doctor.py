"""archiver doctor: finds what would stop a backup or a restore, and changes nothing."""

import shutil
from collections.abc import Callable

import pytest

from tests.environment.live import heed_holder, writer
from tests.operations.scene import Done, Scene, archiver, tree


def examine(scene: Scene) -> Done:
    return archiver("doctor", "--config", str(scene.config), "--json")


def problems(done: Done) -> list[tuple[str, str]]:
    return [(item["severity"], item["subject"]) for item in done.document if item["severity"] != "ok"]


def test_all_is_well_and_nothing_is_changed(scene: Scene) -> None:
    before = tree(scene.root)
    done = examine(scene)
    assert (done.code, problems(done)) == (0, [])
    subjects = {item["subject"].split()[0] for item in done.document}
    assert subjects == {"signing", "destination", "vault", "environment", "media"}
    assert tree(scene.root) == before


def lose_environment(scene: Scene) -> None:
    (scene.data / "vector/data.mdb").unlink()


def corrupt_environment(scene: Scene) -> None:
    (scene.data / "vector/data.mdb").write_bytes(bytes(8192))


def lose_media(scene: Scene) -> None:
    scene.media.rename(scene.data / "elsewhere")


def lose_vault(scene: Scene) -> None:
    next(scene.destination.rglob("*.age")).unlink()


def lose_destination(scene: Scene) -> None:
    shutil.rmtree(scene.destination)


def lose_signing_key(scene: Scene) -> None:
    (scene.root / "archiver-signing.key").unlink()


def distrust_own_key(scene: Scene) -> None:
    lines = scene.config.read_text().splitlines(keepends=True)
    scene.config.write_text("".join("trusted = []\n" if line.startswith("trusted") else line for line in lines))


def open_signing_key(scene: Scene) -> None:
    (scene.root / "archiver-signing.key").chmod(0o644)


@pytest.mark.parametrize(
    ("spoil", "severity", "subject", "code"),
    [
        (lose_environment, "error", "environment vector of prod", 1),
        (corrupt_environment, "error", "environment vector of prod", 1),
        (lose_media, "error", "media of prod", 1),
        (lose_vault, "error", "vault of prod", 1),
        (lose_destination, "error", "destination", 1),
        (lose_signing_key, "error", "signing key", 1),
        (distrust_own_key, "error", "signing key", 1),
        (open_signing_key, "warning", "signing key", 3),
    ],
)
def test_what_it_finds(scene: Scene, spoil: Callable[[Scene], None], severity: str, subject: str, code: int) -> None:
    spoil(scene)
    done = examine(scene)
    assert done.code == code
    ((found_severity, found_subject),) = problems(done)
    assert found_severity == severity
    assert found_subject.startswith(subject)


def test_live_processes(scene: Scene) -> None:
    with writer(scene.data / "live"), heed_holder(scene.data / "graph"):
        scene.config.write_text(scene.config.read_text().replace(str(scene.data / "vector"), str(scene.data / "live")))
        done = examine(scene)
    assert problems(done) == [("error", "environment graph of prod")]
    live = next(item for item in done.document if item["subject"].startswith("environment vector"))
    assert "locked" in live["message"]
