"""Servers that are named by an address (RFC 3263 §4.1, §4.2)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from p2psip.sip.addresses import Addresses
from p2psip.sip.errors import SIPFailure
from p2psip.sip.interfaces import IServerLocator, Target
from p2psip.sip.uri import SIPURI, parse_uri


class AddressTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        addresses = Addresses()
        verifyObject(IServerLocator, addresses)
        for text, expected in (
            ("sip:192.0.2.50", Target("UDP", "192.0.2.50", 5060)),
            ("sip:alice@192.0.2.50:5070;transport=TCP", Target("TCP", "192.0.2.50", 5070)),
            ("sip:[2001:DB8::1];transport=tls", Target("TLS", "2001:db8::1", 5061, "2001:db8::1")),
            ("sips:192.0.2.50", Target("TLS", "192.0.2.50", 5061, "192.0.2.50")),
            ("sips:192.0.2.50:5071;transport=tcp", Target("TLS", "192.0.2.50", 5071, "192.0.2.50")),
        ):
            uri = parse_uri(text)
            assert isinstance(uri, SIPURI)
            self.assertEqual(self.successResultOf(addresses.locate(uri)), [expected])

    def test_names(self) -> None:
        self.failureResultOf(Addresses().locate(SIPURI(host="example.com")), SIPFailure)
