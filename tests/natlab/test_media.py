"""Calls between real softphones (baresip) that are each behind a NAT, each at a node of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..integration.nodes import until
from ..integration.phones import Softphone, hears_tone
from .description import NAT, Host, NATKind
from .overlays import OverlayTestCase

RATE = re.compile(r"audio=\d+/(\d+) ")
RELAYED = ("--rtpengine", "127.0.0.1:2223")


class MediaTests(OverlayTestCase):
    """Alice's NAT maps each destination anew; bob's does not, and bob has another NAT around it."""

    def phones(self, transport: str, *options: str) -> None:
        self.overlay = self.world(
            Host("n1"), Host("n2"), NAT("nat-a", NATKind.SYMMETRIC), Host("alice", "nat-a"),
            NAT("isp", NATKind.CONE), NAT("nat-b", NATKind.CONE, behind="isp"), Host("bob", "nat-b"),
            options=options,
        )  # fmt: skip
        self.engines = [self.overlay.rtpengine(host) for host in ("n1", "n2")] if options else []
        first = self.overlay.founder()
        second = self.overlay.join(first)
        self.alice = self.overlay.softphone("alice", "alice", first, transport)
        self.bob = self.overlay.softphone("bob", "bob", second, transport, answers=True)

    def dial(self) -> None:
        self.alice.command("dial", "sip:bob@example.org")
        for phone in (self.alice, self.bob):
            phone.wait_event("CALL_ESTABLISHED")

    def both(self, what: Callable[[Softphone], bool], text: str) -> None:
        for phone in (self.alice, self.bob):
            until(lambda phone=phone: what(phone), 20, f"{phone.user} {text}")

    def call(self, transport: str) -> None:
        """Both hear the tone, also after hold and resume; in the end nothing is left at the relays."""
        self.phones(transport, *RELAYED)
        self.dial()
        self.both(hears_tone, "hears the tone")
        self.assertEqual([len(engine.calls) for engine in self.engines], [1, 1])
        self.alice.command("hold")
        self.both(lambda phone: received(phone) == 0, "hears nothing on hold")
        self.alice.command("resume")
        # What it hears then it does not record, whoever calls it from wherever.
        self.both(lambda phone: received(phone) > 60000, "hears again")
        self.bob.command("hangup")
        for phone in (self.alice, self.bob):
            phone.wait_event("CALL_CLOSED")
        until(lambda: not any(engine.calls for engine in self.engines), 10, "the relays forget the call")
        (relay,) = self.overlay.nodes[0].status()["media"]["relays"]
        self.assertEqual(relay, {"address": "127.0.0.1:2223", "up": True})

    def test_udp(self) -> None:
        """SIP over UDP."""
        self.call("udp")

    def test_tcp(self) -> None:
        """SIP over TCP."""
        self.call("tcp")

    def test_without_relays(self) -> None:
        """The call is made, and nobody hears anything."""
        self.phones("udp")
        self.dial()
        self.both(lambda phone: "audio=64000/0 " in phone.log(), "speaks, and hears nothing")
        for phone in (self.alice, self.bob):
            self.assertEqual(received(phone), 0)


def received(phone: Softphone) -> int:
    """How many bits of audio it says that it received in one of the last seconds; -1 before it says anything."""
    rates = RATE.findall(phone.log())
    return int(rates[-1]) if rates else -1
