"""Connecting to the first that answers, and which addresses are tried at all."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import LinkError
from p2psip.hostport import address_text
from p2psip.ids import NodeId
from p2psip.links.addresses import (
    MOST_CANDIDATES,
    host_candidates,
    numeric,
    outward_addresses,
    refusal,
    usable,
)
from p2psip.links.dialing import HEAD_START, Race
from p2psip.links.tls import LINK_TYPE, TLSLinks
from p2psip.wire.codes import OverlayLinkType
from p2psip.wire.methods import IceCandidate, UnknownAddressPort

from .hosts import Host, unproved

A, B = NodeId(b"A" * 16), NodeId(b"B" * 16)


class RaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: dict[str, Deferred[str]] = {}
        self.given_up: list[str] = []

    def race(self, *hosts: str) -> Race[str]:
        def dial(host: str, port: int) -> Deferred[str]:
            attempt: Deferred[str] = Deferred(lambda _: self.given_up.append(host))
            self.attempts[host] = attempt
            return attempt

        return Race(self.clock, iter([(host, 1) for host in hosts]), dial)

    def test_one_after_the_other(self) -> None:
        race = self.race("a", "b", "c")
        self.assertEqual(list(self.attempts), ["a"])
        self.clock.advance(HEAD_START)
        self.assertEqual(list(self.attempts), ["a", "b"])
        self.attempts["a"].callback("won")
        self.assertEqual(self.successResultOf(race.won), "won")
        self.assertEqual(self.given_up, ["b"])
        self.clock.advance(10)
        self.assertEqual(list(self.attempts), ["a", "b"])

    def test_failure_starts_the_next_at_once(self) -> None:
        race = self.race("a", "b")
        self.attempts["a"].errback(LinkError("refused"))
        self.assertEqual(list(self.attempts), ["a", "b"])
        self.attempts["b"].callback("won")
        self.assertEqual(self.successResultOf(race.won), "won")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_all_fail(self) -> None:
        race = self.race("a", "b")
        self.clock.advance(1)
        self.attempts["a"].errback(LinkError("first"))
        self.assertNoResult(race.won)
        self.attempts["b"].errback(LinkError("last"))
        self.assertEqual(str(self.failureResultOf(race.won, LinkError).value), "last")

    def test_cancelled(self) -> None:
        race = self.race("a", "b", "c")
        self.clock.advance(HEAD_START)
        race.won.cancel()
        self.failureResultOf(race.won, CancelledError)
        self.assertEqual(self.given_up, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_to_dial(self) -> None:
        self.failureResultOf(self.race().won, LinkError)


class DialTests(SynchronousTestCase):
    """What TLSLinks asks of the reactor."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        bind = ["127.0.0.2", "::1", "192.0.2.9"]
        self.links = TLSLinks(Host(unproved(A), self.reactor), self.reactor, bind, 0)

    def fail_connecting(self) -> None:
        factory, connector = self.reactor.tcpClients[0][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectError()))

    def test_source_address(self) -> None:
        """That of the same family and reach, so that several nodes of one machine tell each other apart."""
        sources = {"127.0.0.7": "127.0.0.2", "::1": "::1", "192.0.2.1": "192.0.2.9", "2001:db8::1": None}
        for there, here in sources.items():
            self.links.connect_to_bootstrap(there, 6084)
            host, port, _, timeout, bind = self.reactor.tcpClients[-1]
            self.assertEqual((host, port, timeout), (there, 6084, 10.0))
            self.assertEqual(bind, (here, 0) if here else None)

    def test_refused(self) -> None:
        connecting = self.links.connect_to_bootstrap("127.0.0.7", 6084)
        self.fail_connecting()
        self.assertIn("127.0.0.7:6084", str(self.failureResultOf(connecting, LinkError).value))

    def test_names_are_refused(self) -> None:
        why = self.failureResultOf(self.links.connect_to_bootstrap("example.org", 6084), LinkError)
        self.assertIn("not an IP address", str(why.value))

    def test_candidates_on_loopback(self) -> None:
        """A node bound to loopback follows them, though it does not listen itself."""
        self.links.connect(host_candidates([("127.0.0.7", 6084)], LINK_TYPE), B)
        self.assertEqual(self.reactor.tcpClients[-1][:2], ("127.0.0.7", 6084))

    def test_stop_while_connecting(self) -> None:
        connecting = self.links.connect_to_bootstrap("127.0.0.7", 6084)
        self.successResultOf(self.links.stop())
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.fail_connecting()
        self.failureResultOf(connecting, LinkError)
        self.failureResultOf(self.links.connect_to_bootstrap("127.0.0.7", 6084), LinkError)


class AddressTests(SynchronousTestCase):
    def test_text(self) -> None:
        self.assertEqual(address_text("127.0.0.1", 1), "127.0.0.1:1")
        self.assertEqual(address_text("::1", 1), "[::1]:1")

    def test_numeric(self) -> None:
        self.assertEqual(str(numeric("::ffff:127.0.0.1")), "127.0.0.1")
        self.assertRaises(LinkError, numeric, "localhost")
        self.assertRaises(LinkError, numeric, "")

    def test_outward(self) -> None:
        addresses = outward_addresses()
        self.assertTrue(addresses)
        for address in addresses:
            self.assertFalse(numeric(address).is_unspecified)

    def test_candidates(self) -> None:
        """Host candidates, the first preferred, with foundations that tell them apart."""
        first, second = host_candidates([("192.0.2.1", 6084), ("2001:db8::1", 6084)], LINK_TYPE)
        self.assertEqual((first.addr_port.host, second.addr_port.host), ("192.0.2.1", "2001:db8::1"))
        self.assertGreater(first.priority, second.priority)
        self.assertNotEqual(first.foundation, second.foundation)
        self.assertEqual(first.priority, 2130706431)
        self.assertEqual(IceCandidate.decode(first.encode()), first)

    def test_refusal(self) -> None:
        own = {("192.0.2.1", 6084)}
        self.assertEqual(refusal("192.0.2.2", 6084, own, False), "")
        self.assertEqual(refusal("192.0.2.1", 6085, own, False), "")
        self.assertEqual(refusal("127.0.0.1", 6084, own, True), "")
        for host, port in (
            ("192.0.2.1", 6084),
            ("127.0.0.1", 6084),
            ("::1", 6084),
            ("::ffff:127.0.0.1", 6084),
            ("192.0.2.2", 0),
            ("239.1.2.3", 6084),
            ("0.0.0.0", 6084),
        ):
            self.assertTrue(refusal(host, port, own, False), host)

    def test_usable(self) -> None:
        """In the order of priority, each once, of this kind of link only, and not too many."""
        candidates = host_candidates([("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.1", 1)], LINK_TYPE)
        other = host_candidates([("192.0.2.3", 3)], OverlayLinkType.DTLS_UDP_SR_NO_ICE)
        found = list(usable([*other, *reversed(candidates)], LINK_TYPE, (), False))
        self.assertEqual(found, [("192.0.2.1", 1), ("192.0.2.2", 2)])
        many = host_candidates([("192.0.2.1", port) for port in range(1, 50)], LINK_TYPE)
        self.assertEqual(len(list(usable(many, LINK_TYPE, (), False))), MOST_CANDIDATES)

    def test_unusable(self) -> None:
        unknown = IceCandidate(addr_port=UnknownAddressPort(type=9, address=b"x"), overlay_link=LINK_TYPE)
        for candidates, why in (
            ([], "no candidates"),
            (host_candidates([("192.0.2.3", 3)], 1), "no candidate for this kind"),
            (host_candidates([("127.0.0.1", 3)], LINK_TYPE), "loopback address 127.0.0.1:3"),
            ([unknown], "not an IP address"),
        ):
            error = self.assertRaises(LinkError, list, usable(candidates, LINK_TYPE, (), False))
            self.assertIn(why, str(error))
