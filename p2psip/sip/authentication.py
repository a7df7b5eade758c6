"""Who sent a request: digest challenges, and checks that slow down guessing (RFC 3261 §22)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from ..throttle import Throttle, source_key
from .digest import (
    ALGORITHMS,
    DigestChallenge,
    DigestCredentials,
    NonceMint,
    NonceVerdict,
    is_digest,
    same_uri,
    verify_response,
)
from .domain import Domain
from .errors import Refused, SIPFailure, SIPParseError, Unavailable, UnknownUser
from .grammar import check_utf8
from .interfaces import ICredentials
from .message import Request
from .uri import parse_uri

_MOST_TRUSTED = 65536
_MD5_ONLY = ("baresip v0.", "baresip v1.", "baresip v2.")
"""How those phones call themselves that fail when one of several challenges has an algorithm unknown to them."""


class Challenged(SIPFailure):
    """401: who sends this has to prove who it is."""

    status = 401


class ProxyChallenged(Challenged):
    """407: who wants this passed on has to prove who it is (RFC 3261 §22.3)."""

    status = 407


class _Asking(NamedTuple):
    """Where credentials stand, and how they are asked for."""

    credentials: str
    challenge: str
    failure: type[Challenged]


_SERVER = _Asking("Authorization", "WWW-Authenticate", Challenged)
_PROXY = _Asking("Proxy-Authorization", "Proxy-Authenticate", ProxyChallenged)


class Proven(NamedTuple):
    """Who sent a request, as its digest proves."""

    user: str
    device: str


class Authenticator:
    """Checks digest credentials of requests of one domain, whose name is the realm.

    Failures are counted per source address and per account.  Attempts on an account count before their outcome is
    known, so that many at once are not free; a source from which an account has proved itself before is not
    slowed down by what others try on that account.  `algorithms` are those offered, the preferred first.
    `counters` count by cause.
    """

    def __init__(
        self,
        domain: Domain,
        credentials: ICredentials,
        mint: NonceMint,
        by_source: Throttle | None = None,
        by_account: Throttle | None = None,
        algorithms: Sequence[str] = ALGORITHMS,
    ) -> None:
        self._domain = domain
        self._credentials = credentials
        self._mint = mint
        self._by_source = Throttle(free=20) if by_source is None else by_source
        self._by_account = Throttle(free=10, ceiling=60.0) if by_account is None else by_account
        self._algorithms = algorithms
        self._trusted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.counters: Counter[str] = Counter()

    async def authenticate(self, request: Request, host: str, now: float, proxy: bool = False) -> Proven:
        """Who sent `request` from `host`, to a server or (`proxy`) by way of one.

        :raises Challenged: the response has to ask for (other) credentials.
        :raises Unavailable: too many wrong ones came, or the secrets cannot be had now.
        :raises SIPParseError: the credentials are malformed.
        """
        asking = _PROXY if proxy else _SERVER
        proof = self._own_credentials(request, asking)
        if proof is None:
            self.counters["challenged"] += 1
            raise self._challenge(request, asking, now)
        source = source_key(host)
        self._wait(self._by_source.delay(source, now), "source slowed down")
        verdict = self._mint.judge(proof.nonce, proof.nc, now)
        if verdict is not NonceVerdict.GOOD:
            self.counters[f"nonce {verdict.value}"] += 1
            raise self._challenge(request, asking, now, stale=True)
        if proof.algorithm not in self._algorithms or proof.qop != "auth" or proof.nc is None:
            self.counters["digest not as asked"] += 1
            raise self._challenge(request, asking, now)
        self._check_uri(proof, request)
        return Proven(proof.username, await self._check_digest(proof, proof.nc, request, asking, source, now))

    async def _check_digest(
        self, proof: DigestCredentials, nc: str, request: Request, asking: _Asking, source: str, now: float
    ) -> str:
        """The device that `proof` is of."""
        account = proof.username
        trusted = (account, source) in self._trusted
        if not trusted:
            self._wait(self._by_account.delay(account, now), "account slowed down")
            self._by_account.failed(account, now)
        try:
            known = await self._credentials.credentials(account, proof, request.method)
        except (UnknownUser, Refused):
            known = []
        except BaseException:
            self._by_account.forgive(account)
            raise
        name = next(
            (
                device.device
                for device in known
                if device.algorithm == proof.algorithm and verify_response(proof, request.method, device.ha1)
            ),
            None,
        )
        if name is None:
            self.counters["wrong credentials"] += 1
            self._by_source.failed(source, now)
            raise self._challenge(request, asking, now)
        if not self._mint.use(proof.nonce, nc):
            self.counters["nonce stale"] += 1  # used meanwhile, while the secrets were fetched
            raise self._challenge(request, asking, now, stale=True)
        self._by_account.succeeded(account)
        self._trusted[account, source] = None
        if not trusted and len(self._trusted) > _MOST_TRUSTED:
            self._trusted.popitem(last=False)
        return name

    def _own_credentials(self, request: Request, asking: _Asking) -> DigestCredentials | None:
        """The request's credentials for our realm; those for others are none of our business."""
        for value in request.headers.get(asking.credentials, ()):
            if is_digest(value):
                proof = DigestCredentials.parse(value)
                if proof.realm == self._domain.name:
                    check_utf8(proof.username)
                    return proof
        return None

    def _check_uri(self, proof: DigestCredentials, request: Request) -> None:
        """The digest is for this Request-URI (RFC 3261 §22.4), or for the server itself, as some phones have it."""
        if same_uri(proof.uri, request.uri_text):
            return
        try:
            if self._domain.covers(parse_uri(proof.uri)):
                return
        except SIPParseError:
            pass
        self.counters["digest for another uri"] += 1
        raise SIPFailure(400, "Digest For Another URI")

    def _wait(self, seconds: float, cause: str) -> None:
        if seconds > 0:
            self.counters[cause] += 1
            raise Unavailable("Too Many Attempts", ceil(seconds))

    def _offered(self, request: Request) -> Sequence[str]:
        """The algorithms of the challenges, the preferred first, but so that the phone can take them.

        RFC 8760 s2.4 wants an unknown algorithm ignored.  Old phones look at the first challenge only (such often
        do not say who they are), or give up if any is unknown.
        """
        phone = request.get("User-Agent")
        if phone is None:
            return sorted(self._algorithms, key=lambda algorithm: algorithm != "MD5")
        if phone.lower().startswith(_MD5_ONLY) and "MD5" in self._algorithms:
            return ("MD5",)
        return self._algorithms

    def _challenge(self, request: Request, asking: _Asking, now: float, stale: bool = False) -> Challenged:
        nonce = self._mint.make(now)
        return asking.failure(
            headers=tuple(
                (
                    asking.challenge,
                    str(DigestChallenge(self._domain.name, nonce, algorithm, ("auth",), None, stale)),
                )
                for algorithm in self._offered(request)
            )
        )
