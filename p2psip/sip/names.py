"""What the DNS says, kept for as long as it may be (RFC 1034, RFC 2308)."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime, IResolver
from twisted.logger import Logger
from twisted.names import client, dns, hosts, resolve
from twisted.names.error import AuthoritativeDomainError, DNSNameError
from twisted.python.failure import Failure

from .errors import Unavailable

MOST_KNOWN: Final = 4000
"""Answers that are kept; those that were used longest ago give way."""
MOST_ASKED: Final = 256
"""Questions that are open at once."""
SECONDS: Final = 4.0
"""That one question may take."""
MOST_RECORDS: Final = 32
"""Of one answer, that are looked at."""
MOST_ALIASES: Final = 8
"""CNAMEs that are followed one after the other."""
LONGEST: Final = 86400
"""Seconds that an answer is kept, whatever its TTL."""
LONGEST_NEGATIVE: Final = 300
UNKNOWN_NEGATIVE: Final = 30
"""Seconds that it is kept that there is nothing, where no SOA record says how long."""

_FILE: Final = "/etc/resolv.conf"
_RESEND: Final = (1, 2)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")


class Answer(NamedTuple):
    """What there is of one type under one name."""

    records: Sequence[Any]
    """Payloads such as dns.Record_SRV; empty: there is none."""
    exists: bool
    """Whether there is anything at all under the name."""


NOTHING: Final = Answer((), False)


class _Servers(client.Resolver):
    """The name servers of this machine; whether they have changed is looked at when they are asked."""

    _looked = 0.0

    def maybeParseConfig(self) -> None:
        if self.resolv is None:
            return
        super().maybeParseConfig()  # type: ignore[no-untyped-call]
        self._parseCall.cancel()
        self._looked = self._reactor.seconds()

    def query(self, query: dns.Query, timeout: Sequence[int] | None = None) -> Deferred[Any]:
        if self._reactor.seconds() - self._looked >= self._resolvReadInterval:
            self.maybeParseConfig()
        asked: Deferred[Any] = super().query(query, timeout)  # type: ignore[no-untyped-call]
        return asked


def system_resolver(reactor: Any, server: tuple[str, int] | None = None) -> IResolver:
    """The hosts file and name servers of this machine, or `server` in place of these.

    It has no cache: `Names` has one, which is bounded.
    """
    made: Any = _Servers
    servers = made(servers=[server], reactor=reactor) if server else made(_FILE, reactor=reactor)
    return resolve.ResolverChain([hosts.Resolver(), servers])


def canonical(name: str) -> str | None:
    """A domain name in lower case, without the dot at its end; None where it cannot be one."""
    name = name.removesuffix(".").lower()
    return name if _NAME.match(name) else None


class Names:
    """Asks a resolver, bounded in number and time, and remembers.

    :param resolver: whom to ask.
    :param clock: tells the time.
    """

    log = Logger()

    def __init__(self, resolver: IResolver, clock: IReactorTime) -> None:
        self._resolver: Any = resolver
        self._clock = clock
        self._known: OrderedDict[tuple[str, int], tuple[Answer, float]] = OrderedDict()
        self._asked: dict[tuple[str, int], list[Deferred[Answer]]] = {}
        self.counters: Counter[str] = Counter()

    def lookup(self, name: str, kind: int) -> Deferred[Answer]:
        """What there is of type `kind` (dns.SRV, ...) under `name`, aliases followed.

        Fails with Unavailable where nobody says.
        """
        canonical_name = canonical(name)
        if canonical_name is None:
            return succeed(NOTHING)
        key = canonical_name, kind
        known = self._known.get(key)
        if known is not None and self._clock.seconds() < known[1]:
            self._known.move_to_end(key)
            return succeed(known[0])
        waiting: Deferred[Answer] = Deferred()
        if key in self._asked:
            self._asked[key].append(waiting)
        elif len(self._asked) >= MOST_ASKED:
            self.counters["too many questions"] += 1
            waiting.errback(Unavailable("Too Many Names"))
        else:
            self._asked[key] = [waiting]
            asking = Deferred.fromCoroutine(self._ask(canonical_name, kind))
            asking.addTimeout(SECONDS, self._clock)
            asking.addErrback(self._unavailable)
            asking.addBoth(self._tell, key)
        return waiting

    def _tell(self, outcome: Answer | Failure, key: tuple[str, int]) -> None:
        for waiting in self._asked.pop(key):
            if not waiting.called:
                waiting.callback(outcome)

    def _unavailable(self, failure: Failure) -> Failure:
        self.counters["unanswered"] += 1
        self.log.debug("a name cannot be looked up now: {error}", error=failure.getErrorMessage())
        return Failure(Unavailable("DNS Unavailable"))

    async def _ask(self, name: str, kind: int) -> Answer:
        owner, lives = name, float(LONGEST)
        for _ in range(MOST_ALIASES):
            try:
                answers, authority, _ = await self._resolver.query(dns.Query(owner, kind, dns.IN), _RESEND)
            except (DNSNameError, AuthoritativeDomainError) as error:
                soa = getattr(getattr(error, "message", None), "authority", ())
                return self._keep(name, kind, NOTHING, min(lives, _negative(soa)))
            end, found, seconds = _follow(owner, kind, answers)
            lives = min(lives, seconds)
            if found:
                return self._keep(name, kind, Answer(found, True), lives)
            if end == owner:
                return self._keep(name, kind, Answer((), True), min(lives, _negative(authority)))
            owner = end
        raise Unavailable("Too Many Aliases")

    def _keep(self, name: str, kind: int, answer: Answer, seconds: float) -> Answer:
        if seconds > 0:
            self._known[name, kind] = answer, self._clock.seconds() + seconds
            self._known.move_to_end((name, kind))
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return answer


def _follow(owner: str, kind: int, answers: Sequence[Any]) -> tuple[str, tuple[Any, ...], float]:
    """The name at the end of the aliases in `answers`, its records of type `kind`, and how long that holds."""
    lives = float(LONGEST)
    for _ in range(MOST_ALIASES):
        here = [header for header in answers[: 2 * MOST_RECORDS] if text_of(header.name) == owner]
        found = [header for header in here if header.type == kind][:MOST_RECORDS]
        if found:
            return owner, tuple(h.payload for h in found), min(lives, *(h.ttl for h in found))
        alias = next((header for header in here if header.type == dns.CNAME), None)
        target = text_of(alias.payload.name) if alias is not None else None
        if alias is None or target is None:
            break
        owner, lives = target, min(lives, alias.ttl)
    return owner, (), lives


def _negative(authority: Sequence[Any]) -> float:
    """Seconds that an answer without records may be kept (RFC 2308 §5)."""
    seconds = [min(header.ttl, header.payload.minimum) for header in authority if header.type == dns.SOA]
    return min(LONGEST_NEGATIVE, *seconds) if seconds else UNKNOWN_NEGATIVE


def text_of(name: dns.Name) -> str | None:
    """A name in a record, as `canonical` has it; None for the root, and for what cannot be looked up."""
    return canonical(name.name.decode("ascii", "replace"))
