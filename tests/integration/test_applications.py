"""Application connections between real nodes: SIP's binding queries pass over AppAttach, with ICE and without."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.errors import ErrorCode
from p2psip.wire.codes import OverlayLinkType
from p2psip.wire.methods import AppAttachAns, AppAttachReq, IceCandidate, IpAddressPort

from .hostile import Intruder, Overlay
from .nodes import ICE, NodeProcess, World


class BindingQueries(SynchronousTestCase):
    """Two registrars; a phone at each is asked for at the other."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)

    def connections(self, node: NodeProcess) -> list[dict[str, object]]:
        """The application connections that `p2psip status` tells of."""
        found = node.status()["applications"]
        assert isinstance(found, list)
        return found

    def lookups(self, protocol: str, *options: str) -> list[dict[str, object]]:
        """Look up each phone at the other node, twice; the one connection that this took, as both ends show it."""
        founder = self.world.founder(*options)
        (other,) = nodes = self.world.join_all(founder, 1)
        nodes = [founder, other]
        users = {"u0": "pw-0", "u1": "pw-1"}
        founder.add_users(users)
        phones = self.world.sipp()
        for node, user in zip(nodes, users.items(), strict=True):
            self.assertEqual(phones.register(node.address, [user], 17500), 0)
        self.assertEqual([self.connections(node) for node in nodes], [[], []])
        for _ in range(2):
            for node, there, user in ((founder, other, "u1"), (other, founder, "u0")):
                (found,) = node.ask("GET", "/lookup", aor=user)["nodes"]
                self.assertEqual(found["node_id"], there.status()["node_id"])
                self.assertEqual(len(found["contacts"]), 1)
        shown = []
        for node, there in ((founder, other), (other, founder)):
            (connection,) = self.connections(node)
            self.assertEqual(connection["node_id"], there.status()["node_id"])
            self.assertEqual((connection["application"], connection["protocol"]), (5060, protocol))
            table = node.p2psip("status").stdout
            self.assertIn(str(connection["candidate_pair"] or connection["address"]), table)
            self.assertNotIn(connection["address"], [link["address"] for link in node.status()["links"]])
            shown.append(connection)
        return shown

    def test_ice(self) -> None:
        """Over DTLS, over a candidate pair of its own, one connection for both directions; a node that leaves ends it.

        [7904-5.1-1] [7904-5.1-4] [7904-5.1-5] [6940-6.5.2.2-1] [6940-6.5.2.2-2]
        """
        one, other = (str(each["candidate_pair"]).split(" -> ") for each in self.lookups("DTLS-UDP"))
        self.assertEqual(one, other[::-1])
        self.assertTrue(one[0].startswith(f"host {self.world.nodes[0].address}:"), one)
        self.world.nodes[1].p2psip("leave")
        process = self.world.nodes[1].process
        assert process is not None
        self.assertEqual(process.wait(20), 0)
        self.assertEqual(self.connections(self.world.nodes[0]), [])

    def test_unknown_application(self) -> None:
        """A node that serves no such application says so, in an overlay with ICE as in any. [6940-6.5.2.2-3]"""
        founder = self.world.founder()
        overlay = Overlay(founder)
        place = IpAddressPort.of("127.9.9.9", 9)
        candidates = (IceCandidate(addr_port=place, overlay_link=OverlayLinkType.DTLS_UDP_SR),)
        ice = {"ufrag": b"ufrag", "password": b"p" * 22, "role": b"passive", "candidates": candidates}
        with Intruder(overlay, founder, overlay.member(), ICE) as intruder:
            answer = intruder.ask(AppAttachReq(application=4711, **ice))
            self.assertEqual(answer.error_code, ErrorCode.NOT_FOUND)
            self.assertIsInstance(intruder.ask(AppAttachReq(application=5060, **ice)), AppAttachAns)

    def test_without_ice(self) -> None:
        """The same over TLS, in an overlay without NATs."""
        for each in self.lookups("TLS-TCP", "--no-ice"):
            self.assertEqual(each["candidate_pair"], "")
