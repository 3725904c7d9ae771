"""Ways to break a copy of the valid destination: each changes one thing, and signs anew what follows from it."""

import json
import re
from collections.abc import Callable
from typing import Any

from blake3 import blake3

from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.identities import read_identity_file
from archiver.crypto.minisign import SigningKey
from archiver.crypto.vault import seal_vault
from archiver.crypto.x25519 import X25519Identity, X25519Recipient
from archiver.stages.frames import compress, decompress
from tests.vectors.destination import CARD, SIGNING_KEY, SOURCE, VAULT

Files = dict[str, bytes]


def find(files: Files, pattern: str) -> str:
    """The first key that matches ``pattern``."""
    return next(key for key in sorted(files) if re.search(pattern, key))


def flip(files: Files, pattern: str, position: int) -> None:
    """Flip the lowest bit of the byte at ``position`` of one key."""
    key = find(files, pattern)
    data = bytearray(files[key])
    data[position] ^= 1
    files[key] = bytes(data)


def remove(files: Files, pattern: str) -> None:
    del files[find(files, pattern)]


def sign_manifest(files: Files, manifest: bytes, signer: SigningKey | None = None) -> None:
    """Replace the manifest, with a signature that is right unless ``signer`` is another key."""
    key = find(files, r"manifest\.json$")
    signer = signer or SigningKey.parse(SIGNING_KEY.read_text("utf-8"))
    comment = re.search("trusted comment: (archiver.*)", files[f"{key}.minisig"].decode())
    assert comment is not None
    files[key] = manifest
    files[f"{key}.minisig"] = signer.sign(manifest, comment[1]).encode()


def edit_manifest(files: Files, **changes: object) -> None:
    """Change fields of the manifest and sign it anew."""
    manifest = json.loads(files[find(files, r"manifest\.json$")]) | changes
    sign_manifest(files, json.dumps(manifest, indent=2).encode() + b"\n")


def vault_identity() -> X25519Identity:
    identity = read_identity_file(VAULT)[0]
    assert isinstance(identity, X25519Identity)
    return identity


def replace_list(files: Files, name: str, stored: bytes) -> None:
    """Replace contents or the objects list, and state its hash in a manifest that is signed anew."""
    files[find(files, rf"\.{name}\.jsonl\.zst")] = stored
    edit_manifest(files, **{name: {"stored_size": len(stored), "blake3": blake3(stored).hexdigest()}})


def read_lines(files: Files, name: str) -> list[dict[str, Any]]:
    stored = files[find(files, rf"\.{name}\.jsonl\.zst")]
    compressed = unseal_bytes(stored, [vault_identity()]) if name == "contents" else stored
    return [json.loads(line) for line in b"".join(decompress([compressed])).splitlines()]


def write_lines(files: Files, name: str, plaintext: bytes) -> None:
    compressed = b"".join(compress([plaintext]))
    replace_list(
        files, name, seal_bytes(compressed, [vault_identity().recipient]) if name == "contents" else compressed
    )


def edit_lines(files: Files, name: str, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    lines = read_lines(files, name)
    edit(lines)
    write_lines(files, name, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def edit_record(files: Files, path: str, /, **changes: object) -> None:
    """Change fields of the record of the file at ``path``; the first of its extents by ``extent``."""

    def edit(lines: list[dict[str, Any]]) -> None:
        record = next(line for line in lines if line.get("path") == path)
        extent = changes.pop("extent", None)
        if isinstance(extent, dict):
            record["extents"][-1] |= extent
        record.update(changes)

    edit_lines(files, "contents", edit)


def edit_placement(files: Files, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """The placement is not signed and no hash of it is stated."""
    key = find(files, r"placement\.jsonl\.zst$")
    lines = read_lines(files, "placement")
    edit(lines)
    files[key] = b"".join(compress([b"".join(json.dumps(line).encode() + b"\n" for line in lines)]))


def reseal_object(files: Files, kind: str, change: Callable[[bytes], bytes], *, restate: bool) -> None:
    """Replace an object's compressed bytes; with ``restate``, its size and hash in the objects list too."""
    key = find(files, rf"\.{kind}\.zst\.age$")
    compressed = change(unseal_bytes(files[key], [vault_identity()]))
    stored = files[key] = seal_bytes(compressed, [vault_identity().recipient])
    object_id = key.rsplit("/", 1)[1].split(".", 1)[0]

    def edit(lines: list[dict[str, Any]]) -> None:
        record = next(line for line in lines if line["id"] == object_id)
        record |= {"stored_size": len(stored), "blake3": blake3(stored).hexdigest()}

    if restate:
        edit_lines(files, "objects", edit)


def cut_object(files: Files) -> None:
    key = find(files, r"\.mdb\.zst\.age$")
    files[key] = files[key][:-1]


def alter_mac(files: Files) -> None:
    key = find(files, r"\.mdb\.zst\.age$")
    header, mark, rest = files[key].partition(b"\n--- ")
    files[key] = header + mark + (b"B" if rest.startswith(b"A") else b"A") + rest[1:]


def alter_comment(files: Files) -> None:
    key = find(files, r"\.minisig$")
    files[key] = files[key].replace(b"trusted comment: archiver", b"trusted comment: Archiver")


def hide_vault(files: Files) -> None:
    """The operator's file holds the identity of a vault that nothing was encrypted to."""
    operator = read_identity_file(CARD)[0]
    assert isinstance(operator, X25519Identity)
    assert isinstance(operator.recipient, X25519Recipient)
    files[find(files, r"^vault/")] = seal_vault(X25519Identity.generate(), operator.recipient, SOURCE)


def cut_contents(files: Files) -> None:
    replace_list(files, "contents", files[find(files, r"\.contents\.")][:-1])


def drop_last_newline(files: Files) -> None:
    text = b"".join(json.dumps(line).encode() + b"\n" for line in read_lines(files, "contents"))
    write_lines(files, "contents", text[:-1])


FURTHER = "0a1b2c3d"
"""The copy part of a key in a promoted copy."""
PROMOTED_TERMS = b'{"version":1,"keep_days":400,"lease_days":35}\n'
HELD_TERMS = b'{"version":1,"keep_days":null,"lease_days":null}\n'


def promote(files: Files, target: str, terms: bytes | None, *, lent: str = "", original: bool = False) -> None:
    """Put a copy of the backup into the class ``target``: of every three objects one lies there at its plain key, one
    at a further one, and one in the class ``lent`` or, without one, at its plain key too. Unless the ``original`` is to
    stay, it has expired."""
    lines = read_lines(files, "placement")
    for number, line in enumerate(lines):
        data = files[line["key"]]
        head, tail = line["key"].removeprefix("daily/").split(".", 1)
        name = f"{head}.{FURTHER}.{tail}" if number % 3 == 1 else f"{head}.{tail}"
        line["key"] = f"{lent if lent and number % 3 == 2 else target}/{name}"
        files[line["key"]] = data
    for key in [key for key in files if key.startswith("daily/")]:
        if key.endswith((".json", ".minisig", ".jsonl.zst", ".jsonl.zst.age")):
            files[key.replace("daily/", f"{target}/", 1)] = files[key]
    if not original:
        for key in [key for key in files if key.startswith("daily/")]:
            del files[key]
    files[find(files, rf"^{target}/.*placement")] = b"".join(
        compress([b"".join(json.dumps(line).encode() + b"\n" for line in lines)])
    )
    if terms is not None:
        files[find(files, rf"^{target}/.*manifest\.json$").replace("manifest.json", "terms.json")] = terms


def promote_without(files: Files, pattern: str) -> None:
    """A copy in ``monthly`` that refers to objects in ``yearly``; the first key that matches ``pattern`` is missing."""
    promote(files, "monthly", PROMOTED_TERMS, lent="yearly")
    remove(files, pattern)
