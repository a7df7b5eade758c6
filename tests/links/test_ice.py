"""Links with ICE between nodes on loopback: candidates, checks, consent, and what strangers can do to them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, cast

from aioice import Candidate, stun
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.plugin import getPlugins
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2psip import plugins
from p2psip.config.document import Configuration
from p2psip.hostport import parse_address
from p2psip.interfaces import (
    IApplicationConnection,
    ILinkProtocol,
    ILinkProtocolFactory,
    INegotiation,
    IRelays,
    Relay,
)
from p2psip.links import agent as agent_module
from p2psip.links import ice as ice_module
from p2psip.links.agent import MOST_EARLY, MOST_REMOTE
from p2psip.links.ice import LISTENING, MOST_CHECKED, MOST_NEGOTIATIONS, MOST_STUN_SERVERS, ICELinkFactory, ICELinks
from p2psip.links.stun import binding_request, binding_response, is_stun, mapped_address, parse
from p2psip.wire.codes import CandType, OverlayLinkType
from p2psip.wire.methods import IceCandidate, IceExtension, IpAddressPort

from . import lines, test_tls
from .hosts import Host
from .lines import Place, Socket
from .test_tls import A, B, C

CLIENT_HELLO = 1


def candidate(place: Place, kind: CandType = CandType.HOST, priority: int = 1 << 20) -> IceCandidate:
    """A candidate as somebody might send it."""
    return IceCandidate(
        addr_port=IpAddressPort.of(*place),
        overlay_link=int(OverlayLinkType.DTLS_UDP_SR),
        foundation=b"1",
        priority=priority,
        type=kind,
        rel_addr_port=None if kind is CandType.HOST else IpAddressPort.of(*place),
        extensions=(),
    )


def place_of(candidate: IceCandidate) -> Place:
    return candidate.addr_port.host, cast(Any, candidate.addr_port).port


def is_free(place: Place) -> bool:
    """Whether nobody has a socket there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(place)
        except OSError:
            return False
    return True


def agent_of(negotiation: INegotiation) -> Any:
    return cast(Any, negotiation)._agent


@implementer(IRelays)
class Relays:
    """Knows one TURN server."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.asked = 0
        self.failed: list[Relay] = []

    def relay(self) -> Deferred[Relay | None]:
        self.asked += 1
        return succeed(self._relay)

    def relay_failed(self, relay: Relay) -> None:
        self.failed.append(relay)


class Peer:
    """A connection whose other end tells where it sees us."""

    def __init__(self, proved: bool = True) -> None:
        self.is_proved = proved


class ICETestCase(test_tls.LinksTestCase):
    kind: Any = ICELinks
    factory: Any = ICELinkFactory

    def setUp(self) -> None:
        self.assertIsInstance(test_tls.reactor, AsyncioSelectorReactor, "ICE needs it: leave out trial's --reactor")
        super().setUp()
        self.configuration = Configuration(instance_name=test_tls.OVERLAY, no_ice=False, max_message_size=20000)

    def socket(self, address: str = "127.0.0.1") -> Socket:
        made = Socket(address)
        self.addCleanup(made.close)
        return made

    def line_to(self, there: Place) -> lines.Relay:
        made = lines.Relay(there)
        self.addCleanup(made.close)
        return made

    async def halves(self, application: int | None = None) -> tuple[Any, Any, INegotiation, INegotiation]:
        """Two nodes, and their halves of an exchange: A asks."""
        a, b = await self.node(A), await self.node(B)
        return a, b, await a.negotiate(True, B, application), await b.negotiate(False, A, application)

    def conclude(
        self,
        asking: INegotiation,
        answering: INegotiation,
        towards_b: Sequence[IceCandidate] | None = None,
        towards_a: Sequence[IceCandidate] | None = None,
    ) -> Deferred[list[Any]]:
        """Both ends make the connection, from the candidates of each other or those that are given."""
        ours = asking.conclude(
            answering.ufrag, answering.password, answering.candidates if towards_b is None else towards_b, B
        )
        theirs = answering.conclude(
            asking.ufrag, asking.password, asking.candidates if towards_a is None else towards_a, A
        )
        return gatherResults([ours, theirs], consumeErrors=True)

    async def linked(self) -> tuple[Any, Any, Any, Any]:
        a, b, asking, answering = await self.halves()
        link, theirs = await self.conclude(asking, answering)
        return a, b, link, theirs

    async def by_line(self, controlling_moves: bool = True) -> tuple[Any, Any, Any, Any, lines.Relay, Any, Any]:
        """A link over a line of which one end knows nothing but where its datagrams come from.

        Who sends from behind the line is the end that controls, or the other.
        """
        a, b, asking, answering = await self.halves()
        nowhere = [candidate(self.socket().place)]
        before = answering if controlling_moves else asking
        line = self.line_to(place_of(before.candidates[0]))
        through = [candidate(line.place)]
        ways = (through, nowhere) if controlling_moves else (nowhere, through)
        link, theirs = await self.conclude(asking, answering, *ways)
        return a, b, link, theirs, line, agent_of(asking), agent_of(answering)

    async def talk(self, a: Any, b: Any, link: Any, theirs: Any) -> None:
        """A message goes each way."""
        here, there = self.owner(a), self.owner(b)
        before = len(here.messages), len(there.messages)
        self.assertTrue(link.send(b"there %d" % before[1]))
        self.assertTrue(theirs.send(b"back %d" % before[0]))
        await self.until(lambda: (len(here.messages), len(there.messages)) == (before[0] + 1, before[1] + 1))

    async def freed(self, *places: Place) -> None:
        """Wait until the sockets at `places` are closed: another can be bound there."""
        for place in places:
            await self.until(lambda place=place: is_free(place))


class CandidateTests(ICETestCase):
    """What a node says of itself."""

    async def test_interfaces(self) -> None:
        a, _, asking, _ = await self.halves()
        self.assertTrue(verifyObject(ILinkProtocol, a))
        self.assertTrue(verifyObject(INegotiation, asking))
        self.assertTrue(verifyObject(ILinkProtocolFactory, self.factory()))
        found = {each.name: (each.link_type, each.ice) for each in getPlugins(ILinkProtocolFactory, plugins)}
        self.assertEqual(found["DTLS-UDP-SR"], (int(OverlayLinkType.DTLS_UDP_SR), True))

    async def test_host(self) -> None:
        """Host candidates, each for a socket of its own; an extension names the port that listens."""
        a = await self.node(A)
        one, other = await a.negotiate(True), await a.negotiate(False)
        [first], [second] = one.candidates, other.candidates
        self.assertNotEqual(place_of(first), place_of(second))
        self.assertEqual((first.type, first.rel_addr_port), (CandType.HOST, None))
        self.assertEqual(first.overlay_link, int(OverlayLinkType.DTLS_UDP_SR))
        self.assertEqual(first.priority >> 24, 126)
        listening = int(a.addresses[0].rpartition(":")[2])
        self.assertEqual([(each.name, each.value) for each in first.extensions], [(LISTENING, b"%d" % listening)])

    async def test_ufrag_and_password(self) -> None:
        """New for each exchange, of at least 4 and 22 characters (RFC 5245 §15.4)."""
        a = await self.node(A)
        made = [await a.negotiate(True) for _ in range(5)]
        self.assertEqual(len({each.password for each in made}), 5)
        for each in made:
            self.assertGreaterEqual(len(each.ufrag), 4)
            self.assertGreaterEqual(len(each.password), 22)

    async def test_several_addresses(self) -> None:
        """The first is preferred; equal foundations would freeze pairs that have nothing in common."""
        links = self.kind(self.host(A), test_tls.reactor, ["127.0.0.1", "127.0.0.2", "::1"], 0)
        self.started.append(links)
        await links.listen()
        candidates = (await links.negotiate(True)).candidates
        self.assertEqual([each.addr_port.host for each in candidates], ["127.0.0.1", "127.0.0.2", "::1"])
        self.assertEqual(len({each.foundation for each in candidates}), 3)
        self.assertEqual(sorted((each.priority for each in candidates), reverse=True), [e.priority for e in candidates])

    async def test_advertised(self) -> None:
        """An address that a NAT maps one to one is server-reflexive; its base is the related address."""
        links = self.kind(self.host(A), test_tls.reactor, ["127.0.0.1"], 0, ["127.0.0.9"])
        self.started.append(links)
        await links.listen()
        host, mapped = (await links.negotiate(True)).candidates
        self.assertEqual(place_of(mapped), ("127.0.0.9", place_of(host)[1]))
        self.assertEqual(mapped.type, CandType.SRFLX)
        self.assertEqual(cast(Any, mapped.rel_addr_port), host.addr_port)
        self.assertLess(mapped.priority, host.priority)
        self.assertEqual(mapped.extensions, ())

    async def test_server_reflexive(self) -> None:
        """A peer is asked where it sees each socket; what it tells is a candidate where that is new.

        [6940-6.5.1.4-2]
        """
        a = await self.node(A)
        asked: list[Place] = []

        def answer(datagram: bytes, sender: Place) -> None:
            message = parse(datagram)
            assert message is not None
            asked.append(sender)
            server.send(binding_response(message, ("192.0.2.9", 4321)), sender)

        server = Socket(take=answer)
        self.addCleanup(server.close)
        a.seen(cast(Any, Peer()), server.place, "192.0.2.9")
        host, mapped = (await a.negotiate(True)).candidates
        self.assertEqual(asked, [place_of(host)])
        self.assertEqual((place_of(mapped), mapped.type), (("192.0.2.9", 4321), CandType.SRFLX))
        self.assertEqual(cast(Any, mapped.rel_addr_port), host.addr_port)

    async def test_silent_server(self) -> None:
        """Gathering is bounded by time: what has no answer is left out."""
        self.patch(agent_module, "GATHERING", 0.05)
        a = await self.node(A)
        a.seen(cast(Any, Peer()), self.socket().place, "192.0.2.9")
        self.assertEqual([each.type for each in (await a.negotiate(True)).candidates], [CandType.HOST])

    async def test_relay_that_gives_no_address(self) -> None:
        """It is told; the exchange goes on without."""
        self.patch(agent_module, "GATHERING", 0.05)
        a = await self.node(A)
        server = self.socket()
        relays = Relays(Relay(*server.place, "user", "password", 2e9))
        self.assertTrue(verifyObject(IRelays, relays))
        cast(Host, a.host).relays = relays
        a.seen(cast(Any, Peer()), self.socket().place, "192.0.2.9")
        candidates = (await a.negotiate(True)).candidates
        self.assertEqual([each.type for each in candidates], [CandType.HOST])
        self.assertEqual(relays.failed, [relays._relay])
        self.assertTrue(server.received)

    async def test_no_relay_without_a_nat(self) -> None:
        """Who is behind no NAT does not ask for one."""
        a = await self.node(A)
        relays = Relays(Relay("192.0.2.1", 3478, "user", "password", 2e9))
        cast(Host, a.host).relays = relays
        await a.negotiate(True)
        a.seen(cast(Any, Peer()), ("127.0.0.1", 6084), "127.0.0.1")
        a.seen(cast(Any, Peer(proved=False)), ("127.0.0.1", 6084), "192.0.2.9")
        await a.negotiate(True)
        self.assertEqual(relays.asked, 0)


class ServerTests(ICETestCase):
    """What peers tell of each other's addresses."""

    async def test_behind_a_nat(self) -> None:
        """Unknown at first; then whether most of the peers see an address that is not ours; strangers do not count."""
        a = await self.node(A)
        one, other, third = (cast(Any, Peer()) for _ in range(3))
        a.seen(cast(Any, Peer(proved=False)), ("192.0.2.4", 6084), "198.51.100.7")
        self.assertIsNone(a.behind_nat)
        a.seen(one, ("192.0.2.1", 6084), "127.0.0.1")
        self.assertIs(a.behind_nat, False)
        a.seen(other, ("192.0.2.2", 6084), "198.51.100.7")
        self.assertIs(a.behind_nat, False)
        a.seen(third, ("192.0.2.3", 6084), "198.51.100.7")
        self.assertIs(a.behind_nat, True)
        a.connection_ended(other)
        self.assertIs(a.behind_nat, False)
        a.connection_ended(one)
        self.assertIs(a.behind_nat, True)

    async def test_groups(self) -> None:
        """One peer of each group that sees this node at the same address; the next when its connection is lost.

        [6940-6.5.1.4-1] [6940-6.5.1.4-2] [6940-6.5.1.4-3]
        """
        a = await self.node(A)
        peers: list[Any] = [Peer() for _ in range(3)]
        a.seen(peers[0], ("192.0.2.1", 1), "198.51.100.7")
        a.seen(peers[1], ("192.0.2.2", 2), "198.51.100.7")
        a.seen(peers[2], ("192.0.2.3", 3), "10.0.0.7")
        self.assertEqual(list(a.stun_servers()), [("192.0.2.1", 1), ("192.0.2.3", 3)])
        a.connection_ended(peers[0])
        self.assertEqual(sorted(a.stun_servers()), [("192.0.2.2", 2), ("192.0.2.3", 3)])
        a.connection_ended(peers[2])
        self.assertEqual(list(a.stun_servers()), [("192.0.2.2", 2)])

    async def test_groups_are_bounded(self) -> None:
        a = await self.node(A)
        for number in range(9):
            a.seen(cast(Any, Peer()), ("192.0.2.1", 6000 + number), f"198.51.100.{number}")
        self.assertEqual(len(a.stun_servers()), MOST_STUN_SERVERS)

    async def test_bootstrap_node_tells(self) -> None:
        """The keepalive of a link to a listening socket tells the address, and makes that peer a STUN server."""
        a, b = await self.node(A), await self.node(B)
        port = int(b.addresses[0].rpartition(":")[2])
        link = await a.connect_to_bootstrap("127.0.0.1", port)
        await self.until(lambda: a.behind_nat is not None)
        self.assertIs(a.behind_nat, False)
        self.assertEqual(list(a.stun_servers()), [("127.0.0.1", port)])
        link.close()
        await self.until(lambda: not a.stun_servers())

    async def test_strangers_are_answered(self) -> None:
        """The listening socket, and those of negotiations, tell everybody where it is seen. [6940-6.5.1.10.3-1]"""
        a, _, asking, _ = await self.halves()
        listening = ("127.0.0.1", int(a.addresses[0].rpartition(":")[2]))
        for place in (listening, place_of(asking.candidates[0])):
            stranger = self.socket()
            request = binding_request()
            stranger.send(bytes(request), place)
            await self.until(lambda stranger=stranger: stranger.received)
            [(datagram, sender)] = stranger.received
            response = parse(datagram)
            assert response is not None
            self.assertEqual(response.transaction_id, request.transaction_id)
            self.assertEqual((mapped_address(response), sender), (stranger.place, place))

    async def test_checks_are_authenticated(self) -> None:
        """A check with another password, or with none, is refused by an agent; the listening socket says nothing."""
        a, _, asking, answering = await self.halves()
        stranger = self.socket()
        place = place_of(asking.candidates[0])
        for key in (None, b"w" * 22):
            check = self.check(asking, answering)
            if key is not None:
                check.add_message_integrity(key)
            before = len(stranger.received)
            stranger.send(bytes(check), ("127.0.0.1", int(a.addresses[0].rpartition(":")[2])))
            stranger.send(bytes(check), place)
            await self.until(lambda before=before: len(stranger.received) > before)
            response = parse(stranger.received[-1][0])
            assert response is not None
            self.assertIs(response.message_class, stun.Class.ERROR)
        # What the listening socket had said to the first would have come before the answer to the second.
        self.assertEqual({sender for _, sender in stranger.received}, {place})

    def check(self, receiver: INegotiation, sender: INegotiation) -> stun.Message:
        """A connectivity check as `sender` would send it, without its proof."""
        request = binding_request()
        request.attributes["USERNAME"] = f"{receiver.ufrag.decode()}:{sender.ufrag.decode()}"
        request.attributes["PRIORITY"] = 1 << 24
        return request

    async def test_check_without_priority(self) -> None:
        """It is refused, even from who knows the password."""
        _, _, asking, answering = await self.halves()
        check = self.check(asking, answering)
        del check.attributes["PRIORITY"]
        check.add_message_integrity(asking.password)
        stranger = self.socket()
        stranger.send(bytes(check), place_of(asking.candidates[0]))
        await self.until(lambda: stranger.received)
        response = parse(stranger.received[0][0])
        assert response is not None
        self.assertEqual(response.error_code, 400)

    async def test_learnt_addresses_are_bounded(self) -> None:
        """The other end may check from as many addresses as it likes."""
        a, b, asking, answering = await self.halves()
        link, theirs = await self.conclude(asking, answering)
        for _ in range(MOST_REMOTE + 10):
            check = self.check(asking, answering)
            check.add_message_integrity(asking.password)
            sender = self.socket()
            sender.send(bytes(check), place_of(asking.candidates[0]))
            await self.until(lambda sender=sender: sender.received)
        self.assertLessEqual(len(agent_of(asking)._remote_candidates), MOST_REMOTE)
        await self.talk(a, b, link, theirs)

    async def test_garbage(self) -> None:
        """What is neither STUN nor of the association disturbs nothing, nor is it kept."""
        a, b, asking, answering = await self.halves()
        stranger = self.socket()
        place = place_of(answering.candidates[0])
        whole = bytes(binding_request())
        junk = [b"", b"\x00", b"\x00\x01", whole[:19], whole[:2] + b"\x00\x40" + whole[4:], b"\x16\xfe\xfd" + bytes(60)]
        junk += [whole[:2] + b"\x00\x06" + whole[4:] + b"\x00\x24\x00\x02\x00\x00", b"\x80" + bytes(40)]
        for datagram in junk * (MOST_EARLY + 1):
            stranger.send(datagram, place)
        stranger.send(whole, place)
        await self.until(lambda: stranger.received)
        link, theirs = await self.conclude(asking, answering)
        self.assertEqual(agent_of(answering)._early, [])
        self.assertEqual(agent_of(answering)._queue.qsize(), 0)
        await self.talk(a, b, link, theirs)


class ConnectingTests(ICETestCase):
    async def test_both_ends(self) -> None:
        """Full ICE: each end knows the other by its certificate, over the pair that was chosen. [6940-6.5.1.3-1]"""
        a, b, asking, answering = await self.halves()
        link, theirs = await self.conclude(asking, answering)
        self.assertEqual((link.node_id, theirs.node_id), (B, A))
        here, there = (f"127.0.0.1:{place_of(each.candidates[0])[1]}" for each in (asking, answering))
        self.assertEqual(link.candidate_pair, f"host {here} -> host {there}")
        self.assertEqual(theirs.candidate_pair, f"host {there} -> host {here}")
        self.assertEqual((link.protocol, theirs.protocol), ("DTLS-UDP-SR", "DTLS-UDP-SR"))
        self.assertEqual(link.listening, b.addresses[0])
        self.assertIsNotNone(link.rtt)
        await self.talk(a, b, link, theirs)
        self.assertEqual((a._negotiations, b._negotiations), ({}, {}))

    async def test_the_requester_is_the_server(self) -> None:
        """The ClientHello is the answerer's. [6940-6.5.1.13-1] [6940-6.5.1.13-2]"""
        _, _, asking, answering = await self.halves()
        line = self.line_to(place_of(answering.candidates[0]))
        hellos: list[bool] = []

        def passes(datagram: bytes, onwards: bool) -> bool:
            if len(datagram) > 13 and datagram[0] == 22 and datagram[13] == CLIENT_HELLO:
                hellos.append(onwards)
            return True

        line.passes = passes
        link, theirs = await self.conclude(asking, answering, [candidate(line.place)], [candidate(self.socket().place)])
        self.assertEqual(set(hellos), {False})
        self.assertEqual((link.outgoing, theirs.outgoing), (False, True))

    async def test_roles_on_the_wire(self) -> None:
        """Every check says which role its sender has. [6940-6.5.1.9-1]"""
        _, _, asking, answering = await self.halves()
        line = self.line_to(place_of(answering.candidates[0]))
        roles: set[tuple[bool, str]] = set()

        def passes(datagram: bytes, onwards: bool) -> bool:
            message = parse(datagram) if is_stun(datagram) else None
            if message is not None and message.message_class is stun.Class.REQUEST:
                roles.update((onwards, name) for name in message.attributes if name.startswith("ICE-"))
            return True

        line.passes = passes
        await self.conclude(asking, answering, [candidate(line.place)], [candidate(self.socket().place)])
        self.assertEqual(roles, {(True, "ICE-CONTROLLING"), (False, "ICE-CONTROLLED")})

    async def test_two_at_once(self) -> None:
        """Two exchanges of the same two nodes have nothing to do with each other."""
        a, b = await self.node(A), await self.node(B)
        one = await a.negotiate(True, B), await b.negotiate(False, A)
        other = await b.negotiate(True, A), await a.negotiate(False, B)
        crossed = gatherResults(
            [
                other[0].conclude(other[1].ufrag, other[1].password, other[1].candidates, A),
                other[1].conclude(other[0].ufrag, other[0].password, other[0].candidates, B),
            ]
        )
        link, theirs = await self.conclude(*one)
        second_theirs, second = await crossed
        self.assertEqual(len({each.candidate_pair for each in (link, second)}), 2)
        await self.talk(a, b, link, theirs)
        await self.talk(a, b, second, second_theirs)
        link.close()
        await self.until(lambda: ("closed", A) in self.owner(b).events)
        await self.talk(a, b, second, second_theirs)

    async def test_application(self) -> None:
        """An application connection has a pair of its own."""
        _, _, asking, answering = await self.halves(5060)
        mine, theirs = await self.conclude(asking, answering)
        self.assertTrue(verifyObject(IApplicationConnection, mine))
        self.assertEqual((mine.node_id, theirs.node_id, mine.application), (B, A, 5060))
        one, other = test_tls.Echo(), test_tls.Echo()
        mine.start(one)
        theirs.start(other)
        cast(Any, one.transport).write(b"OPTIONS")
        await self.until(lambda: other.heard == b"OPTIONS")
        cast(Any, other.transport).loseConnection()
        await self.until(lambda: one.lost and other.lost)

    async def test_other_node_than_expected(self) -> None:
        """The certificate has to be that of the node in the Attach, whoever is the DTLS server. [6940-6.5.1.13-4]"""
        for c_controls in (False, True):
            a, c = await self.node(A), await self.node(C)
            ours, stranger = await a.negotiate(not c_controls, B), await c.negotiate(c_controls, A)
            stranger.conclude(ours.ufrag, ours.password, ours.candidates, A).addErrback(lambda _: None)
            why = await self.refused(ours.conclude(stranger.ufrag, stranger.password, stranger.candidates, B))
            self.assertIn("is not the node", why)
            self.assertEqual(self.owner(a).rejected, ["other Node-ID"])
            self.assertEqual(self.owner(a).events, [])
            await self.freed(place_of(ours.candidates[0]))

    async def test_no_pair_works(self) -> None:
        """It takes a bounded time, says what was tried, and frees the sockets."""
        self.patch(agent_module, "CHECKS", 0.1)
        a = await self.node(A)
        asking = await a.negotiate(True, B)
        silent = self.socket().place
        why = await self.refused(asking.conclude(b"ufrag", b"p" * 22, [candidate(silent)], B))
        self.assertIn("no candidate pair worked within", why)
        self.assertIn(f"ours host 127.0.0.1:{place_of(asking.candidates[0])[1]}", why)
        self.assertIn(f"theirs host 127.0.0.1:{silent[1]}", why)
        self.assertIn("no TURN server", why)
        await self.freed(place_of(asking.candidates[0]))
        self.assertEqual(a._negotiations, {})

    async def test_another_password(self) -> None:
        self.patch(agent_module, "CHECKS", 0.2)
        _, _, asking, answering = await self.halves()
        answering.conclude(asking.ufrag, b"w" * 22, asking.candidates, A).addErrback(lambda _: None)
        why = await self.refused(asking.conclude(answering.ufrag, b"w" * 22, answering.candidates, B))
        self.assertIn("no candidate pair worked", why)

    async def test_malformed(self) -> None:
        """A ufrag or password that is none, and candidates that nobody may be sent to, end the exchange."""
        a, b = await self.node(A), await self.node(B)
        own = ("127.0.0.1", int(a.addresses[0].rpartition(":")[2]))
        good = candidate(("127.0.0.1", int(b.addresses[0].rpartition(":")[2])))
        cases = [(b"abc", b"p" * 22, [good]), (b"abcd", b"p" * 21, [good]), (b"ab\xff:", b"p" * 22, [good])]
        cases += [(b"abcd", b"p" * 22, [])]
        dangerous = [("224.0.0.1", 6084), ("0.0.0.0", 6084), ("fe80::1", 6084), ("127.0.0.1", 0), own]
        cases += [(b"abcd", b"p" * 22, [candidate(place)]) for place in dangerous]
        for ufrag, password, candidates in cases:
            asking = await a.negotiate(True, B)
            why = await self.refused(asking.conclude(ufrag, password, candidates, B))
            self.assertIn("letters, digits" if candidates == [good] else "no usable candidate", why)
        self.assertEqual(a._negotiations, {})

    async def test_checked_candidates_are_bounded(self) -> None:
        """Of many only the best are checked."""
        a = await self.node(A)
        many = [candidate(("127.0.0.1", 20000 + number), priority=number) for number in range(100)]
        found = a.remote_candidates(many)
        self.assertEqual([each.port for each in found], [20099 - number for number in range(MOST_CHECKED)])

    async def test_relayed_pair_is_the_last_resort(self) -> None:
        """A pair without a relay is chosen where it works, however the priorities are; else the relayed one."""
        for direct_works in (True, False):
            a, b, asking, answering = await self.halves()
            place = place_of(answering.candidates[0])
            line = self.line_to(place)
            direct = candidate(place if direct_works else self.socket().place, priority=1)
            relayed = candidate(line.place, CandType.RELAY, 1 << 30)
            link, theirs = await self.conclude(asking, answering, [direct, relayed], [candidate(self.socket().place)])
            kind = "host" if direct_works else "relay"
            self.assertIn(f"-> {kind} ", link.candidate_pair)
            await self.talk(a, b, link, theirs)


class ListeningTests(ICETestCase):
    async def test_impossible_ports(self) -> None:
        """Where the other end listens is its word: what can be no port is not believed."""
        for value, port in ((b"6084", 6084), (b"65535", 65535), (b"65536", 0), (b"99999", 0), (b"0", 0), (b"x", 0)):
            given = candidate(("127.0.0.1", 4000)).replace(extensions=(IceExtension(name=LISTENING, value=value),))
            chosen = Candidate("1", 1, "udp", 1, "127.0.0.1", 4000, "host")
            place = parse_address(ice_module._listening_of(chosen, [given]))
            self.assertEqual(place, ("127.0.0.1", port) if port else None, value)


class FreeingTests(ICETestCase):
    async def test_abandoned(self) -> None:
        a = await self.node(A)
        asking = await a.negotiate(True, B)
        asking.abandon()
        asking.abandon()
        await self.freed(place_of(asking.candidates[0]))
        self.assertEqual(a._negotiations, {})

    async def test_never_concluded(self) -> None:
        """A half whose answer never comes is freed by itself."""
        self.patch(ice_module, "HALF_LIFE", 0.02)
        a = await self.node(A)
        asking = await a.negotiate(True, B)
        await self.until(lambda: not a._negotiations)
        await self.freed(place_of(asking.candidates[0]))

    async def test_cancelled(self) -> None:
        """Who does not wait for it any more frees the sockets."""
        a = await self.node(A)
        asking = await a.negotiate(True, B)
        concluding = asking.conclude(b"ufrag", b"p" * 22, [candidate(self.socket().place)], B)
        concluding.cancel()
        with self.assertRaises(CancelledError):
            await concluding
        await self.freed(place_of(asking.candidates[0]))

    async def test_bounded(self) -> None:
        a = await self.node(A)
        halves = [await a.negotiate(True, B) for _ in range(MOST_NEGOTIATIONS)]
        self.assertIn("too many", await self.refused(a.negotiate(True, B)))
        halves[0].abandon()
        await a.negotiate(True, B)

    async def test_stopped(self) -> None:
        """Stopping frees what is under way, and nothing can be begun any more."""
        a = await self.node(A)
        asking = await a.negotiate(True, B)
        await a.stop()
        await self.freed(place_of(asking.candidates[0]))
        self.assertIn("stopping", await self.refused(a.negotiate(True, B)))

    async def test_unused_sockets(self) -> None:
        """After the choice the other sockets are freed, and the link goes on."""
        self.patch(ice_module, "FREE_UNUSED", 0.02)
        nodes = []
        for node_id in (A, B):
            links = self.kind(self.host(node_id), test_tls.reactor, ["127.0.0.1", "127.0.0.2"], 0)
            self.started.append(links)
            await links.listen()
            nodes.append(links)
        a, b = nodes
        asking, answering = await a.negotiate(True, B), await b.negotiate(False, A)
        link, theirs = await self.conclude(asking, answering)
        agents = agent_of(asking), agent_of(answering)
        used = {agent.pair.local_addr for agent in agents}
        every = {place_of(each) for half in (asking, answering) for each in half.candidates}
        await self.freed(*(every - used))
        self.assertEqual([len(agent._protocols) for agent in agents], [1, 1])
        await self.talk(a, b, link, theirs)

    async def test_closed_link(self) -> None:
        """The sockets of a link end with it."""
        a, b, asking, answering = await self.halves()
        link, _ = await self.conclude(asking, answering)
        link.close()
        await self.until(lambda: self.owner(a).reasons and self.owner(b).reasons)
        await self.freed(*(place_of(half.candidates[0]) for half in (asking, answering)))


class ConsentTests(ICETestCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(agent_module, "INTERVAL", 0.02)

    def hurry(self) -> None:
        """Let checks have little time for their answers."""
        self.patch(stun, "RETRY_RTO", 0.02)

    async def test_lost(self) -> None:
        """Without answers the link is failing, then closed: at both ends. [6940-6.5.1.10.3-1]"""
        a, b, _, _, line, _, _ = await self.by_line()
        self.hurry()
        line.passes = lambda datagram, onwards: False
        await self.until(lambda: self.owner(a).reasons and self.owner(b).reasons)
        self.assertEqual(self.owner(a).events, [("opened", B), ("failing", B), ("closed", B)])
        self.assertEqual(self.owner(b).events, [("opened", A), ("failing", A), ("closed", A)])
        self.assertIn("no answer any more", str(self.owner(a).reasons[0]))

    async def test_recovers(self) -> None:
        """An answer in between makes the link work again."""
        a, b, link, theirs, line, _, _ = await self.by_line()
        self.hurry()
        line.passes = lambda datagram, onwards: False
        await self.until(lambda: ("failing", B) in self.owner(a).events)
        line.passes = lambda datagram, onwards: True
        await self.until(lambda: ("recovered", B) in self.owner(a).events)
        await self.talk(a, b, link, theirs)

    async def test_address_changes(self) -> None:
        """A NAT gives one end another address: the other follows, and DTLS goes on, whoever controls."""
        for controlling_moves in (True, False):
            a, b, link, theirs, line, asking, answering = await self.by_line(controlling_moves)
            follows = answering if controlling_moves else asking
            [before] = line.seen_at
            self.assertEqual(follows.pair.remote_addr, before)
            line.move()
            await self.until(lambda line=line, agent=follows: [agent.pair.remote_addr] == line.seen_at)
            self.assertNotEqual(follows.pair.remote_addr, before)
            await self.talk(a, b, link, theirs)
            self.assertEqual((self.owner(a).reasons, self.owner(b).reasons), ([], []))

    async def test_refused_elsewhere(self) -> None:
        """The answer of somebody without the password is none."""
        a, _, _, _, line, _, _ = await self.by_line()
        self.hurry()
        forger = Socket()
        self.addCleanup(forger.close)

        def passes(datagram: bytes, onwards: bool) -> bool:
            message = parse(datagram) if is_stun(datagram) else None
            if onwards and message is not None and message.message_class is stun.Class.REQUEST:
                line._back_to(agent_place, binding_response(message, agent_place))
            return False

        agent_place = next(iter(line._back))
        line.passes = passes
        await self.until(lambda: self.owner(a).reasons)
        self.assertIn("no answer any more", str(self.owner(a).reasons[0]))

    async def test_unanswered_candidates_are_no_servers(self) -> None:
        """Only a peer at a host address, which strangers can ask, becomes a STUN server."""
        a, b, link, _ = await self.linked()
        await self.until(lambda: a.stun_servers() and b.stun_servers())
        self.assertIs(a.behind_nat, False)
        link.close()
        await self.until(lambda: not a.stun_servers() and not b.stun_servers())
