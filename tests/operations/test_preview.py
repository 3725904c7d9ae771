"""archiver backup --dry-run: how each environment would be taken."""

from pathlib import Path

from tests.environment.live import writer
from tests.operations.scene import Done, Scene, archiver


def preview(scene: Scene) -> Done:
    return archiver("backup", "--dry-run", "--config", str(scene.config), "--json")


def configure(scene: Scene, lines: str) -> None:
    """Add ``lines`` to the source's table."""
    text = scene.config.read_text()
    assert "[source.prod]\n" in text
    scene.config.write_text(text.replace("[source.prod]\n", f"[source.prod]\n{lines}\n"))


def test_an_external_command_is_not_run(scene: Scene, tmp_path: Path) -> None:
    (scene.data / "graph").rename(scene.data / "of another host")
    proof = tmp_path / "it was run"
    configure(scene, f'external.graph = ["touch", "{proof}"]')
    done = preview(scene)
    assert done.code == 0, done.output
    vector, graph = done.document["environments"]
    assert vector["method"] == "cold"
    assert (graph["method"], graph["bytes"]) == ("external", None)
    assert not proof.exists()
    text = archiver("backup", "--dry-run", "--config", str(scene.config)).output
    assert f"graph: unknown size, external, from {scene.data}/graph" in text


def test_a_frozen_one(scene: Scene) -> None:
    configure(scene, "frozen = true")
    assert {item["method"] for item in preview(scene).document["environments"]} == {"frozen"}


def test_what_a_backup_would_refuse(scene: Scene) -> None:
    configure(scene, "frozen = true")
    with writer(scene.data / "vector"):
        done = preview(scene)
    assert done.code == 6
    assert "declared frozen" in done.document["error"]["message"]
