"""Calls by way of the proxies of two nodes, between real softphones (baresip)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .nodes import NodeProcess, World, until
from .phones import Softphone, hears_tone


class CallTestCase(SynchronousTestCase):
    """Two nodes; phones have theirs as outbound proxy."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)
        first = self.world.founder()
        self.nodes = [first, self.world.join(first)]
        self.passwords: dict[str, str] = {}

    def phone(
        self, user: str, node: int | NodeProcess, transport: str = "udp", answers: bool = False, rings: int = 60
    ) -> Softphone:
        """A registered phone; it rings for so many seconds, unless it answers at once."""
        if user not in self.passwords:
            self.passwords[user] = self.world.nodes[0].json("user", "add", user)["password"]
        server = self.nodes[node] if isinstance(node, int) else node
        phone = Softphone(
            self.world.address(), user, self.passwords[user], server.address, transport, answers, self.world.overlay,
            rings=rings,
        )  # fmt: skip
        self.addCleanup(phone.close)
        phone.wait_registered()
        return phone

    def dial(self, caller: Softphone, user: str) -> None:
        caller.command("dial", f"sip:{user}@{self.world.overlay}")

    def stands(self, *phones: Softphone) -> None:
        for phone in phones:
            phone.wait_event("CALL_ESTABLISHED")

    def closed(self, *phones: Softphone) -> str:
        """The last phone's reason."""
        return str([phone.wait_event("CALL_CLOSED").get("param", "") for phone in phones][-1])

    def tone(self, *phones: Softphone) -> None:
        """Each hears the other's 440 Hz."""
        for phone in phones:
            until(lambda phone=phone: hears_tone(phone), 20, f"{phone.user} hears the tone")


class CallTests(CallTestCase):
    def both_ways(self, transport: str) -> None:
        alice, bob = (self.phone(user, node, transport, True) for user, node in (("alice", 0), ("bob", 1)))
        for caller, callee in ((alice, bob), (bob, alice)):
            self.dial(caller, callee.user)
            self.stands(caller, callee)
            self.tone(caller, callee)
            (caller if caller is alice else callee).command("hangup")
            self.closed(caller, callee)
        self.assertNotIn("SIP/2.0 302", alice.log() + bob.log())

    def test_udp(self) -> None:
        """Each calls the other over UDP, and hears it."""
        self.both_ways("udp")

    def test_tcp(self) -> None:
        """Each calls the other over TCP, and hears it."""
        self.both_ways("tcp")

    def test_hold(self) -> None:
        """Hold and resume are INVITEs within the dialog: the other phone is told, and both hear each other again."""
        alice, bob = self.phone("alice", 0), self.phone("bob", 1, answers=True)
        self.dial(alice, "bob")
        self.stands(alice, bob)
        alice.command("hold")
        until(lambda: "a=sendonly" in bob.log(), 10, "bob is put on hold")
        until(lambda: "a=recvonly" in alice.log(), 10, "alice is told that he knows")
        alice.command("resume")
        until(lambda: bob.log().rfind("a=sendrecv") > bob.log().rfind("a=sendonly"), 10, "the call goes on")
        bob.command("hangup")
        self.closed(alice, bob)

    def test_transfer(self) -> None:
        """Alice hands bob over to carol: REFER, a new call, and NOTIFY go by way of the proxies."""
        alice = self.phone("alice", 0)
        bob, carol = self.phone("bob", 1, answers=True), self.phone("carol", 0, "tcp", answers=True)
        self.dial(alice, "bob")
        self.stands(alice, bob)
        alice.command("transfer", f"sip:carol@{self.world.overlay}")
        self.stands(carol)
        self.tone(carol)
        until(lambda: "NOTIFY sip:" in alice.log(), 10, "alice hears how it went")

    def test_cancel(self) -> None:
        """Who hangs up before there is an answer ends the ringing."""
        alice, bob = self.phone("alice", 0), self.phone("bob", 1)
        self.dial(alice, "bob")
        bob.wait_event("CALL_INCOMING")
        alice.wait_event("CALL_RINGING")
        alice.command("hangup")
        self.closed(alice, bob)
        until(lambda: "SIP/2.0 487" in alice.log(), 10, "the INVITE is answered")

    def test_busy(self) -> None:
        """Who does not want the call: the caller hears busy."""
        alice, bob = self.phone("alice", 0), self.phone("bob", 1)
        self.dial(alice, "bob")
        bob.wait_event("CALL_INCOMING")
        bob.command("hangup")
        self.assertIn("486", self.closed(bob, alice))

    def test_no_answer(self) -> None:
        """Nobody takes it: the phone ends it by itself, and the caller hears so."""
        alice, bob = self.phone("alice", 0), self.phone("bob", 1, rings=2)
        self.dial(alice, "bob")
        bob.wait_event("CALL_INCOMING")
        self.assertIn("486", self.closed(bob, alice))
        self.assertIn("SIP/2.0 180", alice.log())

    def test_nobody(self) -> None:
        """A user without a phone is 480, a name without a user 404."""
        self.nodes[0].json("user", "add", "dave")
        alice = self.phone("alice", 1)
        for user, status in (("nobody", "404"),):
            self.dial(alice, user)
            self.assertIn(status, self.closed(alice))

    def test_fork(self) -> None:
        """Three phones of bob's at both nodes ring, one answers, the others stop ringing."""
        alice = self.phone("alice", 0)
        bobs = [self.phone("bob", node) for node in (0, 1, 1)]
        self.dial(alice, "bob")
        for bob in bobs:
            bob.wait_event("CALL_INCOMING")
        bobs[1].command("accept")
        self.stands(alice, bobs[1])
        self.closed(bobs[0], bobs[2])
        self.tone(alice, bobs[1])
        bobs[1].command("hangup")
        self.closed(alice)


class DeathTests(CallTestCase):
    def test_all_others_die(self) -> None:
        """A call survives each peer but its two, one after the other, and ends as it should."""
        self.nodes += self.world.join_all(self.nodes[0], 3)
        alice, bob = self.phone("alice", 1), self.phone("bob", 2, answers=True)
        self.dial(alice, "bob")
        self.stands(alice, bob)
        self.tone(alice, bob)
        for node in (self.nodes[3], self.nodes[0], self.nodes[4]):
            node.kill()
            bob.forget()
            alice.command("hold")
            until(lambda: "a=sendonly" in bob.log(), 15, "a request of the call comes through")
            alice.command("resume")
            until(lambda: "a=sendrecv" in bob.log().partition("a=sendonly")[2], 15, "another")
        bob.command("hangup")
        self.closed(alice, bob)

    def test_a_node_comes_back(self) -> None:
        """A node that was killed in mid-call and is back takes the call to its end: dialogs are not its to remember."""
        alice, bob = self.phone("alice", 0), self.phone("bob", 1, answers=True)
        self.dial(alice, "bob")
        self.stands(alice, bob)
        self.nodes[1].kill()
        self.nodes[1].start()
        self.nodes[1].wait_joined()
        bob.command("hangup")
        self.closed(bob, alice)

    def test_one_of_two_nodes(self) -> None:
        """Of bob's phones at two nodes the one at the living node rings within four seconds.

        Whoever holds his registration: alice's node knows him from a call before.
        """
        third = self.world.join(self.nodes[0])
        alice = self.phone("alice", 0)
        bobs = [self.phone("bob", node) for node in (1, third)]
        self.dial(alice, "bob")
        for bob in bobs:
            bob.wait_event("CALL_INCOMING")
        alice.command("hangup")
        self.closed(alice, *bobs)
        self.nodes[1].kill()
        self.dial(alice, "bob")
        bobs[1].wait_event("CALL_INCOMING", 4)
        bobs[1].command("accept")
        self.stands(alice, bobs[1])
