from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import Configuration, is_newer, next_sequence, overlay_hash
from p2psip.config.kinds import REGISTERED
from p2psip.wire.codes import DataModel, Kind
from tests.config.documents import Founder
from tests.security.credentials import NOW


class SequenceTests(SynchronousTestCase):
    """Sequence numbers count modulo 65535 (RFC 6940 §6.3.2.1)."""

    def test_order(self) -> None:
        """0 comes after 65534 [6940-6.3.2.1-2, 6940-6.3.2.1-7]."""
        self.assertEqual(next_sequence(65534), 0)
        self.assertTrue(is_newer(0, 65534))
        self.assertFalse(is_newer(65534, 0))
        self.assertTrue(is_newer(32767, 0))
        self.assertFalse(is_newer(32768, 0))
        self.assertFalse(is_newer(7, 7))

    @given(st.integers(0, 65534), st.integers(0, 65534))
    def test_of_two_one_is_newer(self, a: int, b: int) -> None:
        """Of two different numbers exactly one is the newer."""
        self.assertEqual(is_newer(a, b) + is_newer(b, a), int(a != b))
        self.assertTrue(is_newer(next_sequence(a), a))


class ConfigurationTests(SynchronousTestCase):
    """What a configuration knows of itself."""

    def test_overlay_hash(self) -> None:
        """The lower 32 bits of the SHA-1 of the name (RFC 6940 §6.3.2)."""
        self.assertEqual(overlay_hash("overlay.example.org"), 0x9AA32B8D)
        self.assertEqual(Configuration(instance_name="overlay.example.org").overlay_hash, 0x9AA32B8D)

    def test_context(self) -> None:
        """What the wire needs to read values."""
        context = Founder().configuration(node_id_length=20).context
        self.assertEqual(context.node_id_length, 20)
        self.assertEqual(context.of_kind(1).model, DataModel.DICTIONARY)

    def test_defaults(self) -> None:
        """Those of RFC 6940 §11.1."""
        c = Configuration(instance_name="x")
        self.assertEqual(
            (c.topology_plugin, c.node_id_length, c.max_message_size), ("CHORD-RELOAD", 16, 5000)
        )
        self.assertEqual((c.initial_ttl, c.overlay_reliability_timer, c.turn_density), (100, 3000, 1))
        self.assertEqual((c.clients_permitted, c.no_ice, c.chord_reactive), (True, False, True))
        self.assertEqual(c.overlay_link_protocols, ("TLS",))
        self.assertEqual((c.chord_update_interval, c.chord_ping_interval), (600, 3600))

    def test_registered_kinds(self) -> None:
        """Data model and access control as IANA keeps them (RFC 6940 §14.6, RFC 7904 §10.1)."""
        expected = {
            Kind.SIP_REGISTRATION: (DataModel.DICTIONARY, "USER-NODE-MATCH"),
            Kind.TURN_SERVICE: (DataModel.SINGLE, "NODE-MULTIPLE"),
            Kind.CERTIFICATE_BY_NODE: (DataModel.ARRAY, "NODE-MATCH"),
            Kind.CERTIFICATE_BY_USER: (DataModel.ARRAY, "USER-MATCH"),
        }
        found = {kind_id: (kind.data_model, kind.access_control) for kind_id, kind in REGISTERED.items()}
        self.assertEqual(found, expected)
        self.assertEqual(REGISTERED[Kind.TURN_SERVICE].max_node_multiple, 20)

    def test_expired(self) -> None:
        configuration = Founder().configuration()
        self.assertFalse(configuration.expired(NOW + 365 * 86400 - 1))
        self.assertTrue(configuration.expired(NOW + 365 * 86400))
        self.assertFalse(Configuration(instance_name="x").expired(1e12))

    def test_shared_secret_is_not_shown(self) -> None:
        """Nor any bytes of a document that holds it (RFC 6940 §14.16)."""
        published = Founder().published(shared_secret="hunter2")
        self.assertIn(b"hunter2", published.raw)
        self.assertTrue(published.confidential)
        self.assertNotIn("hunter2", repr(published))
        self.assertFalse(Founder().configuration().confidential)

    def test_default_configuration(self) -> None:
        """A new overlay's: ICE, certificates and registrations as Kinds with limits, one year.

        [6940-6.5.1.5-1, 6940-13.6.5-1]
        """
        c = Founder().configuration()
        self.assertFalse(c.no_ice)
        self.assertEqual(c.max_message_size, 16384)
        self.assertEqual(set(c.kinds), {0x1, 0x2, 0x3, 0x10})
        self.assertTrue(all(kind.max_count and kind.max_size for kind in c.kinds.values()))
        self.assertEqual(c.turn_density, 10)
        self.assertEqual(c.kinds[0x2].max_node_multiple, 20)
