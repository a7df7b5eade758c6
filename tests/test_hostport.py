from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from p2psip.hostport import address_text, bracketed, parse_address


class HostportTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for host, port, text in (
            ("127.0.0.2", 6084, "127.0.0.2:6084"),
            ("::1", 6084, "[::1]:6084"),
            ("host.example.org", 5060, "host.example.org:5060"),
        ):
            self.assertEqual(address_text(host, port), text)
            self.assertEqual(parse_address(text), (host, port))

    def test_brackets_once(self) -> None:
        self.assertEqual(bracketed(bracketed("2001:db8::1")), "[2001:db8::1]")
        self.assertEqual(bracketed(""), "")

    def test_no_address(self) -> None:
        no_ports = "", "sip", "-1", "٣", "65536", "0999999"
        for text in ("", ":5060", "127.0.0.1", *(f"127.0.0.1:{port}" for port in no_ports)):
            self.assertIsNone(parse_address(text), text)
