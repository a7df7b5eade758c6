"""Calls by way of proxies, at one node and between two."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.sip.message import Request, Response

from .telephony import Dialog, Phone, Telephony


class CallTestCase(SynchronousTestCase):
    nodes = 2
    callee_site = 1

    def setUp(self) -> None:
        self.telephony = Telephony(self.nodes)
        self.addCleanup(self.telephony.stop)
        self.alice = self.telephony.phone(0, "alice", "192.0.2.1")
        self.bob = self.telephony.phone(self.callee_site, "bob", "192.0.2.2")

    def call(self, callee: Phone | None = None) -> tuple[Dialog, Dialog]:
        """Alice calls bob, who answers; what each of them knows of the dialog."""
        callee = callee or self.bob
        invite = self.alice.invite(self.telephony.uri("bob"))
        came = callee.next_request("INVITE")
        callee.answer(came, 180)
        self.alice.response(invite, 180)
        sent = callee.answer(came, 200)
        ok = self.alice.response(invite)
        self.assertEqual(ok.status, 200)
        ours = Dialog(invite, ok, True)
        self.alice.send(self.alice.within("ACK", ours))
        callee.next_request("ACK")
        return ours, Dialog(came, sent, False)


class OneNodeTests(CallTestCase):
    """Both phones are at the same node."""

    callee_site = 0

    def test_call(self) -> None:
        """INVITE, 180, 200, ACK, BYE from either end."""
        ours, theirs = self.call()
        bye = self.bob.within("BYE", theirs)
        self.bob.send(bye)
        came = self.alice.next_request("BYE")
        self.assertEqual(came.headers.get("Route"), None)
        self.alice.answer(came, 200)
        self.assertEqual(self.bob.response(bye).status, 200)
        ours, theirs = self.call()
        bye = self.alice.within("BYE", ours)
        self.alice.send(bye)
        self.bob.answer(self.bob.next_request("BYE"), 200)
        self.assertEqual(self.alice.response(bye).status, 200)

    def test_reinvite(self) -> None:
        ours, theirs = self.call()
        for phone, other, dialog in ((self.alice, self.bob, ours), (self.bob, self.alice, theirs)):
            invite = phone.within("INVITE", dialog)
            phone.send(invite)
            other.answer(other.next_request("INVITE"), 200)
            ok = phone.response(invite)
            self.assertEqual(ok.status, 200)
            dialog.number = invite.cseq.number
            phone.send(phone.within("ACK", dialog))
            other.next_request("ACK")

    def test_whatever_a_dialog_has(self) -> None:
        """UPDATE, INFO, REFER, NOTIFY, and methods that nobody here knows, pass in both directions."""
        ours, theirs = self.call()
        for method in ("UPDATE", "INFO", "REFER", "NOTIFY", "MESSAGE", "PUBLISH", "NEWMETHOD"):
            for phone, other, dialog in ((self.alice, self.bob, ours), (self.bob, self.alice, theirs)):
                request = phone.within(method, dialog, Event="x")
                request.body = b"body"
                phone.send(request)
                came = other.next_request(method)
                self.assertEqual((came.body, came.get("Event"), came.uri_text), (b"body", "x", other.contact))
                other.answer(came, 202)
                self.assertEqual(phone.response(request).status, 202)

    def test_reliable_provisional_response(self) -> None:
        """183 with 100rel, and its PRACK, which finds its way by the Record-Route of the 183 (RFC 3262)."""
        invite = self.alice.invite(self.telephony.uri("bob"), Supported="100rel")
        came = self.bob.next_request("INVITE")
        self.assertEqual(came.get("Supported"), "100rel")
        sent = self.bob.answer(came, 183, Require="100rel", RSeq="1")
        progress = self.alice.response(invite, 183)
        self.assertEqual((progress.get("Require"), progress.get("RSeq")), ("100rel", "1"))
        ours = Dialog(invite, progress, True)
        prack = self.alice.within("PRACK", ours, RAck=f"1 {invite.cseq}")
        self.alice.send(prack)
        self.bob.answer(self.bob.next_request("PRACK"), 200)
        self.assertEqual(self.alice.response(prack).status, 200)
        update = self.bob.within("UPDATE", Dialog(came, sent, False))
        self.bob.send(update)
        self.alice.answer(self.alice.next_request("UPDATE"), 200)
        self.assertEqual(self.bob.response(update).status, 200)
        self.bob.answer(came, 200)
        self.assertEqual(self.alice.response(invite).status, 200)

    def test_subscription(self) -> None:
        """SUBSCRIBE begins a dialog: NOTIFY comes back by it, even before the 200 (RFC 6665)."""
        subscribe = self.alice.request("SUBSCRIBE", self.telephony.uri("bob"), Event="presence", Expires="60")
        self.alice.send(subscribe)
        challenge = self.alice.response(subscribe)
        self.alice.send(self.alice.again(subscribe, challenge))
        came = self.bob.next_request("SUBSCRIBE")
        response = came.response(200, to_tag="bobs")
        response.headers["Record-Route"] = list(came.headers["Record-Route"])
        theirs = Dialog(came, response, False)
        notify = self.bob.within("NOTIFY", theirs, Event="presence")
        self.bob.send(notify)
        self.alice.answer(self.alice.next_request("NOTIFY"), 200)
        self.assertEqual(self.bob.response(notify).status, 200)
        response.set("Contact", f"<{self.bob.contact}>")
        self.bob.send(response)
        ours = Dialog(subscribe, self.alice.response(subscribe), True)
        again = self.alice.within("SUBSCRIBE", ours, Event="presence", Expires="0")
        self.alice.send(again)
        self.bob.answer(self.bob.next_request("SUBSCRIBE"), 200)
        self.assertEqual(self.alice.response(again).status, 200)

    def test_busy(self) -> None:
        invite = self.alice.invite(self.telephony.uri("bob"))
        came = self.bob.next_request("INVITE")
        self.bob.answer(came, 486)
        self.assertEqual(self.bob.next_request("ACK").via.branch, came.via.branch)
        self.assertEqual(self.alice.response(invite).status, 486)

    def test_cancel(self) -> None:
        invite = self.alice.invite(self.telephony.uri("bob"))
        came = self.bob.next_request("INVITE")
        self.bob.answer(came, 180)
        cancel = Request("CANCEL", invite.uri_text)
        cancel.headers = {name: list(invite.headers[name]) for name in ("Via", "From", "To", "Call-ID", "Max-Forwards")}
        cancel.set("CSeq", f"{invite.cseq.number} CANCEL")
        self.alice.send(cancel)
        self.assertEqual(self.alice.response(cancel).status, 200)
        canceled = self.bob.next_request("CANCEL")
        self.assertEqual(canceled.via.branch, came.via.branch)
        self.bob.answer(canceled, 200)
        self.bob.answer(came, 487)
        self.assertEqual(self.alice.response(invite).status, 487)

    def test_message(self) -> None:
        message = self.alice.request("MESSAGE", self.telephony.uri("bob"))
        message.body = b"hello"
        self.alice.send(message)
        challenge = self.alice.response(message)
        self.assertEqual(challenge.status, 407)
        self.alice.send(self.alice.again(message, challenge))
        came = self.bob.next_request("MESSAGE")
        self.assertEqual((came.body, came.headers.get("Proxy-Authorization")), (b"hello", None))
        self.assertEqual(came.get("P-Asserted-Identity"), "<sip:alice@example.org>")
        self.bob.answer(came, 202)
        self.assertEqual(self.alice.response(message).status, 202)

    def test_fork(self) -> None:
        """All phones ring, one answers, the others stop."""
        others = [self.telephony.phone(0, "bob", f"192.0.2.{n}") for n in (3, 4)]
        invite = self.alice.invite(self.telephony.uri("bob"))
        phones = [self.bob, *others]
        ringing = [phone.next_request("INVITE") for phone in phones]
        for phone, came in zip(phones, ringing, strict=True):
            phone.answer(came, 180)
        phones[1].answer(ringing[1], 200)
        self.assertEqual(self.alice.response(invite).status, 200)
        for phone, came in zip(phones[::2], ringing[::2], strict=True):
            phone.answer(phone.next_request("CANCEL"), 200)
            phone.answer(came, 487)
        self.telephony.world.run(1)
        self.assertFalse([m for m in self.alice.received if isinstance(m, Response) and m.status >= 200])


class TwoNodeTests(OneNodeTests):
    """The phones are at two nodes."""

    callee_site = 1
