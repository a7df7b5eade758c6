from __future__ import annotations

from base64 import encodebytes
from dataclasses import replace
from types import MappingProxyType

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import (
    accept_first,
    accept_kinds,
    accept_update,
    publish,
    require_support,
    sign_kind,
    trust_of,
    verify_document,
)
from p2psip.config.document import (
    CHORD_NAMESPACE,
    CONFIG_NAMESPACE,
    CannotComply,
    Configuration,
    ConfigurationError,
    ConfigurationExpired,
    MalformedDocument,
    OverlayNotFound,
    SequenceTooOld,
    SignatureError,
)
from p2psip.config.kinds import REGISTERED, SIP_REGISTRATION, Kind
from p2psip.config.parse import parse
from p2psip.config.write import write_configuration, write_document, write_kinds
from p2psip.ids import NodeId
from p2psip.security.signing import Verifier
from p2psip.wire.codes import DataModel
from tests.config.documents import KIND_SIGNER, Founder
from tests.security.credentials import DAY, NODE_A, NODE_B, NOW, OVERLAY

PRIVATE = Kind(
    kind_id=0xF0000001,
    name="",
    data_model=DataModel.ARRAY,
    access_control="NODE-MULTIPLE",
    max_count=3,
    max_size=10,
    max_node_multiple=7,
)


def kinds(*all_of_them: Kind) -> MappingProxyType[int, Kind]:
    return MappingProxyType({kind.kind_id: kind for kind in all_of_them})


class PublishTests(SynchronousTestCase):
    """Writing and signing."""

    def setUp(self) -> None:
        self.founder = Founder()

    def test_read_as_written(self) -> None:
        """Every element comes back as it was [6940-14.16-3]."""
        everything = Configuration(
            instance_name=OVERLAY,
            sequence=65534,
            expiration=NOW + DAY,
            node_id_length=16,
            root_certificates=(self.founder.ca.certificate,) * 2,
            enrollment_servers=("https://a.example.org/?x=1&y=<2>", "https://b.example.org"),
            self_signed_permitted="sha256",
            bootstrap_nodes=(("192.0.2.1", 1), ("2001:db8::1", 65535)),
            turn_density=255,
            clients_permitted=False,
            no_ice=True,
            chord_update_interval=1,
            chord_ping_interval=2,
            chord_reactive=False,
            shared_secret="a <&> \"b\" 'c' é ]]>",
            max_message_size=9,
            initial_ttl=255,
            overlay_reliability_timer=200,
            overlay_link_protocols=("TLS", "X"),
            kind_signers=(KIND_SIGNER, NODE_A),
            configuration_signers=(NODE_A, NODE_B),
            bad_nodes=frozenset({NodeId(bytes([i] * 16)) for i in range(1, 9)}),
            mandatory_extensions=("urn:x", "urn:y"),
            kinds=kinds(PRIVATE, *REGISTERED.values()),
            extensions=(("{urn:x}a", "text & more"), ("{urn:y}b", "")),
        )
        published = publish(everything, self.founder.signer, self.founder.kind_signer)
        self.assertEqual(published, everything)
        read = parse(write_document(published), OVERLAY)
        self.assertEqual(read, everything)
        self.assertEqual((read.raw, read.signatures), (published.raw, published.signatures))

    def test_what_cannot_be_written(self) -> None:
        """A value that would be read differently is refused."""
        for change in (
            {"shared_secret": " padded "},
            {"shared_secret": "\0"},
            {"instance_name": "a b"},
            {"sequence": 65535},
            {"initial_ttl": 256},
            {"turn_density": -1},
            {"kind_signers": (NodeId(bytes(20)),)},
            {"bootstrap_nodes": (("example.org", 6084),)},
            {"enrollment_servers": ("http://example.org",)},
            {"extensions": (("{urn:x}a><b", ""),)},
            {"root_certificates": (b"",)},
        ):
            self.assertRaises(MalformedDocument, self.founder.published, **change)

    def test_unpublished(self) -> None:
        self.assertRaises(MalformedDocument, write_document, self.founder.configuration())
        self.assertRaises(MalformedDocument, write_configuration, self.founder.configuration())

    def test_namespaces_are_signed(self) -> None:
        """The configuration declares them itself: what <overlay> declares is not covered."""
        published = self.founder.published()
        head = published.raw[: published.raw.index(b">")].decode()
        self.assertIn(f'xmlns="{CONFIG_NAMESPACE}"', head)
        self.assertIn(f'xmlns:chord="{CHORD_NAMESPACE}"', head)
        self.assertEqual(published.inherited, ())

    def test_received_document_again(self) -> None:
        """A document that inherits namespaces is handed on as it was signed."""
        for root, configuration in (("", ""), ("p:", "p:")):
            name = f"xmlns:{root[:-1]}" if root else "xmlns"
            source = (
                f'<{root}overlay {name}="{CONFIG_NAMESPACE}" xmlns:x="urn:x&amp;y">'
                f'<{configuration}configuration instance-name="a" x:b="c"></{configuration}configuration>'
                f"<{root}signature>AAAA</{root}signature></{root}overlay>"
            )
            first = parse(source.encode())
            second = parse(write_document(first))
            self.assertEqual((second, second.raw), (first, first.raw))
            self.assertEqual(second.signatures, (bytes(3),))
            self.assertEqual(dict(second.inherited), dict(first.inherited) | {"": CONFIG_NAMESPACE})

    def test_fits_a_message(self) -> None:
        """With three signed Kinds it can travel by ConfigUpdate."""
        self.assertLess(len(self.founder.document()), 16384 / 2)


class AcceptTests(SynchronousTestCase):
    """Which documents replace which."""

    def setUp(self) -> None:
        self.founder = Founder()
        self.current = accept_first(self.founder.document(), OVERLAY, NOW)
        self.verifier = Verifier(trust_of(self.current, lambda: NOW))

    def accepted(self, data: bytes) -> Configuration:
        return accept_update(data, self.current, self.verifier, NOW)

    def refused(self, cause: str, data: bytes) -> None:
        error = self.assertRaises(SignatureError, self.accepted, data)
        self.assertEqual(error.cause, cause, str(error))

    def test_first_document(self) -> None:
        """It needs no signature of its own, but its Kinds do [6940-6.3.2.1-1, 6940-11.1-33]."""
        self.assertEqual(self.current, self.founder.configuration())
        self.assertEqual({kind.signer for kind in self.current.kinds.values()}, {KIND_SIGNER})
        unsigned = replace(self.founder.published(), signatures=())
        self.assertEqual(accept_first(write_document(unsigned), OVERLAY, NOW), self.current)

    def test_first_document_of_another_overlay(self) -> None:
        """[6940-11.2-8]"""
        self.assertRaises(OverlayNotFound, accept_first, self.founder.document(), "example.net", NOW)

    def test_newer(self) -> None:
        """Signed by a configuration-signer of the one before [6940-6.5.4.2-1, 6940-11.1-37, 6940-11.1-38]."""
        new = self.accepted(self.founder.document(sequence=2, max_message_size=20000))
        self.assertEqual((new.sequence, new.max_message_size), (2, 20000))

    def test_older(self) -> None:
        """[6940-6.5.4.2-1]"""
        for sequence in (1, 0, 65534):
            data = self.founder.document(sequence=sequence)
            self.assertRaises(SequenceTooOld, self.accepted, data)
        self.current = replace(self.current, sequence=65534)
        self.assertEqual(self.accepted(self.founder.document(sequence=0)).sequence, 0)

    def test_expired(self) -> None:
        for expiration in (NOW, NOW - 1):
            data = self.founder.document(sequence=2, expiration=expiration)
            self.assertRaises(ConfigurationExpired, self.accepted, data)
            self.assertRaises(ConfigurationExpired, accept_first, data, OVERLAY, NOW)

    def test_unsigned(self) -> None:
        """[6940-11.1-38]"""
        unsigned = replace(self.founder.published(sequence=2), signatures=())
        self.refused("unsigned", write_document(unsigned))

    def test_signer_of_the_one_before(self) -> None:
        """The new document cannot name its own signer [6940-11.1-37]."""
        stranger = self.founder.stranger
        data = write_document(self.founder.published(stranger, sequence=2, configuration_signers=(NODE_B,)))
        self.refused("not-a-signer", data)
        change = self.founder.published(sequence=2, configuration_signers=(NODE_B,))
        self.current = self.accepted(write_document(change))
        self.refused("not-a-signer", self.founder.document(sequence=3))
        self.accepted(write_document(self.founder.published(stranger, sequence=3)))

    def test_signer_of_another_authority(self) -> None:
        """The same Node-ID certified by somebody else."""
        data = write_document(self.founder.published(Founder().signer, sequence=2))
        self.refused("untrusted", data)

    def test_revoked_signer(self) -> None:
        self.current = replace(self.current, bad_nodes=frozenset({NODE_A}))
        self.verifier = Verifier(trust_of(self.current, lambda: NOW))
        self.refused("bad-node", self.founder.document(sequence=2))

    def test_any_of_the_signatures(self) -> None:
        """One good signature is enough; only the first few are tried [6940-11.1-4]."""
        published = self.founder.published(sequence=2)
        wrong = self.founder.stranger.sign_blob(published.raw)
        garbage = (b"garbage", wrong, published.signatures[0])
        self.accepted(write_document(replace(published, signatures=garbage)))
        late = (b"garbage",) * 8 + published.signatures
        self.refused("malformed", write_document(replace(published, signatures=late)))

    def test_every_byte_is_signed(self) -> None:
        """The configuration is a blob that cannot be changed, whitespace included [6940-11.1-34]."""
        data = self.founder.document(sequence=2, kinds=kinds(), enrollment_servers=())
        raw = parse(data).raw
        start = data.index(raw)
        for at in range(start, start + len(raw)):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            self.assertRaises(ConfigurationError, self.accepted, changed)
        for put, skip in ((b" ", 0), (b"", 1)):
            spaced = data.replace(b">\n  <no-ice>", b">\n" + put + b"  <no-ice>"[skip:], 1)
            self.assertNotEqual(spaced, data)
            self.refused("signature", spaced)

    def test_signature_is_base64_of_a_security_block(self) -> None:
        """Any layout of it does [6940-11.1-36]."""
        published = self.founder.published(sequence=2)
        [block] = published.signatures
        self.accepted(
            write_document(published).replace(encodebytes(block), b"  " + encodebytes(block) + b"\n")
        )
        flipped = block[:-1] + bytes([block[-1] ^ 1])
        self.refused("signature", write_document(replace(published, signatures=(flipped,))))

    def test_any_signature(self) -> None:
        """Whatever stands for a SecurityBlock, a ConfigurationError is raised."""
        published = self.founder.published(sequence=2, kinds=kinds())
        [block] = published.signatures

        @given(st.integers(0, len(block)), st.binary(max_size=3), st.integers(0, 3))
        def check(at: int, put: bytes, skip: int) -> None:
            changed = block[:at] + put + block[at + skip :]
            if changed != block:
                self.verifier = Verifier(trust_of(self.current, lambda: NOW))  # it knows no certificate yet
                data = write_document(replace(published, signatures=(changed,)))
                self.assertRaises(ConfigurationError, self.accepted, data)

        check()

    def test_namespaces_outside_the_signature(self) -> None:
        """Whoever hands a document on cannot change what its names mean."""
        raw = (
            f'<configuration instance-name="{OVERLAY}" sequence="2">'
            "<chord:chord-reactive>false</chord:chord-reactive></configuration>"
        ).encode()
        signature = encodebytes(self.founder.signer.sign_blob(raw))

        def document(**namespaces: str) -> bytes:
            declared = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in namespaces.items())
            head = f'<overlay xmlns="{CONFIG_NAMESPACE}" {declared}>'.encode()
            return head + raw + b"<signature>" + signature + b"</signature></overlay>"

        self.assertFalse(self.accepted(document(chord=CHORD_NAMESPACE)).chord_reactive)
        self.accepted(document(chord=CHORD_NAMESPACE, ext="urn:x"))
        self.refused("namespace", document(chord="urn:x"))
        self.refused("namespace", document(chord=CHORD_NAMESPACE, ext=CHORD_NAMESPACE))

    def test_malformed(self) -> None:
        self.assertRaises(MalformedDocument, self.accepted, b"")

    def test_verify_document(self) -> None:
        """Who signed, for whoever wants to know."""
        signed_by = verify_document(self.current, [NODE_A], self.verifier)
        self.assertEqual(signed_by, (self.founder.signer.identity, NODE_A))


class KindTests(SynchronousTestCase):
    """Kinds and who signs them."""

    def setUp(self) -> None:
        self.founder = Founder()
        self.current = accept_first(self.founder.document(), OVERLAY, NOW)
        self.verifier = self.founder.verifier()

    def update(self, *blocks: object) -> Configuration:
        return accept_kinds(write_kinds(blocks), self.current, self.verifier)  # type: ignore[arg-type]

    def test_wrong_signature(self) -> None:
        """Verified before a kind-block is accepted, in a first document too [6940-11.1-33]."""
        data = self.founder.document(sequence=2)
        changed = data.replace(b"<max-count>64</max-count>", b"<max-count>65</max-count>", 1)
        self.assertNotEqual(changed, data)
        error = self.assertRaises(SignatureError, accept_first, changed, OVERLAY, NOW)
        self.assertEqual((error.element, error.cause), ("kind-signature", "signature"))

    def test_signer_without_the_right(self) -> None:
        """Such a Kind is discarded [6940-11.1-32, 6940-11.1-41]."""
        published = self.founder.published(kinds_by=self.founder.stranger)
        self.assertEqual(accept_first(write_document(published), OVERLAY, NOW).kinds, {})

    def test_right_withdrawn(self) -> None:
        """A newer document with other kind-signers [6940-11.1-32, 6940-11.1-39]."""
        data = self.founder.document(sequence=2, kind_signers=(NODE_A,))
        self.assertEqual(accept_update(data, self.current, self.verifier, NOW).kinds, {})

    def test_update(self) -> None:
        """New and changed Kinds [6940-6.5.4.2-4, 6940-11.1-32]."""
        more = replace(REGISTERED[SIP_REGISTRATION], max_count=1000)
        new = self.update(*(sign_kind(kind, self.founder.kind_signer) for kind in (more, PRIVATE)))
        self.assertEqual(new.kinds[SIP_REGISTRATION].max_count, 1000)
        self.assertEqual(new.kinds[PRIVATE.kind_id], PRIVATE)
        self.assertEqual(new.kinds[PRIVATE.kind_id].signer, KIND_SIGNER)
        self.assertEqual(new.context.of_kind(PRIVATE.kind_id).model, DataModel.ARRAY)
        self.assertEqual(set(new.kinds) - {PRIVATE.kind_id}, set(self.current.kinds))
        self.assertNotIn(PRIVATE.kind_id, self.current.kinds)

    def refused(self, cause: str, *blocks: object) -> None:
        error = self.assertRaises(SignatureError, self.update, *blocks)
        self.assertEqual(error.cause, cause)

    def test_update_by_others(self) -> None:
        """[6940-6.5.4.2-2, 6940-11.1-32]"""
        self.refused("not-a-signer", sign_kind(PRIVATE, self.founder.stranger))
        self.refused("untrusted", sign_kind(PRIVATE, Founder().kind_signer))
        block = sign_kind(PRIVATE, self.founder.kind_signer)
        self.refused("signature", replace(block, raw=block.raw.replace(b">3<", b">4<")))

    def test_same_kind_by_another_signer(self) -> None:
        """Forbidden even to another kind-signer (RFC 6940 §6.5.4.2)."""
        self.current = replace(self.current, kind_signers=(KIND_SIGNER, NODE_B))
        self.refused("other-signer", sign_kind(REGISTERED[SIP_REGISTRATION], self.founder.stranger))
        self.update(sign_kind(PRIVATE, self.founder.stranger))


class SupportTests(SynchronousTestCase):
    """What a node cannot do keeps it from joining."""

    def cannot(self, element: str, configuration: Configuration, **abilities: object) -> None:
        error = self.assertRaises(CannotComply, require_support, configuration, **abilities)
        self.assertEqual(error.element, element)

    def test_new_overlay(self) -> None:
        require_support(Founder().configuration())

    def test_each_element(self) -> None:
        """[6940-11.1-20, 6940-11.1-40, 6940-11.1-23]"""
        make = Founder().configuration
        extended = make(mandatory_extensions=("urn:x", "urn:Y"))
        self.cannot("mandatory-extension", extended, extensions=("urn:x", "urn:y"))
        require_support(extended, extensions=("urn:x", "urn:Y"))
        self.cannot("topology-plugin", make(topology_plugin="OTHER"))
        require_support(make(topology_plugin="OTHER", node_id_length=20), topology_plugins=("OTHER",))
        self.cannot("node-id-length", make(node_id_length=20))
        self.cannot("overlay-link-protocol", make(overlay_link_protocols=("X", "Y")))
        require_support(make(overlay_link_protocols=("X", "TLS")))
        self.cannot("no-ice", make(no_ice=False), ice=False)
        require_support(make(no_ice=True), ice=False)
        self.cannot("shared-secret", make(shared_secret="x"))
        require_support(make(shared_secret="x"), shared_secret=True)
        self.cannot("access-control", make(), access_controls=("USER-MATCH",))
        known = ("USER-MATCH", "NODE-MATCH", "USER-NODE-MATCH", "NODE-MULTIPLE")
        require_support(make(), access_controls=known)
