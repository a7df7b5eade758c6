"""A proxy that has too much to do says so, in time for what it has begun (RFC 3261 §21.5.4)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.proxy import proxy as proxy_module

from .telephony import Dialog, Telephony


class OverloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.telephony = Telephony(1)
        self.addCleanup(self.telephony.stop)
        self.alice = self.telephony.phone(0, "alice", "192.0.2.1")
        self.bob = self.telephony.phone(0, "bob", "192.0.2.2")
        self.proxy = self.telephony.sites[0].phones._proxy

    def assert_refused(self) -> None:
        invite = self.alice.request("INVITE", self.telephony.uri("bob"))
        self.alice.send(invite)
        response = self.alice.response(invite)
        self.assertEqual((response.status, response.get("Retry-After")), (503, "5"))
        self.assertTrue(self.bob.none_of("INVITE"))
        self.alice.send(self.alice.ack(invite, response))
        self.assertIn("sip: call while busy", self.telephony.sites[0].phones.rejected())

    def test_late(self) -> None:
        """While the program is late there are no new calls; dialogs and messages go on."""
        invite = self.alice.invite(self.telephony.uri("bob"))
        self.bob.answer(self.bob.next_request("INVITE"), 200)
        dialog = Dialog(invite, self.alice.response(invite), True)
        self.proxy.tick(self.telephony.world.clock.seconds(), proxy_module.SLOW + 0.1)
        self.assert_refused()
        self.alice.send(self.alice.within("ACK", dialog))
        self.bob.next_request("ACK")
        self.alice.send(self.alice.within("INVITE", dialog))
        self.bob.next_request("INVITE")
        self.alice.send(self.alice.request("MESSAGE", self.telephony.uri("bob")))
        self.proxy.tick(self.telephony.world.clock.seconds(), 0.0)
        self.alice.invite(self.telephony.uri("bob"))
        self.bob.next_request("INVITE")

    def test_many(self) -> None:
        """So many calls may ring at once, and no more; each that ends makes room."""
        self.patch(proxy_module, "MOST_CALLS", 2)
        invites = [self.alice.invite(self.telephony.uri("bob")) for _ in range(2)]
        ringing = [self.bob.next_request("INVITE") for _ in invites]
        self.assert_refused()
        self.bob.answer(ringing[0], 486)
        self.assertEqual(self.alice.response(invites[0]).status, 486)
        self.alice.invite(self.telephony.uri("bob"))
        self.bob.next_request("INVITE")
