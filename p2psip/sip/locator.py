"""Finds the SIP servers of a domain (RFC 3263), in the order in which they are to be tried."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address
from itertools import groupby
from operator import attrgetter
from random import Random
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from .errors import NoServer, NoSuchDomain, Unavailable
from .interfaces import IServerLocator, Target
from .names import Answer, Names, text_of
from .uri import SIPURI, bare_host

SECONDS: Final = 10.0
"""That a search may take in all."""
MOST_HOSTS: Final = 8
"""Hosts of SRV records whose addresses are asked for."""
MOST_ADDRESSES: Final = 4
"""Of one host, that are tried."""
MOST_TARGETS: Final = 16

PORTS: Final = {"UDP": 5060, "TCP": 5060, "TLS": 5061}
_SERVICES: Final = {"UDP": "_sip._udp", "TCP": "_sip._tcp", "TLS": "_sips._tcp"}
_NAPTR_SERVICES: Final = {"SIP+D2U": "UDP", "SIP+D2T": "TCP", "SIPS+D2T": "TLS"}


class _Service(NamedTuple):
    """A transport, and the name under which its SRV records are."""

    transport: str
    name: str


class _Host(NamedTuple):
    transport: str
    name: str
    port: int


@implementer(IServerLocator)
class Locator:
    """Finds servers by the DNS; literal addresses need none.

    :param clock: tells the time.
    :param random: spreads requests over servers of the same priority (RFC 2782).
    :param usable: whether this machine can send to an IP address at all.
    """

    def __init__(
        self, names: Names, clock: IReactorTime, random: Random, usable: Callable[[str], bool] | None = None
    ) -> None:
        self.names = names
        self._clock = clock
        self._random = random
        self._usable = usable or has_route

    def locate(self, uri: SIPURI) -> Deferred[Sequence[Target]]:
        """The servers for `uri` in the order to be tried, at least one.

        Fails with NoSuchDomain (404), NoServer (480: none over a transport that the URI permits), or Unavailable
        (503: the DNS does not answer).
        """
        found: Deferred[Sequence[Target]] = Deferred.fromCoroutine(self._locate(uri))
        return found.addTimeout(SECONDS, self._clock, onTimeoutCancel=_too_slow)

    async def _locate(self, uri: SIPURI) -> Sequence[Target]:
        host = _host_of(uri)
        transport = _transport_of(uri)
        default = transport or ("TLS" if uri.scheme == "sips" else "UDP")
        if (literal := numeric_target(uri)) is not None:
            if not self._usable(literal.host):
                raise NoServer()
            return [literal]
        search = _Search(self.names, host, self._random)
        if uri.port is not None:
            hosts = [_Host(default, host, uri.port)]
        elif transport is not None:
            hosts = await search.servers([_Service(transport, f"{_SERVICES[transport]}.{host}")])
        else:
            hosts = await search.any_servers(["TLS"] if uri.scheme == "sips" else ["UDP", "TCP", "TLS"])
        addresses = await search.addresses(hosts[:MOST_HOSTS])
        if not any(addresses):
            raise search.failure()
        return self._targets(zip(hosts, addresses, strict=False), uri.address)

    def _targets(self, hosts: Iterable[tuple[_Host, Sequence[str]]], name: str) -> Sequence[Target]:
        """A target for each address; `name` is what a certificate has to show: the domain asked for (RFC 5922 §4)."""
        targets = dict.fromkeys(
            Target(host.transport, address, host.port, name if host.transport == "TLS" else "")
            for host, addresses in hosts
            for address in [a for a in addresses if self._usable(a)][:MOST_ADDRESSES]
        )
        if not targets:
            raise NoServer()
        return list(targets)[:MOST_TARGETS]


class _Search:
    """The questions of one search, and what to say if they lead to nothing."""

    def __init__(self, names: Names, domain: str, random: Random) -> None:
        self._names = names
        self._domain = domain
        self._random = random
        self._unanswered = False
        self._unknown = False

    def failure(self) -> Exception:
        """Why nothing was found."""
        if self._unknown:
            return NoSuchDomain()
        return Unavailable("DNS Unavailable") if self._unanswered else NoServer()

    async def any_servers(self, transports: Sequence[str]) -> list[_Host]:
        """The hosts for any of `transports`, as NAPTR records would have it; else as there are SRV records."""
        naptr = await self._ask(self._domain, dns.NAPTR)
        for services in _by_order(naptr.records, transports):
            hosts = await self.servers(services)
            if hosts:
                return hosts
        return await self.servers([_Service(each, f"{_SERVICES[each]}.{self._domain}") for each in transports])

    async def servers(self, services: Sequence[_Service]) -> list[_Host]:
        """The hosts of `services`, one service after the other; without SRV records the domain itself, by the first."""
        answers = await self._ask_all([(each.name, dns.SRV) for each in services])
        if not any(answer.records for answer in answers):
            transport = services[0].transport
            return [_Host(transport, self._domain, PORTS[transport])]
        return [
            _Host(service.transport, name, record.port)
            for service, answer in zip(services, answers, strict=True)
            for record in in_order(answer.records, self._random)
            # RFC 2782: a target of "." says that there is no such service.
            if (name := text_of(record.target)) is not None and record.port
        ]

    async def addresses(self, hosts: Sequence[_Host]) -> list[list[str]]:
        """The addresses of each of `hosts`, those of IPv6 first."""
        kinds = (dns.AAAA, dns.A)
        answers = await self._ask_all([(host.name, kind) for host in hosts for kind in kinds])
        found = [[str(ip_address(record.address)) for record in answer.records] for answer in answers]
        return [six + four for six, four in zip(found[::2], found[1::2], strict=True)]

    async def _ask_all(self, questions: Iterable[tuple[str, int]]) -> list[Answer]:
        asking = [Deferred.fromCoroutine(self._ask(name, kind)) for name, kind in questions]
        return await gatherResults(asking, consumeErrors=True)

    async def _ask(self, name: str, kind: int) -> Answer:
        try:
            answer = await self._names.lookup(name, kind)
        except Unavailable:
            # Something else may yet lead to a server: some name servers do not answer for NAPTR or AAAA.
            self._unanswered = True
            return Answer((), True)
        if name == self._domain and not answer.exists:
            self._unknown = True
        return answer


def numeric_target(uri: SIPURI) -> Target | None:
    """The server that `uri` names by its address (RFC 3263 §4.1, §4.2); None where its host is a name.

    :raises NoServer: it demands a transport that cannot be had.
    """
    try:
        address = str(ip_address(_host_of(uri)))
    except ValueError:
        return None
    transport = _transport_of(uri) or ("TLS" if uri.scheme == "sips" else "UDP")
    return Target(transport, address, uri.port or PORTS[transport], uri.address if transport == "TLS" else "")


def in_order(records: Iterable[Any], random: Random) -> Iterator[Any]:
    """SRV records in the order to be tried: by priority, among equal ones by chance and weight (RFC 2782)."""
    for _, same in groupby(sorted(records, key=attrgetter("priority")), key=attrgetter("priority")):
        # Those of weight 0 first, so that they have a very small chance.
        left = sorted(same, key=attrgetter("weight"))
        while left:
            chosen = random.randint(0, sum(record.weight for record in left))
            for index, record in enumerate(left):
                chosen -= record.weight
                if chosen <= 0:
                    yield left.pop(index)
                    break


def has_route(address: str) -> bool:
    """Whether the kernel knows a way to `address`, one host's; it sends nothing."""
    parsed = ip_address(address)
    if parsed.is_multicast or parsed.is_unspecified:
        return False
    try:
        with socket.socket(socket.AF_INET6 if parsed.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, PORTS["UDP"]))
    except OSError:
        return False
    return True


def _by_order(records: Sequence[Any], transports: Sequence[str]) -> Iterator[list[_Service]]:
    """What applicable NAPTR records name, those of the lowest order first; each list by preference (RFC 3403 §4.1)."""
    applicable = sorted(
        (
            record
            for record in records
            if _NAPTR_SERVICES.get(_word(record.service)) in transports and _word(record.flags) == "S"
        ),
        key=attrgetter("order", "preference"),
    )
    for _, same in groupby(applicable, key=attrgetter("order")):
        services = [
            _Service(_NAPTR_SERVICES[_word(record.service)], name)
            for record in same
            if not record.regexp.string and (name := text_of(record.replacement)) is not None
        ]
        if services:
            yield services


def _word(text: dns.Charstr) -> str:
    return text.string.decode("ascii", "replace").upper()


def _transport_of(uri: SIPURI) -> str | None:
    """What `uri` demands; None: nothing.  With sips "tcp" means TLS over TCP (RFC 3261 §26.2.2, RFC 5630 §3.1.3).

    :raises NoServer: it cannot be had.
    """
    wanted = (uri.parameters.get("transport") or "").upper()
    if not wanted:
        return None
    if wanted not in PORTS or (uri.scheme == "sips" and wanted == "UDP"):
        raise NoServer()
    return "TLS" if uri.scheme == "sips" else wanted


def _host_of(uri: SIPURI) -> str:
    """What RFC 3263 §4 calls TARGET."""
    return bare_host(uri.parameters.get("maddr") or uri.host)


def _too_slow(result: Any, _seconds: float) -> Any:
    return Failure(Unavailable("DNS Unavailable")) if isinstance(result, Failure) else result


