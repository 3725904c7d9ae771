"""An issuer of web identity tokens, as a Kubernetes cluster is one, whose public key a token service can fetch."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.servers.answering import Answer, Question, answering

_KEY_ID = "1"


class Issuer:
    """Signs JSON web tokens (RFC 7519) with RS256; ``url`` is what they call it."""

    def __init__(self, url: str, key: rsa.RSAPrivateKey) -> None:
        self.url = url
        self._key = key

    def token(self, subject: str, audience: str, seconds: int = 3600) -> str:
        """A token that is valid for ``seconds``; negative: that has expired so long ago."""
        now = int(time.time())
        header = {"alg": "RS256", "typ": "JWT", "kid": _KEY_ID}
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": now - 7200, "exp": now + seconds}
        signed = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_encode(signature)}"


@contextmanager
def issuer() -> Iterator[Issuer]:
    """An issuer that publishes its key until the end of the block."""
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    published = {
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID, "n": _number(numbers.n), "e": _number(numbers.e),
    }  # fmt: skip

    def answer(question: Question) -> Answer:
        if question.target != "/keys":
            return Answer(status=404)
        return Answer(json.dumps({"keys": [published]}).encode(), fields={"Content-Type": "application/json"})

    with answering(answer) as server:
        yield Issuer(server.endpoint, key)


def _number(value: int) -> str:
    return _encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
