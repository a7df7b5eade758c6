"""Digest access authentication for SIP, both sides (RFC 7616, RFC 8760, RFC 3261 §22).

Only qop=auth is offered and accepted: RFC 2069's digests without nonce-count could be replayed at will.  Passwords
never come in here but as H(A1), except on the client side.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from .errors import SIPParseError
from .grammar import TOKEN_CHARACTERS, quote, unquote
from .uri import parse_uri

ALGORITHMS = ("SHA-256", "MD5")
"""What is understood, what is preferred first (RFC 8760 §2.4)."""

_HASHES: tuple[tuple[str, Callable[..., Any]], ...] = (("SHA-256", hashlib.sha256), ("MD5", hashlib.md5))
_NONCE = re.compile(r"([0-9a-f]{1,12})\.([0-9a-f]{32,40})\.([0-9a-f]{1,16})\.([0-9a-f]{32})\Z").match
_PARAMETERS = re.compile(
    rf'[ \t]*([{TOKEN_CHARACTERS}]++)[ \t]*+=[ \t]*+("(?:[^"\\]++|\\.)*+"|[^",\s]++)[ \t]*+(?:,|\Z)|(.+)', re.DOTALL
).findall
"""One parameter after the other, and at last what is none."""
_HEX = re.compile(r"[0-9a-fA-F]+\Z").match
_MOST_AUTH_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class DigestChallenge:
    """A WWW-Authenticate or Proxy-Authenticate value of the scheme Digest."""

    realm: str
    nonce: str
    algorithm: str = "MD5"
    qop: tuple[str, ...] = ("auth",)
    opaque: str | None = None
    stale: bool = False

    def __str__(self) -> str:
        text = f"Digest realm={quote(self.realm)}, nonce={quote(self.nonce)}, algorithm={self.algorithm}"
        if self.qop:
            text += f", qop={quote(','.join(self.qop))}"
        if self.opaque is not None:
            text += f", opaque={quote(self.opaque)}"
        return f"{text}, stale=true" if self.stale else text

    @classmethod
    def parse(cls, text: str) -> DigestChallenge:
        """:raises SIPParseError: it is malformed, or of another scheme."""
        found = parse_digest(text)
        if "realm" not in found or "nonce" not in found:
            raise SIPParseError("a challenge without realm or nonce")
        return cls(
            found["realm"],
            found["nonce"],
            found.get("algorithm", "MD5"),
            tuple(part.strip().lower() for part in found.get("qop", "").split(",") if part.strip()),
            found.get("opaque"),
            found.get("stale", "").lower() == "true",
        )


class DigestCredentials(NamedTuple):
    """An Authorization or Proxy-Authorization value of the scheme Digest."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    """In lower case."""
    algorithm: str = "MD5"
    """As `ALGORITHMS` spells it, where it is one of them."""
    qop: str | None = None
    nc: str | None = None
    """Eight hexadecimal digits, as received: they are part of what is hashed."""
    cnonce: str | None = None
    opaque: str | None = None

    def __str__(self) -> str:
        text = (
            f"Digest username={quote(self.username)}, realm={quote(self.realm)}, nonce={quote(self.nonce)}, "
            f'uri={quote(self.uri)}, response="{self.response}", algorithm={self.algorithm}'
        )
        if self.qop is not None:
            text += f", qop={self.qop}, nc={self.nc}, cnonce={quote(self.cnonce or '')}"
        return text if self.opaque is None else f"{text}, opaque={quote(self.opaque)}"

    @classmethod
    def parse(cls, text: str) -> DigestCredentials:
        """:raises SIPParseError: it is malformed, or of another scheme."""
        found = parse_digest(text)
        for name in ("username", "realm", "nonce", "uri", "response"):
            if name not in found:
                raise SIPParseError(f"credentials without {name}")
        if _HEX(found["response"]) is None:
            raise SIPParseError("a digest response that is not hexadecimal")
        qop, nc = found.get("qop"), found.get("nc")
        if qop is not None and (nc is None or "cnonce" not in found or len(nc) != 8 or _HEX(nc) is None):
            raise SIPParseError("credentials with qop but without nc or cnonce")
        algorithm = found.get("algorithm", "MD5")
        return cls(
            found["username"],
            found["realm"],
            found["nonce"],
            found["uri"],
            found["response"].lower(),
            algorithm.upper() if algorithm.upper() in ALGORITHMS else algorithm,
            qop.lower() if qop is not None else None,
            nc,
            found.get("cnonce"),
            found.get("opaque"),
        )


def is_digest(text: str) -> bool:
    """Whether an Authorization or WWW-Authenticate value is of the scheme Digest."""
    return text[:7].lower() == "digest "


def parse_digest(text: str) -> dict[str, str]:
    """The parameters of a Digest challenge or of Digest credentials, unquoted, names in lower case."""
    if not is_digest(text):
        raise SIPParseError("another scheme than Digest")
    found: dict[str, str] = {}
    for name, value, other in _PARAMETERS(text, 7):
        if other:
            raise SIPParseError("a malformed digest parameter")
        name = name.lower()
        if name in found:
            raise SIPParseError("a repeated digest parameter")
        found[name] = value if value[0] != '"' else unquote(value) if "\\" in value else value[1:-1]
    if not found or len(found) > _MOST_AUTH_PARAMETERS or text.rstrip().endswith(","):
        raise SIPParseError("malformed digest parameters")
    return found


def _hash(algorithm: str) -> Callable[..., Any]:
    for name, function in _HASHES:
        if name == algorithm:
            return function
    raise ValueError(f"unknown digest algorithm {algorithm}")


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(A1) in lower-case hexadecimal: what is kept in place of the password (RFC 7616 §3.4.2).

    :raises ValueError: `algorithm` is not of `ALGORITHMS`.
    """
    digest: str = _hash(algorithm)(_bytes(f"{username}:{realm}:{password}")).hexdigest()
    return digest


def digest_response(
    algorithm: str, ha1: str, method: str, uri: str, nonce: str, qop: str | None, nc: str | None, cnonce: str | None
) -> str:
    """The `response` of RFC 7616 §3.4.1, without qop that of RFC 2069."""
    function = _hash(algorithm)
    ha2 = function(_bytes(f"{method}:{uri}")).hexdigest()
    middle = nonce if qop is None else f"{nonce}:{nc}:{cnonce}:{qop}"
    digest: str = function(_bytes(f"{ha1}:{middle}:{ha2}")).hexdigest()
    return digest


def verify_response(credentials: DigestCredentials, method: str, ha1: str) -> bool:
    """Whether `credentials` were made for `method` by one who knows the password behind `ha1`.

    Nothing is said of the nonce, the realm or the uri.  False as well for an algorithm that is not of
    `ALGORITHMS`, and without qop=auth.
    """
    if credentials.algorithm not in ALGORITHMS or credentials.qop != "auth":
        return False
    expected = digest_response(
        credentials.algorithm,
        ha1,
        method,
        credentials.uri,
        credentials.nonce,
        credentials.qop,
        credentials.nc,
        credentials.cnonce,
    )
    return hmac.compare_digest(expected.encode(), _bytes(credentials.response))


def authorization_for(
    challenge: DigestChallenge,
    method: str,
    uri: str,
    username: str,
    password: str,
    cnonce: str,
    nonce_count: int = 1,
) -> DigestCredentials:
    """The client's answer to `challenge`, for a request of `method` to the Request-URI `uri`.

    :raises ValueError: the challenge asks for an algorithm or qop that is not understood.
    """
    algorithm = challenge.algorithm.upper()
    qop = "auth" if "auth" in challenge.qop else None
    if challenge.qop and qop is None:
        raise ValueError("the challenge offers no qop=auth")
    secret = ha1(algorithm, username, challenge.realm, password)
    nc = f"{nonce_count:08x}" if qop else None
    return DigestCredentials(
        username,
        challenge.realm,
        challenge.nonce,
        uri,
        digest_response(algorithm, secret, method, uri, challenge.nonce, qop, nc, cnonce),
        algorithm,
        qop,
        nc,
        cnonce if qop else None,
        challenge.opaque,
    )


def choose_challenge(values: list[str]) -> DigestChallenge | None:
    """The first of WWW-Authenticate's values that a client can answer (RFC 8760 §2.4)."""
    for value in values:
        try:
            challenge = DigestChallenge.parse(value)
        except SIPParseError:
            continue
        if challenge.algorithm.upper() in ALGORITHMS and (not challenge.qop or "auth" in challenge.qop):
            return challenge
    return None


def same_uri(one: str, other: str) -> bool:
    """Whether the digest's uri and the Request-URI name the same resource (RFC 3261 §22.4)."""
    if one == other:
        return True
    try:
        return parse_uri(one).equivalent(parse_uri(other))
    except SIPParseError:
        return False


# -- nonces ---------------------------------------------------------------------------------------------


class NonceVerdict(Enum):
    """What a server makes of a nonce."""

    GOOD = "good"
    STALE = "stale"
    """Ours, but too old or its nonce-count was used: the digest may well be right (RFC 7616 §3.3)."""
    FOREIGN = "foreign"
    """Not of our making."""


def parse_nonce(nonce: str) -> tuple[bytes, float]:
    """The Node-ID of the registrar that made `nonce`, and when (seconds since the epoch).

    Only that registrar can tell whether this is the truth; whoever else relies on it has to check by other means
    that it is that registrar who presents the nonce.

    :raises SIPParseError: it is no nonce of a registrar of ours.
    """
    match = _NONCE(nonce)
    if match is None or len(match[2]) % 2:
        raise SIPParseError("a nonce that no registrar of this overlay makes")
    return bytes.fromhex(match[2]), int(match[1], 16) / 1000


class NonceMint:
    """Makes nonces that prove themselves, and keeps the nonce-counts of those in use.

    A nonce is ``milliseconds.node_id.number.mac``, all hexadecimal.  `key` is secret and at least 16 bytes; with a
    new key all old nonces are foreign.  The table of nonce-counts holds `size` nonces: when it is full, the one
    used longest ago is given up, and with it all that are as old and not in the table, so that nothing can be
    replayed.
    """

    def __init__(self, node_id: bytes, key: bytes, lifetime: float = 3600.0, size: int = 100000) -> None:
        if len(key) < 16:
            raise ValueError("a key of less than 16 bytes")
        self._node_id = node_id.hex()
        self._key = key
        self._lifetime = lifetime
        self._size = size
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._given_up = 0.0
        self._number = 0

    def make(self, now: float) -> str:
        """A new nonce."""
        self._number = (self._number + 1) % 2**32
        text = f"{int(now * 1000):x}.{self._node_id}.{self._number:x}"
        return f"{text}.{self._mac(text)}"

    def judge(self, nonce: str, nc: str | None, now: float) -> NonceVerdict:
        """Whether `nonce` with nonce-count `nc` can still be used; nothing is noted."""
        text, _, mac = nonce.rpartition(".")
        if len(nonce) > 128 or not hmac.compare_digest(self._mac(text).encode(), _bytes(mac)):
            return NonceVerdict.FOREIGN
        made = int(text.partition(".")[0], 16) / 1000
        if not made - 60 <= now <= made + self._lifetime:
            return NonceVerdict.STALE
        last = self._counts.get(nonce)
        if last is None:
            return NonceVerdict.STALE if made <= self._given_up else NonceVerdict.GOOD
        return NonceVerdict.GOOD if nc is not None and int(nc, 16) > last else NonceVerdict.STALE

    def use(self, nonce: str, nc: str) -> bool:
        """Note that credentials with `nonce`, judged good, and `nc` were right; False if they were used meanwhile."""
        count = int(nc, 16)
        if self._counts.get(nonce, -1) >= count:
            return False
        self._counts[nonce] = count
        self._counts.move_to_end(nonce)
        while len(self._counts) > self._size:
            oldest, _ = self._counts.popitem(last=False)
            self._given_up = max(self._given_up, int(oldest.partition(".")[0], 16) / 1000)
        return True

    def _mac(self, text: str) -> str:
        return hmac.digest(self._key, _bytes(text), "sha256")[:16].hex()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


