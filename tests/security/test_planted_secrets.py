"""Secrets that are known to the test are looked for wherever archiver says, writes or sends something.

``test_detector.py`` proves that they would be found there; ``test_planted_places.py`` looks for them in files, in the
destination and in process listings, ``test_planted_network.py`` beside a network.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver.crypto.keys import generate_identity
from tests.security.planting import Planted, altered, check, plant

MODES = ((), ("--verbose",), ("--json", "--verbose"))
ACCESS = ("--identity", "{card}")
BOB = str(generate_identity(post_quantum=False).recipient)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("planted"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and the directory for temporary files are the test's own."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path


def filled(planted: Planted, arguments: tuple[str, ...], out: Path) -> list[str]:
    scene = planted.scene
    places = {"config": scene.config, "card": scene.card, "hybrid": planted.hybrid, "out": out, "home": planted.home}
    return [argument.format_map(places) for argument in arguments]


@pytest.mark.parametrize("mode", MODES, ids=["plain", "verbose", "json"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("doctor", "--config", "{config}"),
        ("backup", "--config", "{config}"),
        ("backup", "--config", "{config}", "--dry-run"),
        ("list", *ACCESS),
        ("show", "latest", *ACCESS),
        ("ls", "latest", *ACCESS),
        ("verify", *ACCESS),
        ("verify", "--all", "--level", "data", *ACCESS),
        ("verify", "--level", "restore", *ACCESS),
        ("restore", "--to", "{out}", *ACCESS),
        ("restore", "--to", "{out}", "--dry-run", *ACCESS),
        ("restore", "--to", "{out}", "--identity", "{hybrid}", "--config", "{config}"),
        ("keys", "generate", "--output", "{out}"),
        ("keys", "generate", "--signing", "--output", "{out}"),
        ("keys", "show", *ACCESS, "--config", "{config}"),
        ("keys", "check", *ACCESS, "--config", "{config}"),
        ("keys", "add", "bob", "--recipient", BOB, "--dry-run", *ACCESS, "--config", "{config}"),
        ("keys", "remove", "test", "--dry-run", "--identity", "{hybrid}", "--config", "{config}"),
        ("keys", "rotate", "--dry-run", *ACCESS, "--config", "{config}"),
        ("keys", "card", "--output", "{out}", *ACCESS, "--config", "{config}"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_command_that_succeeds(
    planted: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], mode: tuple[str, ...]
) -> None:
    said = planted.run(monkeypatch, *filled(planted, arguments, tmp_path / "out"), *mode)
    # doctor may warn of the machine that this runs on, and two operators are not in the configuration.
    check(planted, said, *((0, 3) if arguments[0] in ("doctor", "keys") else (0,)))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_cat_says_what_it_was_asked_for_and_nothing_else(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = planted.scene
    path = next(path for path in scene.media.glob("*/*")).relative_to(scene.media)
    said = planted.run(monkeypatch, "cat", "latest", f"media/{path}", "--identity", str(scene.card), "--verbose")
    assert said.done.raw == (scene.media / path).read_bytes()
    said.done = type(said.done)(said.done.code, b"", said.done.errors)
    check(planted, said, 0)


# What goes wrong.


Breaker = Callable[[Planted], contextlib.AbstractContextManager[object]]


def find(planted: Planted, pattern: str) -> Path:
    """The newest of the objects whose keys match ``pattern``."""
    return max(planted.scene.root.parent.glob(f"destination/{pattern}"), key=lambda path: path.stat().st_mtime_ns)


def flipped(pattern: str, position: int = -1) -> Breaker:
    def breaker(planted: Planted) -> contextlib.AbstractContextManager[None]:
        path = find(planted, pattern)
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        return altered(path, bytes(data))

    return breaker


@contextlib.contextmanager
def all_flipped(planted: Planted, pattern: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for path in sorted(planted.scene.root.parent.glob(f"destination/{pattern}")):
            data = path.read_bytes()
            stack.enter_context(altered(path, data[:-1] + bytes([data[-1] ^ 1])))
        yield


def spoiled(name: str, change: Callable[[bytes], bytes]) -> Breaker:
    """One of the scene's own files, or ``hybrid``, is another one."""

    def breaker(planted: Planted) -> contextlib.AbstractContextManager[None]:
        path = planted.hybrid if name == "hybrid" else planted.scene.root / name
        return altered(path, change(path.read_bytes()))

    return breaker


def secret_in_config(before: bytes) -> Breaker:
    """The secret of a key pair stands where its public half should."""

    def breaker(planted: Planted) -> contextlib.AbstractContextManager[None]:
        path = planted.scene.config
        name = "archiver-signing.key" if b"trusted" in before else "card.txt"
        secret = (planted.scene.root / name).read_bytes().split()[-1]
        head, _, rest = path.read_bytes().partition(before)
        return altered(path, head + before + secret + b'"' + rest.partition(b'"')[2])

    return breaker


def in_the_code(target: str, error: Exception) -> Breaker:
    """A bug: something deep inside raises what nobody expects."""

    @contextlib.contextmanager
    def breaker(_: Planted) -> Iterator[None]:
        def fail(*_arguments: object, **_named: object) -> None:
            raise error

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(target, fail)
            yield

    return breaker


def nothing(_: Planted) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def cut_last_line(data: bytes) -> bytes:
    """The last letter of the secret is lost."""
    return data.rstrip()[:-1] + b"\n"


def misspelt(data: bytes) -> bytes:
    """The secret in the wrong letter case."""
    head, separator, last = data.rstrip().rpartition(b"\n")
    return head + separator + last.lower() + b"\n"


RESTORE = ("restore", "--to", "{out}", *ACCESS)
BACKUP = ("backup", "--config", "{config}")
HYBRID = ("restore", "--to", "{out}", "--identity", "{hybrid}", "--config", "{config}")


@pytest.mark.parametrize("mode", MODES, ids=["plain", "verbose", "json"])
@pytest.mark.parametrize(
    ("breaker", "arguments", "code"),
    [
        # The signing key is no identity, and the card no signing key.
        (nothing, ("show", "--identity", "{config}", "--config", "{config}"), 2),
        (nothing, ("show", "--identity", "{home}", "--config", "{config}"), 2),
        (nothing, ("keys", "generate", "--output", "{hybrid}"), 6),
        (nothing, ("init", "--to", "file:///x", "--source", "x", "--recipient", "{card}"), 2),
        (flipped("*/backups/*/*/manifest.json", 40), RESTORE, 4),
        (flipped("*/backups/*/*/manifest.json.minisig", -10), RESTORE, 4),
        (flipped("*/data/*/*.contents.*"), RESTORE, 4),
        (flipped("*/data/*/*.objects.*"), ("verify", *ACCESS), 4),
        (lambda planted: all_flipped(planted, "*/data/*/*.tar.*"), RESTORE, 4),
        (lambda planted: all_flipped(planted, "*/data/*/*.mdb.*"), ("verify", "--level", "data", *ACCESS), 4),
        (lambda planted: all_flipped(planted, "vault/*/*/*"), RESTORE, 4),
        (spoiled("archiver.toml", lambda data: data + b"[signing\n"), BACKUP, 2),
        (spoiled("archiver.toml", lambda data: data.replace(b'vault = "age1', b'vault = "age1x')), BACKUP, 2),
        (spoiled("archiver.toml", lambda data: b"\xff" + data), BACKUP, 2),
        (secret_in_config(b'vault = "'), BACKUP, 2),
        (secret_in_config(b'test = "'), BACKUP, 2),
        (secret_in_config(b'trusted = ["'), BACKUP, 2),
        (spoiled("card.txt", cut_last_line), RESTORE, 2),
        (spoiled("card.txt", misspelt), RESTORE, 2),
        (spoiled("card.txt", lambda data: data + b"\xff"), RESTORE, 2),
        (spoiled("card.txt", lambda data: data.replace(b"# source: ", b"# source: x\n# source: ")), RESTORE, 2),
        (spoiled("hybrid", cut_last_line), HYBRID, 2),
        (spoiled("hybrid", misspelt), HYBRID, 2),
        (spoiled("hybrid", lambda data: data.replace(b"AGE-", b"\xc4GE-")), HYBRID, 2),
        (spoiled("archiver-signing.key", cut_last_line), BACKUP, 2),
        (spoiled("archiver-signing.key", lambda data: data.replace(b"RW", b"RX")), BACKUP, 2),
        (spoiled("archiver-signing.key", lambda data: data + b"\xff"), BACKUP, 2),
        (spoiled("archiver-signing.key", lambda data: data * 2), BACKUP, 2),
        (in_the_code("archiver.crypto.x25519.X25519Identity.unwrap", RuntimeError("a bug")), RESTORE, 1),
        (in_the_code("archiver.crypto.bech32._to_bytes", TypeError("a bug")), RESTORE, 1),
        (in_the_code("archiver.crypto.vault.parse_identities", KeyError("a bug")), RESTORE, 1),
        (in_the_code("archiver.crypto.minisign.SigningKey._secret", ValueError("a bug")), BACKUP, 1),
        (in_the_code("archiver.operations.backup.encode_manifest", AssertionError("a bug")), BACKUP, 1),
    ],
)
def test_a_command_that_fails(
    planted: Planted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaker: Breaker,
    arguments: tuple[str, ...],
    code: int,
    mode: tuple[str, ...],
) -> None:
    with breaker(planted):
        said = planted.run(monkeypatch, *filled(planted, arguments, tmp_path / "out"), *mode)
    check(planted, said, code)
