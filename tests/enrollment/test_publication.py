"""Documents that an authority publishes, as a member reads them."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import accept_first, accept_update, trust_of
from p2psip.config.defaults import KINDS
from p2psip.config.document import ConfigurationError
from p2psip.config.kinds import GATEWAYS
from p2psip.enrollment.publication import first_document, next_document
from p2psip.ids import NodeId
from p2psip.node import installed
from p2psip.security.signing import Verifier

from . import world
from .world import OVERLAY

NOW = 1_800_000_000.0


class PublicationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = world.make(self.mktemp(), NOW)
        self.addCleanup(self.authority.close)
        servers = ["https://192.0.2.1:8443/enroll"]
        self.document = first_document(self.authority, [("192.0.2.1", 6084)], servers, NOW)
        self.first = accept_first(self.document, OVERLAY, NOW)
        self.verifier = Verifier(trust_of(self.first, lambda: NOW))

    def test_first(self) -> None:
        self.assertEqual(self.first.instance_name, OVERLAY)
        self.assertEqual(self.first.root_certificates, (self.authority.root_certificate,))
        self.assertEqual(self.first.bootstrap_nodes, (("192.0.2.1", 6084),))
        self.assertEqual(self.first.enrollment_servers, ("https://192.0.2.1:8443/enroll",))
        self.assertEqual(self.first.configuration_signers, (self.authority.configuration_signer().node_id,))
        self.assertEqual(set(self.first.kinds), {0x1, 0x2, 0x3, 0x10})
        self.assertEqual({k.signer for k in self.first.kinds.values()}, {self.authority.kind_signer().node_id})

    def test_kinds(self) -> None:
        """Those of the usages that are installed: the registered ones, and that of gateways."""
        self.assertEqual({kind for usage in installed().usages for kind in usage.kinds}, {*KINDS, GATEWAYS})
        kind = replace(KINDS[0], kind_id=0xF0000001, name="")
        document = first_document(self.authority, [], [], NOW, [*KINDS, kind])
        self.assertEqual(set(accept_first(document, OVERLAY, NOW).kinds), {0x1, 0x2, 0x3, 0x10, 0xF0000001})

    def test_next(self) -> None:
        """Members of the first accept it; what is not changed stays."""
        bad = frozenset({NodeId(b"b" * 16)})
        servers = (*self.first.enrollment_servers, "https://192.0.2.2:8443/enroll")
        document = next_document(self.authority, self.first, bad_nodes=bad, enrollment_servers=servers)
        second = accept_update(document, self.first, self.verifier, NOW)
        self.assertEqual(second.sequence, self.first.sequence + 1)
        self.assertEqual((second.bad_nodes, second.enrollment_servers), (bad, servers))
        self.assertEqual(second.kinds, self.first.kinds)
        self.assertEqual(second.expiration, self.first.expiration)

    def test_growing(self) -> None:
        """However many nodes are revoked, each document can be sent to those that have the one before it."""
        self.assertEqual(self.first.max_message_size, 16384)
        current = self.first
        for number in range(20):
            revoked = [NodeId(bytes([number + 1, each + 1] * 8)) for each in range(50)]
            document = next_document(self.authority, current, bad_nodes=current.bad_nodes.union(revoked))
            self.assertLess(len(document) + 4096, current.max_message_size)
            verifier = Verifier(trust_of(current, lambda: NOW))
            current = accept_update(document, current, verifier, NOW)
        self.assertEqual(len(current.bad_nodes), 1000)
        self.assertEqual(current.max_message_size, 131072)

    def test_of_another_authority(self) -> None:
        other = world.make(self.mktemp(), NOW)
        self.addCleanup(other.close)
        document = next_document(other, self.first)
        self.assertRaises(ConfigurationError, accept_update, document, self.first, self.verifier, NOW)
