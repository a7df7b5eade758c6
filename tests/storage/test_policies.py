"""The access control policies of RFC 6940 §7.3."""

from __future__ import annotations

from dataclasses import replace

from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip import plugins
from p2psip.interfaces import IAccessPolicy, SignedBy
from p2psip.storage.policies import multiple_name

from .world import (
    ALICE,
    ALICES,
    ARRAY,
    BOB,
    DICTIONARY,
    POLICIES,
    TURN,
    hash_of,
    item,
    make_kinds,
    node,
    signed,
    single,
)

KINDS = make_kinds()


class PolicyTests(SynchronousTestCase):
    def permits(self, name: str, signer: SignedBy, resource: bytes, key: bytes = b"") -> bool:
        value = signed(item(key), kind=DICTIONARY)
        return POLICIES[name].permits(signer, hash_of(resource), KINDS[DICTIONARY], value, hash_of)

    def test_interface(self) -> None:
        for policy in POLICIES.values():
            self.assertTrue(verifyObject(IAccessPolicy, policy))
            self.assertTrue(verifyObject(IPlugin, policy))

    def test_found_as_plugins(self) -> None:
        found = {policy.name for policy in getPlugins(IAccessPolicy, plugins)}
        self.assertLessEqual({"USER-MATCH", "NODE-MATCH", "USER-NODE-MATCH", "NODE-MULTIPLE"}, found)

    def test_user_match(self) -> None:
        """[6940-7.3.1-1]"""
        self.assertTrue(self.permits("USER-MATCH", ALICE.signed_by, b"alice@example.org"))
        self.assertFalse(self.permits("USER-MATCH", BOB.signed_by, b"alice@example.org"))

    def test_node_match(self) -> None:
        """The Node-ID that signed counts, not another one of the certificate. [6940-7.3.2-1]"""
        self.assertTrue(self.permits("NODE-MATCH", ALICE.signed_by, ALICE.node_id))
        self.assertFalse(self.permits("NODE-MATCH", BOB.signed_by, ALICE.node_id))
        self.assertFalse(self.permits("NODE-MATCH", SignedBy(ALICE.identity, node(9)), ALICE.node_id))

    def test_user_node_match(self) -> None:
        """User name and key have to match, in a dictionary. [6940-7.3.3-1, 6940-7.3.3-2]"""
        name, alice = b"alice@example.org", ALICE.signed_by
        self.assertTrue(self.permits("USER-NODE-MATCH", alice, name, ALICE.node_id))
        self.assertFalse(self.permits("USER-NODE-MATCH", alice, name, BOB.node_id))
        self.assertFalse(self.permits("USER-NODE-MATCH", BOB.signed_by, name, BOB.node_id))
        value = signed(single(), kind=ARRAY)
        policy = POLICIES["USER-NODE-MATCH"]
        self.assertFalse(policy.permits(alice, ALICES, KINDS[ARRAY], value, hash_of))

    def test_domains(self) -> None:
        """A user of a domain that the Kind does not take may write nothing there, but elsewhere.

        [7904-3.3-2, 7904-3.4-5]
        """
        value = signed(item(ALICE.node_id), kind=DICTIONARY)
        for patterns, permitted in (
            (None, True),
            ((r"example\.org",), True),
            ((r"other\.example", r".*\.org"), True),
            ((r"example",), False),
            ((), False),
        ):
            kind = replace(KINDS[DICTIONARY], domains=patterns)
            for name in "USER-MATCH", "USER-NODE-MATCH":
                policy = POLICIES[name]
                self.assertEqual(policy.permits(ALICE.signed_by, ALICES, kind, value, hash_of), permitted)

    def test_node_multiple(self) -> None:
        """i is one byte and counts from 1 to the Kind's maximum. [6940-7.3.4-1, 6940-7.3.4-3]"""
        policy, value = POLICIES["NODE-MULTIPLE"], signed(single(), kind=TURN)
        permitted = [
            i
            for i in range(6)
            if policy.permits(
                ALICE.signed_by, hash_of(multiple_name(ALICE.node_id, i)), KINDS[TURN], value, hash_of
            )
        ]
        self.assertEqual(permitted, [1, 2, 3])
        self.assertEqual(multiple_name(node(1), 2), node(1) + b"\x02")
        resource = hash_of(multiple_name(ALICE.node_id, 1))
        self.assertFalse(policy.permits(BOB.signed_by, resource, KINDS[TURN], value, hash_of))
