"""An overlay without an authority, as three processes: each node certifies itself (RFC 6940 §11.3.1)."""

from __future__ import annotations

import shutil
import time
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import accept_first
from p2psip.ids import NodeId
from p2psip.security.certificates import generate_key
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer
from p2psip.wire.methods import PingAns, PingReq

from ..security.credentials import self_certified
from .hostile import Intruder, Member, Overlay, dtls_connection, grown, status
from .nodes import ICE, NodeProcess, World, until


class SelfSigned(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.world.close)

    def joined(self, document: str, *options: str) -> NodeProcess:
        node = self.world.node()
        node.start("--config", document, *options)
        node.wait_joined()
        return node

    def handed_over(self, founder: NodeProcess) -> str:
        """A copy of the founder's document, as somebody carries it to another machine."""
        copy = self.world.directory / "overlay.xml"
        shutil.copy(founder.state / "overlay.xml", copy)
        return str(copy)

    def whole(self, nodes: list[NodeProcess]) -> None:
        """Wait until each node has the others as neighbors, with a link to each."""
        ids = {node.status()["node_id"] for node in nodes}
        self.assertEqual(len(nodes), len(ids))
        for node in nodes:
            until(lambda node=node: sees(node, ids), 20, f"{node.name} sees the others", [node])

    def test_overlay(self) -> None:
        """A file is all that a node needs to join; names are free or changed; restarts keep the Node-ID. [6940-11.1-10]

        [6940-11.3.1-1] [6940-11.3.1-5] [6940-11.3.1-6]
        """
        founder = self.world.founder("--self-signed", "--account", "alice")
        founder.wait_for("overlay.xml")
        self.assertTrue(any("no SIP server" in line for line in founder.log))
        document = self.handed_over(founder)
        nodes = [founder, self.joined(document), self.joined(document, "--account", "alice")]
        self.whole(nodes)
        self.assertEqual("alice@example.org", founder.status()["user_name"])
        self.assertEqual(f"{nodes[1].status()['node_id']}@nodes.example.org", nodes[1].status()["user_name"])
        own_name = f"{nodes[2].status()['node_id']}@nodes.example.org"
        until(lambda: nodes[2].status()["user_name"] == own_name, 20, "the later alice gives way", [nodes[2]])
        self.assertEqual({"peer"}, {node.status()["role"] for node in nodes})

        def stored() -> bool:
            found = nodes[1].ask("POST", "/fetch", {"name": own_name, "kind": "CERTIFICATE_BY_USER", "key": None})
            return len(found["values"]) == 1

        until(stored, 20, "the certificate is in the overlay", [nodes[2]])
        for node, options in ((nodes[2], ("--config", document, "--account", "carol")), (founder, ("--self-signed",))):
            node_id = node.status()["node_id"]
            node.kill()
            node.log.clear()
            node.start(*options)
            node.wait_for("rejoins")
            node.wait_joined()
            self.assertEqual(node_id, node.status()["node_id"])
        self.assertEqual("carol@example.org", nodes[2].status()["user_name"])
        self.assertEqual("alice@example.org", founder.status()["user_name"])
        self.whole(nodes)
        published = founder.p2psip("authority", "publish", str(founder.state / "overlay.xml"))
        self.assertIn("2", published.stdout)
        until(lambda: nodes[1].status()["sequence"] == 2, 20, "the new document is everywhere", nodes)

    def test_forged(self) -> None:
        """Whose Node-ID is not made of its key is let in nowhere, by either digest. [6940-11.3.1-4]"""
        for digest in ("sha256", "sha1"):
            founder = self.world.node()
            founder.start("--self-signed", "--node-id-digest", digest, "--no-ice")
            founder.wait_joined()
            overlay = Outside(founder)
            before = status(founder)["rejected"]
            honest, forged = overlay.certified(digest), overlay.certified(digest, NodeId(b"near the victim!"))
            for one in (forged, overlay.certified("sha1" if digest == "sha256" else "sha256")):
                with closing(dtls_connection(founder.address, 6084, self.world.directory, one)) as link:
                    self.assertEqual(b"", link.recv(1))
            with Intruder(overlay, founder, honest, ICE) as other:
                self.assertIsInstance(other.ask(PingReq()), PingAns)
                other.silence(other.message(PingReq(), signer=forged.signer))
            counted = grown(before, status(founder)["rejected"])
            self.assertEqual(2, counted["link: node-id"])
            self.assertEqual(1, counted["unverified: node-id"])
            self.assertEqual(set(), {link["node_id"] for link in status(founder)["links"]} - {honest.node_id.hex()})

    def test_not_permitted(self) -> None:
        """A document without self-signed-permitted is no way in without an account. [6940-11.3-1]"""
        founder = self.world.founder()
        node = self.world.node()
        node.start("--config", self.handed_over(founder))
        node.wait_for("--config needs --account and --password-file")
        assert node.process is not None
        self.assertEqual(1, node.process.wait(20))


def sees(node: NodeProcess, ids: set[str]) -> bool:
    """Whether `node` has links and neighbors to all others of `ids`."""
    found = node.status()
    others = ids - {found["node_id"]}
    return {link["node_id"] for link in found["links"]} == others == set(found["neighbors"]["successors"])


class Outside(Overlay):
    """What whoever has the document knows of a self-signed overlay; it makes its own certificates."""

    def __init__(self, founder: NodeProcess) -> None:
        self.name = founder.overlay
        self.document = (founder.state / "overlay.xml").read_bytes()
        self.configuration = accept_first(self.document, self.name, time.time())

    def certified(self, digest: str, node_id: NodeId | None = None) -> Member:
        """Somebody; with another's Node-ID where one is given."""
        key = generate_key()
        certificate = self_certified(key, digest, node_id, overlay=self.name, now=time.time())
        return Member(key, certificate, Signer(Identity.from_certificate(certificate, self.name), key))
