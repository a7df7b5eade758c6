"""Media through real rtpengines: RTP both ways between phones that say addresses where they are not."""

from __future__ import annotations

import random
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from p2psip.sip.interfaces import Source
from p2psip.sip.media.anchoring import Media
from p2psip.sip.media.build import build_media
from p2psip.sip.media.client import DEADLINE
from p2psip.sip.message import Request, Response

from ..sip.media.descriptions import ICE, description
from .rtpengine import Rtpengine

SECONDS = 10.0
"""How long an expected packet may take: far more than it does."""
SILENCE = 0.3
"""How long a packet is awaited that must not come."""


class RTPPhone:
    """A phone behind a NAT: `said` is where it says that it is, `socket` where its packets come from."""

    def __init__(self, tag: str, address: str, said: str = "") -> None:
        self.tag, self.address = tag, address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.port = self.socket.getsockname()[1]
        self.said = said or f"192.168.77.{random.randrange(2, 250)}"
        self.source = Source(address, 5060, "UDP")
        self.to: tuple[str, int] = ("", 0)
        """Where its media go."""
        self._number = 0

    def description(self, *attributes: str, protocol: str = "RTP/AVP") -> bytes:
        return description(self.said, 5000 if self.said != self.address else self.port, *attributes, protocol=protocol)

    def told(self, body: bytes) -> None:
        """The other end's session description came."""
        host = re.search(rb"^c=IN IP4 (\S+)", body, re.M)
        port = re.search(rb"^m=audio (\d+)", body, re.M)
        assert host and port, body
        self.to = (host[1].decode(), int(port[1]))

    def send(self, payload: bytes) -> None:
        """One packet of RTP."""
        self._number += 1
        number = self._number.to_bytes(2, "big")
        head = b"\x80\x00" + number + (160 * self._number).to_bytes(4, "big") + self.tag.encode().ljust(4, b".")[:4]
        self.socket.sendto(head + payload.ljust(160, b"."), self.to)

    def hear(self, seconds: float = SECONDS) -> bytes:
        """The payload of the next packet; empty when there is none in time."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(2048)[12:].rstrip(b".")
        except TimeoutError:
            return b""


class MediaCase(TestCase):
    engines = 1

    async def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="p2psip-media-"))
        self.addCleanup(shutil.rmtree, directory, True)
        net = f"127.{random.randrange(64, 250)}.{random.randrange(1, 250)}"
        self.rtpengines = [Rtpengine(directory / str(n), f"{net}.{n}") for n in range(1, self.engines + 1)]
        for each in self.rtpengines:
            self.addCleanup(each.close)
        self.rtpengine = self.rtpengines[0]
        self.alice, self.bob, self.carol = (
            RTPPhone(name, f"{net}.{number}") for number, name in enumerate(("alice", "bob", "carol"), 100)
        )
        for phone in (self.alice, self.bob, self.carol):
            self.addCleanup(phone.socket.close)
        self.call_id = f"call-{random.getrandbits(64):x}"
        self.media = self.new_media()

    def new_media(self, name: str = "node") -> Media:
        media = build_media([(each.address, each.port) for each in self.rtpengines], name, reactor, random.Random())
        assert media is not None
        media.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(media.stop()))
        return media

    def request(
        self, method: str, sender: RTPPhone, receiver: RTPPhone | None, body: bytes = b"", branch: str = ""
    ) -> Request:
        tag = f";tag={receiver.tag}" if receiver is not None else ""
        return Request(
            method,
            "sip:bob@192.168.77.1",
            [
                ("Via", f"SIP/2.0/UDP 198.51.100.1;branch={branch or 'z9hG4bKours'}"),
                ("Via", f"SIP/2.0/UDP {sender.said};branch=z9hG4bKphone;received={sender.address}"),
                ("From", f"<sip:from@example.org>;tag={sender.tag}"),
                ("To", f"<sip:to@example.org>{tag}"),
                ("Call-ID", self.call_id),
                ("CSeq", f"1 {method}"),
                ("Content-Type", "application/sdp"),
            ],
            body,
        )

    async def offer(
        self,
        sender: RTPPhone,
        receiver: RTPPhone,
        body: bytes,
        branch: str = "z9hG4bK1",
        method: str = "INVITE",
        first: bool = True,
    ) -> Request:
        """An offer on its way from phone to phone."""
        request = self.request(method, sender, None if first else receiver, body, branch)
        await self.media.request_passes(request, branch, sender.source)
        if body:
            self.assertNotEqual(request.body, body)
            receiver.told(request.body)
        return request

    async def answer(
        self,
        request: Request,
        answerer: RTPPhone,
        offerer: RTPPhone,
        body: bytes,
        branch: str = "z9hG4bK1",
        status: int = 200,
    ) -> Response:
        response = request.response(status, to_tag=answerer.tag)
        response.set("Content-Type", "application/sdp")
        response.body = body
        await self.media.response_passes(response, request, branch, answerer.source)
        self.assertNotEqual(response.body, body)
        offerer.told(response.body)
        return response

    async def call(self) -> None:
        """Alice calls bob."""
        invite = await self.offer(self.alice, self.bob, self.alice.description())
        await self.answer(invite, self.bob, self.alice, self.bob.description())

    def talk(self, one: RTPPhone, other: RTPPhone) -> None:
        """Both hear each other; the first packets may go astray, until the relay has learned where from they come."""
        for phone in (one, other):
            phone.send(b"hello")
            phone.hear(SILENCE)
            while phone.hear(0.01):
                pass
        for speaker, listener in ((one, other), (other, one)):
            payload = f"{speaker.tag} {random.getrandbits(32)}".encode()
            speaker.send(payload)
            while (heard := listener.hear()) == b"hello":
                pass
            self.assertEqual(heard, payload)

    async def ended(self, seconds: float = SECONDS) -> None:
        """Wait until the relay has nothing left, and not a port open."""
        end = time.monotonic() + seconds
        while self.rtpengine.calls or self.rtpengine.ports():
            self.assertLess(time.monotonic(), end, self.rtpengine.calls)
            await pause(0.02)


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)  # type: ignore[arg-type]


class CallTests(MediaCase):
    async def test_call(self) -> None:
        """Both directions, a refresh in both directions, and the end: not a port stays open."""
        await self.call()
        self.assertEqual((self.alice.to[0], self.bob.to[0]), (self.rtpengine.address,) * 2)
        self.talk(self.alice, self.bob)
        for one, other in ((self.alice, self.bob), (self.bob, self.alice)):
            for method in ("INVITE", "UPDATE"):
                again = await self.offer(one, other, one.description(), "z9hG4bK2", method, first=False)
                await self.answer(again, other, one, other.description(), "z9hG4bK2")
                self.talk(self.alice, self.bob)
        self.assertGreater(self.rtpengine.ports(), 0)
        self.media.ended(self.call_id, self.bob.tag, self.alice.tag, "")
        await self.ended()

    async def test_hold_and_resume(self) -> None:
        """By the attribute and by the address of old; while it lasts the NAT may have changed the port."""
        await self.call()
        self.talk(self.alice, self.bob)
        hold = await self.offer(
            self.alice, self.bob, self.alice.description("sendonly"), "z9hG4bK2", first=False
        )
        self.assertIn(b"a=sendonly", hold.body)
        held = await self.answer(hold, self.bob, self.alice, self.bob.description("recvonly"), "z9hG4bK2")
        self.assertIn(b"a=recvonly", held.body)
        self.alice.send(b"music")
        self.assertEqual(self.bob.hear(), b"music")
        old = self.request(
            "INVITE", self.alice, self.bob, self.alice.description().replace(self.alice.said.encode(), b"0.0.0.0")
        )
        await self.media.request_passes(old, "z9hG4bK3", self.alice.source)
        self.assertIn(b"c=IN IP4 0.0.0.0", old.body)
        await self.answer(old, self.bob, self.alice, self.bob.description("recvonly"), "z9hG4bK3")
        moved = RTPPhone("alice", self.alice.address, self.alice.said)
        self.addCleanup(moved.socket.close)
        resumed = await self.offer(moved, self.bob, moved.description(), "z9hG4bK4", first=False)
        await self.answer(resumed, self.bob, moved, self.bob.description(), "z9hG4bK4")
        self.talk(moved, self.bob)

    async def test_offer_in_the_response(self) -> None:
        """Answered in ACK."""
        invite = await self.offer(self.alice, self.bob, b"")
        await self.answer(invite, self.bob, self.alice, self.bob.description())
        ack = self.request("ACK", self.alice, self.bob, self.alice.description())
        await self.media.request_passes(ack, "z9hG4bK2", self.alice.source)
        self.bob.told(ack.body)
        self.talk(self.alice, self.bob)
        self.media.ended(self.call_id, self.alice.tag, self.bob.tag, "")
        await self.ended()

    async def test_forked(self) -> None:
        """Early media of one phone, the answer of the other; what the first had is freed."""
        offer = self.alice.description()
        to_bob = await self.offer(self.alice, self.bob, offer, "z9hG4bKbob")
        to_carol = await self.offer(self.alice, self.carol, offer, "z9hG4bKcarol")
        self.assertNotEqual(self.bob.to, self.carol.to)
        await self.answer(to_carol, self.carol, self.alice, self.carol.description(), "z9hG4bKcarol", 183)
        self.talk(self.alice, self.carol)
        await self.answer(to_bob, self.bob, self.alice, self.bob.description(), "z9hG4bKbob", 183)
        self.talk(self.alice, self.bob)
        await self.answer(to_carol, self.carol, self.alice, self.carol.description(), "z9hG4bKcarol")
        self.media.ended(self.call_id, self.alice.tag, None, "z9hG4bKbob")
        self.talk(self.alice, self.carol)
        self.assertEqual(len(self.rtpengine.calls), 1)
        self.media.ended(self.call_id, self.alice.tag, self.carol.tag, "")
        await self.ended()

    async def test_nobody_answers(self) -> None:
        """All branches end; a third one before the relay has answered."""
        offer = self.alice.description()
        await self.offer(self.alice, self.bob, offer, "z9hG4bKbob")
        await self.offer(self.alice, self.carol, offer, "z9hG4bKcarol")
        third = self.request("INVITE", self.alice, None, offer)
        going = self.media.request_passes(third, "z9hG4bKthird", self.alice.source)
        for name in ("third", "bob", "carol"):
            self.media.ended(self.call_id, self.alice.tag, None, f"z9hG4bK{name}")
        await going
        await self.ended()

    async def test_a_stranger_gets_nothing(self) -> None:
        """Media go on to the phone, although somebody else sends to the port."""
        await self.call()
        self.talk(self.alice, self.bob)
        self.carol.to = self.alice.to
        self.carol.send(b"bleed")
        self.bob.hear()
        self.bob.send(b"secret")
        self.assertEqual((self.carol.hear(SILENCE), self.alice.hear()), (b"", b"secret"))

    async def test_encrypted_between_the_phones(self) -> None:
        """Keys and fingerprints pass as they are: the relay reads nothing; ICE is taken out."""
        key = "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
        offer = self.alice.description(key, protocol="RTP/SAVP")
        invite = await self.offer(self.alice, self.bob, offer)
        self.assertEqual(re.findall(rb"a=crypto[^\r]*", invite.body), [f"a={key}".encode()])
        await self.answer(invite, self.bob, self.alice, self.bob.description(key, protocol="RTP/SAVP"))
        self.talk(self.alice, self.bob)
        print_ = "fingerprint:sha-256 " + ":".join(["4A"] * 32)
        dtls = self.alice.description(print_, "setup:actpass", *ICE, protocol="UDP/TLS/RTP/SAVP")
        again = await self.offer(self.alice, self.bob, dtls, "z9hG4bK2", first=False)
        self.assertIn(f"a={print_}\r\n".encode(), again.body)
        self.assertNotIn(b"a=candidate", again.body)

    async def test_two_nodes_with_one_relay(self) -> None:
        """A call that both of them relay is two calls there, one behind the other."""
        second = self.new_media("other")
        invite = await self.offer(self.alice, self.bob, self.alice.description())
        there = self.request("INVITE", self.alice, None, invite.body)
        await second.request_passes(there, "z9hG4bK8", None)
        self.bob.told(there.body)
        ok = there.response(200, to_tag=self.bob.tag)
        ok.set("Content-Type", "application/sdp")
        ok.body = self.bob.description()
        await second.response_passes(ok, there, "z9hG4bK8", self.bob.source)
        await self.media.response_passes(ok, invite, "z9hG4bK1", None)
        self.alice.told(ok.body)
        self.talk(self.alice, self.bob)
        self.assertEqual(len(self.rtpengine.calls), 2)
        for media in (self.media, second):
            media.ended(self.call_id, self.alice.tag, self.bob.tag, "")
        await self.ended()

    async def test_another_run_of_the_node(self) -> None:
        """It goes on with the call, and can end it."""
        await self.call()
        self.talk(self.alice, self.bob)
        where = self.alice.to, self.bob.to
        self.media = self.new_media()
        again = await self.offer(self.bob, self.alice, self.bob.description(), "z9hG4bK2", first=False)
        await self.answer(again, self.alice, self.bob, self.alice.description(), "z9hG4bK2")
        self.assertEqual((self.alice.to, self.bob.to), where)
        self.talk(self.alice, self.bob)
        self.media = self.new_media()
        self.media.ended(self.call_id, self.alice.tag, self.bob.tag, "")
        await self.ended()


class FailureTests(MediaCase):
    engines = 2

    def holder(self) -> Rtpengine:
        return next(each for each in self.rtpengines if each.calls)

    async def test_one_dies(self) -> None:
        """A call goes on by way of the other one with the next re-INVITE."""
        await self.call()
        self.talk(self.alice, self.bob)
        self.holder().close()
        again = await self.offer(self.bob, self.alice, self.bob.description(), "z9hG4bK2", first=False)
        await self.answer(again, self.alice, self.bob, self.alice.description(), "z9hG4bK2")
        self.talk(self.alice, self.bob)

    async def test_one_is_started_again(self) -> None:
        """It has forgotten the call; the next re-INVITE makes it anew."""
        await self.call()
        holder = self.holder()
        holder.close()
        holder.start()
        again = await self.offer(self.alice, self.bob, self.alice.description(), "z9hG4bK2", first=False)
        await self.answer(again, self.bob, self.alice, self.bob.description(), "z9hG4bK2")
        self.talk(self.alice, self.bob)

    async def test_all_die(self) -> None:
        """Messages pass unchanged, and without delay, since nobody listens any more."""
        for each in self.rtpengines:
            each.close()
        begun = time.monotonic()
        invite = self.request("INVITE", self.alice, None, self.alice.description())
        await self.media.request_passes(invite, "z9hG4bK1", self.alice.source)
        self.assertEqual(invite.body, self.alice.description())
        self.assertLess(time.monotonic() - begun, DEADLINE + 1)
        self.assertEqual([relay["up"] for relay in self.media.status()["relays"]], [False, False])

    async def test_rubbish(self) -> None:
        """What the relay cannot read passes unchanged."""
        body = self.alice.description().replace(b"s=-\r\n", b"garbage\r\n").replace(b"o=", b"x=")
        invite = self.request("INVITE", self.alice, None, body)
        await self.media.request_passes(invite, "z9hG4bK1", self.alice.source)
        self.assertEqual(invite.body, body)
        self.assertEqual(self.media.status()["counters"]["offer failed, refused"], 1)
