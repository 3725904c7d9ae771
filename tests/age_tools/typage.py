"""npm's age-encryption (typage): the one other implementation here that knows post-quantum recipients.

Each call starts node. Texts are recipients and identities as age writes them.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.age_tools.installation import AgeTools

SECONDS = 120


class TypageError(Exception):
    """age-encryption refused; the message is its own."""


@dataclass(frozen=True)
class Typage:
    """Drives ``typage.mjs``."""

    tools: AgeTools

    def generate(self, *, post_quantum: bool) -> str:
        """A new identity."""
        return self._run("generate", {"postQuantum": post_quantum}).decode("ascii")

    def recipient(self, identity: str) -> str:
        """The recipient of ``identity``."""
        return self._run("recipient", {"identity": identity}).decode("ascii")

    def encrypt(
        self,
        plaintext: bytes,
        recipients: Sequence[str] = (),
        *,
        passphrase: str | None = None,
        work_factor: int | None = None,
    ) -> bytes:
        """An age file. Raises ``TypageError`` when it is refused."""
        options = {"recipients": list(recipients), "passphrase": passphrase, "workFactor": work_factor}
        return self._run("encrypt", options, plaintext)

    def decrypt(self, sealed: bytes, identities: Sequence[str] = (), *, passphrase: str | None = None) -> bytes:
        """The plaintext of an age file. Raises ``TypageError`` when it is refused."""
        return self._run("decrypt", {"identities": list(identities), "passphrase": passphrase}, sealed)

    def _run(self, command: str, options: Mapping[str, object], data: bytes = b"") -> bytes:
        done = subprocess.run(
            [str(self.tools.node), str(self.tools.directory / "typage.mjs"), command, json.dumps(options)],
            input=data,
            capture_output=True,
            timeout=SECONDS,
        )
        if done.returncode:
            raise TypageError(done.stderr.decode("utf-8", "replace"))
        return done.stdout
