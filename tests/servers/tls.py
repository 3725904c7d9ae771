"""A private certificate authority, as companies have one, and certificates of servers that it signs."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files."""

    chain: Path
    key: Path


class Authority:
    """Signs certificates; ``bundle`` is the file that those who trust it name. All files lie in ``directory``."""

    def __init__(self, directory: Path, name: str = "private authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._now = datetime.datetime.now(datetime.UTC)
        own = (
            self._builder(self._name, self._key, valid_until=self._now + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = directory / f"{name.replace(' ', '-')}.pem"
        self.bundle.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def certificate(self, *hosts: str, expired: bool = False) -> Certificate:
        """A certificate for ``hosts``, names or addresses, that ends tomorrow, or ended yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        signed = (
            self._builder(_name(hosts[0]), key, valid_until=self._now + (-_DAY if expired else _DAY))
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = f"{hosts[0]}-expired" if expired else hosts[0]
        files = Certificate(self._directory / f"{stem}.crt", self._directory / f"{stem}.key")
        files.chain.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, valid_until: datetime.datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - 3 * _DAY)
            .not_valid_after(valid_until)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
