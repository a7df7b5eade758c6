"""Fragments: cut at every size, and put together from whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from p2psip.forwarding import fragments as module
from p2psip.forwarding.fragments import (
    LEAST_BODY,
    MESSAGE_COST,
    PATIENCE,
    PIECE_COST,
    ROOM_TO_GROW,
    Assembled,
    Fragment,
    Reassembly,
    fragments,
)
from p2psip.ids import NodeId
from p2psip.wire.codes import UNFRAGMENTED, MessageCode
from p2psip.wire.header import (
    ForwardingHeader,
    NodeDestination,
    UnknownForwardingOption,
    decode_header,
    forward,
    with_header,
)

A, B, C, D, ME = (NodeId(letter * 16) for letter in (b"A", b"B", b"C", b"D", b"M"))
HEADER = 38 + 2 * 18 + 18 + 5
TRANSACTION_ID = 0x0123456789ABCDEF


def message(
    size: int,
    code: int = MessageCode.STORE_REQ,
    via: tuple[NodeId, ...] = (A, B),
    transaction_id: int = TRANSACTION_ID,
    seed: int = 0,
    fragment: int = UNFRAGMENTED,
) -> bytes:
    """A message with `size` bytes behind its header of `HEADER` bytes."""
    header = ForwardingHeader(
        overlay=7,
        configuration_sequence=3,
        ttl=9,
        fragment=fragment,
        transaction_id=transaction_id,
        via_list=tuple(NodeDestination(node_id=each) for each in via),
        destination_list=(NodeDestination(node_id=ME),),
        options=(UnknownForwardingOption(type=9, flags=4, option=b"x"),),
    )
    return with_header(header, (code.to_bytes(2) + Random(seed).randbytes(size))[:size])


def parts(data: bytes) -> tuple[ForwardingHeader, bytes]:
    header, start = decode_header(data)
    return header, data[start:]


def again(pieces: list[bytes], most: int) -> list[bytes]:
    """What the next hop makes of fragments: one Via List entry more, and cut to its link."""
    found: list[bytes] = []
    for piece in pieces:
        header, start = decode_header(piece)
        via = NodeDestination(node_id=C)
        found += fragments(forward(piece, start, ttl=header.ttl - 1, via=via), most)
    return found


class CuttingTests(SynchronousTestCase):
    """RFC 6940 §6.7."""

    def test_what_fits(self) -> None:
        data = message(1000)
        self.assertEqual(fragments(data, len(data)), (data,))
        self.assertEqual(fragments(data, 5000), (data,))

    @given(st.integers(2, 9000), st.integers(0, 2000), st.sampled_from((UNFRAGMENTED, 0x80000100, 0xC0000100)))
    def test_pieces(self, size: int, most: int, fragment: int) -> None:
        """Each is a whole header and its part; none is larger than the link, nor smaller than the RFC has it.

        They are equal but for a byte. [6940-6.7-1] [6940-6.7-2] [6940-6.7-6] [6940-6.3.2-9] [6940-6.3.2-10]
        """
        data = message(size, fragment=fragment)
        pieces = fragments(data, most)
        if len(pieces) == 1:
            self.assertEqual(pieces[0], data)
            return
        whole, body = parts(data)
        expected = fragment & 0x00FFFFFF
        sizes = set()
        for number, piece in enumerate(pieces):
            header, part = parts(piece)
            last = number == len(pieces) - 1 and fragment & 0x40000000
            self.assertEqual(header.fragment, 0x80000000 | last | expected)
            self.assertEqual(header.replace(fragment=fragment, length=whole.length), whole)
            self.assertEqual(header.length, len(piece))
            self.assertLessEqual(len(piece), most)
            self.assertGreaterEqual(len(part), LEAST_BODY)
            sizes.add(len(part))
            expected += len(part)
        self.assertLessEqual(max(sizes) - min(sizes), 1)
        self.assertEqual(b"".join(parts(piece)[1] for piece in pieces), body)

    @given(st.integers(2, 9000), st.integers(HEADER + 2 * LEAST_BODY + ROOM_TO_GROW, 2000))
    def test_room_to_grow(self, size: int, most: int) -> None:
        """32 bytes are left free wherever there is room for two parts of 256. [6940-6.7-3]"""
        pieces = fragments(message(size), most)
        if len(pieces) > 1:
            self.assertLessEqual(max(map(len, pieces)), most - ROOM_TO_GROW)
            self.assertEqual(len(pieces), -(-size // (most - ROOM_TO_GROW - HEADER)))
        else:
            self.assertTrue(HEADER + size <= most or size < 2 * LEAST_BODY)

    def test_what_gives_way(self) -> None:
        """256 bytes behind the header MUST be there; that 32 are left free is a SHOULD."""
        most = HEADER + LEAST_BODY
        self.assertEqual(len(fragments(message(4 * LEAST_BODY), most)), 4)
        data = message(4 * LEAST_BODY)
        self.assertEqual(fragments(data, most - 1), (data,))

    def test_what_cannot_be_cut(self) -> None:
        """It is left to IP: two parts would be too short, or an offset would not fit into its 24 bits."""
        for data in (message(2 * LEAST_BODY - 1), message(2000, fragment=0xC0FFFFF0)):
            self.assertEqual(fragments(data, 500), (data,))

    def test_at_each_hop(self) -> None:
        """A fragment is cut again where a link carries less, or its Via List has grown."""
        pieces = again(list(fragments(message(3000), 1200)), 500)
        self.assertEqual([parts(piece)[0].fragment & 0x40000000 for piece in pieces[:-1]], [0] * (len(pieces) - 1))
        self.assertEqual(b"".join(parts(piece)[1] for piece in pieces), parts(message(3000))[1])
        at = 0
        for piece in pieces:
            header, part = parts(piece)
            self.assertEqual(header.fragment & 0x00FFFFFF, at)
            at += len(part)
        self.assertEqual(parts(pieces[-1])[0].fragment & 0x40000000, 0x40000000)


class ReassemblyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.counted: Counter[str] = Counter()
        self.reassembly = self.build()

    def build(self, most: int = 2**24, most_of_hop: int = 2**20) -> Reassembly:
        return Reassembly(lambda cause: self.counted.update([cause]), most, most_of_hop)

    def add(self, data: bytes, now: float = 0.0, hop: NodeId = D) -> Assembled | None:
        return self.reassembly.add(Fragment(data, decode_header(data)[1], hop), now)

    def add_all(self, pieces: list[bytes], now: float = 0.0, hop: NodeId = D) -> list[Assembled]:
        return [whole for piece in pieces if (whole := self.add(piece, now, hop)) is not None]

    def assertEmpty(self) -> None:
        reassembly = self.reassembly
        self.assertEqual((len(reassembly), reassembly.used, reassembly._used), (0, 0, {}))


class ReassemblyTests(ReassemblyTestCase):
    @given(st.integers(512, 5000), st.integers(360, 1500), st.randoms(use_true_random=False))
    def test_any_order(self, size: int, most: int, random: Random) -> None:
        """The message is whole with its last piece, no sooner, and nothing of it stays."""
        data = message(size)
        pieces = list(fragments(data, most))
        if len(pieces) == 1:
            return
        random.shuffle(pieces)
        self.setUp()
        self.assertEqual([self.add(piece) for piece in pieces[:-1]], [None] * (len(pieces) - 1))
        self.assertEqual(self.add(pieces[-1]), Assembled(D, data))
        self.assertEmpty()
        self.assertFalse(self.counted)

    @given(st.integers(600, 5000), st.lists(st.integers(360, 1500), min_size=1, max_size=4), st.randoms())
    def test_refragmented_retransmissions(self, size: int, mosts: list[int], random: Random) -> None:
        """The same bytes, cut otherwise each time, repeated, shuffled, and some of them lost."""
        data = message(size)
        complete = again(list(fragments(data, mosts[0])), 420)
        others = [piece for most in mosts for piece in again(list(fragments(data, 1500)), most)]
        pieces = [*complete, *random.sample(others, len(others) // 2)]
        pieces = [piece for piece in pieces if parts(piece)[0].fragment != UNFRAGMENTED]
        if len(complete) == 1:
            return
        random.shuffle(pieces)
        self.setUp()
        wholes = self.add_all(pieces)
        self.assertGreaterEqual(len(wholes), 1)
        for whole in wholes:
            header, body = parts(whole.data)
            self.assertEqual(body, parts(data)[1])
            self.assertEqual((header.fragment, header.length), (UNFRAGMENTED, len(whole.data)))
        self.assertFalse(self.counted)
        self.reassembly.expire(PATIENCE)
        self.assertEmpty()

    def test_header_of_the_beginning(self) -> None:
        """Its Via List and its previous hop are those that the answer goes along."""
        pieces = list(fragments(message(1000, via=(A, B)), 500))
        detour = list(fragments(message(1000, via=(C, A)), 500))
        self.assertEqual(len(pieces), 3)
        self.assertIsNone(self.add(detour[2], hop=A))
        self.assertIsNone(self.add(pieces[0], hop=B))
        self.assertIsNone(self.add(detour[0], hop=A))
        self.assertEqual(self.add(pieces[1], hop=C), Assembled(B, message(1000, via=(A, B))))

    def test_request_and_answer(self) -> None:
        """They have the same transaction ID, and are two messages: each tells by its beginning."""
        request = list(fragments(message(1000, MessageCode.FETCH_REQ), 500))
        answer = list(fragments(message(1000, MessageCode.FETCH_ANS, seed=1), 500))
        self.add_all([request[0], answer[0]])
        self.assertEqual(len(self.reassembly), 2)
        self.assertEqual(self.add_all(request[1:]), [Assembled(D, message(1000, MessageCode.FETCH_REQ))])
        self.assertEqual(len(self.reassembly), 1)
        self.assertEqual(self.add_all(answer[1:]), [Assembled(D, message(1000, MessageCode.FETCH_ANS, seed=1))])
        self.assertEmpty()

    def test_direction_known_late(self) -> None:
        """What came before its beginning is of the message that begins first."""
        answer = list(fragments(message(1000, MessageCode.FETCH_ANS), 500))
        request = list(fragments(message(1000, MessageCode.FETCH_REQ, seed=1), 500))
        self.add_all([answer[2], answer[0], request[0]])
        self.assertEqual(self.add_all(answer[1:2]), [Assembled(D, message(1000, MessageCode.FETCH_ANS))])
        self.add_all([answer[1], answer[0]])
        self.assertEqual(len(self.reassembly), 2)

    def test_conflicts(self) -> None:
        """What came first stays; what contradicts it is dropped, and counted."""
        pieces = list(fragments(message(1000), 500))
        forged = list(fragments(message(1000, seed=1), 500))
        longer, shorter = message(1001), message(700)
        self.add_all([pieces[0], pieces[2]])
        wrong = [
            forged[0],  # other bytes
            message(400, fragment=0x80000000 + 300),  # which overlap at an end
            message(10, fragment=0x80000000 + 1000),  # behind the end
            message(10, fragment=0xC0000000 + 400),  # another end, amid
            fragments(longer, 500)[2],
            fragments(shorter, 500)[-1],
        ]
        for number, piece in enumerate(wrong, 1):
            self.assertIsNone(self.add(piece))
            self.assertEqual(self.counted, {"conflicting fragment": number})
        self.assertEqual(self.add(pieces[1]), Assembled(D, message(1000)))

    def test_end_before_what_is_there(self) -> None:
        self.add(message(300, fragment=0x80000000 + 600))
        self.assertIsNone(self.add(message(300, fragment=0xC0000000)))
        self.assertEqual(self.counted, {"conflicting fragment": 1})

    def test_nothing_in_it(self) -> None:
        self.assertIsNone(self.add(message(0, fragment=0x80000100)))
        self.assertEqual(self.counted, {"empty fragment": 1})
        self.assertEmpty()


class BoundsTests(ReassemblyTestCase):
    def test_time_out(self) -> None:
        """15 s after the first fragment, however many have come since. [6940-6.7-4]"""
        first, second, third = fragments(message(1000), 500)
        self.assertIsNone(self.reassembly.deadline)
        self.add(first, 100.0)
        self.add(second, 114.0)
        self.assertEqual(self.reassembly.deadline, 115.0)
        self.reassembly.expire(114.9)
        self.assertEqual(len(self.reassembly), 1)
        self.assertIsNone(self.add(third, 115.0))
        self.assertEqual(self.counted, {"fragments timed out": 1})
        self.assertEqual(self.reassembly.deadline, 130.0)
        self.reassembly.expire(130.0)
        self.assertEmpty()

    def test_in_time(self) -> None:
        first, second, third = fragments(message(1000), 500)
        self.add_all([first, second], 100.0)
        self.assertEqual(self.add(third, 114.9), Assembled(D, message(1000)))

    def test_quota_of_a_hop(self) -> None:
        """One hop's flood fills its own share; what comes from others is put together. [6940-6.7-5]"""
        quota = 20 * (MESSAGE_COST + PIECE_COST + 300)
        self.reassembly = self.build(10 * quota, quota)
        for number in range(1000):
            self.add(message(300, transaction_id=number, fragment=0x80000100), hop=A)
        self.assertEqual((len(self.reassembly), self.reassembly.used), (20, quota))
        self.assertEqual(self.counted, {"no room for fragments": 980})
        pieces = list(fragments(message(4000), 500))
        self.assertEqual(self.add_all(pieces, hop=B), [Assembled(B, message(4000))])
        self.assertEqual(self.reassembly.used, quota)
        self.reassembly.expire(PATIENCE)
        self.assertEmpty()

    def test_quota_of_all(self) -> None:
        quota = 20 * (MESSAGE_COST + PIECE_COST + 300)
        self.reassembly = self.build(quota, quota)
        for number in range(100):
            hop = NodeId(number.to_bytes(16))
            self.add(message(300, transaction_id=number, fragment=0x80000100), hop=hop)
        self.assertEqual((len(self.reassembly), self.reassembly.used), (20, quota))
        self.assertEqual(self.counted, {"no room for fragments": 80})

    def test_message_without_room(self) -> None:
        """All of it goes, so that others may become whole; another message never does."""
        kept = list(fragments(message(1000), 500))
        large = list(fragments(message(5000, transaction_id=1), 500))
        self.reassembly = self.build(most_of_hop=4000)
        self.add(kept[0])
        self.add_all(large[:3])
        self.assertEqual(self.counted, {"no room for fragments": 1})
        self.assertEqual(len(self.reassembly), 1)
        self.assertEqual(self.add_all(kept[1:]), [Assembled(D, message(1000))])

    def test_last_piece_needs_no_room(self) -> None:
        """What makes a message whole only frees."""
        first, second, third = fragments(message(1000), 500)
        self.reassembly = self.build(most_of_hop=MESSAGE_COST + 2 * (PIECE_COST + 334) + HEADER)
        self.assertEqual(self.add_all([first, second, third]), [Assembled(D, message(1000))])
        self.assertFalse(self.counted)
        self.assertEmpty()

    def test_repetitions_cost_nothing(self) -> None:
        """Whoever sends what is there already is charged for nothing."""
        for number in range(2):
            for hop in (A, B, B):
                self.add(message(300, transaction_id=number, fragment=0x80000100), hop=hop)
        self.assertEqual(list(self.reassembly._used), [A])
        self.reassembly.expire(PATIENCE)
        self.assertEmpty()

    def test_number_of_pieces(self) -> None:
        """Crumbs with gaps between them are no message of good faith."""
        self.patch(module, "MOST_PIECES", 100)
        for at in range(0, 200, 2):
            self.add(message(1, fragment=0x80000000 + at))
        self.assertEqual(len(self.reassembly), 1)
        self.add(message(1, fragment=0x80000000 + 200))
        self.assertEqual(self.counted, {"no room for fragments": 1})
        self.assertEmpty()

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.integers(0, 40),
                st.integers(0, 30),
                st.booleans(),
                st.sampled_from((A, B)),
                st.booleans(),
                st.integers(0, 5),
            ),
            max_size=60,
        )
    )
    def test_anything(self, added: list[tuple[int, int, int, bool, NodeId, bool, int]]) -> None:
        """Whatever comes: the accounts are right, and the bounds hold."""
        self.setUp()
        most, of_hop = 6000, 4000
        reassembly = self.reassembly = self.build(most, of_hop)
        now = 0.0
        for transaction_id, offset, size, last, hop, answer, later in added:
            now += later
            field = 0x80000000 | (0x40000000 if last else 0) | offset
            code = MessageCode.PING_ANS if answer else MessageCode.PING_REQ
            self.add(message(size, code, transaction_id=transaction_id, fragment=field), now, hop)
            held = reassembly._messages.values()
            charged = sum((each.charged for each in held), Counter())
            self.assertEqual(reassembly._used, dict(charged))
            self.assertEqual(reassembly.used, charged.total())
            self.assertLessEqual(reassembly.used, most)
            self.assertLessEqual(max(charged.values(), default=0), of_hop)
            for each in held:
                self.assertEqual(each.held, sum(len(piece) for _, piece in each.pieces))
                self.assertGreater(each.deadline, now)
        reassembly.expire(now + PATIENCE)
        self.assertEmpty()
