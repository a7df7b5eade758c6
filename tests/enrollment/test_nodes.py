"""Invitations and Node-IDs."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from p2psip.enrollment.accounts import UnknownAccount
from p2psip.enrollment.database import AccountError, Database
from p2psip.enrollment.nodes import Nodes, NotAvailable, Owner
from p2psip.ids import NodeId

K1, K2, K3 = (bytes([n]) * 32 for n in (1, 2, 3))
USER = "alice@example.org"
NODE = "second@nodes.example.org"


class NodesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.database = Database(self.new_url(), self.clock.seconds)
        self.addCleanup(self.database.close)
        self.nodes = Nodes(self.database)

    def new_url(self) -> str:
        """The URL of a database that is empty."""
        return f"sqlite:///{self.mktemp()}"

    # -- invitations -------------------------------------------------------------------------------

    def test_invited(self) -> None:
        password = self.nodes.invite("second", "registrar", 60)
        self.assertEqual(self.nodes.invited("second", password), "registrar")
        for guess in ("", password + "x"):
            self.assertIsNone(self.nodes.invited("second", guess))
        for name in ("third", "a b\0"):
            self.assertIsNone(self.nodes.invited(name, password))
            self.assertIsNone(self.nodes.invited(name, ""))

    def test_expires(self) -> None:
        password = self.nodes.invite("second", "peer", 60)
        self.clock.advance(59)
        self.assertEqual(self.nodes.invited("second", password), "peer")
        self.clock.advance(1)
        self.assertIsNone(self.nodes.invited("second", password))

    def test_redeemed_by_one_key(self) -> None:
        """Again and again by that key, and by no other."""
        self.nodes.invite("second", "peer", 60)
        first = self.nodes.redeem("second", K1, NODE, "peer")
        assert first is not None
        self.assertEqual(len(first), 1)
        self.assertEqual(self.nodes.redeem("second", K1, NODE, "peer"), first)
        self.assertIsNone(self.nodes.redeem("second", K2, NODE, "peer"))
        self.assertIsNone(self.nodes.redeem("third", K1, NODE, "peer"))

    def test_invited_anew(self) -> None:
        """A node that lost its key comes back as itself; its old token is worth nothing. [6940-11.3-19]"""
        old = self.nodes.invite("second", "peer", 60)
        first = self.nodes.redeem("second", K1, NODE, "peer")
        new = self.nodes.invite("second", "registrar", 60)
        self.assertIsNone(self.nodes.invited("second", old))
        self.assertEqual(self.nodes.invited("second", new), "registrar")
        self.assertEqual(self.nodes.redeem("second", K2, NODE, "registrar"), first)
        assert first is not None
        self.assertEqual(self.nodes.owner(first), Owner(NODE, "registrar"))

    def test_refused_invitations(self) -> None:
        self.assertRaises(AccountError, self.nodes.invite, "a b", "peer", 60)
        self.assertRaises(AccountError, self.nodes.invite, "second", "user", 60)

    # -- Node-IDs ----------------------------------------------------------------------------------

    def assign(self, key: bytes, count: int, quota: int) -> list[NodeId]:
        return self.nodes.assign(USER, key, count, quota, "peer")

    def test_same_key_same_ids(self) -> None:
        """[6940-11.3-19]"""
        ids = self.assign(K1, 2, 3)
        self.assertEqual(len(set(ids)), 2)
        self.assertEqual({len(node_id) for node_id in ids}, {16})
        self.assertEqual(self.assign(K1, 2, 3), ids)
        self.assertEqual(self.assign(K1, 1, 3), ids[:1])

    def test_quota_in_all(self) -> None:
        """Not for each request or key. [6940-13.6.2-1]"""
        first = self.assign(K1, 2, 3)
        second = self.assign(K2, 1, 3)
        self.assertEqual(len({*first, *second}), 3)
        self.assertRaises(NotAvailable, self.assign, K3, 1, 3)
        self.assertRaises(NotAvailable, self.assign, K1, 3, 3)
        self.assertEqual(self.assign(K1, 2, 3), first)

    def test_random(self) -> None:
        """Neither name nor key tells which they will be. [6940-11.3-15] [6940-11.3-16]"""
        other = Database(f"sqlite:///{self.mktemp()}", self.clock.seconds)
        self.addCleanup(other.close)
        ids = self.assign(K1, 8, 8)
        others = Nodes(other).assign(USER, K1, 8, 8, "peer")
        halves = {half for node_id in ids + others for half in (node_id[:8], node_id[8:])}
        self.assertEqual(len(halves), 32)

    def test_more_for_the_same_key(self) -> None:
        first = self.assign(K1, 1, 3)
        self.clock.advance(1)
        self.assertEqual(self.assign(K1, 3, 3)[:1], first)
        self.assertRaises(NotAvailable, self.assign, K1, 4, 3)

    def test_no_quota(self) -> None:
        self.assertRaises(NotAvailable, self.assign, K1, 1, 0)

    def test_only_node_returns_with_a_new_key(self) -> None:
        """[6940-11.3-19]"""
        ids = self.assign(K1, 1, 1)
        self.assertEqual(self.assign(K2, 1, 1), ids)
        self.assertEqual(self.assign(K2, 1, 1), ids)

    def test_owner(self) -> None:
        ids = self.assign(K1, 2, 2)
        other = self.nodes.assign(NODE, K2, 1, 1, "registrar")
        self.assertEqual(self.nodes.owner(ids), Owner(USER, "peer"))
        self.assertEqual(self.nodes.owner(other), Owner(NODE, "registrar"))
        for strange in ([*ids, *other], [NodeId(b"x" * 16)], [ids[0], NodeId(b"x" * 16)], []):
            self.assertIsNone(self.nodes.owner(strange))

    def test_revoked(self) -> None:
        password = self.nodes.invite("second", "peer", 60)
        ids = self.nodes.redeem("second", K1, NODE, "peer")
        assert ids is not None
        self.assertEqual(self.nodes.revoke(NODE), ids)
        self.assertIsNone(self.nodes.owner(ids))
        self.assertIsNone(self.nodes.invited("second", password))
        self.assertRaises(UnknownAccount, self.nodes.revoke, NODE)
        self.nodes.invite("second", "peer", 60)
        self.assertNotEqual(self.nodes.redeem("second", K1, NODE, "peer"), ids)
