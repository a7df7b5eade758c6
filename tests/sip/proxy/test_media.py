"""Calls of phones behind NATs by way of proxies with media relays."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.media.anchoring import Media
from p2psip.sip.media.client import RelayClient
from p2psip.sip.media.relays import Relays
from p2psip.sip.message import Request
from p2psip.sip.proxy.build import Beyond

from ..media.descriptions import ICE, description
from ..media.fakes import FakePort, FakeReactor, FakeRtpengine, relayed
from .telephony import Dialog, Phone, Telephony

PRIVATE = description("192.168.1.2", 5000)


class WorldReactor:
    """The time of the world, which is not made yet; datagrams go to one rtpengine."""

    def __init__(self) -> None:
        self.engine = FakeRtpengine()
        self.engines = {2223: self.engine}
        self.closed = 0
        self.clock: Any = FakeReactor()

    def seconds(self) -> float:
        return float(self.clock.seconds())

    def callLater(self, *call: Any) -> Any:
        return self.clock.callLater(*call)

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> FakePort:
        opened = FakePort(self, protocol)  # type: ignore[arg-type]
        protocol.makeConnection(opened)
        return opened

    def told(self) -> list[tuple[str, ...]]:
        """What the relay was told since the last time: command, from-tag and to-tag."""
        said = [
            tuple(command.get(name, b"").decode() for name in ("command", "from-tag", "to-tag"))
            for command in self.engine.named("offer", "answer", "delete")
        ]
        self.engine.commands.clear()
        return said


class MediaTests(SynchronousTestCase):
    """Alice is at the first node and bob at the second; each node has a relay."""

    def setUp(self) -> None:
        self.reactors = [WorldReactor() for _ in range(2)]
        medias = [
            Media(Relays([RelayClient("127.0.0.1", 2223, reactor, Random(1))], reactor), "node", reactor.seconds)
            for reactor in self.reactors
        ]
        self.telephony = Telephony(2, beyond=[Beyond(media=media) for media in medias])
        self.addCleanup(self.telephony.stop)
        for reactor, media in zip(self.reactors, medias, strict=True):
            reactor.clock = self.telephony.world.clock
            media.start()
            self.addCleanup(lambda media=media: Deferred.fromCoroutine(media.stop()))
        self.alice = self.telephony.phone(0, "alice", "203.0.113.1", 40000)

    def phone(self, site: int, contact: str = "sip:bob@192.168.1.3:5060", host: str = "203.0.113.2") -> Phone:
        """Bob's, which says that it is at `contact`."""
        phone = Phone(self.telephony, self.telephony.sites[site], "bob", host)
        phone.contact = contact
        self.assertEqual(phone.register().status, 200)
        return phone

    def invite(self, body: bytes = PRIVATE) -> Request:
        """One of alice for bob, with credentials."""
        alice = self.alice
        invite = alice.request("INVITE", self.telephony.uri("bob"), Content_Type="application/sdp")
        invite.body = body
        alice.send(invite)
        challenge = alice.response(invite, 407)
        alice.send(alice.ack(invite, challenge))
        alice.send(alice.again(invite, challenge))
        return invite

    def call(self, bob: Phone, body: bytes = PRIVATE) -> tuple[Dialog, Dialog, bytes, bytes]:
        """Both ends of a call that is answered; the offer that came to bob, the answer that came to alice."""
        invite = self.invite(body)
        came = bob.next_request("INVITE")
        answer = came.response(200, to_tag="bob")
        answer.headers["Record-Route"] = list(came.headers["Record-Route"])
        answer.set("Contact", f"<{bob.contact}>")
        answer.set("Content-Type", "application/sdp")
        answer.body = description("192.168.1.3", 6000)
        bob.send(answer)
        ok = self.alice.response(invite)
        ours = Dialog(invite, ok, True)
        self.alice.send(self.alice.within("ACK", ours))
        bob.next_request("ACK")
        return ours, Dialog(came, answer, False), came.body, ok.body

    def hang_up(self, phone: Phone, dialog: Dialog, other: Phone) -> None:
        bye = phone.within("BYE", dialog)
        phone.send(bye)
        other.answer(other.next_request("BYE"), 200)
        self.assertEqual(phone.response(bye).status, 200)
        self.telephony.world.clock.advance(0)

    def test_at_one_node(self) -> None:
        """Offer, answer, a re-INVITE of the callee without any, answered in ACK; BYE ends it."""
        bob = self.phone(0)
        _, theirs, offer, answer = self.call(bob)
        self.assertEqual((offer, answer), (relayed("offer", 30002), relayed("answer", 30004)))
        relay = self.reactors[0]
        self.assertEqual(relay.engine.named("offer")[0]["received-from"], [b"IP4", b"203.0.113.1"])
        self.assertEqual(relay.engine.named("answer")[0]["received-from"], [b"IP4", b"203.0.113.2"])
        self.assertEqual(relay.told(), [("offer", "alice", ""), ("answer", "alice", "bob")])
        again = bob.within("INVITE", theirs)
        bob.send(again)
        came = self.alice.next_request("INVITE")
        ok = came.response(200)
        ok.set("Contact", f"<{self.alice.contact}>")
        ok.set("Content-Type", "application/sdp")
        ok.body = PRIVATE
        self.alice.send(ok)
        self.assertEqual(bob.response(again).body, relayed("offer", 30006))
        theirs.number = again.cseq.number
        ack = bob.within("ACK", theirs, Content_Type="application/sdp")
        ack.body = description("192.168.1.3", 6000)
        bob.send(ack)
        self.assertEqual(self.alice.next_request("ACK").body, relayed("answer", 30008))
        asked = relay.engine.named("offer", "answer")
        self.assertEqual([a["received-from"][1] for a in asked], [b"203.0.113.1", b"203.0.113.2"])
        self.assertEqual(relay.told(), [("offer", "alice", "bob"), ("answer", "alice", "bob")])
        self.hang_up(bob, theirs, self.alice)
        self.assertEqual(relay.told(), [("delete", "bob", "alice")])

    def test_at_two_nodes(self) -> None:
        """Each relays for its own phone, one after the other."""
        bob = self.phone(1)
        ours, _, offer, answer = self.call(bob)
        self.assertEqual((offer, answer), (relayed("offer", 30002), relayed("answer", 30004)))
        first, second = self.reactors
        self.assertEqual(second.engine.named("offer")[0]["sdp"], relayed("offer", 30002))
        self.assertEqual(first.engine.named("answer")[0]["sdp"], relayed("answer", 30004))
        for relay in self.reactors:
            self.assertEqual(relay.told(), [("offer", "alice", ""), ("answer", "alice", "bob")])
        self.hang_up(self.alice, ours, bob)
        for relay in self.reactors:
            self.assertEqual(relay.told(), [("delete", "alice", "bob")])

    def test_only_the_callee_is_behind_a_nat(self) -> None:
        """Then only its node relays."""
        self.call(self.phone(1), description("203.0.113.1", 5000))
        self.assertEqual(self.reactors[0].told(), [])
        self.assertEqual(len(self.reactors[1].told()), 2)

    def test_nobody_is(self) -> None:
        body = description("203.0.113.1", 5000)
        _, _, offer, _ = self.call(self.phone(0, "sip:bob@203.0.113.2", "203.0.113.2"), body)
        self.assertEqual((offer, self.reactors[0].told()), (body, []))

    def test_ice(self) -> None:
        body = description("192.168.1.2", 5000, *ICE)
        _, _, offer, _ = self.call(self.phone(0), body)
        self.assertEqual((offer, self.reactors[0].told()), (body, []))

    def test_forked(self) -> None:
        """Each phone gets an offer of its own; who does not answer frees what was kept for it."""
        bobs = [self.phone(0), self.phone(0, "sip:bob@192.168.1.4:5060", "203.0.113.3")]
        invite = self.invite()
        came = [bob.next_request("INVITE") for bob in bobs]
        self.assertEqual({request.body for request in came}, {relayed("offer", 30002), relayed("offer", 30004)})
        relay = self.reactors[0]
        branches = {command["via-branch"] for command in relay.engine.named("offer")}
        self.assertEqual(len(branches), 2)
        relay.told()
        bobs[0].answer(came[0], 486)
        self.telephony.world.until(lambda: relay.engine.named("delete"), 5)
        (deleted,) = relay.engine.named("delete")
        self.assertEqual(deleted["via-branch"].decode(), came[0].via.parameters["branch"])
        bobs[1].answer(came[1], 200)
        self.assertEqual(self.alice.response(invite).status, 200)

    def test_canceled(self) -> None:
        bob = self.phone(0)
        invite = self.invite()
        came = bob.next_request("INVITE")
        bob.answer(came, 180)
        self.alice.response(invite, 180)
        cancel = Request("CANCEL", invite.uri_text)
        for name in ("Via", "From", "To", "Call-ID"):
            cancel.headers[name] = list(invite.headers[name])
        cancel.set("CSeq", f"{invite.cseq.number} CANCEL")
        self.alice.send(cancel)
        bob.next_request("CANCEL")
        bob.answer(came, 487)
        self.assertEqual(self.alice.response(invite).status, 487)
        self.telephony.world.until(lambda: self.reactors[0].engine.named("delete"), 5)

    def test_no_relay(self) -> None:
        """The call is made all the same."""
        self.reactors[0].engine.silent = True
        _, _, offer, answer = self.call(self.phone(0))
        self.assertEqual((offer, answer), (PRIVATE, description("192.168.1.3", 6000)))
