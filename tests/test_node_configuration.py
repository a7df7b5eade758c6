"""A new configuration document spreads through a whole overlay, and no other one does."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import accept_first, sign_kind
from p2psip.config.document import CannotComply, SignatureError
from p2psip.config.kinds import CERTIFICATE_BY_USER, Kind
from p2psip.config.write import write_document, write_kinds
from p2psip.errors import ConfigTooOld, Forbidden, InvalidMessage, UnknownKind
from p2psip.ids import NodeId
from p2psip.interfaces import Answerer, Request
from p2psip.node import Node
from p2psip.security.certificates import generate_key
from p2psip.security.identity import Identity
from p2psip.security.signing import Signer
from p2psip.testing import EPOCH, Credentials, World
from p2psip.wire.codes import DataModel
from p2psip.wire.header import NodeDestination
from p2psip.wire.methods import (
    ConfigUpdate,
    ConfigUpdateAns,
    ConfigUpdateReq,
    KindUpdate,
    PingReq,
)
from p2psip.wire.storage import ArrayEntry, DataValue

from .security.credentials import self_certified
from .test_node import fetch, store

PRIVATE = Kind(
    kind_id=0xF0000001,
    name="",
    data_model=DataModel.SINGLE,
    access_control="USER-MATCH",
    max_count=1,
    max_size=100,
)


class ConfigurationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(8, seed=3)
        self.first, self.second = self.world.nodes[:2]

    def sequences(self) -> list[int]:
        return [node.configuration.sequence for node in self.world.nodes]

    def everywhere(self, sequence: int) -> None:
        self.world.until(lambda: self.sequences() == [sequence] * len(self.world.nodes), 60)

    def send(self, node: Node, body: object) -> object:
        destination = [NodeDestination(node_id=node.node_id)]
        return self.world.result(self.first.overlay.request(destination, body))  # type: ignore[arg-type]

    def test_spreads(self) -> None:
        """Given to one node it is everywhere within a second, saved by all, and messages go on. [6940-6.5.4.2-4]

        [6940-11.2-9]
        """
        store(self.world, self.first, b"hello")
        document = self.world.document(initial_ttl=25)
        self.assertTrue(self.first.updates.offer(document))
        self.world.run(1)
        self.assertEqual(self.sequences(), [2] * 8)
        for node in self.world.nodes:
            self.assertEqual(node.configuration.initial_ttl, 25)
            self.assertEqual(node.router.configuration.initial_ttl, 25)
            (saved,) = self.world.saved[node.node_id]
            self.assertEqual(accept_first(saved, None, self.world.clock.seconds()).sequence, 2)
            self.assertEqual(fetch(self.world, node), [b"hello"])

    def test_one_update_per_neighbor(self) -> None:
        """Each node sends it to each of its neighbors once at most."""
        received: list[tuple[NodeId, NodeId]] = []
        for node in self.world.nodes:
            node.dispatch.answerers[ConfigUpdateReq] = self.recording(node, received)
        self.first.updates.offer(self.world.document())
        self.world.run(5)
        self.assertEqual(len(received), len(set(received)))
        self.assertEqual(
            {receiver for _, receiver in received} - {self.first.node_id},
            {node.node_id for node in self.world.nodes[1:]},
        )

    def recording(self, node: Node, received: list[tuple[NodeId, NodeId]]) -> Answerer:
        def answer(request: Request) -> ConfigUpdateAns:
            received.append((request.signer.node_id, node.node_id))
            return node.updates.answer_config_update(request)

        return answer

    def test_met_with_an_old_one(self) -> None:
        """Who was away when it spread gets it at the first request, which then succeeds. [6940-6.3.2.1-5]"""
        away = self.world.nodes[4]
        self.world.kill(away)
        self.world.run(60)
        self.first.updates.offer(self.world.document())
        self.world.run(1)
        back = self.world.restart(away)
        self.assertEqual(back.configuration.sequence, 1)
        self.world.until(lambda: back.joined)
        self.everywhere(2)

    def test_request_with_an_old_one(self) -> None:
        """A request that finds out that its sender is behind is answered in about two round trips all the same.
        [6940-6.3.2.1-3]"""
        new = accept_first(self.world.document(), None, self.world.clock.seconds())
        for node in self.world.nodes[1:]:
            node.configuration_changed(new)
        asked = [self.first.overlay.request([NodeDestination(node_id=self.second.node_id)], PingReq()) for _ in "ab"]
        for each in asked:
            self.assertEqual(self.world.result(each, 1).signer.node_id, self.second.node_id)
        self.assertEqual(self.first.configuration.sequence, 2)

    def test_request_with_a_new_one(self) -> None:
        """So is one whose sender is ahead."""
        new = accept_first(self.world.document(), None, self.world.clock.seconds())
        self.first.configuration_changed(new)
        asked = self.first.overlay.request([NodeDestination(node_id=self.second.node_id)], PingReq())
        self.assertEqual(self.world.result(asked, 1).signer.node_id, self.second.node_id)
        self.assertEqual(self.second.configuration.sequence, 2)

    def test_meeting_old_ones(self) -> None:
        """A node that has a newer one passes it to those it asks. [6940-6.5.4-1]"""
        newcomer = self.world.nodes[4]
        self.world.kill(newcomer)
        self.world.run(60)
        current = self.world.configuration
        self.world.configuration = accept_first(self.world.document(), None, self.world.clock.seconds())
        back = self.world.restart(newcomer)
        self.world.configuration = current
        self.assertEqual(back.configuration.sequence, 2)
        self.world.until(lambda: back.joined)
        self.everywhere(2)

    def test_older_and_equal(self) -> None:
        """A document that is not newer changes nothing: Config_Too_Old. [6940-6.5.4.2-1] [6940-6.5.4.2-2]"""
        same = ConfigUpdate(config_data=write_document(self.world.configuration))
        self.assertRaises(ConfigTooOld, self.send, self.second, same)
        self.assertFalse(self.first.updates.offer(write_document(self.world.configuration)))
        self.assertEqual(self.sequences(), [1] * 8)

    def test_signed_by_another(self) -> None:
        """Nor does one that no configuration-signer of the current one signed, though a member did."""
        mallory = self.world.credentials("mallory@example.org")
        forged = self.world.document(mallory.signer, configuration_signers=(mallory.node_id,))
        self.assertRaises(Forbidden, self.send, self.second, ConfigUpdate(config_data=forged))
        self.assertRaises(SignatureError, self.first.updates.offer, forged)
        self.world.run(5)
        self.assertEqual(self.sequences(), [1] * 8)
        self.assertEqual(self.second.status()["rejected"]["configuration refused: SignatureError"], 1)

    def test_garbage(self) -> None:
        """Nor does what is no document."""
        for data in b"", b"<overlay/>", b"\xff" * 100:
            self.assertRaises(InvalidMessage, self.send, self.second, ConfigUpdate(config_data=data))
        self.assertEqual(self.sequences(), [1] * 8)

    def test_revoked_node(self) -> None:
        """A bad-node is cut off by all at once, and its messages are not believed."""
        bad = self.world.nodes[5]
        self.first.updates.offer(self.world.document(bad_nodes=frozenset([bad.node_id])))
        others = [node for node in self.world.nodes if node is not bad]
        self.world.until(lambda: all(node.configuration.sequence == 2 for node in others))
        self.world.run(1)
        for node in others:
            self.assertNotIn(bad.node_id, node.table.connected())
        self.world.nodes.remove(bad)
        self.world.until(lambda: all(self.world.settled(node) for node in others))

    def test_self_signed_no_longer_permitted(self) -> None:
        """Who certified itself is cut off by the others, and leaves."""
        self.world = World(3, seed=5, self_signed_permitted="sha256")
        key = generate_key()
        certificate = self_certified(key, "sha256", overlay=self.world.name, now=EPOCH)
        node = self.world.add(Credentials(key, Signer(Identity.from_certificate(certificate, self.world.name), key)))
        others = self.world.nodes[:3]
        self.world.until(lambda: all(self.world.settled(each) for each in self.world.nodes))
        excluded: list[CannotComply] = []
        node._tell_excluded = excluded.append
        others[0].updates.offer(self.world.document(self_signed_permitted=""))
        self.world.until(lambda: not node.joined and excluded)
        self.assertEqual(excluded[0].element, "self-signed-permitted")
        self.world.nodes.remove(node)
        self.world.until(lambda: all(self.world.settled(each) for each in others))
        self.world.until(lambda: not any(node.node_id in each.table.connected() for each in others))

    def test_cannot_comply(self) -> None:
        """A node that cannot follow a document leaves in good order. [6940-11.1-40]"""
        excluded: list[CannotComply] = []
        joined: list[bool] = []

        def tell(error: CannotComply) -> None:
            excluded.append(error)
            joined.append(self.second.joined)

        self.second._tell_excluded = tell
        self.first.updates.offer(self.world.document(mandatory_extensions=("urn:example:unheard-of",)))
        self.world.run(60)
        self.assertEqual([error.element for error in excluded], ["mandatory-extension"])
        self.assertEqual(joined, [False])
        self.assertEqual([node.joined for node in self.world.nodes], [False] * 8)

    def test_new_signers(self) -> None:
        """The next document is signed by the signers that the last one named."""
        heir = self.world.credentials("heir@example.org")
        self.first.updates.offer(self.world.document(configuration_signers=(heir.node_id,)))
        self.everywhere(2)
        self.world.configuration = self.first.configuration
        with self.assertRaises(SignatureError):
            self.second.updates.offer(self.world.document())
        self.second.updates.offer(self.world.document(heir.signer))
        self.everywhere(3)

    def test_kind_is_gone(self) -> None:
        """A Kind that a document has no longer is discarded with its data everywhere, others' data stay.
        [6940-11.1-41]"""
        store(self.world, self.first, b"hello")
        name = b"user@example.org"
        signer = self.world.user(name.decode(), self.first)
        entry = ArrayEntry(index=0, value=DataValue(value=b"x"))
        self.world.result(self.first.overlay.store(name, CERTIFICATE_BY_USER, [entry], 600, signer=signer))
        self.world.run(5)
        self.assertEqual(sum(node.storage.values for node in self.world.nodes), 6)
        kinds = dict(self.world.configuration.kinds)
        del kinds[CERTIFICATE_BY_USER]
        self.first.updates.offer(self.world.document(kinds=MappingProxyType(kinds)))
        self.everywhere(2)
        self.assertEqual(sum(node.storage.values for node in self.world.nodes), 3)
        self.assertRaises(UnknownKind, self.world.result, self.second.overlay.fetch(name, CERTIFICATE_BY_USER))
        self.assertEqual(fetch(self.world, self.second), [b"hello"])

    def test_kind(self) -> None:
        """A Kind comes by ConfigUpdate of type kind, from a kind-signer only. [6940-6.5.4.2-3]"""
        signer = self.world.configuration_signer.signer
        mallory = self.world.credentials("mallory@example.org").signer
        forged = KindUpdate(kinds=(write_kinds([sign_kind(PRIVATE, mallory)]),))
        self.assertRaises(Forbidden, self.send, self.second, forged)
        self.send(self.second, KindUpdate(kinds=(write_kinds([sign_kind(PRIVATE, signer)]),)))
        self.assertEqual(self.second.configuration.kinds[PRIVATE.kind_id].max_size, 100)
        self.assertNotIn(PRIVATE.kind_id, self.world.nodes[2].configuration.kinds)

    def test_kind_is_taught(self) -> None:
        """A node that stores a Kind which others do not know sends its definition, and stores again.

        [6940-7.4.1.2-7]
        """
        signer = self.world.configuration_signer.signer
        block = sign_kind(PRIVATE, signer)
        kinds = MappingProxyType({**self.world.configuration.kinds, PRIVATE.kind_id: PRIVATE})
        self.first.configuration_changed(
            replace(
                self.first.configuration,
                kinds=kinds,
                kind_blocks=(*self.first.configuration.kind_blocks, block),
            )
        )
        for number in range(5):
            user = f"user{number}@example.org"
            alice = self.world.user(user, self.first)
            value = [DataValue(value=b"x")]
            stored = self.first.overlay.store(user.encode(), PRIVATE.kind_id, value, 60, signer=alice)
            self.assertEqual(self.world.result(stored).generation, 1)

    def test_wildcard_sequence(self) -> None:
        """A ConfigUpdate is accepted whatever its sender's configuration; a Ping is not. [6940-6.3.2.1-6]"""
        self.second.configuration = replace(self.second.configuration, sequence=7)
        destination = [NodeDestination(node_id=self.second.node_id)]
        garbage = ConfigUpdate(config_data=b"x")
        self.assertRaises(InvalidMessage, self.world.result, self.first.overlay.request(destination, garbage))
        self.assertRaises(ConfigTooOld, self.world.result, self.first.overlay.request(destination, PingReq()))
