"""Where requests for other domains go (RFC 3263), by a real name server on the loopback."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from p2psip.sip import locator as locator_module
from p2psip.sip import names as names_module
from p2psip.sip.errors import NoServer, NoSuchDomain, SIPFailure, Unavailable
from p2psip.sip.interfaces import IServerLocator, Target
from p2psip.sip.locator import Locator, has_route, in_order
from p2psip.sip.names import Names, canonical, system_resolver
from p2psip.sip.uri import SIPURI, parse_uri

from .nameserver import Fault, NameServer, Zone

reactor: Any = installed_reactor


def uri_of(text: str) -> SIPURI:
    uri = parse_uri(text)
    assert isinstance(uri, SIPURI)
    return uri


def anything(_address: str) -> bool:
    return True


class LocatorTestCase(TestCase):
    """A zone, served, and a locator that asks there."""

    def setUp(self) -> None:
        self.zone = Zone()
        server = NameServer(self.zone)
        self.addCleanup(server.stop)
        self.locator = Locator(Names(server.resolver(), reactor), reactor, Random(1), anything)

    async def targets(self, text: str) -> list[tuple[str, str, int]]:
        """Without the names."""
        return [(t.transport, t.host, t.port) for t in await self.locator.locate(uri_of(text))]

    async def failure(self, text: str) -> SIPFailure:
        try:
            found = await self.locator.locate(uri_of(text))
        except SIPFailure as error:
            return error
        raise AssertionError(f"found {found}")


class LiteralTests(LocatorTestCase):
    """What needs no name server (RFC 3263 §4.1, §4.2)."""

    async def test_addresses(self) -> None:
        verifyObject(IServerLocator, self.locator)
        for text, target in (
            ("sip:bob@192.0.2.1", ("UDP", "192.0.2.1", 5060)),
            ("sip:192.0.2.1:5070", ("UDP", "192.0.2.1", 5070)),
            ("sip:bob@[2001:DB8::1]", ("UDP", "2001:db8::1", 5060)),
            ("sip:192.0.2.1;transport=TCP", ("TCP", "192.0.2.1", 5060)),
            ("sip:192.0.2.1;transport=tls", ("TLS", "192.0.2.1", 5061)),
            ("sips:192.0.2.1", ("TLS", "192.0.2.1", 5061)),
            ("sips:192.0.2.1:5070;transport=tcp", ("TLS", "192.0.2.1", 5070)),
            ("sip:bob@example.com;maddr=192.0.2.9", ("UDP", "192.0.2.9", 5060)),
        ):
            self.assertEqual(await self.targets(text), [target], text)
        self.assertEqual(self.zone.asked, Counter())

    async def test_what_certificates_show(self) -> None:
        """The domain of the URI, whatever it leads to (RFC 5922 §4); nothing where there is no certificate."""
        self.zone.srv("_sips._tcp.example.com", "host.elsewhere.net", 5070)
        self.zone.a("host.elsewhere.net", "192.0.2.1")
        for text, name in (
            ("sips:bob@EXAMPLE.com", "example.com"),
            ("sips:bob@example.com;maddr=192.0.2.1", "example.com"),
            ("sips:[2001:db8::1]", "2001:db8::1"),
            ("sip:192.0.2.1", ""),
        ):
            self.assertEqual([t.name for t in await self.locator.locate(uri_of(text))], [name], text)

    async def test_what_cannot_be_had(self) -> None:
        """sips over UDP, and transports that are none of ours."""
        for text in ("sips:192.0.2.1;transport=udp", "sip:192.0.2.1;transport=sctp", "sip:192.0.2.1;transport=ws"):
            self.assertIsInstance(await self.failure(text), NoServer)

    async def test_no_route(self) -> None:
        self.locator = Locator(self.locator.names, reactor, Random(1), lambda address: ":" not in address)
        self.assertIsInstance(await self.failure("sip:[2001:db8::1]"), NoServer)
        self.zone.a("host.example.com", "192.0.2.1")
        self.zone.aaaa("host.example.com", "2001:db8::1")
        self.assertEqual(await self.targets("sip:host.example.com:5060"), [("UDP", "192.0.2.1", 5060)])

    def test_routes(self) -> None:
        self.assertTrue(has_route("127.0.0.1"))
        for address in ("224.0.0.1", "0.0.0.0", "::", "ff02::1", "255.255.255.255"):
            self.assertFalse(has_route(address), address)


class AddressTests(LocatorTestCase):
    """A and AAAA records."""

    async def test_port(self) -> None:
        """With a port there are neither NAPTR nor SRV queries (RFC 3263 §4.2)."""
        self.zone.a("example.com", "192.0.2.1", "192.0.2.2")
        self.zone.aaaa("example.com", "2001:db8::1")
        found = await self.targets("sip:bob@example.com:5070")
        self.assertEqual(found[0], ("UDP", "2001:db8::1", 5070))
        self.assertEqual(sorted(found[1:]), [("UDP", "192.0.2.1", 5070), ("UDP", "192.0.2.2", 5070)])
        self.assertEqual({kind for _, kind in self.zone.asked}, {dns.A, dns.AAAA})
        self.assertEqual(await self.targets("sips:example.com:5070"), [("TLS", *rest) for _, *rest in found])

    async def test_nothing_else(self) -> None:
        """Without SRV records: the domain itself, at the default port (RFC 3263 §4.2)."""
        self.zone.a("example.com", "192.0.2.1")
        for text, target in (
            ("sip:example.com", ("UDP", "192.0.2.1", 5060)),
            ("sip:example.com;transport=tcp", ("TCP", "192.0.2.1", 5060)),
            ("sip:example.com;transport=tls", ("TLS", "192.0.2.1", 5061)),
            ("sips:example.com", ("TLS", "192.0.2.1", 5061)),
        ):
            self.assertEqual(await self.targets(text), [target], text)

    async def test_aliases(self) -> None:
        self.zone.add("www.example.com", dns.Record_CNAME("host.example.com", 60))
        self.zone.a("host.example.com", "192.0.2.1")
        self.assertEqual(await self.targets("sip:www.example.com:5060"), [("UDP", "192.0.2.1", 5060)])

    async def test_aliases_without_end(self) -> None:
        self.zone.add("a.example.com", dns.Record_CNAME("b.example.com", 60))
        self.zone.add("b.example.com", dns.Record_CNAME("a.example.com", 60))
        self.assertIsInstance(await self.failure("sip:a.example.com:5060"), Unavailable)
        self.assertLessEqual(sum(self.zone.asked.values()), 2 * names_module.MOST_ALIASES)

    async def test_many(self) -> None:
        self.zone.a("example.com", *(f"192.0.2.{n}" for n in range(1, 21)))
        self.assertEqual(len(await self.targets("sip:example.com:5060")), locator_module.MOST_ADDRESSES)


class SRVTests(LocatorTestCase):
    """SRV records (RFC 2782, RFC 3263 §4.2)."""

    async def test_priorities(self) -> None:
        for number, priority in ((1, 20), (2, 10), (3, 30)):
            self.zone.srv("_sip._tcp.example.com", f"h{number}.example.com", 5060 + number, priority)
            self.zone.a(f"h{number}.example.com", f"192.0.2.{number}")
        self.assertEqual(
            await self.targets("sip:example.com;transport=tcp"),
            [("TCP", "192.0.2.2", 5062), ("TCP", "192.0.2.1", 5061), ("TCP", "192.0.2.3", 5063)],
        )

    async def test_any_transport(self) -> None:
        """Without NAPTR records: what there are SRV records for (RFC 3263 §4.1)."""
        self.zone.srv("_sip._tcp.example.com", "host.example.com", 5062)
        self.zone.srv("_sips._tcp.example.com", "host.example.com", 5063)
        self.zone.a("host.example.com", "192.0.2.1")
        self.assertEqual(
            await self.targets("sip:example.com"), [("TCP", "192.0.2.1", 5062), ("TLS", "192.0.2.1", 5063)]
        )
        self.assertEqual(await self.targets("sips:example.com"), [("TLS", "192.0.2.1", 5063)])

    async def test_no_service(self) -> None:
        """A target of "." (RFC 2782): then the domain's own address does not count either."""
        self.zone.srv("_sips._tcp.example.com", "", 0)
        self.zone.a("example.com", "192.0.2.1")
        self.assertIsInstance(await self.failure("sips:example.com"), NoServer)

    async def test_hosts_that_are_gone(self) -> None:
        """They are left out; without any other there is no server."""
        self.zone.srv("_sip._tcp.example.com", "gone.example.com", 5060, 1)
        self.assertIsInstance(await self.failure("sip:example.com;transport=tcp"), NoServer)
        self.zone.srv("_sip._udp.example.com", "gone.example.com", 5060, 1)
        self.zone.srv("_sip._udp.example.com", "host.example.com", 5060, 2)
        self.zone.a("host.example.com", "192.0.2.1")
        self.assertEqual(await self.targets("sip:example.com;transport=udp"), [("UDP", "192.0.2.1", 5060)])

    async def test_many(self) -> None:
        """More records than anybody needs: so many hosts are asked for, and no more.

        The answer does not fit a datagram of 512 bytes, and this server speaks no TCP, so they are split.
        """
        for transport in ("_sip._udp", "_sip._tcp"):
            for number in range(8):
                self.zone.srv(f"{transport}.e.com", f"{transport[5]}{number}.e.com")
                self.zone.a(f"{transport[5]}{number}.e.com", *(f"192.0.2.{number * 10 + n}" for n in range(4)))
        self.assertEqual(len(await self.targets("sip:e.com")), locator_module.MOST_TARGETS)
        self.assertEqual(sum(kind == dns.A for _, kind in self.zone.asked), locator_module.MOST_HOSTS)


class NAPTRTests(LocatorTestCase):
    """NAPTR records (RFC 3263 §4.1, RFC 3403)."""

    def setUp(self) -> None:
        super().setUp()
        self.zone.naptr("example.com", 50, 50, "SIPS+D2T", "_sips._tcp.example.com")
        self.zone.naptr("example.com", 90, 50, "SIP+D2T", "_sip._tcp.example.net")
        self.zone.naptr("example.com", 90, 40, "SIP+D2U", "_sip._udp.example.com")
        for name, port in (
            ("_sips._tcp.example.com", 5061), ("_sip._tcp.example.net", 5062), ("_sip._udp.example.com", 5063)
        ):  # fmt: skip
            self.zone.srv(name, "host.example.com", port)
        self.zone.a("host.example.com", "192.0.2.1")

    async def test_order(self) -> None:
        """The lowest order; nothing else then (RFC 3403 §4.1)."""
        self.assertEqual(await self.targets("sip:example.com"), [("TLS", "192.0.2.1", 5061)])
        del self.zone.records[b"example.com"][0]
        self.assertEqual(
            await self.targets("sip:EXAMPLE.com"), [("TLS", "192.0.2.1", 5061)], "it is remembered"
        )

    async def test_preference(self) -> None:
        """Among those of the same order all, the preferred ones first; and another domain may serve."""
        del self.zone.records[b"example.com"][0]
        self.assertEqual(
            await self.targets("sip:example.com"), [("UDP", "192.0.2.1", 5063), ("TCP", "192.0.2.1", 5062)]
        )

    async def test_sips(self) -> None:
        """Only SIPS+D2T counts; without it _sips._tcp, and never anything but TLS."""
        self.assertEqual(await self.targets("sips:example.com"), [("TLS", "192.0.2.1", 5061)])
        self.zone.naptr("example.org", 1, 1, "SIP+D2T", "_sip._tcp.example.net")
        self.zone.naptr("example.org", 1, 1, "SIP+D2U", "_sip._udp.example.com")
        self.assertIsInstance(await self.failure("sips:example.org"), NoServer)
        self.zone.srv("_sips._tcp.example.info", "host.example.com", 5064)
        self.zone.naptr("example.info", 1, 1, "SIP+D2T", "_sip._tcp.example.net")
        self.assertEqual(await self.targets("sips:example.info"), [("TLS", "192.0.2.1", 5064)])

    async def test_transport_given(self) -> None:
        """Then nobody asks for NAPTR records."""
        self.assertEqual(await self.targets("sip:example.com;transport=udp"), [("UDP", "192.0.2.1", 5063)])
        self.assertNotIn(("example.com", dns.NAPTR), self.zone.asked)

    async def test_not_applicable(self) -> None:
        """Other services, other flags, regular expressions, nonsense: passed over."""
        name, there = "odd.example.com", "_sip._tcp.example.net"
        self.zone.naptr(name, 1, 1, "E2U+sip", there)
        self.zone.naptr(name, 2, 1, "SIPS+D2U", there)
        self.zone.naptr(name, 3, 1, "SIP+D2T", there, flags="u")
        self.zone.naptr(name, 4, 1, "SIP+D2T", there, regexp=b"!^.*$!sip:x!")
        self.zone.naptr(name, 5, 1, "SIP+D2T", "")
        self.zone.naptr(name, 6, 1, "sip+d2t", there, flags="S")
        self.assertEqual(await self.targets(f"sip:{name}"), [("TCP", "192.0.2.1", 5062)])

    async def test_no_answer(self) -> None:
        """Some servers fail for NAPTR: SRV does as well."""
        self.zone.broken.add(dns.NAPTR)
        self.assertEqual(len(await self.targets("sip:example.com")), 2)
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 1)


class FailureTests(LocatorTestCase):
    """Why there is no server."""

    async def test_no_such_domain(self) -> None:
        for text in ("sip:bob@nowhere.example", "sips:nowhere.example:5061", "sip:nowhere.example;transport=tcp"):
            error = await self.failure(text)
            self.assertIsInstance(error, NoSuchDomain)
            self.assertEqual((error.status, error.reason), (404, "No Such Domain"))

    async def test_no_server(self) -> None:
        self.zone.add("example.com")
        error = await self.failure("sip:example.com")
        self.assertIsInstance(error, NoServer)
        self.assertEqual((error.status, error.reason), (480, "No SIP Server"))

    async def test_not_a_name(self) -> None:
        """It does not even get to the resolver."""
        for host in ("a" * 64 + ".com", "a..b", "-a.com", ".".join(["abc"] * 64)):
            self.assertIsInstance(await self.failure(f"sip:{host}"), NoSuchDomain, host)
        self.assertEqual(self.zone.asked, Counter())

    async def test_server_fault(self) -> None:
        self.zone.broken.update((dns.A, dns.AAAA))
        self.zone.add("example.com")
        error = await self.failure("sip:example.com:5060")
        self.assertIsInstance(error, Unavailable)
        self.assertEqual(error.status, 503)
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 2)

    async def test_one_family_does(self) -> None:
        self.zone.broken.add(dns.AAAA)
        self.zone.a("example.com", "192.0.2.1")
        self.assertEqual(await self.targets("sip:example.com:5060"), [("UDP", "192.0.2.1", 5060)])
        self.assertEqual(len(self.flushLoggedErrors(Fault)), 1)


class Slow:
    """A resolver that answers when it is told to."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, int, Deferred[Any]]] = []

    def query(self, query: Any, timeout: object = None) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.questions.append((query.name.name.decode(), query.type, answer))
        return answer


def answer_of(name: str, *payloads: Any, ttl: int = 60) -> tuple[list[Any], list[Any], list[Any]]:
    return [dns.RRHeader(name, each.TYPE, dns.IN, ttl, each) for each in payloads], [], []


class NamesTests(SynchronousTestCase):
    """What is asked, and how long it is remembered."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.slow = Slow()
        self.names = Names(self.slow, self.clock)

    def ask(self, name: str = "example.com", kind: int = dns.A) -> Deferred[Any]:
        return self.names.lookup(name, kind)

    def test_together(self) -> None:
        """Whoever asks the same at the same time waits for the same answer."""
        first, second = self.ask(), self.ask("Example.COM.")
        self.assertEqual(len(self.slow.questions), 1)
        second.cancel()
        self.failureResultOf(second)
        self.slow.questions[0][2].callback(answer_of("example.com", dns.Record_A("192.0.2.1")))
        self.assertEqual(len(self.successResultOf(first).records), 1)

    def test_lifetime(self) -> None:
        self.ask()
        self.slow.questions[0][2].callback(answer_of("example.com", dns.Record_A("192.0.2.1"), ttl=60))
        self.clock.advance(59)
        self.assertEqual(len(self.successResultOf(self.ask()).records), 1)
        self.clock.advance(1)
        self.assertNoResult(self.ask())

    def test_longest_lifetime(self) -> None:
        self.ask()
        self.slow.questions[0][2].callback(answer_of("example.com", dns.Record_A("192.0.2.1"), ttl=2**31 - 1))
        self.clock.advance(names_module.LONGEST)
        self.assertNoResult(self.ask())

    def test_no_lifetime(self) -> None:
        """A TTL of 0: for this one question only (RFC 1035 §3.2.1)."""
        self.ask()
        self.slow.questions[0][2].callback(answer_of("example.com", dns.Record_A("192.0.2.1"), ttl=0))
        self.assertNoResult(self.ask())

    def test_nothing(self) -> None:
        """That there is nothing is kept as long as the SOA record says (RFC 2308 §5), or for a while."""
        soa = dns.RRHeader("example.com", dns.SOA, dns.IN, 50, dns.Record_SOA(minimum=100))
        for authority, seconds in (([soa], 50), ([], names_module.UNKNOWN_NEGATIVE)):
            self.slow.questions.clear()
            asked = self.ask()
            self.slow.questions[0][2].callback(([], authority, []))
            self.assertEqual(self.successResultOf(asked), ((), True))
            self.clock.advance(seconds - 1)
            self.successResultOf(self.ask())
            self.clock.advance(1)

    def test_no_such_name(self) -> None:
        asked = self.ask()
        self.slow.questions[0][2].errback(DNSNameError(dns.Message()))
        self.assertEqual(self.successResultOf(asked), ((), False))
        self.successResultOf(self.ask())

    def test_records_of_others(self) -> None:
        """What the answer says of names that nobody asked for is not believed."""
        asked = self.ask()
        self.slow.questions[0][2].callback(answer_of("example.net", dns.Record_A("192.0.2.1")))
        self.assertEqual(self.successResultOf(asked).records, ())

    def test_no_answer(self) -> None:
        """After some seconds nobody waits any more; it is asked again the next time."""
        asked = self.ask()
        self.clock.advance(names_module.SECONDS)
        self.failureResultOf(asked, Unavailable)
        self.assertNoResult(self.ask())
        self.assertEqual(self.names.counters["unanswered"], 1)

    def test_too_many_questions(self) -> None:
        for number in range(names_module.MOST_ASKED):
            self.ask(f"h{number}.example.com")
        self.failureResultOf(self.ask(), Unavailable)
        self.assertEqual(self.names.counters["too many questions"], 1)

    def test_bounded_memory(self) -> None:
        """What was used longest ago gives way."""
        self.patch(names_module, "MOST_KNOWN", 3)
        for number in (0, 1, 2, 0, 3):
            asked = self.ask(f"h{number}.example.com")
            if not asked.called:
                self.slow.questions[-1][2].callback(answer_of(f"h{number}.example.com", dns.Record_A("192.0.2.1")))
        self.successResultOf(self.ask("h0.example.com"))
        self.assertNoResult(self.ask("h1.example.com"))

    def test_canonical(self) -> None:
        self.assertEqual(canonical("_sip._UDP.Example.com."), "_sip._udp.example.com")
        for text in ("", ".", "a b", "ä.example", "a..b", "x" * 64):
            self.assertIsNone(canonical(text), text)

    def test_slow_search(self) -> None:
        """A search ends, however many questions it still has."""
        locator = Locator(self.names, self.clock, Random(1), anything)
        self.patch(names_module, "SECONDS", 1000.0)
        found = locator.locate(uri_of("sip:example.com"))
        self.clock.advance(locator_module.SECONDS)
        self.failureResultOf(found, Unavailable)


class SystemTests(TestCase):
    async def test_hosts_file(self) -> None:
        """Names of the hosts file are known, whatever the name servers say."""
        locator = Locator(Names(system_resolver(reactor), reactor), reactor, Random(1))
        found = await locator.locate(uri_of("sip:localhost:5070"))
        self.assertIn(Target("UDP", "127.0.0.1", 5070), found)


class OrderTests(SynchronousTestCase):
    """RFC 2782: the order in which SRV records are tried."""

    def test_weights(self) -> None:
        """The chance to be the first is as the weight."""
        records = [dns.Record_SRV(0, weight, 5060, f"h{weight}") for weight in (10, 30, 60)]
        random = Random(1)
        first = Counter(next(iter(in_order(records, random))).weight for _ in range(2000))
        for weight in (10, 30, 60):
            self.assertApproximates(first[weight] / 2000, weight / 100, 0.04)

    def test_all_once(self) -> None:
        records = [dns.Record_SRV(n % 3, n % 5, 5060, f"h{n}") for n in range(30)]
        ordered = list(in_order(records, Random(1)))
        self.assertEqual(len({id(record) for record in ordered}), 30)
        self.assertEqual([r.priority for r in ordered], sorted(r.priority for r in records))

    def test_no_weight(self) -> None:
        """Those without weight have their turn, too."""
        records = [dns.Record_SRV(0, 0, 5060, f"h{n}") for n in range(3)]
        self.assertEqual(len(list(in_order(records, Random(1)))), 3)
