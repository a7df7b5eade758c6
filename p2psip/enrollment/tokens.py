"""Join tokens: one line of text with all that a new node must know to enroll."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..security.identity import PublicKey

_PREFIX = "p2psip1."
_MAXIMUM = 4096


def key_fingerprint(public_key: PublicKey) -> bytes:
    """SHA-256 of a public key's DER SubjectPublicKeyInfo: how tokens and accounts name keys."""
    return sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class TokenError(ValueError):
    """The text is not a join token; says what is wrong with it, never what it contains."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Where to enroll, whom to believe there, and the account and one-time password to do it with."""

    overlay: str
    urls: Sequence[str]
    """Base URLs of the configuration and enrollment servers, 'https://192.0.2.1:8443', best first."""
    server_key: bytes
    """SHA-256 of the SubjectPublicKeyInfo of the servers' certificate."""
    account: str
    password: str

    def __repr__(self) -> str:
        return f"<JoinToken for {self.account} of {self.overlay}>"

    def encode(self) -> str:
        """The token as one line of URL-safe text."""
        fields = [self.overlay, list(self.urls), self.server_key.hex(), self.account, self.password]
        text = json.dumps(fields, separators=(",", ":"))
        return _PREFIX + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token; blanks around it and line breaks within it (from a mail, say) do no harm.

        :raises TokenError: it is not one.
        """
        text = "".join(text.split())
        if not text.startswith(_PREFIX):
            raise TokenError(f"a join token starts with {_PREFIX!r}")
        if len(text) > _MAXIMUM:
            raise TokenError(f"a join token has at most {_MAXIMUM} characters")
        body = text.removeprefix(_PREFIX)
        try:
            fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            overlay, urls, key, account, password = fields
            server_key = bytes.fromhex(key)
        except (ValueError, TypeError, RecursionError) as e:
            raise TokenError("the join token is damaged: was all of it copied?") from e
        texts = [overlay, account, password]
        if not (isinstance(urls, list) and all(isinstance(t, str) for t in [*texts, *urls])):
            raise TokenError("the join token is damaged: a field has the wrong type")
        if len(server_key) != 32 or not urls or not all(u.startswith("https://") for u in urls):
            raise TokenError("the join token names no server that can be trusted")
        return cls(overlay, tuple(urls), server_key, account, password)
