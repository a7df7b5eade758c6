"""Routing decisions: small topologies made by hand, messages made by the wire floor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.config.document import Configuration
from p2psip.errors import (
    IncompatibleWithOverlay,
    InvalidMessage,
    MessageTooLarge,
    NotFound,
    RELOADError,
    TTLExceeded,
    UnsupportedForwardingOption,
)
from p2psip.forwarding.fragments import Fragment
from p2psip.forwarding.router import (
    Deliver,
    Dropped,
    Forward,
    Refused,
    Router,
    Unroutable,
    Verdict,
    answer_destinations,
)
from p2psip.ids import NodeId, ResourceId, wildcard_node_id
from p2psip.wire.codes import MessageCode
from p2psip.wire.header import (
    CompressedDestination,
    Destination,
    ForwardingHeader,
    NodeDestination,
    OpaqueDestination,
    ResourceDestination,
    UnknownDestination,
    UnknownForwardingOption,
    decode_header,
    with_header,
)

NAME = "overlay.example.org"


def node_id(letter: str) -> NodeId:
    return NodeId(letter.encode() * 16)


A, B, C, D, E, ME = (node_id(letter) for letter in "ABCDEM")


def nodes(letters: str) -> tuple[NodeDestination, ...]:
    return tuple(NodeDestination(node_id=node_id(letter)) for letter in letters)


def resource(text: bytes) -> ResourceDestination:
    return ResourceDestination(resource_id=ResourceId(text.ljust(16, b".")))


class Topology:
    """Routes by hand: what is ours, who is connected, and one hop for all the rest."""

    def __init__(
        self, ours: Iterable[bytes] = (), connected: Iterable[NodeId] = (), default: NodeId | None = None
    ) -> None:
        self.ours = set(ours)
        self.links = set(connected)
        self.default = default
        self.came_from: list[NodeId | None] = []

    def is_responsible(self, target: bytes, /) -> bool:
        return target in self.ours

    def next_hop(self, target: bytes, previous_hop: NodeId | None = None, /) -> NodeId | None:
        self.came_from.append(previous_hop)
        return self.default

    def connected(self, node_id: NodeId, /) -> bool:
        return node_id in self.links

    def way_in(self) -> NodeId | None:
        return None


class RouterTestCase(SynchronousTestCase):
    configuration = Configuration(instance_name=NAME, max_message_size=2000, initial_ttl=20)

    def setUp(self) -> None:
        self.topology = Topology(connected=[A, B, C], default=C)
        self.router = Router(ME, self.configuration, self.topology)

    def message(
        self,
        destinations: Sequence[Destination],
        via: Sequence[Destination] = (),
        code: int = MessageCode.PING_REQ,
        body: bytes = b"the rest",
        **fields: Any,
    ) -> bytes:
        known: dict[str, Any] = {
            "overlay": self.configuration.overlay_hash,
            "configuration_sequence": 1,
            "ttl": 20,
            "transaction_id": 0x0123456789ABCDEF,
            **fields,
        }
        header = ForwardingHeader(via_list=tuple(via), destination_list=tuple(destinations), **known)
        return with_header(header, code.to_bytes(2) + body)

    def receive(self, data: bytes, previous_hop: NodeId = A) -> Verdict:
        return self.router.receive(previous_hop, data)

    def assertForwarded(self, verdict: Verdict, hop: NodeId) -> ForwardingHeader:
        assert isinstance(verdict, Forward), verdict
        self.assertEqual(verdict.next_hop, hop)
        header, size = decode_header(verdict.data, self.configuration.context)
        self.assertTrue(verdict.data[size:].endswith(b"the rest"))
        return header

    def assertDropped(self, verdict: Verdict, cause: str) -> None:
        self.assertEqual(verdict, Dropped(cause))

    def assertRefused(self, verdict: Verdict, error: type[RELOADError]) -> None:
        assert isinstance(verdict, Refused), verdict
        self.assertIsInstance(verdict.error, error)
        self.assertEqual(verdict.previous_hop, A)
        self.assertEqual(verdict.header.transaction_id, 0x0123456789ABCDEF)


class ResponsibleTests(RouterTestCase):
    """The first entry is ours (RFC 6940 §6.1.1)."""

    def test_our_node_id(self) -> None:
        data = self.message(nodes("M"), via=nodes("BC"))
        verdict = self.receive(data)
        assert isinstance(verdict, Deliver), verdict
        self.assertEqual(verdict.header.via_list, nodes("BC"))
        self.assertEqual(verdict.data[verdict.start :], b"\x00\x17the rest")
        self.assertEqual(verdict.previous_hop, A)

    def test_our_resource(self) -> None:
        """[6940-6.1.1-1, 6940-6.1.1-3]"""
        self.topology.ours = {b"R".ljust(16, b".")}
        self.assertIsInstance(self.receive(self.message([resource(b"R")])), Deliver)

    def test_resource_with_entries_behind_it(self) -> None:
        """[6940-6.1.1-2]"""
        self.topology.ours = {b"R".ljust(16, b".")}
        verdict = self.receive(self.message([resource(b"R"), *nodes("B")]))
        self.assertDropped(verdict, "Resource-ID before the end")
        verdict = self.receive(self.message([*nodes("C"), resource(b"R"), *nodes("B")]))
        self.assertDropped(verdict, "Resource-ID before the end")

    def test_wildcard_is_consumed(self) -> None:
        """Whatever stands behind it, and whoever may be next."""
        wildcard = NodeDestination(node_id=wildcard_node_id())
        self.assertIsInstance(self.receive(self.message([wildcard])), Deliver)
        self.assertIsInstance(self.receive(self.message([wildcard, *nodes("B")])), Deliver)

    def test_node_id_in_our_range_that_is_nobody(self) -> None:
        """[6940-6.1.1-4]"""
        self.topology.ours = {D}
        self.assertDropped(self.receive(self.message(nodes("D"))), "no such node")

    def test_client_in_our_range(self) -> None:
        """[6940-6.1.1-5]"""
        self.topology.ours = {B}
        self.assertForwarded(self.receive(self.message(nodes("B"))), B)

    def test_delivered_even_without_hops_left(self) -> None:
        self.assertIsInstance(self.receive(self.message(nodes("M"), ttl=0)), Deliver)


class ForwardingTests(RouterTestCase):
    """The first entry is another's (RFC 6940 §6.1.2)."""

    def test_direct_link_first(self) -> None:
        """[6940-6.1.2-3]"""
        self.assertForwarded(self.receive(self.message(nodes("B"))), B)

    def test_by_the_topology(self) -> None:
        """[6940-6.1.2-1, 6940-6.1.2-2]"""
        self.assertForwarded(self.receive(self.message(nodes("E"))), C)
        self.assertForwarded(self.receive(self.message([resource(b"R")])), C)

    def test_nobody_to_forward_to(self) -> None:
        self.topology.default = None
        self.assertDropped(self.receive(self.message(nodes("E"))), "no route")
        self.assertDropped(self.receive(self.message(nodes("ME"), code=MessageCode.PING_ANS)), "no route")
        self.assertDropped(self.receive(self.message([resource(b"R")])), "no route")

    def test_by_way_of_us_to_nowhere(self) -> None:
        """Who joins by way of a node that is not in the overlay is told so, and need not wait for it."""
        self.topology.default = None
        for destinations in ([*nodes("M"), resource(b"R")], nodes("ME")):
            verdict = self.receive(self.message(destinations))
            assert isinstance(verdict, Refused)
            self.assertIsInstance(verdict.error, NotFound)

    def test_not_back_where_it_came_from(self) -> None:
        """The topology is told from whom a message came; one of ours came from nobody (docs/decisions/0013)."""
        for destination in (resource(b"R"), *nodes("E")):
            self.topology.came_from.clear()
            self.receive(self.message([destination]), previous_hop=B)
            self.receive(self.message([*nodes("M"), destination]), previous_hop=A)
            self.router.route([destination])
            self.assertEqual(self.topology.came_from, [B, A, None])

    def test_resource_that_equals_a_connected_node_id(self) -> None:
        destination = ResourceDestination(resource_id=ResourceId(B))
        self.assertForwarded(self.receive(self.message([destination])), B)
        self.topology.ours = {B}
        self.assertIsInstance(self.receive(self.message([destination])), Deliver)

    def test_resource_ids_of_other_sizes(self) -> None:
        for size in (0, 1, 15, 17, 254):
            destination = ResourceDestination(resource_id=ResourceId(bytes(size)))
            self.assertForwarded(self.receive(self.message([destination])), C)

    def test_previous_hop_joins_the_via_list(self) -> None:
        """§6.1.2: "D would forward to the next node E with Via List [A, B, C]". [6940-6.1.2-4]"""
        self.topology.links = {E}
        verdict = self.receive(self.message(nodes("E"), via=nodes("AB")), previous_hop=C)
        self.assertEqual(self.assertForwarded(verdict, E).via_list, nodes("ABC"))

    def test_answers_leave_no_trace(self) -> None:
        """§6.1.2: "When D forwards the response to C, the Destination List will contain [C, B, A]"."""
        for code in (MessageCode.PING_ANS, MessageCode.ERROR):
            verdict = self.receive(self.message(nodes("MCBA"), code=code))
            header = self.assertForwarded(verdict, C)
            self.assertEqual(header.destination_list, nodes("CBA"))
            self.assertEqual(header.via_list, ())

    def test_source_route(self) -> None:
        verdict = self.receive(self.message([*nodes("MB"), resource(b"R")]))
        self.assertEqual(self.assertForwarded(verdict, B).destination_list, (*nodes("B"), resource(b"R")))
        verdict = self.receive(self.message([*nodes("B"), resource(b"R")]))
        self.assertEqual(self.assertForwarded(verdict, B).destination_list, (*nodes("B"), resource(b"R")))

    def test_ttl_counts_down(self) -> None:
        """[6940-6.3.2-5]"""
        self.assertEqual(self.assertForwarded(self.receive(self.message(nodes("B"), ttl=7)), B).ttl, 6)
        self.assertEqual(self.assertForwarded(self.receive(self.message(nodes("B"), ttl=1)), B).ttl, 0)

    def test_nothing_else_changes(self) -> None:
        fields: dict[str, Any] = {"configuration_sequence": 7, "max_response_length": 99}
        option = UnknownForwardingOption(type=9, flags=2, option=b"kept")
        opaque = OpaqueDestination(opaque_id=b"12345")
        via = [CompressedDestination(identifier=0x8001)]
        data = self.message([*nodes("B"), opaque], via=via, options=(option,), **fields)
        header = self.assertForwarded(self.receive(data), B)
        self.assertEqual(header.configuration_sequence, 7)
        self.assertEqual(header.max_response_length, 99)
        self.assertEqual(header.options, (option,))
        self.assertEqual(header.destination_list, (*nodes("B"), opaque))
        self.assertEqual(header.via_list, (CompressedDestination(identifier=0x8001), *nodes("A")))

    def test_fragments_are_passed_on(self) -> None:
        """Only the destination puts fragments together (RFC 6940 §6.7); a relay does for each what it does for all.

        One that does not tell what it is gets the Via List entry of a request.
        """
        for fragment in (0x80000000, 0xC0000100, 0x80000100):
            header = self.assertForwarded(self.receive(self.message(nodes("B"), fragment=fragment)), B)
            self.assertEqual(header.fragment, fragment)
            self.assertEqual((header.via_list, header.ttl), (nodes("A"), 19))
        answer = self.message(nodes("B"), fragment=0x80000000, code=MessageCode.PING_ANS)
        self.assertEqual(self.assertForwarded(self.receive(answer), B).via_list, ())

    def test_fragments_on_their_way_refused(self) -> None:
        """The one that begins the request is answered, once for all; the others are dropped."""
        option = UnknownForwardingOption(type=9, flags=1, option=b"x")
        for wrong, error in (({"ttl": 0}, TTLExceeded), ({"options": (option,)}, UnsupportedForwardingOption)):
            self.assertRefused(self.receive(self.message(nodes("B"), fragment=0x80000000, **wrong)), error)
            self.assertIsInstance(self.receive(self.message(nodes("B"), fragment=0x80000100, **wrong)), Dropped)

    def test_fragments_for_us(self) -> None:
        """They are to be held, whatever their options: the message will tell."""
        option = UnknownForwardingOption(type=9, flags=2, option=b"x")
        for fragment in (0x80000000, 0xC0000100, 0x80000100):
            data = self.message(nodes("M"), via=nodes("BC"), fragment=fragment, options=(option,))
            verdict = self.receive(data)
            self.assertEqual(verdict, Fragment(data, len(data) - 10, A))
            self.assertEqual(data[len(data) - 10 :], b"\x00\x17the rest")

    def test_fragments_beyond_the_largest_message(self) -> None:
        """What would end behind that is no part of a message that could be taken."""
        fits = self.message(nodes("M"), fragment=0xC0000000 + 1990)
        self.assertIsInstance(self.receive(fits), Fragment)
        data = self.message(nodes("M"), fragment=0xC0000000 + 1991)
        self.assertDropped(self.receive(data), "fragment beyond max-message-size")

    def test_grown_beyond_the_largest_message(self) -> None:
        """Rather an error than a message for which the next hop closes the link."""
        fits = self.message(nodes("B"), body=b"")
        data = self.message(nodes("B"), body=bytes(2000 - len(fits) - 17))
        self.assertRefused(self.receive(data), MessageTooLarge)
        data = self.message(nodes("B"), body=bytes(2000 - len(fits) - 18))
        self.assertIsInstance(self.receive(data), Forward)


class RedirectTests(RouterTestCase):
    """Messages that were sent to B in vain (docs/decisions/0012)."""

    def setUp(self) -> None:
        super().setUp()
        self.topology.links = {A, C}

    def redirect(self, data: bytes) -> Verdict:
        return self.router.redirect(B, data)

    def test_another_way(self) -> None:
        """As it was sent: its TTL and Via List are those of its first way on."""
        for destination in (resource(b"R"), *nodes("E")):
            for code in (MessageCode.PING_REQ, MessageCode.PING_ANS):
                data = self.message([destination], via=nodes("DA"), ttl=7, code=code)
                self.assertEqual(self.redirect(data), Forward(C, data))

    def test_to_a_connected_node(self) -> None:
        """Directly, where the next entry is connected by now."""
        data = self.message([*nodes("A"), resource(b"R")])
        self.assertEqual(self.redirect(data), Forward(A, data))

    def test_over_another_link(self) -> None:
        """Where there is another link to the same node by now, that is the way."""
        self.topology.links.add(B)
        for data in (self.message(nodes("B")), self.message(nodes("BA"), code=MessageCode.PING_ANS)):
            self.assertEqual(self.redirect(data), Forward(B, data))

    def test_ours_now(self) -> None:
        """What was the lost node's is ours: it is delivered, and its answer begins here."""
        self.topology.ours = {b"R".ljust(16, b".")}
        data = self.message([resource(b"R")], via=nodes("DA"))
        verdict = self.redirect(data)
        assert isinstance(verdict, Deliver), verdict
        self.assertEqual((verdict.data, verdict.data[verdict.start :]), (data, b"\x00\x17the rest"))
        self.assertEqual(verdict.previous_hop, ME)
        answer = answer_destinations(verdict.header, verdict.previous_hop)
        self.assertEqual(self.router.without_self(answer), nodes("AD"))

    def test_answer_skips_the_lost_node(self) -> None:
        """To the next node of its way back, if that is connected; else by the topology."""
        for letters, hop in (("BAD", A), ("BED", C)):
            for code in (MessageCode.PING_ANS, MessageCode.ERROR):
                option = UnknownForwardingOption(type=9, flags=0, option=b"x")
                data = self.message(nodes(letters), ttl=7, code=code, options=(option,))
                header = self.assertForwarded(self.redirect(data), hop)
                self.assertEqual(header.destination_list, nodes(letters[1:]))
                self.assertEqual((header.ttl, header.via_list, header.options), (7, (), (option,)))

    def test_answer_for_the_lost_node(self) -> None:
        """It has nobody else to go to."""
        self.assertDropped(self.redirect(self.message(nodes("B"), code=MessageCode.PING_ANS)), "undelivered")

    def test_request_for_the_lost_node(self) -> None:
        """Nor has a request that names it, whatever is to come behind: that was its sender's wish."""
        for destinations in (nodes("B"), nodes("BA"), (*nodes("B"), resource(b"R"))):
            self.assertDropped(self.redirect(self.message(destinations)), "undelivered")
        self.topology.ours = {B}
        self.assertDropped(self.redirect(self.message(nodes("B"))), "undelivered")

    def test_fragments(self) -> None:
        """A fragment that does not say what it is goes another way, but skips nobody."""
        data = self.message([resource(b"R")], fragment=0x80000100)
        self.assertEqual(self.redirect(data), Forward(C, data))
        self.assertDropped(self.redirect(self.message(nodes("BA"), fragment=0x80000100)), "undelivered")
        answer = self.message(nodes("BA"), code=MessageCode.PING_ANS, fragment=0x80000000)
        self.assertEqual(self.assertForwarded(self.redirect(answer), A).destination_list, nodes("A"))

    def test_fragments_that_are_ours_now(self) -> None:
        """They are held as if they came from ourselves, as a whole message does."""
        self.topology.ours = {b"R".ljust(16, b".")}
        for fragment in (0x80000000, 0xC0000100):
            data = self.message([resource(b"R")], via=nodes("DA"), fragment=fragment)
            self.assertEqual(self.redirect(data), Fragment(data, len(data) - 10, ME))

    def test_no_way(self) -> None:
        self.topology.default = None
        self.assertDropped(self.redirect(self.message([resource(b"R")])), "no route")
        self.assertDropped(self.redirect(self.message(nodes("BE"), code=MessageCode.PING_ANS)), "no route")

    def test_never_an_error_answer(self) -> None:
        """What cannot be served here is only dropped: it was well formed, and on its way elsewhere."""
        self.topology.ours = {b"R".ljust(16, b".")}
        option = UnknownForwardingOption(type=9, flags=2, option=b"x")
        self.assertDropped(self.redirect(self.message([resource(b"R")], options=(option,))), "undelivered")
        self.assertDropped(self.redirect(b"short"), "truncated header")


class OpaqueTests(RouterTestCase):
    """Opaque IDs: this node issues none, so none can be its own (RFC 6940 §6.1.3)."""

    def test_unknown(self) -> None:
        """[6940-6.3.2.2-9]"""
        for destination in (OpaqueDestination(opaque_id=b"12"), CompressedDestination(identifier=0xFFFF)):
            self.assertDropped(self.receive(self.message([destination])), "unknown opaque ID")
            self.assertDropped(self.receive(self.message([*nodes("M"), destination])), "unknown opaque ID")

    def test_others_travel_on(self) -> None:
        """[6940-6.3.2.2-2]"""
        for destination in (OpaqueDestination(opaque_id=b"12"), CompressedDestination(identifier=0xFFFF)):
            verdict = self.receive(self.message([*nodes("MC"), destination], code=MessageCode.PING_ANS))
            self.assertEqual(self.assertForwarded(verdict, C).destination_list, (*nodes("C"), destination))

    def test_unknown_type(self) -> None:
        destination = UnknownDestination(type=77, destination_data=b"new")
        self.assertDropped(self.receive(self.message([destination])), "unknown destination type")
        self.assertForwarded(self.receive(self.message([*nodes("B"), destination])), B)


class RefusalTests(RouterTestCase):
    """What is wrong with a header, in the order of the checks."""

    def test_not_reload(self) -> None:
        """[6940-6.3.2-1, 6940-6.1-1]"""
        self.assertDropped(self.receive(b""), "truncated header")
        self.assertDropped(self.receive(bytes(37)), "truncated header")
        self.assertDropped(self.receive(self.message(nodes("B"), relo_token=0x52454C4F)), "not RELOAD")

    def test_other_version(self) -> None:
        """[6940-6.3.2-4]"""
        self.assertDropped(self.receive(self.message(nodes("B"), version=1)), "other version")

    def test_other_overlay(self) -> None:
        """[6940-6.1-2]"""
        self.assertRefused(self.receive(self.message(nodes("B"), overlay=1)), IncompatibleWithOverlay)
        self.assertRefused(self.receive(self.message(nodes("M"), overlay=1)), IncompatibleWithOverlay)

    def test_length(self) -> None:
        data = self.message(nodes("B"))
        self.assertDropped(self.receive(data + b"x"), "length mismatch")
        self.assertDropped(self.receive(data[:-1]), "length mismatch")

    def test_too_large(self) -> None:
        """The link hands up the beginning of such a message only. [6940-6.6-1]"""
        data = self.message(nodes("B"), body=bytes(3000))
        self.assertRefused(self.receive(data[:2000]), MessageTooLarge)
        self.assertRefused(self.receive(data), MessageTooLarge)
        answer = self.message(nodes("B"), body=bytes(3000), code=MessageCode.FETCH_ANS)
        self.assertIsInstance(self.receive(answer), Dropped)

    def test_fragment_bit(self) -> None:
        """[6940-6.7-7] [6940-6.7-9]"""
        self.assertDropped(self.receive(self.message(nodes("B"), fragment=0x40000000)), "fragment bit unset")

    def test_ttl_above_initial(self) -> None:
        """Also when it is for us. [6940-6.3.2-8]"""
        self.assertRefused(self.receive(self.message(nodes("B"), ttl=21)), TTLExceeded)
        self.assertRefused(self.receive(self.message(nodes("M"), ttl=21)), TTLExceeded)

    def test_ttl_used_up(self) -> None:
        """[6940-6.3.2-6]"""
        self.assertRefused(self.receive(self.message(nodes("B"), ttl=0)), TTLExceeded)

    def test_errors_answer_requests_only(self) -> None:
        for code in (MessageCode.PING_ANS, MessageCode.ERROR, 0x8001):
            self.assertIsInstance(self.receive(self.message(nodes("B"), code=code, ttl=0)), Dropped)
        self.assertIsInstance(self.receive(self.message(nodes("B"), fragment=0x80000100, ttl=0)), Dropped)

    def test_duplicate_destinations(self) -> None:
        """[6940-13.6.5-2]"""
        self.assertRefused(self.receive(self.message(nodes("BCB"))), InvalidMessage)
        self.assertForwarded(self.receive(self.message(nodes("BCB"), code=MessageCode.PING_ANS)), B)

    def test_long_lists(self) -> None:
        long = [NodeDestination(node_id=NodeId(bytes([n]) * 16)) for n in range(1, 60)]
        self.assertDropped(self.receive(self.message(nodes("B"), via=long)), "list too long")
        self.assertDropped(self.receive(self.message(long)), "list too long")

    def test_empty_destination_list(self) -> None:
        self.assertDropped(self.receive(self.message([])), "empty Destination List")

    def test_resource_in_via_list(self) -> None:
        """[6940-6.3.2.2-4]"""
        data = self.message(nodes("B"), via=[resource(b"R")])
        self.assertDropped(self.receive(data), "malformed Via List")

    def test_malformed_lists(self) -> None:
        """An entry that does not end where the list does, of type 0, or a Node-ID of another size."""
        for bad in (b"\x01", b"\x01\x10short", b"\x00\x01x", b"\x01\x0f" + bytes(15), b"\x02\x04\x04abc"):
            for name, cause in (("via", "malformed Via List"), ("destination", None)):
                data = self.message(nodes("B"), via=[NodeDestination(node_id=A)])
                if name == "via":
                    patched = data[:32] + len(bad).to_bytes(2) + data[34:38] + bad + data[56:]
                else:
                    patched = data[:34] + len(bad).to_bytes(2) + data[36:56] + bad + data[74:]
                patched = patched[:16] + len(patched).to_bytes(4) + patched[20:]
                verdict = self.receive(patched)
                assert isinstance(verdict, Dropped), (bad, verdict)
                if cause:
                    self.assertEqual(verdict.cause, cause)

    def test_list_that_ends_with_the_message(self) -> None:
        """As it can in a fragment that has nothing behind its header."""
        for bad in (b"\x02", b"\x02\x05", b"\x03\x01", b"\x01\x10", b"\x80"):
            fragment = self.message(nodes("B"), fragment=0xC0000100)
            data = fragment[:34] + (18 + len(bad)).to_bytes(2) + fragment[36:56] + bad
            data = data[:16] + len(data).to_bytes(4) + data[20:]
            self.assertDropped(self.receive(data), "malformed Destination List")

    def test_truncated(self) -> None:
        """No prefix of a message is anything but dropped."""
        data = self.message(nodes("MB"), via=nodes("CD"))
        for size in range(len(data)):
            self.assertIsInstance(self.receive(data[:size]), Dropped)


class OptionTests(RouterTestCase):
    """Forwarding options (RFC 6940 §6.3.2.3)."""

    def option(self, flags: int) -> tuple[UnknownForwardingOption, ...]:
        return (UnknownForwardingOption(type=9, flags=flags, option=b"x"),)

    def test_critical_to_forwarders(self) -> None:
        """[6940-6.3.2.3-2]"""
        data = self.message(nodes("B"), options=self.option(1))
        self.assertRefused(self.receive(data), UnsupportedForwardingOption)
        self.assertIsInstance(self.receive(self.message(nodes("M"), options=self.option(1))), Deliver)

    def test_critical_to_the_destination(self) -> None:
        """[6940-6.3.2.3-3]"""
        data = self.message(nodes("M"), options=self.option(2))
        self.assertRefused(self.receive(data), UnsupportedForwardingOption)
        self.assertIsInstance(self.receive(self.message(nodes("B"), options=self.option(2))), Forward)

    def test_understood(self) -> None:
        self.router.understood_options = frozenset({9})
        self.assertIsInstance(self.receive(self.message(nodes("B"), options=self.option(3))), Forward)
        self.assertIsInstance(self.receive(self.message(nodes("M"), options=self.option(3))), Deliver)

    def test_malformed(self) -> None:
        data = self.message(nodes("B"), options=self.option(0))
        for name in ("B", "M"):
            data = self.message(nodes(name), options=self.option(0))
            broken = data[:36] + b"\x00\x04" + data[38:]
            self.assertDropped(self.receive(broken), "malformed forwarding option")

    def test_type_0(self) -> None:
        """There is no such type."""
        for name in ("B", "M"):
            data = self.message(nodes(name), options=self.option(0))
            self.assertDropped(self.receive(data[:56] + b"\x00" + data[57:]), "malformed forwarding option")


class OwnMessageTests(RouterTestCase):
    """Messages that begin here (RFC 6940 §6.2)."""

    def test_route(self) -> None:
        """[6940-6.2.1-4, 6940-6.2.1-5]"""
        self.assertEqual(self.router.route(nodes("B")), B)
        self.assertEqual(self.router.route(nodes("E")), C)
        self.assertEqual(self.router.route([*nodes("B"), resource(b"R")]), B)
        self.assertEqual(self.router.route([resource(b"R")]), C)

    def test_for_ourselves(self) -> None:
        self.topology.ours = {b"R".ljust(16, b".")}
        self.assertIsNone(self.router.route(nodes("M")))
        self.assertIsNone(self.router.route([resource(b"R")]))
        self.assertIsNone(self.router.route([NodeDestination(node_id=wildcard_node_id())]))

    def test_ourselves_in_front(self) -> None:
        self.assertEqual(self.router.without_self(nodes("MB")), nodes("B"))
        self.assertEqual(self.router.without_self(nodes("M")), nodes("M"))
        self.assertEqual(self.router.route(nodes("MB")), B)

    def test_unroutable(self) -> None:
        self.assertRaises(Unroutable, self.router.route, [])
        self.assertRaises(Unroutable, self.router.route, [CompressedDestination(identifier=0x8000)])
        self.assertRaises(Unroutable, self.router.route, [resource(b"R"), *nodes("B")])
        self.topology.default = None
        self.assertRaises(Unroutable, self.router.route, nodes("E"))

    def test_answer(self) -> None:
        """The example of §6.1.2: "resulting in [D, C, B, A]". [6940-6.2.2-1, 6940-6.1.2-7]"""
        header, _ = decode_header(self.message(nodes("E"), via=nodes("ABC")))
        self.assertEqual(answer_destinations(header, D), nodes("DCBA"))

    def test_new_configuration(self) -> None:
        self.router.configuration = Configuration(instance_name="other.example", initial_ttl=20)
        self.assertIsInstance(self.receive(self.message(nodes("B"))), Refused)


class RoundTripTests(SynchronousTestCase):
    """A request across five nodes and its answer back."""

    def test_there_and_back(self) -> None:
        """[6940-6.1.2-5]"""
        configuration = Configuration(instance_name=NAME)
        line = [A, B, C, D, E]
        routers = {}
        for place, me in enumerate(line):
            neighbors = [line[n] for n in (place - 1, place + 1) if 0 <= n < len(line)]
            routers[me] = Router(me, configuration, Topology([me], neighbors, line[min(place + 1, 4)]))

        def travel(destinations: Sequence[Destination], start: NodeId, code: int) -> tuple[Deliver, NodeId]:
            header = ForwardingHeader(
                overlay=configuration.overlay_hash,
                configuration_sequence=1,
                transaction_id=1,
                destination_list=tuple(destinations),
            )
            data = with_header(header, code.to_bytes(2))
            hop, here = routers[start].route(destinations), start
            while hop is not None:
                verdict = routers[hop].receive(here, data)
                if isinstance(verdict, Deliver):
                    return verdict, hop
                assert isinstance(verdict, Forward), verdict
                here, hop, data = hop, verdict.next_hop, verdict.data
            raise AssertionError("not sent")

        request, responder = travel(nodes("E"), A, MessageCode.PING_REQ)
        self.assertEqual(responder, E)
        self.assertEqual(request.header.via_list, nodes("ABC"))
        self.assertEqual(request.header.ttl, 97)
        destinations = answer_destinations(request.header, request.previous_hop)
        self.assertEqual(destinations, nodes("DCBA"))
        answer, requester = travel(destinations, E, MessageCode.PING_ANS)
        self.assertEqual(requester, A)
        self.assertEqual(answer.header.via_list, ())


class MutationTests(RouterTestCase):
    """Whatever comes in: a verdict, never an exception; and what is passed on is sound."""

    @given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6), st.integers(0, 40))
    def test_any_header(self, changes: list[tuple[int, int]], cut: int) -> None:
        option = UnknownForwardingOption(type=9, flags=0, option=b"x")
        opaque = CompressedDestination(identifier=0x8001)
        original = self.message([*nodes("MB"), opaque, resource(b"R")], via=nodes("CD"), options=(option,))
        mutated = bytearray(original)
        for place, value in changes:
            mutated[place % 140] = value
        data = bytes(mutated[: len(mutated) - cut])
        data = data[:16] + len(data).to_bytes(4) + data[20:]
        verdict = self.receive(data)
        if isinstance(verdict, Forward):
            header, _ = decode_header(verdict.data, self.configuration.context)
            self.assertEqual(header.ttl, data[11] - 1)
            self.assertIn(verdict.next_hop, (A, B, C))
        elif isinstance(verdict, Dropped):
            self.assertTrue(verdict.cause)
        else:
            self.assertEqual(verdict.header, decode_header(data, self.configuration.context)[0])
