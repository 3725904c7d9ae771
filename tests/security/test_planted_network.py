"""Secrets of the network: AWS credentials and a proxy's password are told to nobody but who they are for."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.crypto.kms import KmsKey
from archiver.crypto.vault import seal_vault
from tests.operations.scene import SOURCE, finish, spawn
from tests.security.detector import Detector, Secret
from tests.security.house import vault_identity
from tests.security.planting import Planted, check, plant, stored
from tests.security.processes import watched
from tests.servers.forward_proxy import forward_proxy
from tests.servers.kms import KmsService
from tests.servers.process import S3Server, free_ports
from tests.stores.s3_help import endpoint_of

MODE = "--verbose"
IMPATIENT = "&attempts=2&connect_timeout=1&read_timeout=1"


class Network:
    """A source with a backup in S3, and the secrets that its commands need."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path, url: str) -> None:
        self._monkeypatch = monkeypatch
        self.url = url
        self.out = root / "out"
        self.planted = plant(root / "planted", url)

    def set(self, variable: str, secret: str, value: str = "{}") -> None:
        """Put ``secret`` into the environment; from now on it is looked for."""
        self._monkeypatch.setenv(variable, value.format(secret))
        self.planted.secrets.append(Secret(variable, "key", secret.encode(), (secret,)))

    def try_all(self, *codes: int, url: str = "") -> None:
        """Run commands of every kind."""
        scene = self.planted.scene
        scene.config.write_text(scene.config.read_text().replace(self.url, url or self.url))
        place = ("--identity", str(scene.card), "--from", url or self.url)
        for arguments in (
            ("doctor", "--config", str(scene.config)),
            ("backup", "--config", str(scene.config)),
            ("list", *place),
            ("show", *place),
            ("verify", "--level", "data", *place),
            ("restore", "--to", str(self.out), "--force", *place),
        ):
            said = self.planted.run(self._monkeypatch, *arguments, MODE)
            # doctor answers with 1 where it finds something wrong, and with 3 where it warns.
            check(self.planted, said, *codes, *((1, 3) if arguments[0] == "doctor" else ()))

    def look_around(self) -> None:
        """In the destination, and in all of archiver's own files."""
        scene = self.planted.scene
        detector = Detector(secret for secret in self.planted.secrets if "_" in secret.name)
        for path in (*scene.state.rglob("*"), scene.config, scene.card):
            if path.is_file():
                assert detector.find_stored(path.name, path.read_bytes()) == set(), path


def found_in_store(planted: Planted) -> set[str]:
    return {name for key, data in stored(planted.scene) for name in planted.detector.find_stored(key, data)}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, localstack_url: str) -> Network:
    """LocalStack, which takes any credentials."""
    return Network(monkeypatch, tmp_path, localstack_url)


def test_credentials_that_are_good(network: Network, tmp_path: Path) -> None:
    network.set("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20))
    network.set("AWS_SESSION_TOKEN", secrets.token_hex(100))
    network.try_all(0)
    network.look_around()
    assert found_in_store(network.planted) == set()
    config, card = network.planted.scene.config, network.planted.scene.card
    for arguments in (("backup", "--config", str(config)), ("verify", "--level", "data", "--identity", str(card))):
        with watched(spawn(*arguments)) as watch:
            watch.wait_for(arguments[0])
            done = finish(watch.process)
        assert done.code == 0, done.errors
        assert network.planted.detector.find(watch.seen) == set()
        assert network.planted.detector.find(done.raw + done.errors.encode(), "key", "content") == set()


def test_credentials_that_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seaweed_url: str, seaweed_server: S3Server
) -> None:
    network = Network(monkeypatch, tmp_path, seaweed_url)
    network.set("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20))
    network.try_all(7)
    # They are found where the right ones are not tried.
    network.set("AWS_SESSION_TOKEN", secrets.token_hex(100))
    network.try_all(7)
    network.look_around()


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("form", ["{}\n", "{}\nx-injected: value", "{} \u00fc"], ids=["line break", "header", "letter"])
def test_credentials_that_cannot_be_sent(network: Network, variable: str, form: str) -> None:
    """A line break at the end of a token, as a file of variables may give it, made the HTTP client repeat the token
    in its message, which was then logged and tried again for a minute."""
    network.set(variable, form.format(secrets.token_hex(20)))
    network.try_all(7)
    network.look_around()


def test_an_endpoint_that_is_unreachable(network: Network) -> None:
    network.set("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20))
    nobody = f"http://127.0.0.1:{free_ports(1)}"
    network.try_all(7, url=network.url.replace(endpoint_of(network.url), nobody) + IMPATIENT)
    network.look_around()


def test_a_proxy_with_a_password(network: Network) -> None:
    password = secrets.token_hex(20)
    with forward_proxy(f"user:{password}") as proxy:
        network.set("HTTP_PROXY", password, proxy.url("user:{}"))
        network.try_all(0)
        assert proxy.forwarded
        assert proxy.refused == []
    network.look_around()


@pytest.mark.parametrize("kind", ["refuses", "unreachable", "malformed"])
def test_a_proxy_that_does_not_work(network: Network, kind: str) -> None:
    password = secrets.token_hex(20)
    url = network.url + IMPATIENT
    if kind == "refuses":
        with forward_proxy("user:another") as proxy:
            network.set("HTTP_PROXY", password, proxy.url("user:{}"))
            network.try_all(7, url=url)
            assert proxy.refused
    elif kind == "unreachable":
        network.set("HTTP_PROXY", password, f"http://user:{{}}@127.0.0.1:{free_ports(1)}")
        network.try_all(7, url=url)
    else:
        network.set("HTTP_PROXY", password, "http://user:{}/@127.0.0.1:x")
        network.try_all(2, url=url)
    network.look_around()


@pytest.mark.parametrize("trouble", ["none", "token", "proxy", "unreachable"])
def test_kms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kms: KmsService, trouble: str) -> None:
    """A vault of a directory is opened by KMS, which the same secrets lead to."""
    planted = plant(tmp_path)
    vault = vault_identity(planted.scene)
    arn = kms.key()
    for path in planted.scene.root.parent.glob("destination/vault/*/*/*"):
        path.unlink()
    path.with_name("aws.kms").write_bytes(seal_vault(vault, KmsKey(arn), SOURCE))
    secret = secrets.token_hex(20)
    planted.secrets.append(Secret("network", "key", secret.encode(), (secret,)))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    variable, value = {
        "none": ("AWS_SESSION_TOKEN", secret),
        "token": ("AWS_SESSION_TOKEN", f"{secret}\n"),
        "proxy": ("HTTP_PROXY", f"http://user:{secret}@127.0.0.1:{free_ports(1)}"),
        "unreachable": ("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{free_ports(1)}"),
    }[trouble]
    monkeypatch.setenv(variable, value)
    for mode in (MODE, "--json"):
        command = ("verify", "--level", "data", "--kms", "--config", str(planted.scene.config), mode)
        check(planted, planted.run(monkeypatch, *command), 0 if trouble == "none" else 7)


@pytest.fixture
def kms(localstack_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsService]:
    service = KmsService(localstack_server, monkeypatch)
    yield service
    service.close()


@pytest.mark.parametrize("place", ["s3://key:{}@bucket/prefix", "s3://bucket?endpoint=http://user:{}@127.0.0.1:1"])
def test_a_url_with_a_password(network: Network, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """It is refused, and what was refused is not repeated."""
    secret = secrets.token_hex(20)
    network.planted.secrets.append(Secret("URL", "key", secret.encode(), (secret,)))
    for command in (("list", "--from"), ("init", "--media", "x", "--to")):
        said = network.planted.run(monkeypatch, *command, place.format(secret), "--source", SOURCE, MODE)
        check(network.planted, said, 2)
