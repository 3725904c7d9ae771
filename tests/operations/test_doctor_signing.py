"""What archiver doctor says of the signing keys."""

from archiver.config import load_config
from archiver.crypto.minisign import SigningKey
from archiver.operations.doctor import examine
from archiver.operations.findings import Finding
from tests.operations.scene import Scene


def findings(scene: Scene) -> dict[str, Finding]:
    """By their subjects' first words."""
    found = examine(load_config(scene.config))
    return {finding.subject.partition(" key")[0]: finding for finding in found if " key" in finding.subject}


def test_the_trusted_keys_are_told_and_a_revoked_one_of_its_own_is_an_error(scene: Scene) -> None:
    own = SigningKey.parse((scene.root / "archiver-signing.key").read_text()).verify_key
    others = [SigningKey.generate().verify_key for _ in range(2)]
    assert "trusted signing" not in findings(scene)
    text = scene.config.read_text().replace(f'"{own}"', ", ".join(f'"{key}"' for key in (own, *others)))
    scene.config.write_text(f'{text}\n[signing.revoked]\n"{others[1]}" = 2026-11-20\n')
    trusted = findings(scene)["trusted signing"]
    assert trusted.severity == "ok"
    assert trusted.message == f"{others[0].key_id}, {others[1].key_id} until 2026-11-20T00:00:00Z"
    assert findings(scene)["signing"].message == f"signs as {own.key_id}"
    scene.config.write_text(f'{text}\n[signing.revoked]\n"{own}" = 2026-11-20\n')
    finding = findings(scene)["signing"]
    assert finding.severity == "error"
    assert finding.message == f"{own.key_id} is revoked since 2026-11-20T00:00:00Z: it signs no backup"
