"""The Certificate Store Usage, in an overlay in memory."""

from __future__ import annotations

from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.config.kinds import CERTIFICATE_BY_NODE, CERTIFICATE_BY_USER
from p2psip.errors import Forbidden
from p2psip.interfaces import IUsage, IUsageFactory
from p2psip.node import Node, installed
from p2psip.testing import World
from p2psip.usages.certificate import (
    CertificateUsageFactory,
    certificates_of_node,
    certificates_of_user,
)
from p2psip.wire.codes import LAST_INDEX
from p2psip.wire.storage import ArrayEntry, DataValue


class CertificateStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(3, usages=[CertificateUsageFactory()])
        self.world.run(5)
        self.node, self.other = self.world.nodes[:2]

    def by_node(self, node: Node) -> list[bytes]:
        found = self.world.result(certificates_of_node(self.other.overlay, node.node_id))
        return [identity.certificate for identity in found]

    def by_user(self, name: str) -> list[bytes]:
        found = self.world.result(certificates_of_user(self.other.overlay, name))
        return [identity.certificate for identity in found]

    def test_interfaces(self) -> None:
        factory = CertificateUsageFactory()
        verifyObject(IUsageFactory, factory)
        verifyObject(IPlugin, factory)
        verifyObject(IUsage, factory.build(self.node.overlay))
        self.assertIn("certificate", [found.name for found in installed().usages])

    def test_found_under_both_names(self) -> None:
        """Each node's certificate is found by Node-ID and by user name from elsewhere. [6940-8-1]"""
        for node in self.world.nodes:
            identity = node.signer.identity
            self.assertEqual(self.by_node(node), [identity.certificate])
            self.assertEqual(self.by_user(identity.user_name), [identity.certificate])

    def test_stored_once(self) -> None:
        """Looking again, and joining again, stores nothing again."""
        back = self.world.restart(self.node)
        self.world.until(lambda: back.joined)
        self.world.run(86400)
        self.assertEqual(len(self.by_node(back)), 1)

    def test_renewed(self) -> None:
        """A renewed certificate is put beside the old one."""
        key = self.node._link_host.private_key
        name = self.node.signer.identity.user_name
        self.world.run(86400)
        renewed = self.world.credentials(name, self.node.node_id, key=key).signer
        old = self.node.signer.identity.certificate
        self.node.renew(renewed)
        self.world.run(9 * 3600)
        self.assertEqual(self.by_node(self.node), [old, renewed.identity.certificate])

    def test_renewed_often(self) -> None:
        """Where there is no room for one more, the oldest gives way to it."""
        key = self.node._link_host.private_key
        certificates = [self.node.signer.identity.certificate]
        for _ in range(5):
            self.world.run(9 * 3600)
            self.node.renew(
                self.world.credentials(self.node.signer.identity.user_name, self.node.node_id, key=key).signer
            )
            certificates.append(self.node.signer.identity.certificate)
        self.world.run(9 * 3600)
        self.assertEqual(set(self.by_node(self.node)), set(certificates[-4:]))

    def test_name_that_another_has(self) -> None:
        """Whose user name is another's takes another one, before its certificate is stored. [6940-11.3.1-6]"""
        taken = self.node.signer.identity.user_name
        later = self.world.add(self.world.credentials(taken))
        key, told = later._link_host.private_key, []

        def take_another() -> None:
            told.append(later.signer.identity.user_name)
            later.renew(self.world.credentials("another@example.org", later.node_id, key=key).signer)

        for node in (self.node, later):
            usage: Any = node.usages["certificate"]
            usage.name_taken = take_another
        self.world.until(lambda: later.joined)
        self.world.run(86400)
        self.assertEqual(told, [taken])
        self.assertEqual(self.by_user(taken), [self.node.signer.identity.certificate])
        self.assertEqual(self.by_user("another@example.org"), [later.signer.identity.certificate])
        self.assertEqual(self.by_node(later), [later.signer.identity.certificate])

    def test_not_for_others(self) -> None:
        """Nobody stores under another's Node-ID or name."""
        entry = ArrayEntry(index=LAST_INDEX, value=DataValue(value=self.other.signer.identity.certificate))
        for name, kind_id in (
            (self.node.node_id, CERTIFICATE_BY_NODE),
            (self.node.signer.identity.user_name.encode(), CERTIFICATE_BY_USER),
        ):
            stored = self.other.overlay.store(name, kind_id, [entry], 60)
            self.assertRaises(Forbidden, self.world.result, stored)

    def test_what_is_no_certificate(self) -> None:
        """A value that is no certificate, or another's, is left out and counted."""
        for value in b"garbage", self.other.signer.identity.certificate:
            entry = ArrayEntry(index=LAST_INDEX, value=DataValue(value=value))
            self.world.result(self.node.overlay.store(self.node.node_id, CERTIFICATE_BY_NODE, [entry], 60))
        self.assertEqual(self.by_node(self.node), [self.node.signer.identity.certificate])
        self.assertIn("stored certificate malformed", self.other.status()["rejected"])

    def test_stop(self) -> None:
        """What was stored stays."""
        node = self.node
        self.world.leave(node)
        self.world.run(60)
        self.assertEqual(self.by_node(node), [node.signer.identity.certificate])
