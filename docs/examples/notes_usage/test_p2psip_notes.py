"""The notes in an overlay in memory: ``python -m twisted.trial test_p2psip_notes``."""

from __future__ import annotations

from p2psip_notes import LIFETIME, NOTE, NotesFactory
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import p2psip.plugins
from p2psip.errors import Forbidden
from p2psip.interfaces import IAccessPolicy, IUsage, IUsageFactory
from p2psip.testing import World
from p2psip.wire.storage import DataValue, DictionaryEntry


class PluginTests(SynchronousTestCase):
    def test_found(self) -> None:
        """p2psip finds the Usage and the policy by their names."""
        self.assertIn("notes", [usage.name for usage in getPlugins(IUsageFactory, p2psip.plugins)])
        self.assertIn("X-OWN-KEY", [policy.name for policy in getPlugins(IAccessPolicy, p2psip.plugins)])


class NotesTests(SynchronousTestCase):
    """Three nodes, of an overlay whose configuration document has the Kind."""

    def setUp(self) -> None:
        factory = NotesFactory()
        self.world = World(3, usages=[factory], kinds=factory.kinds)
        self.nodes = self.world.nodes
        self.notes = [node.usages["notes"] for node in self.nodes]

    def read(self, number: int, topic: str) -> list[str]:
        return sorted(self.world.result(self.notes[number].read(topic)).values())

    def test_interfaces(self) -> None:
        verifyObject(IUsageFactory, NotesFactory())
        verifyObject(IUsage, self.notes[0])

    def test_pinned_here_read_there(self) -> None:
        self.world.result(self.notes[0].pin("lunch", "at noon"))
        self.world.result(self.notes[1].pin("lunch", "not for me"))
        self.assertEqual(self.read(2, "lunch"), ["at noon", "not for me"])
        self.assertEqual(self.read(2, "dinner"), [])

    def test_replaced_and_taken_away(self) -> None:
        for text, expected in (("at noon", ["at noon"]), ("at one", ["at one"]), ("", [])):
            self.world.result(self.notes[0].pin("lunch", text))
            self.assertEqual(self.read(1, "lunch"), expected)

    def test_under_the_own_key_only(self) -> None:
        """The policy, which every storing peer asks."""
        first, second = self.nodes[:2]
        entry = DictionaryEntry(key=second.node_id, value=DataValue(value=b"I said this"))
        with self.assertRaises(Forbidden):
            self.world.result(first.overlay.store(b"notes:lunch", NOTE, [entry], LIFETIME))

    def test_no_text(self) -> None:
        """What is no text is left out and counted."""
        first, second = self.nodes[:2]
        entry = DictionaryEntry(key=first.node_id, value=DataValue(value=b"\xff"))
        self.world.result(first.overlay.store(b"notes:lunch", NOTE, [entry], LIFETIME))
        self.assertEqual(self.read(1, "lunch"), [])
        self.assertEqual(second.status()["rejected"]["notes: not a text"], 1)

    def test_kept_as_long_as_its_node_lives(self) -> None:
        """A note is renewed, survives a peer, and ends some time after its writer."""
        self.world.result(self.notes[0].pin("lunch", "at noon"))
        self.world.run(3 * LIFETIME)
        self.assertEqual(self.read(1, "lunch"), ["at noon"])
        self.world.kill(self.nodes[0])
        self.assertEqual(self.read(1, "lunch"), ["at noon"])
        self.world.run(LIFETIME)
        self.assertEqual(self.read(1, "lunch"), [])
