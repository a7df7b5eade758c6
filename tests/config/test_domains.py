"""Restrictions to the AORs of some domains (RFC 7904 §3.4)."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.accept import accept_first, require_support
from p2psip.config.document import MalformedDocument
from p2psip.config.domains import SIP_NAMESPACE, admits
from p2psip.config.kinds import REGISTERED, SIP_REGISTRATION
from p2psip.config.parse import parse, parse_kinds
from tests.security.credentials import NOW, OVERLAY

from .documents import Founder, kind, overlay


def element(content: str, attributes: str = 'enable="true"', name: str = "domain-restriction") -> str:
    return f'<s:{name} xmlns:s="{SIP_NAMESPACE}" {attributes}>{content}</s:{name}>'


def patterns(*texts: str) -> str:
    return "".join(f"<s:pattern>{text}</s:pattern>" for text in texts)


def domains(restriction: str, before: str = "") -> tuple[str, ...] | None:
    """What the Kind SIP-REGISTRATION says, where `restriction` is part of it."""
    data = overlay(before + "<required-kinds>" + kind(restriction) + "</required-kinds>")
    return parse(data, OVERLAY).kinds[SIP_REGISTRATION].domains


class DomainTests(SynchronousTestCase):
    def test_absent(self) -> None:
        """Any AOR is taken."""
        self.assertIsNone(domains(""))
        self.assertTrue(admits(None, "alice@wherever.example"))

    def test_patterns(self) -> None:
        """The RFC's example: the whole domain has to match one of them. [7904-3.4-5]"""
        found = domains(element(patterns(r"dht\.example\.com", r".*\.my\.example")))
        for aor, expected in (
            ("alice@dht.example.com", True),
            ("alice@DHT.Example.COM", True),
            ("alice@home.my.example", True),
            ("alice@my.example", False),
            ("alice@dht.example.com.evil.example", False),
            ("alice@dhtxexample.com", False),
            ("dht.example.com", False),
        ):
            self.assertEqual(admits(found, aor), expected, aor)

    def test_posix_classes(self) -> None:
        """Classes of characters as POSIX writes them are understood."""
        found = domains(element(patterns("[[:alpha:]]+[[:digit:]-]*")))
        self.assertTrue(admits(found, "alice@host-12"))
        self.assertFalse(admits(found, "alice@12"))

    def test_own_domain(self) -> None:
        """Not enabled, only the overlay's own domain is taken, whatever the patterns. [7904-3.4-4]"""
        for attributes in "", 'enable="false"', 'enable="0"':
            found = domains(element(patterns(".*"), attributes))
            self.assertTrue(admits(found, f"alice@{OVERLAY}"))
            self.assertFalse(admits(found, "alice@" + OVERLAY.replace(".", "x", 1)))
            self.assertFalse(admits(found, "alice@elsewhere.example"))

    def test_enabled_without_patterns(self) -> None:
        """Nothing matches."""
        self.assertEqual(domains(element("")), ())
        self.assertFalse(admits((), f"alice@{OVERLAY}"))

    def test_in_the_configuration(self) -> None:
        """The text has it there, and in the plural; what the Kind says goes before."""
        outside = element(patterns("a"), name="domain-restrictions")
        self.assertEqual(domains("", outside), ("a",))
        self.assertEqual(domains(element(patterns("b")), outside), ("b",))

    def test_in_an_update_of_kinds(self) -> None:
        (block,) = parse_kinds(kind(element("", "")).encode(), OVERLAY)
        self.assertTrue(admits(block.kind.domains, f"alice@{OVERLAY}"))

    def test_published(self) -> None:
        """It is written, signed and read again."""
        restricted = replace(REGISTERED[SIP_REGISTRATION], domains=(r"a\.example", "b&<c"))
        document = Founder().document(kinds=MappingProxyType({SIP_REGISTRATION: restricted}))
        read = accept_first(document, OVERLAY, NOW)
        self.assertEqual(read.kinds[SIP_REGISTRATION].domains, restricted.domains)

    def test_malformed(self) -> None:
        """What cannot be used makes the document unusable."""
        for restriction in (
            element(patterns("(")),
            element(patterns("(" * 250)),
            element(patterns("a" * 256)),
            element(patterns("a") * 65),
            element("", 'enable="perhaps"'),
            element("") * 2,
            element(patterns("a")).replace(SIP_NAMESPACE, "urn:example:other"),
            element("<other/>"),
            '<domain-restriction enable="true"/>',
        ):
            self.assertRaises(MalformedDocument, domains, restriction)

    def test_mandatory(self) -> None:
        """A document may demand that it is understood."""
        require_support(Founder().configuration(mandatory_extensions=(SIP_NAMESPACE,), no_ice=True))
