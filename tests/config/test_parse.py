from __future__ import annotations

import textwrap
from base64 import encodebytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import (
    CHORD_NAMESPACE,
    CONFIG_NAMESPACE,
    CannotComply,
    Configuration,
    ConfigurationError,
    MalformedDocument,
    OverlayNotFound,
)
from p2psip.config.parse import parse, parse_kinds
from p2psip.config.spans import MAX_DOCUMENT
from p2psip.wire.codes import DataModel
from tests.config.documents import Founder, kind, overlay
from tests.security.credentials import OVERLAY, authority

EXAMPLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<overlay xmlns="urn:ietf:params:xml:ns:p2p:config-base"
   xmlns:ext="urn:ietf:params:xml:ns:p2p:config-ext1"
   xmlns:chord="urn:ietf:params:xml:ns:p2p:config-chord">
   <configuration instance-name="overlay.example.org" sequence="22"
       expiration="2002-10-10T07:00:00Z" ext:ext-example="stuff" >
       <topology-plugin> CHORD-RELOAD </topology-plugin>
       <node-id-length>16</node-id-length>
       <root-cert>
%s       </root-cert>
       <enrollment-server>https://example.org</enrollment-server>
       <enrollment-server>https://example.net</enrollment-server>
       <self-signed-permitted
                 digest="sha1">false</self-signed-permitted>
       <bootstrap-node address="192.0.0.1" port="6084" />
       <bootstrap-node address="192.0.2.2" port="6085" />
       <bootstrap-node address="2001:DB8::1" />
       <turn-density> 20 </turn-density>
       <clients-permitted> false </clients-permitted>
       <no-ice> false </no-ice>
       <chord:chord-update-interval>
           400</chord:chord-update-interval>
       <chord:chord-ping-interval>30</chord:chord-ping-interval>
       <chord:chord-reactive> true </chord:chord-reactive>
       <shared-secret> password </shared-secret>
       <max-message-size>4000</max-message-size>
       <initial-ttl> 30 </initial-ttl>
       <overlay-reliability-timer> 3000 </overlay-reliability-timer>
       <overlay-link-protocol>TLS</overlay-link-protocol>
       <configuration-signer>47112162e84c69ba47112162e84c69ba</configuration-signer>
       <kind-signer> 47112162e84c69ba47112162e84c69ba </kind-signer>
       <kind-signer> 6eba45d31a900c066eba45d31a900c06 </kind-signer>
       <bad-node> 6EBC45D31A900C066EBC45D31A900C06 </bad-node>
       <bad-node> 6ebc45d31a900ca66ebc45d31a900ca6 </bad-node>

       <ext:example-extension> foo </ext:example-extension>

       <mandatory-extension>
           urn:ietf:params:xml:ns:p2p:config-ext1
       </mandatory-extension>

       <required-kinds>
         <kind-block>
           <kind name="SIP-REGISTRATION">
               <data-model>SINGLE</data-model>
               <access-control>USER-MATCH</access-control>
               <max-count>1</max-count>
               <max-size>100</max-size>
           </kind>
           <kind-signature>
                VGhpcyBpcyBub3QgcmlnaHQhCg==
           </kind-signature>
         </kind-block>
         <kind-block>
           <kind id="2000">
               <data-model>ARRAY</data-model>
               <access-control>NODE-MULTIPLE</access-control>
               <max-node-multiple>3</max-node-multiple>
               <max-count>22</max-count>
               <max-size>4</max-size>
               <ext:example-kind-extension> 1
                       </ext:example-kind-extension>
           </kind>
           <kind-signature>
              VGhpcyBpcyBub3QgcmlnaHQhCg==
           </kind-signature>
         </kind-block>
       </required-kinds>
   </configuration>
   <signature> VGhpcyBpcyBub3QgcmlnaHQhCg== </signature>

   <configuration instance-name="other.example.net">
   </configuration>
   <signature> VGhpcyBpcyBub3QgcmlnaHQhCg== </signature>
   <signature algorithm="rsa-sha1"> YWdhaW4= </signature>

</overlay>
"""
"""The example of RFC 6940 §11.1, with a root certificate and Node-IDs that can be some."""


class ExampleTests(SynchronousTestCase):
    """The RFC's own example."""

    def setUp(self) -> None:
        self.root = authority().certificate
        self.data = (EXAMPLE % textwrap.indent(encodebytes(self.root).decode(), " " * 12)).encode()

    def test_every_element(self) -> None:
        """[6940-11.1-9, 6940-11.1-15, 6940-11.1-21, 6940-11.1-30]"""
        c = parse(self.data, OVERLAY)
        self.assertEqual((c.instance_name, c.sequence, c.expiration), (OVERLAY, 22, 1034233200.0))
        self.assertEqual((c.topology_plugin, c.node_id_length), ("CHORD-RELOAD", 16))
        self.assertEqual(c.root_certificates, (self.root,))
        self.assertEqual(c.enrollment_servers, ("https://example.org", "https://example.net"))
        self.assertEqual(c.self_signed_permitted, "")
        self.assertEqual(c.bootstrap_nodes, (("192.0.0.1", 6084), ("192.0.2.2", 6085), ("2001:db8::1", 6084)))
        self.assertEqual((c.turn_density, c.clients_permitted, c.no_ice), (20, False, False))
        self.assertEqual((c.chord_update_interval, c.chord_ping_interval, c.chord_reactive), (400, 30, True))
        self.assertEqual((c.shared_secret, c.max_message_size, c.initial_ttl), ("password", 4000, 30))
        self.assertEqual((c.overlay_reliability_timer, c.overlay_link_protocols), (3000, ("TLS",)))
        self.assertEqual([n.hex()[:16] for n in c.configuration_signers], ["47112162e84c69ba"])
        self.assertEqual([n.hex()[:16] for n in c.kind_signers], ["47112162e84c69ba", "6eba45d31a900c06"])
        self.assertEqual({n.hex()[:16] for n in c.bad_nodes}, {"6ebc45d31a900c06", "6ebc45d31a900ca6"})
        self.assertEqual(c.mandatory_extensions, ("urn:ietf:params:xml:ns:p2p:config-ext1",))
        self.assertEqual(
            c.extensions, (("{urn:ietf:params:xml:ns:p2p:config-ext1}example-extension", "foo"),)
        )

    def test_registered_kind(self) -> None:
        """Data model and access control are IANA's, the limits the document's [6940-11.1-29]."""
        sip = parse(self.data, OVERLAY).kinds[1]
        self.assertEqual((sip.data_model, sip.access_control), (DataModel.DICTIONARY, "USER-NODE-MATCH"))
        self.assertEqual((sip.max_count, sip.max_size), (1, 100))

    def test_private_kind(self) -> None:
        """[6940-11.1-24, 6940-11.1-25]"""
        private = parse(self.data, OVERLAY).kinds[2000]
        self.assertEqual((private.data_model, private.access_control), (DataModel.ARRAY, "NODE-MULTIPLE"))
        self.assertEqual((private.max_count, private.max_size, private.max_node_multiple), (22, 4, 3))

    def test_signed_bytes(self) -> None:
        """From the first < to the last >, verbatim; also of each Kind [6940-11.1-34, 6940-11.1-35]."""
        c = parse(self.data, OVERLAY)
        start, end = self.data.index(b"<configuration "), self.data.index(b"</configuration>")
        self.assertEqual(c.raw, self.data[start:end] + b"</configuration>")
        for block in c.kind_blocks:
            self.assertTrue(block.raw.startswith(b"<kind ") and block.raw.endswith(b"</kind>"))
            self.assertIn(block.raw, c.raw)
        self.assertEqual([block.kind.kind_id for block in c.kind_blocks], [1, 2000])
        self.assertEqual(c.kind_blocks[0].signature, b"This is not right!\n")

    def test_several_overlays(self) -> None:
        """Each configuration has the signatures that follow it [6940-11.1-3, 6940-11.1-4]."""
        self.assertEqual(parse(self.data, OVERLAY.upper()).signatures, (b"This is not right!\n",))
        other = parse(self.data, "other.example.net")
        self.assertEqual(other.signatures, (b"This is not right!\n", b"again"))
        self.assertEqual(other, Configuration(instance_name="other.example.net"))
        self.assertRaises(OverlayNotFound, parse, self.data, "third.example.net")
        self.assertRaises(MalformedDocument, parse, self.data)

    def test_the_unchanged_example(self) -> None:
        """Its Node-IDs of 8 bytes and its bad root certificate are no mistake of ours."""
        self.assertRaises(MalformedDocument, parse, self.data.replace(b"6eba45d31a900c06", b"", 1))
        bad = self.data.replace(b"<enrollment", b"<root-cert> YmFkIGNlcnQK </root-cert><enrollment", 1)
        error = self.assertRaises(MalformedDocument, parse, bad, OVERLAY)
        self.assertEqual(error.element, "root-cert")


class ElementTests(SynchronousTestCase):
    """Each element's values, and the error that names it."""

    def refused(self, element: str, content: str, attributes: str = "") -> None:
        error = self.assertRaises(ConfigurationError, parse, overlay(content, attributes))
        self.assertIn(element, str(error))

    def test_defaults(self) -> None:
        """[6940-11.1-14]"""
        self.assertEqual(parse(overlay("")), Configuration(instance_name=OVERLAY))

    def test_ranges(self) -> None:
        """[6940-11.1-7, 6940-11.1-18]"""
        for element, good, bad in (
            ("node-id-length", ("16", "20"), ("15", "21", "x", "")),
            ("overlay-reliability-timer", ("200",), ("199", "-1")),
            ("initial-ttl", ("1", "255"), ("0", "256")),
            ("turn-density", ("0", "255"), ("-1", "256")),
            ("max-message-size", ("1", "16384"), ("0", "-5", "4294967296")),
            ("chord:chord-update-interval", ("1",), ("0",)),
            ("chord:chord-ping-interval", ("1",), ("0",)),
            ("no-ice", ("true", "false", "1", "0", " true "), ("yes", "TRUE", "")),
        ):
            for text in good:
                parse(overlay(f"<{element}>{text}</{element}>"))
            for text in bad:
                self.refused("", f"<{element}>{text}</{element}>")
            self.refused("", f"<{element}>{good[0]}</{element}>" * 2)

    def test_booleans(self) -> None:
        """ "1" and "0" count as well (RFC 6940 §11.1)."""
        self.assertFalse(parse(overlay("<clients-permitted>0</clients-permitted>")).clients_permitted)
        self.assertTrue(parse(overlay("<no-ice>1</no-ice>")).no_ice)
        self.assertFalse(parse(overlay("<chord:chord-reactive>0</chord:chord-reactive>")).chord_reactive)

    def test_sequence(self) -> None:
        """Between 0 and 2^16-2; 0 where it is missing [6940-6.3.2.1-2]."""
        self.assertEqual(parse(overlay("", 'sequence="65534"')).sequence, 65534)
        for text in ("65535", "-1", "x"):
            self.refused("", "", f'sequence="{text}"')

    def test_expiration(self) -> None:
        """RFC 3339 and UTC [6940-11.1-6]."""
        for text in ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00.0Z", "2030-01-01T00:00:00+00:00"):
            self.assertEqual(parse(overlay("", f'expiration="{text}"')).expiration, 1893456000.0)
        for text in ("2030-01-01T00:00:00", "2030-01-01T00:00:00+01:00", "2030-02-30T00:00:00Z", "soon", ""):
            self.refused("", "", f'expiration="{text}"')

    def test_instance_name(self) -> None:
        """Characters that are allowable in a DNS name [6940-6.3.2-3]."""
        for name in ("", "a b", "a/b", "a@b", "é.org", "-a", "a" * 254):
            data = overlay("").replace(OVERLAY.encode(), name.encode())
            self.assertRaises(MalformedDocument, parse, data)

    def test_enrollment_server(self) -> None:
        """[6940-11.1-8]"""
        self.refused("enrollment-server", "<enrollment-server>http://example.org</enrollment-server>")

    def test_self_signed_permitted(self) -> None:
        """Both digests, and no others [6940-11.1-10, 6940-11.1-11, 6940-11.1-12]."""
        for digest in ("sha1", "sha256"):
            c = parse(overlay(f'<self-signed-permitted digest="{digest}">true</self-signed-permitted>'))
            self.assertEqual(c.self_signed_permitted, digest)
        for attribute in ('digest="md5"', ""):
            data = overlay(f"<self-signed-permitted {attribute}>true</self-signed-permitted>")
            self.assertRaises(CannotComply, parse, data)
        data = overlay("<self-signed-permitted>false</self-signed-permitted>")
        self.assertEqual(parse(data).self_signed_permitted, "")

    def test_bootstrap_node(self) -> None:
        for attributes in ('address="example.org"', 'address="192.0.2.1" port="0"', 'port="1"', 'address=""'):
            self.refused("", f"<bootstrap-node {attributes}/>")

    def test_node_ids(self) -> None:
        for element in ("kind-signer", "configuration-signer", "bad-node"):
            for text in ("47112162e84c69ba", "zz" * 16, "00" * 17, "", "0x" + "00" * 15):
                self.refused(element, f"<{element}>{text}</{element}>")
        c = parse(overlay(f"<node-id-length>20</node-id-length><bad-node>{'0A' * 20}</bad-node>"))
        self.assertEqual(c.bad_nodes, {b"\n" * 20})

    def test_link_protocols(self) -> None:
        """ "If one or more elements appear, then no default value applies"."""
        c = parse(overlay("<overlay-link-protocol>X</overlay-link-protocol>"))
        self.assertEqual(c.overlay_link_protocols, ("X",))

    def test_kinds_that_are_none(self) -> None:
        """[6940-11.1-24, 6940-11.1-26, 6940-11.1-27, 6940-11.1-28, 6940-11.1-31, 6940-7.3.4-2]"""
        private = 'id="4026531841"'
        for block in (
            kind(max_count=""),
            kind(max_size=""),
            kind(data_model=""),
            kind(access_control=""),
            kind(max_count="x"),
            kind(named='name="X" id="1"'),
            kind(named=""),
            kind(named='id="0"'),
            kind(named='id="4294967295"'),
            kind(named=private, access_control="NODE-MULTIPLE"),
            kind("<max-node-multiple>0</max-node-multiple>", private, access_control="NODE-MULTIPLE"),
            kind() + kind(),
            kind() + kind(named='id="1"'),
            kind().replace("<kind-signature>VGhpcyBpcyBub3QgcmlnaHQhCg==</kind-signature>", ""),
            kind().replace("VGhpcyBpcyBub3QgcmlnaHQhCg==", "!"),
            "<kind-block/>",
        ):
            data = overlay(f"<required-kinds>{block}</required-kinds>")
            self.assertRaises(MalformedDocument, parse, data)
        for block in (
            kind(named='name="NOT-REGISTERED"'),
            kind(named='name=""'),
            kind(named=private, data_model="TREE"),
        ):
            data = overlay(f"<required-kinds>{block}</required-kinds>")
            self.assertRaises(CannotComply, parse, data)

    def test_kind_by_number(self) -> None:
        """A registered Kind stays what it is, whatever it is called by [6940-11.1-29]."""
        blocks = kind(named='id="3"') + kind(named='id="4026531841"', data_model=" SINGLE ")
        kinds = parse(overlay(f"<required-kinds>{blocks}</required-kinds>")).kinds
        self.assertEqual((kinds[3].name, kinds[3].data_model), ("CERTIFICATE_BY_NODE", DataModel.ARRAY))
        self.assertEqual((kinds[0xF0000001].name, kinds[0xF0000001].data_model), ("", DataModel.SINGLE))

    def test_unknown_elements(self) -> None:
        """Foreign namespaces may extend configuration and kind; ours hold what the grammar says only."""
        foreign = 'xmlns:x="urn:x"'
        parse(overlay(f'<x:a {foreign} b="c"><x:d>e</x:d></x:a>', f'{foreign} x:y="z"'))
        parse(overlay(f"<required-kinds>{kind(f'<x:a {foreign}/>')}</required-kinds>"))
        for content in (
            "<unknown/>",
            "<chord:unknown/>",
            '<a xmlns=""/>',
            "text",
            f"<required-kinds><x:a {foreign}/></required-kinds>",
            "<configuration/>",
        ):
            self.refused("", content)
        self.refused("", "", 'unknown="1"')
        self.refused("", "", 'chord:unknown="1"')


class XMLTests(SynchronousTestCase):
    """Documents made to mislead or to harm."""

    def malformed(self, data: bytes) -> None:
        self.assertRaises(MalformedDocument, parse, data)

    def test_well_formed_utf8(self) -> None:
        """[6940-11.1-1, 6940-11.1-2]"""
        good = overlay("")
        self.malformed(b"")
        self.malformed(good[:-1])
        self.malformed(good + good)
        self.malformed(good.replace(b"UTF-8", b"ISO-8859-1"))
        self.malformed(good.decode().encode("utf-16"))
        self.malformed(overlay("<topology-plugin>\xe9</topology-plugin>").replace("é".encode(), b"\xe9"))
        parse(good.replace(b"UTF-8", b"utf-8"))
        self.assertEqual(parse(b"\xef\xbb\xbf" + good).raw, parse(good).raw)
        self.assertEqual(parse(good[good.index(b"<overlay") :]).raw, parse(good).raw)

    def test_no_dtd(self) -> None:
        """Neither billions of laughs nor files of ours."""
        for dtd, text in (
            ('<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">', "&c;"),
            ('<!ENTITY a SYSTEM "file:///etc/passwd">', "&a;"),
            ('<!ENTITY % a SYSTEM "http://127.0.0.1:1/x"> %a;', ""),
            ("<!ATTLIST configuration sequence CDATA '9'>", ""),
        ):
            data = overlay(f"<topology-plugin>{text}</topology-plugin>")
            self.malformed(data.replace(b"<overlay", f"<!DOCTYPE overlay [{dtd}]><overlay".encode(), 1))
        self.malformed(overlay("").replace(b"<overlay", b'<!DOCTYPE overlay SYSTEM "x.dtd"><overlay', 1))
        self.malformed(overlay("<topology-plugin>&undefined;</topology-plugin>"))

    def test_limits(self) -> None:
        self.malformed(overlay("<!--" + "x" * MAX_DOCUMENT + "-->"))
        self.malformed(overlay('<a xmlns="urn:x">' * 40 + "</a>" * 40))
        self.malformed(overlay('<a xmlns="urn:x"/>' * 20_001))

    def test_many_elements(self) -> None:
        """A long list of revoked nodes is read in reasonable time."""
        content = "".join(f"<bad-node>{number:032x}</bad-node>" for number in range(1, 10_001))
        self.assertEqual(len(parse(overlay(content)).bad_nodes), 10_000)

    def test_misleading_text(self) -> None:
        """Comments, CDATA and attributes with what looks like elements do not move what is signed."""
        fake = '<configuration instance-name="evil"></configuration>'
        head = f"<!--{fake}--><?evil {fake}?>"
        content = (
            f"<!--{fake}--><?evil {fake}?><topology-plugin>CHORD<!--{fake}-->-RELOAD</topology-plugin>"
            f"<overlay-link-protocol><![CDATA[{fake}</configuration>]]></overlay-link-protocol>"
            """<x:a xmlns:x="urn:x" y='&lt;/configuration>"' z="'/>"/>"""
        )
        data = overlay(content).replace(b"<configuration", head.encode() + b"<configuration", 1)
        c = parse(data)
        self.assertEqual(c.topology_plugin, "CHORD-RELOAD")
        self.assertEqual(c.instance_name, OVERLAY)
        self.assertTrue(c.raw.startswith(f'<configuration instance-name="{OVERLAY}"'.encode()))
        self.assertEqual(c.raw, data[data.index(c.raw[:60]) : -len("</overlay>")])

    def test_nested(self) -> None:
        """A configuration within a foreign element is none."""
        inner = f'<x:a xmlns:x="urn:x"><configuration xmlns="{CONFIG_NAMESPACE}" instance-name="evil"/></x:a>'
        c = parse(overlay(inner))
        self.assertIn(b"evil", c.raw)
        self.assertEqual(c.instance_name, OVERLAY)

    def test_empty_element(self) -> None:
        """``<configuration/>`` ends where its tag does."""
        data = f'<overlay xmlns="{CONFIG_NAMESPACE}"><configuration instance-name="a>b" /></overlay>'.encode()
        self.assertRaises(MalformedDocument, parse, data)
        data = data.replace(b"a>b", b"a")
        self.assertEqual(parse(data).raw, b'<configuration instance-name="a" />')
        data = data.replace(b" />", b""" xmlns:x="urn:x" x:y="'/>'>" />""")
        self.assertEqual(parse(data).raw, data[data.index(b"<configuration") : -len(b"</overlay>")])
        spaced = data.replace(b" />", b"></configuration \n>")
        self.assertTrue(parse(spaced).raw.endswith(b"</configuration \n>"))

    def test_namespaces(self) -> None:
        """Names count as they resolve, prefixes do not."""
        content = f'<p:overlay xmlns:p="{CONFIG_NAMESPACE}"><p:configuration instance-name="a"/></p:overlay>'
        self.assertEqual(parse(content.encode()).raw, b'<p:configuration instance-name="a"/>')
        for data in (
            overlay("").replace(CONFIG_NAMESPACE.encode(), b"urn:other"),
            overlay("", 'xmlns="urn:other"'),
            overlay("<no-ice>true</no-ice>")
            .replace(b"<no-ice", b'<no-ice xmlns="urn:x"')
            .replace(b"no-ice>", b"x>"),
            b"<overlay/>",
            f'<configuration xmlns="{CONFIG_NAMESPACE}" instance-name="a"/>'.encode(),
        ):
            self.malformed(data)
        data = overlay("<chord:chord-reactive>false</chord:chord-reactive>")
        self.assertFalse(parse(data).chord_reactive)
        self.assertTrue(parse(data.replace(CHORD_NAMESPACE.encode(), b"urn:other")).chord_reactive)

    def test_anything_else(self) -> None:
        """Mutated documents raise a ConfigurationError, or are read: nothing else."""
        good = Founder().document()

        @given(
            st.lists(
                st.tuples(
                    st.integers(0, len(good)),
                    st.integers(0, 8),
                    st.sampled_from(
                        [b"", b"<", b">", b"&", b'"', b"/", b"\0", b"\xff", b"]]>", b"-1", b"<x/>"]
                    )
                    | st.binary(max_size=4),
                ),
                min_size=1,
                max_size=4,
            )
        )
        def check(changes: list[tuple[int, int, bytes]]) -> None:
            data = good
            for at, skip, put in changes:
                data = data[:at] + put + data[at + skip :]
            try:
                parse(data)
            except ConfigurationError as error:
                self.assertTrue(error.element)

        check()

    @given(st.binary(max_size=64))
    def test_any_fragment(self, data: bytes) -> None:
        """So do fragments."""
        self.assertRaises(ConfigurationError, parse_kinds, data, OVERLAY)


class FragmentTests(SynchronousTestCase):
    """kind-block elements that come alone (RFC 6940 §6.5.4.1)."""

    def test_default_namespace(self) -> None:
        """[6940-6.5.4.1-1]"""
        blocks = parse_kinds((kind() + kind(named='name="TURN-SERVICE"', max_node_multiple="3")).encode(), OVERLAY)
        self.assertEqual([block.kind.kind_id for block in blocks], [1, 2])
        self.assertTrue(blocks[0].raw.startswith(b"<kind name=") and blocks[0].raw.endswith(b"</kind>"))
        self.assertEqual(blocks[1].kind.max_node_multiple, 3)

    def test_what_must_not_be(self) -> None:
        for fragment in (
            b"",
            b"<kind-block/>",
            kind().encode()[:-1],
            b"</required-kinds>" + kind().encode() + b"<required-kinds>",
            b"</required-kinds></configuration><signature/>",
            b"<!DOCTYPE a>" + kind().encode(),
            kind().encode() + b"<no-ice>true</no-ice>",
            b"<!--",
            b"<?x",
        ):
            self.assertRaises(MalformedDocument, parse_kinds, fragment, OVERLAY)
