"""What is taken of what the LAN says; that it is said and heard at all is seen with real nodes."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from p2psip.lan import MOST_ADDRESSES, MOST_SERVICES, Nearby, lan_addresses


class NearbyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.nearby = Nearby("example.org", loopback=False)

    def put(self, *addresses: str, service: str = "one", overlay: bytes | None = b"example.org", port: int = 1) -> None:
        self.nearby.put(service, overlay, addresses, port)

    def test_places(self) -> None:
        """Each place once, as long as a service has it."""
        self.put("192.0.2.1", "2001:DB8::1")
        self.put("192.0.2.1", service="two", overlay=b"Example.ORG")
        self.assertEqual(self.nearby.places, (("192.0.2.1", 1), ("2001:db8::1", 1)))
        self.put("192.0.2.2")
        self.assertEqual(self.nearby.places, (("192.0.2.1", 1), ("192.0.2.2", 1)))
        self.nearby.remove("one")
        self.nearby.remove("never heard of")
        self.assertEqual(self.nearby.places, (("192.0.2.1", 1),))
        self.put("192.0.2.1", service="two", overlay=b"example.com")
        self.assertEqual(self.nearby.places, ())

    def test_other_overlays(self) -> None:
        for overlay in (None, b"", b"example.com", b"example.org.", b"example.org\n", b"\xff" * 255):
            self.put("192.0.2.1", overlay=overlay)
        self.assertEqual(self.nearby.places, ())

    def test_what_cannot_be_connected_to(self) -> None:
        """Not a host's address, or one that means another host here than there."""
        for address in ("127.0.0.1", "::1", "224.0.0.251", "0.0.0.0", "255.255.255.255", "fe80::1", "a\x1b[31m"):
            self.put(address)
        self.put("192.0.2.1", port=0)
        self.nearby.put("none", b"example.org", ["192.0.2.1"], None)
        self.assertEqual(self.nearby.places, ())
        local = Nearby("example.org", loopback=True)
        local.put("one", b"example.org", ["127.0.0.2"], 6084)
        self.assertEqual(local.places, (("127.0.0.2", 6084),))

    def test_bounds(self) -> None:
        """However many services, and addresses of one, somebody makes up."""
        for number in range(2 * MOST_SERVICES):
            addresses = [f"10.0.{number}.{host}" for host in range(1, 100)]
            self.put(*addresses, service=str(number))
        self.assertEqual(len(self.nearby.places), MOST_SERVICES * MOST_ADDRESSES)


class AddressTests(SynchronousTestCase):
    def test_of_this_machine(self) -> None:
        """No loopback or link-local ones, which others cannot use, and not too many."""
        found = [ip_address(text) for text in lan_addresses()]
        self.assertLessEqual(len(found), MOST_ADDRESSES)
        self.assertFalse([address for address in found if address.is_loopback or address.is_link_local])
