"""A name server on the loopback, with whatever records a test wants."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.names import authority, client, dns, server

reactor: Any = installed_reactor


class Fault(Exception):
    """The name server cannot answer."""


class Zone(authority.FileAuthority):
    """Records in memory; `asked` counts the questions, by name and type."""

    def __init__(self) -> None:
        super().__init__("")  # type: ignore[no-untyped-call]
        self.soa = (b"", dns.Record_SOA(mname="ns", rname="root", minimum=60, expire=60, ttl=60))
        self.records: dict[bytes, list[Any]] = {}
        self.asked: Counter[tuple[str, int]] = Counter()
        self.broken: set[int] = set()
        """Types for which the answer is SERVFAIL; the server logs a `Fault` for each."""

    def loadFile(self, filename: object) -> None:
        """There is no file."""

    def add(self, name: str, *records: Any) -> None:
        """Have `records` under `name`; without any the name exists all the same."""
        self.records.setdefault(name.encode(), []).extend(records or [dns.Record_TXT(b"", ttl=60)])

    def srv(self, name: str, target: str, port: int = 5060, priority: int = 0, weight: int = 0, ttl: int = 60) -> None:
        self.add(name, dns.Record_SRV(priority, weight, port, target, ttl))

    def naptr(self, name: str, order: int, preference: int, service: str, replacement: str, **other: Any) -> None:
        flags = other.pop("flags", "s")
        record = dns.Record_NAPTR(order, preference, flags.encode(), service.encode(), replacement=replacement, ttl=60)
        for field, value in other.items():
            setattr(record, field, dns.Charstr(value))
        self.add(name, record)

    def a(self, name: str, *addresses: str, ttl: int = 60) -> None:
        self.add(name, *(dns.Record_A(each, ttl) for each in addresses))

    def aaaa(self, name: str, *addresses: str) -> None:
        self.add(name, *(dns.Record_AAAA(each, 60) for each in addresses))

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: Any = None) -> Deferred[Any]:
        self.asked[name.decode().lower(), kind] += 1
        if kind in self.broken:
            raise Fault
        found: Deferred[Any] = super()._lookup(name, cls, kind, timeout)
        return found


class NameServer:
    """Serves `zone` over UDP at a free port of 127.0.0.1."""

    def __init__(self, zone: Zone) -> None:
        factory = server.DNSServerFactory(authorities=[zone])
        factory.noisy = False
        protocol = dns.DNSDatagramProtocol(factory)
        protocol.noisy = False
        self._port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
        self.address = ("127.0.0.1", self._port.getHost().port)

    def resolver(self) -> Any:
        """Whom to ask, in the way that a node does."""
        return client.Resolver(servers=[self.address], reactor=reactor)

    def stop(self) -> Deferred[None]:
        stopped: Deferred[None] = self._port.stopListening()
        return stopped
